"""``curate evaluate``: how well a model retrieves, classifies and tells details, on shards, with intervals.

Images with the same bytes are one image with several captions; captions equal after folding are one caption with
several images, and all of them are right answers. Any scorer can be measured: what was trained here, open_clip's
models, Chinese-CLIP, ONNX exports.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from ..pipeline.errors import InputError, UsageError
from . import blind, bootstrap, shards
from .bootstrap import F64, I64, Estimate
from .retrieval import caption_group

F32 = NDArray[np.float32]
BLOCK = 256
"""Images and captions that are encoded between two reports of progress."""
KERNEL = 2000
"""Rows of which all pairs are compared (AUC, uniformity)."""


@dataclass
class Pairs:
    """An evaluation set. ``right`` (p, 2) are the pairs (image, caption) that belong together, by number."""

    captions: list[str]
    right: I64
    images: F32
    """(n, d) rows of unit length."""
    texts: F32
    told: list[dict[str, Any]]
    """What the shards say of each image."""
    negatives: list[tuple[int, int, str, str]] = field(default_factory=list)
    """(image, caption, kind, wrong caption)."""
    hashes: set[str] = field(default_factory=set)

    @property
    def clusters(self) -> tuple[I64, I64]:
        """For each image and each caption the number of the cluster that shared captions and images tie it to."""
        return bootstrap.components(self.right[:, 0], self.right[:, 1])


def load(found: shards.Shards, scorer: Any, limit: int = 0) -> Pairs:
    """Encode what the shards hold; ``limit`` is the most samples that are read, 0 for all."""
    numbers: dict[str, int] = {}
    groups: dict[int, int] = {}
    captions: list[str] = []
    right: dict[tuple[int, int], None] = {}
    told: list[dict[str, Any]] = []
    negatives: list[tuple[int, int, str, str]] = []
    waiting: list[bytes] = []
    images: list[F32] = []
    for read, sample in enumerate(shards.every(found)):
        if limit and read == limit:
            break
        digest = hashlib.sha256(sample.image).hexdigest()
        if digest not in numbers:
            numbers[digest] = len(numbers)
            told.append(sample.told)
            waiting.append(sample.image)
        image = numbers[digest]
        for i, words in enumerate(_captions(sample)):
            caption = groups.setdefault(caption_group(words), len(groups))
            if caption == len(captions):
                captions.append(words)
            right.setdefault((image, caption))
            if i == 0:
                negatives += [(image, caption, kind, wrong) for kind, wrong in sample.negatives()]
        if len(waiting) == BLOCK:
            images.append(_encoded(scorer, waiting))
            waiting = []
    if waiting:
        images.append(_encoded(scorer, waiting))
    if len(numbers) < 2 or len(captions) < 2:
        raise InputError(
            f"the shards hold {len(numbers)} images and {len(captions)} captions; retrieval needs at least two of both"
        )
    texts = scorer.embed_texts(captions)
    return Pairs(captions, np.array(list(right)), np.concatenate(images), texts, told, negatives, set(numbers))


def _captions(sample: shards.Sample) -> Iterator[str]:
    """A sample's caption, then others that its image is known to have."""
    yield sample.caption
    for name in ("captions_merged", "captions_beside", "captions"):
        held = sample.told.get(name)
        yield from (str(c) for c in held if c) if isinstance(held, list) else ()


def _encoded(scorer: Any, images: list[bytes]) -> F32:
    try:
        rows: F32 = scorer.embed_images(images)
    except OSError as error:
        raise InputError(f"an image in the shards does not open: {error}") from None
    return rows


def ranks(queries: F32, keys: F32, right: I64) -> I64:
    """(n,) the place, from 1, of the best right key of each query; what scores the same as it comes before it.

    ``right`` (p, 2) are the pairs (query, key) that belong together. Where a query has several right keys the others
    do not stand in its way.
    """
    order = np.argsort(right[:, 0], kind="stable")
    pairs = right[order]
    starts = np.searchsorted(pairs[:, 0], np.arange(len(queries) + 1))
    found = np.empty(len(queries), np.int64)
    for begin in range(0, len(queries), 512):
        cosine = queries[begin : begin + 512] @ keys.T
        for row, scores in enumerate(cosine):
            own = pairs[starts[begin + row] : starts[begin + row + 1], 1]
            best = scores[own].max()
            found[begin + row] = 1 + int((scores >= best).sum()) - int((scores[own] >= best).sum())
    return found


def retrieval(queries: F32, keys: F32, right: I64, clusters: I64) -> dict[str, Estimate]:
    """R@1, R@5, R@10 and the median rank."""
    found = ranks(queries, keys, right)
    told = {f"R@{k}": bootstrap.mean((found <= k).astype(np.float64), clusters) for k in (1, 5, 10)}
    return {**told, "median rank": bootstrap.median(found.astype(np.float64), clusters)}


def auc(pairs: Pairs, seed: int = 0) -> Estimate:
    """How often a true pair scores above a shuffled one (ties count half), over at most ``KERNEL`` of each."""
    rng = np.random.default_rng(seed)
    chosen = pairs.right[rng.permutation(len(pairs.right))[:KERNEL]]
    held = set(map(tuple, pairs.right.tolist()))
    other = rng.integers(len(pairs.captions), size=len(chosen))
    apart = np.array([(int(i), int(c)) not in held for i, c in zip(chosen[:, 0], other, strict=True)])
    true = _cosine(pairs, chosen[apart])
    wrong = np.einsum("nd,nd->n", pairs.images[chosen[apart, 0]], pairs.texts[other[apart]])
    kernel = (true[:, None] > wrong[None, :]) + 0.5 * (true[:, None] == wrong[None, :])
    return bootstrap.of_replicates(float(kernel.mean()), bootstrap.pairwise(kernel.astype(np.float64)), len(true))


def alignment(pairs: Pairs) -> Estimate:
    """Mean squared distance of true pairs (Wang and Isola 2020, arXiv 2005.10242); less is closer."""
    return bootstrap.mean(2 - 2 * _cosine(pairs, pairs.right), pairs.clusters[0][pairs.right[:, 0]])


def uniformity(rows: F32, seed: int = 0) -> Estimate:
    """``log mean exp(-2 |u - v|^2)`` over different rows (the same paper, t = 2); less is more evenly spread."""
    some = rows[np.random.default_rng(seed).permutation(len(rows))[:KERNEL]].astype(np.float64)
    kernel = np.exp(-4 + 4 * (some @ some.T))
    np.fill_diagonal(kernel, 0)
    n = len(some)
    drawn = bootstrap.draws(n).astype(np.float64)
    different = 1 - (drawn**2).sum(1) / n**2  # a row drawn twice is no pair with itself
    value = float(np.log(kernel.sum() / (n * (n - 1))))
    return bootstrap.of_replicates(value, np.log(bootstrap.pairwise(kernel) / different), n)


def _cosine(pairs: Pairs, chosen: I64) -> F64:
    found: F64 = np.einsum("nd,nd->n", pairs.images[chosen[:, 0]], pairs.texts[chosen[:, 1]]).astype(np.float64)
    return found


def hard_negatives(pairs: Pairs, scorer: Any, train: Sequence[tuple[str, str]] = ()) -> dict[str, dict[str, Estimate]]:
    """For each kind: how often the image is nearer to its caption than to the negative; the same by a blind model.

    ``blind`` is trained on the negatives of other clusters; ``blind, trained`` on ``train``, the (caption, negative)
    pairs of training shards. ``mined`` are no made negatives but the captions of other images nearest by their
    characters: another generator than any rule, whose captions are as true to life as the right ones. What a blind
    model learned of the rules' negatives should not help it there.
    """
    made = [*pairs.negatives, *_mined(pairs)]
    if not made:
        return {}
    texts = scorer.embed_texts([wrong for _, _, _, wrong in made])
    image = np.array([i for i, _, _, _ in made])
    caption = np.array([c for _, c, _, _ in made])
    right = np.einsum("nd,nd->n", pairs.images[image], pairs.texts[caption])
    wrong = np.einsum("nd,nd->n", pairs.images[image], texts)
    won = (right > wrong) + 0.5 * (right == wrong)
    clusters = pairs.clusters[0][image]
    words = [(pairs.captions[c], w) for _, c, _, w in made]
    kinds = np.array([k for _, _, k, _ in made])
    ruled = len(pairs.negatives)
    unseen = np.concatenate(
        [blind.across_folds(words[:ruled], clusters[:ruled]), blind.preferred(words[:ruled], words[ruled:])]
    )
    trained = blind.preferred(train, words) if train else None
    told = {}
    for kind in ("all made", *sorted(set(kinds))):
        of_kind = kinds == kind if kind != "all made" else kinds != "mined"
        if of_kind.any():
            told[kind] = {
                "model": bootstrap.mean(won[of_kind], clusters[of_kind]),
                "blind": bootstrap.mean(unseen[of_kind], clusters[of_kind]),
            }
            if trained is not None:
                told[kind]["blind, trained"] = bootstrap.mean(trained[of_kind], clusters[of_kind])
    return told


def _mined(pairs: Pairs, most: int = KERNEL) -> list[tuple[int, int, str, str]]:
    """For each of the first pairs the caption of another image that shares most characters with its own."""
    some = pairs.right[np.unique(pairs.right[:, 0], return_index=True)[1]][:most]
    among = pairs.captions[: 5 * most]
    some = some[some[:, 1] < len(among)]
    bags = np.zeros((len(among), 2048), np.float32)
    for row, words in enumerate(among):
        np.add.at(bags[row], [g % 2048 for g in blind.grams(words)], 1)
    bags /= np.maximum(np.linalg.norm(bags, axis=1, keepdims=True), 1e-9)
    found = []
    right: dict[int, set[int]] = {}
    for image, caption in pairs.right.tolist():
        right.setdefault(image, set()).add(caption)
    for image, caption in some.tolist():
        near = bags @ bags[caption]
        near[[c for c in right[image] if c < len(among)]] = -1
        best = int(near.argmax())
        if near[best] > 0:
            found.append((image, caption, "mined", pairs.captions[best]))
    return found


@dataclass(frozen=True)
class Labels:
    """Classes by name, each with words for it, and sentences with a gap for the word.

    ``field`` is where a sample's JSON tells its class; without one, the class is that whose words, and no other's,
    stand in the caption.
    """

    names: dict[str, list[str]]
    templates: list[str]
    field: str = ""


def read_labels(path: Path) -> Labels:
    """A YAML or JSON file: ``labels`` {name: [words]}, ``templates`` [一张{}的照片], and ``field``."""
    try:
        told = YAML(typ="safe").load(path.read_text("utf-8"))
        names = {str(k): [str(w) for w in (v if isinstance(v, list) else [v])] for k, v in told["labels"].items()}
        templates = [str(t) for t in told.get("templates") or ["{}"]]
        if len(names) < 2 or any("{}" not in t for t in templates):
            raise ValueError("at least two labels are needed, and {} in each template")
    except (OSError, YAMLError, TypeError, KeyError, AttributeError, ValueError) as error:
        raise UsageError(
            f"{path}: {error}. Expected YAML with labels: {{猫: [猫, 小猫], …}}, templates: ['一张{{}}的照片', …] and, "
            "where the shards' JSON tells the class, field: NAME"
        ) from None
    return Labels(names, templates, str(told.get("field") or ""))


def zero_shot(pairs: Pairs, scorer: Any, labels: Labels) -> dict[str, Estimate]:
    """Share of images that are nearest to the mean prompt of their class (Radford et al. 2021, section 3.1)."""
    classes = list(labels.names)
    truth = _truth(pairs, labels, classes)
    known = np.flatnonzero(truth >= 0)
    if not len(known):
        raise InputError(f"no image has a class: {labels.field or 'captions'} names none of {', '.join(classes[:8])}")
    prompts = [t.replace("{}", w) for c in classes for w in labels.names[c] for t in labels.templates]
    of_class = np.repeat(np.arange(len(classes)), [len(labels.names[c]) * len(labels.templates) for c in classes])
    rows = scorer.embed_texts(prompts)
    means = np.stack([rows[of_class == i].mean(0) for i in range(len(classes))])
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    hit = ((pairs.images[known] @ means.T).argmax(1) == truth[known]).astype(np.float64)
    clusters = pairs.clusters[0][known]
    common = np.bincount(truth[known]).argmax()
    return {
        "accuracy": bootstrap.mean(hit, clusters),
        "commonest class": bootstrap.mean((truth[known] == common).astype(np.float64), clusters),
        "chance": Estimate(1 / len(classes), 1 / len(classes), 1 / len(classes), len(classes)),
    }


def _truth(pairs: Pairs, labels: Labels, classes: list[str]) -> I64:
    """(n,) each image's class, -1 where it has none or several."""
    number = {name: i for i, name in enumerate(classes)}
    if labels.field:
        return np.array([number.get(str(t.get(labels.field)), -1) for t in pairs.told])
    truth = np.full(len(pairs.told), -1)
    seen = set()
    for image, caption in pairs.right.tolist():
        if image not in seen:
            seen.add(image)
            named = [i for i, c in enumerate(classes) if any(w in pairs.captions[caption] for w in labels.names[c])]
            truth[image] = named[0] if len(named) == 1 else -1
    return truth


def overlap(pairs: Pairs, train: shards.Shards) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """How many images and captions of ``pairs`` are in the shards ``train`` too, and these' (caption, negative)s."""
    own = {caption_group(c) for c in pairs.captions}
    images, captions = set(), set()
    negatives: list[tuple[str, str]] = []
    for sample in shards.every(train):
        images.add(hashlib.sha256(sample.image).hexdigest())
        captions.add(caption_group(sample.caption))
        negatives += [(sample.caption, wrong) for _, wrong in sample.negatives()]
    return {"images": len(images & pairs.hashes), "captions": len(captions & own)}, negatives


def evaluate(
    model: str,
    given: Sequence[str],
    split: str = "test",
    labels: Path | None = None,
    train: Sequence[str] = (),
    limit: int = 0,
    device: str = "auto",
    batch: int = 64,
) -> dict[str, Any]:
    """All figures of one model on one set of shards, as a dictionary of dictionaries of ``Estimate`` or numbers."""
    from ..scoring.scorer import load_scorer

    prompts = read_labels(labels) if labels else None
    found = shards.find(given, split)
    scorer = load_scorer(model, device, batch)
    pairs = load(found, scorer, limit)
    of_image, of_caption = pairs.clusters
    shared = Counter(pairs.right[:, 1].tolist())
    told: dict[str, Any] = {
        "model": scorer.name,
        "weights": scorer.hash,
        "data": {
            "shards": len(found.paths),
            "images": len(pairs.images),
            "captions": len(pairs.captions),
            "captions of several images": sum(1 for n in shared.values() if n > 1),
            "clusters": len(np.unique(of_image)),
        },
        "image to text": retrieval(pairs.images, pairs.texts, pairs.right, of_image),
        "text to image": retrieval(pairs.texts, pairs.images, pairs.right[:, ::-1], of_caption),
        "pairs": {"AUC": auc(pairs), "alignment": alignment(pairs)},
        "uniformity": {"images": uniformity(pairs.images), "captions": uniformity(pairs.texts)},
    }
    known: list[tuple[str, str]] = []
    if train:
        told["also in the training shards"], known = overlap(pairs, shards.find(train, "train"))
    if negatives := hard_negatives(pairs, scorer, known):
        told["hard negatives"] = negatives
    if prompts:
        told["zero-shot"] = zero_shot(pairs, scorer, prompts)
    return told


def plain(told: Any) -> Any:
    """``told`` for JSON."""
    if isinstance(told, Estimate):
        return told.describe()
    return {k: plain(v) for k, v in told.items()} if isinstance(told, dict) else told


def lines(told: dict[str, Any]) -> Iterator[str]:
    """``told`` for people; figures with their 95 % intervals."""
    yield f"{told['model']} ({told['weights']})"
    for section, fields in told.items():
        if not isinstance(fields, dict):
            continue
        yield section
        for name, value in fields.items():
            if isinstance(value, dict):
                inner = "   ".join(f"{n} {v}" for n, v in value.items())
                yield f"  {name:<28}{inner}   n {next(iter(value.values())).n}"
            else:
                yield f"  {name:<28}{value}"
