"""Zero-shot classification from label prompts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from ...pipeline.errors import InputError, UsageError
from .. import bootstrap
from ..bootstrap import I64, Estimate
from .pairs import Pairs


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
