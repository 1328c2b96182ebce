"""Flickr8k-CN as shards, trained and evaluated: ``python benchmarks/retrieval.py photos``. For the path, not the score.

Beside the model stand random rows and a ridge regression from colours and edges to the characters of the captions.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from retrieval_common import curate

from tuwen.trainers import evaluate, shards


def photos(given: argparse.Namespace) -> list[str]:
    """Trained on the photos' captions, beside random rows and a bag of characters."""
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
            found = shards.find([str(root / split / "shards" / "*.tar")])
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
