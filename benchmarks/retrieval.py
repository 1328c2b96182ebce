"""What the retrieval trainer promises, measured.

    python benchmarks/retrieval.py exact                  gradients, ranks, resuming, determinism, unequal shards
    python benchmarks/retrieval.py claims [--seeds 3]     momentum distillation; all images of a caption against one
    python benchmarks/retrieval.py photos --data FOLDER   Flickr8k-CN: ``curate run``, then train, then evaluate
    python benchmarks/retrieval.py open-clip              open_clip's own training command on our shards

``--check`` makes the exit code tell whether what is promised holds. ``exact`` compares with the wrong ways too
(averaged losses of small batches, ranks that do not share their negatives), so that its tolerances mean something.
``claims`` trains models of 0.2 million parameters on the sample world: baseline, control and ceiling beside each arm,
the same seeds for all, differences paired by seed, 95 % t intervals; where baseline and ceiling are within noise of
each other the verdict is INVALID, whatever the arms did.
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from tuwen import __version__
from tuwen.export.shards import write_shard
from tuwen.pipeline.errors import RunError
from tuwen.sample_data import shards as world
from tuwen.sample_data.world import Scene, caption, random_scene
from tuwen.scoring.scorer import load_scorer
from tuwen.trainers import bootstrap, distributed, evaluate, shards, towers, train_retrieval
from tuwen.trainers.loop import Loop
from tuwen.trainers.retrieval import RetrievalConfig
from tuwen.trainers.shards import DataConfig, Pairs, PairStream

SIDE = 32
MODEL = [
    "model.vocabulary=captions",
    "model.embed_dim=64",
    "model.vision_cfg={layers: 3, width: 64, head_width: 16, patch_size: 8}",
    "model.text_cfg={layers: 2, width: 64, heads: 4, context_length: 26}",
]
"""0.2 million parameters beside the words' embeddings."""


def machine() -> str:
    """What the figures were measured on."""
    packages = ", ".join(f"{p} {version(p)}" for p in ("torch", "open_clip_torch", "numpy"))
    return (
        f"tuwen {__version__}, {platform.machine()} with {os.cpu_count()} cores, {torch.get_num_threads()} threads; "
        f"Python {platform.python_version()}, {packages}"
    )


class Checks:
    """Collects what held and what did not."""

    def __init__(self) -> None:
        self.failed: list[str] = []

    def __call__(self, what: str, figure: str, held: bool) -> None:
        print(f"  {what:<66}{figure:<24}{'holds' if held else 'FAILS'}", flush=True)
        if not held:
            self.failed.append(what)


def small_model(folder: Path, seed: int = 0) -> tuple[torch.nn.Module, Any]:
    """A two-tower model of random weights, and its tokenizer."""
    parts = train_retrieval.settings.read(train_retrieval.SECTIONS, None, MODEL)
    rng = np.random.default_rng(0)
    towers.prepare(parts["model"], folder, (caption(random_scene(rng), rng) for _ in range(500)))
    model, tokenizer, _ = towers.build(folder, seed)
    return model, tokenizer


def batch_of(folder: Path, size: int) -> Pairs:
    """One batch of the sample world, with hard negatives and a caption that several images share."""
    world.write_shards(folder, size, seed=3, side=SIDE)
    stream = PairStream(shards.find([str(folder)]), DataConfig(batch=size, negatives=1), SIDE)
    batch = next(iter(stream))
    return batch._replace(captions=[batch.captions[0], batch.captions[0], *batch.captions[2:]])


def gradients(loop: Loop, batch: Pairs) -> dict[str, Tensor]:
    """The gradient of one batch, by parameter."""
    loop.backward(batch)
    named = loop.stream.named_parameters()
    return {name: p.grad.detach().clone() for name, p in named if p.grad is not None}


def apart(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    """Largest difference, as a share of the largest value."""
    largest = max(float(v.abs().max()) for v in one.values())
    return max(float((one[k] - other[k]).abs().max()) for k in one) / largest


def accumulated(root: Path, check: Checks) -> None:
    """A batch of 32 at once, in parts of 5, and as averaged losses of 8."""
    model, tokenizer = small_model(root / "model")
    batch = batch_of(root / "batch", 32)
    arms: dict[str, dict[str, Any]] = {
        "contrastive and threshold losses, hard negatives": {},
        "with masked words and two views (mlm, simclr)": {"tasks": ("mlm", "simclr")},
        "with momentum distillation": {"momentum": True, "queue": 64, "momentum_ramp": 0.0},
        "with gradient checkpointing": {"checkpointing": True},
    }
    print("accumulation: 32 pairs in parts of 5 against 32 at once, largest relative difference of a gradient")
    for name, fields in arms.items():
        found = []
        for size in (0, 5):
            loop = Loop(copy.deepcopy(model), tokenizer, RetrievalConfig(micro_batch=size, **fields))
            loop.backward(batch)  # fills the queue
            loop.done = 1
            found.append(gradients(loop, batch))
        difference = apart(*found)
        check(name, f"{difference:.1e}", difference < 1e-4)
    loop = Loop(copy.deepcopy(model), tokenizer, RetrievalConfig())
    whole = gradients(loop, batch)
    parts = [gradients(loop, _rows(batch, slice(i, i + 8))) for i in range(0, 32, 8)]
    averaged = {k: torch.stack([p[k] for p in parts]).mean(0) for k in whole}
    difference = apart(whole, averaged)
    check("control: losses of 8 pairs averaged are another gradient", f"{difference:.1e}", difference > 1e-2)


def _rows(batch: Pairs, part: slice) -> Pairs:
    negatives = batch.negatives[part] if batch.negatives is not None else None
    return Pairs(batch.images[part], batch.captions[part], negatives)


def shared(model: torch.nn.Module, tokenizer: Any, batch: Pairs, place: distributed.World, slow: bool) -> Tensor:
    """The gradient of this rank's part of the batch, in parts of 5, as one vector.

    Gradients, not weights after some steps: AdamW turns the rounding errors of parameters that have no gradient (the
    biases of attention's keys) into steps as large as any other.
    """
    config = RetrievalConfig(micro_batch=5, momentum=slow, queue=64, momentum_ramp=0.0)
    loop = Loop(model, tokenizer, config, place)
    n = len(batch.captions) // place.ranks
    part = _rows(batch, slice(place.rank * n, (place.rank + 1) * n))
    loop.backward(part)  # fills the queue
    loop.done = 1
    return torch.cat([g.flatten() for _, g in sorted(gradients(loop, part).items())])


def rank(root: Path) -> None:
    """One of two processes under torchrun."""
    place = distributed.start("cpu")
    batch = batch_of(root / f"rank-{place.rank}", 32)
    distributed.gather_objects(None)
    for sharing in (False, True):
        model, tokenizer, _ = towers.build(root / "model", 0)
        found = shared(model, tokenizer, batch, place, sharing)
        if place.first:
            torch.save(found, root / f"two-{sharing}.pt")
    distributed.stop()


def two_processes(root: Path, check: Checks) -> None:
    """Three steps by two gloo processes under torchrun against three steps by one."""
    print("two gloo processes under torchrun against one, 32 pairs, largest relative difference of a gradient")
    small_model(root / "model")
    torchrun(2, [str(Path(__file__)), "rank", "--out", str(root)])
    batch = batch_of(root / "one", 32)
    whole = {}
    for sharing, name in ((False, "contrastive and threshold losses"), (True, "with momentum distillation")):
        model, tokenizer, _ = towers.build(root / "model", 0)
        whole[sharing] = shared(model, tokenizer, batch, distributed.ALONE, sharing)
        two = torch.load(root / f"two-{sharing}.pt", weights_only=True)
        difference = float((whole[sharing] - two).abs().max() / whole[sharing].abs().max())
        check(f"{name}, hard negatives", f"{difference:.1e}", difference < 1e-4)
    halves = []
    for half in (slice(0, 16), slice(16, 32)):
        model, tokenizer, _ = towers.build(root / "model", 0)
        halves.append(shared(model, tokenizer, _rows(batch, half), distributed.ALONE, False))
    difference = float((whole[False] - torch.stack(halves).mean(0)).abs().max() / whole[False].abs().max())
    check("control: ranks that do not share their negatives", f"{difference:.1e}", difference > 1e-2)


def torchrun(ranks: int, words: Sequence[str], timeout: float = 600) -> str:
    """Run a Python file or module under torchrun; its output."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(ranks), "--standalone"]
    command += words
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, env=environment)
    if done.returncode:
        raise RunError(f"{' '.join(words)} ended with {done.returncode}:\n{done.stderr[-3000:]}")
    return done.stdout


def resumed(root: Path, check: Checks) -> None:
    """Twelve steps at once, twice; and twelve steps that were interrupted after the seventh, with a checkpoint at 5."""
    print("interrupted after step 7 of 12, last checkpoint at 5; two reading processes, momentum, mlm and simclr")
    world.write_shards(root / "data", 150, seed=1, per_shard=40, side=SIDE)
    sets = [*MODEL, "train.steps=12", "train.warmup=2", "train.log_every=1", "train.checkpoint_every=5"]
    sets += ["data.batch=16", "data.workers=2", "data.shuffle=30", "data.negatives=1"]
    sets += ["train.momentum=true", "train.queue=64", "train.tasks=[mlm, simclr]"]

    def run(name: str, stop_at: int = 0) -> None:
        def tell(record: dict[str, Any]) -> None:
            if stop_at and record["step"] == stop_at:
                raise KeyboardInterrupt

        train_retrieval.train([str(root / "data")], root / name, sets=sets, device="cpu", tell=tell)

    run("whole")
    run("again")
    try:
        run("cut", stop_at=7)
    except KeyboardInterrupt:
        run("cut")
    losses = [[r["loss"] for r in _log(root / name)] for name in ("whole", "cut")]
    difference = max(abs(a - b) for a, b in zip(*losses, strict=True))
    check("the resumed run's losses against the uninterrupted run's", f"{difference:.1e}", difference == 0)
    hashes = {name: _hash(root / name) for name in ("whole", "again", "cut")}
    check("its weights, byte for byte", hashes["cut"][:12], hashes["cut"] == hashes["whole"])
    check("the same seed twice: weights, byte for byte", hashes["again"][:12], hashes["again"] == hashes["whole"])
    sets.append("train.seed=1")
    run("other")
    check("control: another seed", _hash(root / "other")[:12], _hash(root / "other") != hashes["whole"])


def _log(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "train.jsonl").read_text("utf-8").splitlines()]


def _hash(folder: Path) -> str:
    return hashlib.sha256((folder / towers.WEIGHTS).read_bytes()).hexdigest()


def unequal(root: Path, check: Checks) -> None:
    """Shards of 3, 70 and 20 samples over two ranks."""
    print("shards of 3, 70 and 20 samples over two ranks of two workers, 25 steps of 16")
    made = world.samples(93, seed=2, side=SIDE)
    (root / "data").mkdir(parents=True)
    for i, n in enumerate((3, 70, 20)):
        write_shard(str(root / "data" / f"train-{i:06d}.tar"), [next(made) for _ in range(n)])
    sets = [*MODEL, "train.steps=25", "train.warmup=2", "data.batch=16", "data.workers=2", "data.shuffle=30"]
    words = ["-m", "tuwen.pipeline.cli", "train", "retrieval", str(root / "data"), "-o", str(root / "out")]
    started = time.perf_counter()
    torchrun(2, [*words, "--device", "cpu", "--json", *(w for s in sets for w in ("--set", s))])
    told = json.loads((root / "out" / "training.json").read_text())
    seconds = time.perf_counter() - started
    check("ends, at the step that was asked for", f"{seconds:.0f} s", told["last"]["step"] == 24 and told["ranks"] == 2)


def exact(given: argparse.Namespace) -> list[str]:
    """Must-show 1."""
    check = Checks()
    with tempfile.TemporaryDirectory() as scratch:
        for part in (accumulated, two_processes, resumed, unequal):
            part(Path(scratch) / part.__name__, check)
    return check.failed


Arm = tuple[str, Path, list[str]]
"""A name, its training shards, its settings."""


def trained(arm: Arm, seed: int, test: evaluate.Pairs, images: list[bytes], root: Path) -> dict[str, float]:
    """R@1 and R@5, both ways averaged, in percent, of one arm with one seed."""
    name, data, sets = arm
    out = root / f"{name}-{data.name}-{seed}".replace(" ", "-")
    everything = [*MODEL, *sets, f"train.seed={seed}", f"data.seed={seed}", "data.crop=1.0", "train.threshold_weight=0"]
    train_retrieval.train([str(data)], out, sets=everything, device="cpu")
    scorer = load_scorer(str(out), "cpu", 64, torch.get_num_threads())
    rows, texts = scorer.embed_images(images), scorer.embed_texts(test.captions)
    shutil.rmtree(out)
    found = [evaluate.ranks(rows, texts, test.right), evaluate.ranks(texts, rows, test.right[:, ::-1])]
    return {f"R@{k}": 100 * float(np.mean([np.mean(f <= k) for f in found])) for k in (1, 5)}


def compare(title: str, arms: dict[str, Arm], given: argparse.Namespace, root: Path) -> None:
    """Train all arms with all seeds; print the table, and the verdict on each arm against the baseline.

    The keys of ``arms`` are roles: baseline, control, ceiling and those that begin with arm.
    """
    print(f"\n{title}")
    found: dict[str, list[dict[str, float]]] = {role: [] for role in arms}
    for seed in range(given.seeds):
        test, images = held_out(root, given.test, seed)
        for role, arm in arms.items():
            found[role].append(trained(arm, seed, test, images, root))
            print(f"    {role:<9} seed {seed}  R@1 {found[role][-1]['R@1']:.1f}", file=sys.stderr, flush=True)
    for role, (name, *_) in arms.items():
        told = [bootstrap.over_seeds([f[k] for f in found[role]]) for k in ("R@1", "R@5")]
        against = _gain(found[role], found["baseline"])
        difference = "" if role == "baseline" else f"{against.value:+6.1f} ({against.low:+.1f} to {against.high:+.1f})"
        print(f"  {role:<9} {name:<44} R@1 {told[0].value:5.1f}  R@5 {told[1].value:5.1f}   {difference}", flush=True)
    told = {role: _gain(found[role], found["baseline"]) for role in arms if role != "baseline"}
    for role in (r for r in arms if r.startswith("arm")):
        gap, gain = told["ceiling"], told[role]
        if gap.low <= 0:
            verdict = "INVALID: baseline and ceiling are within noise of each other"
        elif gain.low > 0:
            verdict = f"better, by {gain.value / gap.value:.0%} of the way to the ceiling"
        else:
            verdict = "worse" if gain.high < 0 else "no difference shown"
        print(f"  {arms[role][0]}: {verdict}", flush=True)


def _gain(arm: list[dict[str, float]], baseline: list[dict[str, float]]) -> bootstrap.Estimate:
    """Points of R@1 over the baseline, paired by seed."""
    return bootstrap.over_seeds([a["R@1"] - b["R@1"] for a, b in zip(arm, baseline, strict=True)])


def held_out(root: Path, n: int, seed: int) -> tuple[evaluate.Pairs, list[bytes]]:
    """``n`` scenes of a seed that no training set has, and their pictures' bytes."""
    made = list(world.samples(n, seed=1000 + seed, side=SIDE, alone=True))
    right = np.stack([np.arange(n), np.arange(n)], 1)
    empty = np.empty((0, 1), np.float32)
    return evaluate.Pairs([words for _, _, words, _ in made], right, empty, empty, []), [
        image for _, image, _, _ in made
    ]


def claims(given: argparse.Namespace) -> list[str]:
    """Must-show 3."""
    base = [f"train.steps={given.steps}", f"data.batch={given.batch}", "train.warmup=15", "train.learning_rate=0.003"]
    slow = [
        "train.momentum=true",
        "train.momentum_decay=0.95",
        f"train.queue={4 * given.batch}",
        "train.momentum_ramp=0.3",
    ]
    print(
        f"sample world, {given.samples} pairs, {given.steps} steps of {given.batch}, {given.seeds} seeds, "
        f"{given.test} held out"
    )
    print(
        "momentum distillation: decay 0.95, queue of four batches, alpha 0.4 (ALBEF's 0.995 and 65,536 fit its steps)"
    )
    chosen = set(given.only or ("clean", "noisy", "shared"))
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        for name, share in (("clean", 0.0), ("noisy", given.noise)):
            world.write_shards(root / name, given.samples, seed=1, side=SIDE, mismatched=share, alone=True)
        _only_true(root / "noisy", root / "filtered")
        for name, ceiling in (("clean", "twice the steps"), ("noisy", "what belongs elsewhere taken out (truth)")):
            longer = [*base, f"train.steps={2 * given.steps}"] if name == "clean" else base
            arms: dict[str, Arm] = {
                "baseline": ("contrastive", root / name, base),
                "control": ("momentum queue, alpha 0", root / name, [*base, *slow, "train.momentum_alpha=0"]),
                "arm": ("momentum distillation, queue", root / name, [*base, *slow]),
                "arm 2": ("momentum distillation, the batch's own keys", root / name, [*base, *slow, "train.queue=0"]),
                "ceiling": (ceiling, root / ("clean" if name == "clean" else "filtered"), longer),
            }
            about = "clean pairs" if name == "clean" else f"{given.noise:.0%} of the captions belong elsewhere"
            if name in chosen:
                compare(f"momentum distillation, {about}", arms, given, root)
        if "shared" in chosen:
            _shared(root, given.samples, 400)
            arms = {
                "baseline": ("one image of each caption", root / "one", base),
                "control": ("as many images, drawn at random", root / "random", base),
                "arm": ("all images of each caption", root / "all", base),
                "ceiling": ("as many images, each with its own caption", root / "own", base),
            }
            compare(f"{given.samples} images of 400 captions: all images of a caption, or one", arms, given, root)
    return []


def _only_true(source: Path, target: Path) -> None:
    """The pairs whose caption is their own."""
    target.mkdir()
    for i, path in enumerate(shards.find([str(source)]).paths):
        kept = [(s.key, s.image, s.caption, s.told) for s in shards.samples(path) if not s.told["mismatched"]]
        write_shard(str(target / f"train-{i:06d}.tar"), kept)


def _shared(root: Path, images: int, captions: int) -> None:
    """``images`` pictures of scenes with ``captions`` captions, as often as Zipf's law has it; and its subsets."""
    rng = np.random.default_rng(11)
    scenes: dict[str, Scene] = {}
    while len(scenes) < captions:
        scene = world.drawn_scene(rng, True)
        scenes.setdefault(caption(scene, rng), scene)
    weight = 1 / np.arange(1, captions + 1)
    drawn = np.concatenate([np.arange(captions), rng.choice(captions, images - captions, p=weight / weight.sum())])
    words = list(scenes)
    made, own = [], []
    for i, number in enumerate(drawn.tolist()):
        like = scenes[words[number]]
        scene = Scene(like.things, like.background, like.relation, int(rng.integers(2**31)))
        image = world.picture(scene, SIDE)
        made.append((f"{i:08d}", image, words[number], {}))
        fresh = world.drawn_scene(rng, True)
        own.append((f"{i:08d}", world.picture(fresh, SIDE), caption(fresh, rng), {}))
    first = {row[2]: row for row in reversed(made)}
    subsets = {
        "all": made,
        "one": sorted(first.values()),
        "random": sorted(made[i] for i in rng.permutation(images)[:captions]),
        "own": own,
    }
    for name, rows in subsets.items():
        (root / name).mkdir()
        write_shard(str(root / name / "train-000000.tar"), rows)


def photos(given: argparse.Namespace) -> list[str]:
    """Must-show 5."""
    with (given.data / "captions.jsonl").open(encoding="utf-8") as handle:
        rows = [row for row in map(json.loads, handle) if row["has_image"]]
    held = [i for i in range(len(rows)) if i % 5 == 0]
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        for split in ("train", "test"):
            some = [row for i, row in enumerate(rows) if (i in set(held)) == (split == "test")]
            pairs = [{"image": r["image"], "caption": c} for r in some for c in r["zh"]]
            table = root / f"{split}.jsonl"
            table.write_text("".join(json.dumps(p, ensure_ascii=False) + "\n" for p in pairs), "utf-8")
            curate(["run", str(table), "-o", str(root / split), "-r", "photos", *_fitting(given.data)])
            found = shards.find([str(root / split)], "*")
            print(f"{split}: {len(some)} photos, {len(pairs)} pairs, {found.samples} in {len(found.paths)} shards")
        train = [str(root / "train" / "shards" / "*.tar")]
        test = [str(root / "test" / "shards" / "*.tar")]
        sets = [f"train.steps={given.steps}", "data.batch=64", "train.warmup=20", "model.vocabulary=captions"]
        sets += ["model.vision_cfg={image_size: 64, layers: 3, width: 96, patch_size: 8}", "train.threshold_weight=0"]
        words = ["train", "retrieval", *train, "-o", str(root / "model"), *(w for s in sets for w in ("--set", s))]
        started = time.perf_counter()
        curate([*words, "--threads", str(torch.get_num_threads())])
        print(f"trained in {time.perf_counter() - started:.0f} s: {given.steps} steps of 64, random weights at first\n")
        curate(["evaluate", str(root / "model"), *test, "--train", train[0]], show=True)
        found = shards.find(test)
        for name, rival in (("random rows", RandomRows()), ("bag of characters", BagOfCharacters(shards.find(train)))):
            pairs = evaluate.load(found, rival)
            of_image, of_caption = pairs.clusters
            print(f"{name}: AUC {evaluate.auc(pairs)}")
            for way, told in (
                ("image to text", evaluate.retrieval(pairs.images, pairs.texts, pairs.right, of_image)),
                ("text to image", evaluate.retrieval(pairs.texts, pairs.images, pairs.right[:, ::-1], of_caption)),
            ):
                print(f"  {way}  " + "  ".join(f"{k} {v}" for k, v in told.items()))
    return []


def _fitting(data: Path) -> list[str]:
    """Options for reading the photos and for a recipe that keeps them: they are not scored."""
    return ["--input", f"images={(data / 'images_224').absolute()}"]


class RandomRows:
    """A scorer that knows nothing."""

    def __init__(self) -> None:
        self._rng = np.random.default_rng(0)

    def embed_images(self, images: Sequence[bytes]) -> Any:
        return unit(self._rng.normal(size=(len(images), 64)))

    embed_texts = embed_images


class BagOfCharacters:
    """Ridge regression from the colours and edges of a photo, place by place, to the characters of its captions.

    What can be had without learning any representation: a photo's colours speak for some words (snow, grass, water).
    """

    def __init__(self, train: shards.Shards, strength: float = 3.0) -> None:
        of_image: dict[bytes, list[str]] = {}
        for sample in shards.every(train):
            of_image.setdefault(sample.image, []).append(sample.caption)
        everything = Counter(c for some in of_image.values() for words in some for c in set(words))
        common = [c for c, n in everything.most_common(600) if n > 2]
        self._place = {c: i for i, c in enumerate(common)}
        self._rare = np.log(sum(map(len, of_image.values())) / np.array([everything[c] for c in common]))
        seen = self._seen(list(of_image))
        self._mean, self._spread = seen.mean(0), seen.std(0) + 1e-6
        x = self._with_one(seen)
        y = np.stack([unit(self._bags(some)).mean(0) for some in of_image.values()])
        self._centre = y.mean(0)
        penalty = strength * len(x) / x.shape[1] * np.eye(x.shape[1])
        self._weights = np.linalg.solve(x.T @ x + penalty, x.T @ (y - self._centre))

    def embed_images(self, images: Sequence[bytes]) -> Any:
        return unit(self._with_one(self._seen(images)) @ self._weights)

    def embed_texts(self, captions: Sequence[str]) -> Any:
        return unit(unit(self._bags(captions)) - self._centre)

    def _with_one(self, seen: Any) -> Any:
        return np.concatenate([(seen - self._mean) / self._spread, np.ones((len(seen), 1))], 1)

    def _bags(self, captions: Sequence[str]) -> Any:
        bags = np.zeros((len(captions), len(self._place)))
        for row, words in enumerate(captions):
            bags[row, [self._place[c] for c in set(words) if c in self._place]] = 1
        return bags * self._rare

    @staticmethod
    def _seen(images: Sequence[bytes]) -> Any:
        """(n, 128): mean and deviation of Lab colours and the mean edge, in each of 4 by 4 places, and hues."""
        rows = []
        for data in images:
            image = cv2.resize(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR), (64, 64))
            lab = cv2.cvtColor(image, cv2.COLOR_BGR2LAB).astype(np.float64)
            edge = np.abs(cv2.Laplacian(lab[:, :, 0], cv2.CV_64F))[:, :, None]
            grid = np.concatenate([lab, edge], 2).reshape(4, 16, 4, 16, 4)
            hue = np.histogram(cv2.cvtColor(image, cv2.COLOR_BGR2HSV)[:, :, 0], 16, (0, 180))[0] / 4096
            rows.append(np.concatenate([grid.mean((1, 3)).ravel(), grid[..., :3].std((1, 3)).ravel(), hue]))
        return np.stack(rows)


def unit(rows: Any) -> Any:
    """(n, d) rows of unit length, in single precision."""
    return (rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)).astype(np.float32)


def curate(words: list[str], show: bool = False) -> None:
    """Run the command line."""
    done = subprocess.run([sys.executable, "-m", "tuwen.pipeline.cli", *words], capture_output=True, text=True)
    if done.returncode:
        raise RunError(f"curate {' '.join(words)}: {done.stderr[-3000:]}")
    if show:
        print(done.stdout)


def open_clip_command(given: argparse.Namespace) -> list[str]:
    """Must-show 6.

    open_clip's extra ``training`` asks for webdataset 0.2.86 at most: later ones put markers between shards that
    its reader does not know, whosever the shards are.
    """
    environment = dict(os.environ)
    if given.webdataset:
        environment["PYTHONPATH"] = os.pathsep.join(
            [str(given.webdataset.absolute()), environment.get("PYTHONPATH", "")]
        )
    told = subprocess.run(
        [sys.executable, "-c", "import webdataset; print(webdataset.__version__)"],
        capture_output=True, text=True, env=environment,
    )  # fmt: skip
    print(f"webdataset {told.stdout.strip()}; open_clip[training] asks for 0.2.86 at most")
    check = Checks()
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        small_model(root / "model")
        written = world.write_shards(root / "shards", 96, seed=4, per_shard=32, side=SIDE)
        pattern = root / "shards" / f"train-{{000000..{len(written) - 1:06d}}}.tar"
        words = ["--train-data", str(pattern), "--train-num-samples", "96", "--dataset-type", "webdataset"]
        words += ["--model", f"local-dir:{root / 'model'}", "--batch-size", "16", "--epochs", "1", "--workers", "1"]
        words += ["--precision", "fp32", "--device", "cpu", "--log-every-n-steps", "1", "--warmup", "2"]
        words += ["--logs", str(root / "logs"), "--name", "tuwen", "--save-frequency", "0"]
        print("python -m open_clip_train.main " + " ".join(words).replace(str(root), "DIR"))
        command = [sys.executable, "-m", "open_clip_train.main", *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=900, cwd=root, env=environment)
        log = root / "logs" / "tuwen" / "out.log"
        said = log.read_text() if log.exists() else ""
        for line in said.splitlines():
            if "Train Epoch" in line:
                print("  " + line.split("| INFO | ")[-1])
        if done.returncode:
            print(done.stderr[-3000:])
        check(
            "open_clip's own command trains on the shards", f"{said.count('Train Epoch')} steps", "Train Epoch" in said
        )
        loop = "webdataset's decode and to_tuple"
        check(loop, "", _by_webdataset(str(pattern)))
    return check.failed


def _by_webdataset(pattern: str) -> bool:
    """A few batches by webdataset alone, as its own documentation does it."""
    import webdataset as wds

    data = wds.WebDataset(pattern, shardshuffle=False).decode("pil").to_tuple("jpg;png", "txt", "json").batched(16)
    images, captions, told = next(iter(data))
    return len(images) == len(captions) == 16 and all("negatives" in t for t in told)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--check", action="store_true", help="exit 1 where something that is promised does not hold")
    common.add_argument("--threads", type=int, default=1)
    parts = parser.add_subparsers(dest="part", required=True)
    parts.add_parser("exact", parents=[common], help="gradients, ranks, resuming, determinism, unequal shards")
    some = parts.add_parser("claims", parents=[common], help="momentum distillation; all images of a caption or one")
    some.add_argument(
        "--only", choices=("clean", "noisy", "shared"), action="append", help="one comparison; repeatable"
    )
    some.add_argument("--seeds", type=int, default=3)
    some.add_argument("--steps", type=int, default=120)
    some.add_argument("--batch", type=int, default=96)
    some.add_argument("--samples", type=int, default=3000)
    some.add_argument("--noise", type=float, default=0.4)
    some.add_argument("--test", type=int, default=200)
    real = parts.add_parser("photos", parents=[common], help="Flickr8k-CN")
    real.add_argument("--data", type=Path, required=True, help="folder with captions.jsonl and images_224/")
    real.add_argument("--steps", type=int, default=250)
    user = parts.add_parser("open-clip", parents=[common], help="open_clip's training command on our shards")
    user.add_argument(
        "--webdataset",
        type=Path,
        help="folder that holds webdataset 0.2.86 (pip install --target FOLDER --no-deps webdataset==0.2.86)",
    )
    inner = parts.add_parser("rank", help="one process of exact's torchrun; not for people")
    inner.add_argument("--out", type=Path)
    given = parser.parse_args()
    if given.part == "rank":
        torch.set_num_threads(1)
        rank(given.out)
        return
    torch.set_num_threads(given.threads)
    print(machine())
    made: dict[str, Callable[[argparse.Namespace], list[str]]] = {
        "exact": exact,
        "claims": claims,
        "photos": photos,
        "open-clip": open_clip_command,
    }
    failed = made[given.part](given)
    if given.check and failed:
        sys.exit(f"does not hold: {'; '.join(failed)}")


if __name__ == "__main__":
    main()
