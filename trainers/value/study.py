"""What a dataset is worth, and what each part of its curation was: only the data changes, all else is fixed.

In DataComp's manner (Gadre et al. 2023, arXiv 2304.14108) every arm trains the same model for the same number of
samples. The arms are made from a finished run's ledger; no stage runs again. Every training is written down as soon
as it is done, so that a study that was interrupted goes on where it stopped.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch

from ...pipeline import files
from ...pipeline.errors import UsageError
from . import pixels as value_pixels
from .arms import Arm, Arms, StageArms, Truth
from .judge import Difference, difference
from .model import SIDE, Characters
from .points import Answers, Budget, Point, Questions, settings, train
from .questions import External, external, questions_of
from .split import TIES, clusters, hold_out
from .subsets import Mask, Verdicts

PARTS = ("main", "sizes", "stages", "style")
POINTS = "value-points"
"""Folder of a run that holds the trainings."""

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Options:
    """What a study is asked to do."""

    budget: Budget = field(default_factory=Budget)
    parts: tuple[str, ...] = PARTS
    ties: tuple[str, ...] = TIES
    gallery: int = 1000
    """Most held-out pairs that are asked about."""
    truth: str = ""
    """labels.jsonl of a sample crawl, for the oracle."""
    eval: str = ""
    """Pairs to evaluate on instead of the run's val and test: what ``curate run`` reads, with images."""


@dataclass
class Record:
    """Points that were trained, by name of the arm; each is a file of its own, named by all that it depends on."""

    folder: str
    by_arm: dict[str, list[Point]] = field(default_factory=dict)

    def get(self, identity: str) -> Point | None:
        """A point that an earlier study, finished or not, wrote down."""
        path = files.join(self.folder, f"{identity}.json")
        if not files.exists(path):
            return None
        told = json.loads(files.read_bytes(path))
        return Point({s: Answers(np.array(r, np.int32)) for s, r in told["ranks"].items()}, told["loss"])

    def add(self, identity: str, arm: str, seed: int, point: Point) -> None:
        """Write a point down at once."""
        ranks = {s: a.ranks.tolist() for s, a in point.answers.items()}
        told = json.dumps({"arm": arm, "seed": seed, "loss": point.loss, "ranks": ranks})
        files.write_bytes(files.join(self.folder, f"{identity}.json"), told.encode())


@dataclass
class Study:
    """A run's arms, the questions, and the trainings; ``judge`` makes the findings of it."""

    run: str
    options: Options
    verdicts: Verdicts
    arms: Arms
    pixels: torch.Tensor
    words: Characters
    questions: Questions
    styled: Questions | None
    stages: list[StageArms]
    cluster: Any
    notes: list[str]
    record: Record

    @classmethod
    def of(cls, run: str, options: Options) -> Study:
        """Read what the study needs; ``UsageError`` says what it lacks."""
        if unknown := sorted(set(options.parts) - set(PARTS)):
            raise UsageError(f"--part {unknown[0]}: expected some of {', '.join(PARTS)}")
        verdicts = Verdicts.of(run)
        rows, notes = verdicts.rows, []
        pixels, found = value_pixels.gather(run, rows, verdicts.told, SIDE)
        if lacking := value_pixels.check(rows, found):
            notes.append(f"{lacking} pairs are left out of every arm: their pictures are gone")
        truth = Truth.read(options.truth, rows) if options.truth else None
        outside: External | None = external(options.eval, SIDE) if options.eval else None
        split = rows["split"].is_in(["val", "test"]).fill_null(False).to_numpy()
        seeds: Mask = split & verdicts.as_kept
        if outside is None:
            held = hold_out(rows, seeds, options.ties)
            right = (truth.right & rows["key"].is_first_distinct().to_numpy()) if truth else verdicts.as_kept
            questions, styled = questions_of(rows, pixels, held.evaluable & right & found, truth, options.gallery)
            trainable = held.train & found
            if truth is None:
                notes.append(
                    "the questions are pairs that the run kept, so what its filters prefer is preferred here too; "
                    "--eval with pairs from elsewhere is free of that"
                )
        else:
            trainable = found & ~split
            questions, styled = outside.apart_from(rows, trainable, options.ties, options.gallery), None
        arms = Arms(verdicts, trainable, truth)
        if arms.curated.pairs < 2 or arms.raw.pairs < 2:
            raise UsageError(
                f"{arms.curated.pairs} of {arms.raw.pairs} pairs to train on were kept; nothing to compare"
            )
        stages = []
        if "stages" in options.parts:
            if verdicts.all_measured:
                stages = [arms.stage(name) for name in verdicts.filters()]
            else:
                notes.append(
                    "stages are not told apart: the run did not measure on what it dropped, so nobody knows what its "
                    "other stages say of those pairs; make it with `curate run … --measure-all`"
                )
        if "style" in options.parts and styled is None:
            notes.append("style is not told: too few held-out pairs have a synthetic caption")
        tensor = torch.from_numpy(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)))
        cluster = clusters(rows, [tie for tie in options.ties if tie != "page"])
        return cls(
            run,
            options,
            verdicts,
            arms,
            tensor,
            Characters([*arms.raw.captions, *arms.mended.captions]),
            questions,
            styled,
            stages,
            cluster,
            notes,
            Record(files.join(run, POINTS)),
        )

    def all_arms(self) -> list[Arm]:
        """The arms of the chosen parts, the main ones first."""
        arms, parts = self.arms, self.options.parts
        chosen = [arms.raw, arms.curated, arms.small, arms.mended, *([arms.oracle] if arms.oracle else [])]
        if "sizes" in parts:
            chosen += arms.sizes()
        for stage in self.stages:
            chosen += stage.arms()
        if "style" in parts and self.styled is not None:
            chosen += arms.styles()
        return chosen

    def train(self, progress: Progress | None = None) -> None:
        """Train all arms, seed after seed, so that a study cut short has whole seeds."""
        jobs = [(seed, arm) for seed in range(self.options.budget.seeds) for arm in self.all_arms()]
        self.record.by_arm.clear()
        for done, (seed, arm) in enumerate(jobs):
            if progress:
                progress("train", done, len(jobs))
            self.record.by_arm.setdefault(arm.name, []).append(self.point(arm, seed))
        if progress:
            progress("train", len(jobs), len(jobs))

    def point(self, arm: Arm, seed: int) -> Point:
        """The training of ``arm`` with ``seed``: the one on record, or made now and put there."""
        rows, captions = arm.drawn(seed)
        questions = self.styled if arm.style and self.styled else self.questions
        identity = _identity(rows.tobytes(), captions, questions, seed, self.options.budget, self.words)
        point = self.record.get(identity)
        if point is None:
            images = self.pixels[torch.from_numpy(rows)]
            point = train(images, captions, self.words, questions, self.options.budget, seed)
            self.record.add(identity, arm.name, seed, point)
        return point

    def points(self, arm: Arm) -> list[Point]:
        """The arm's trainings, one a seed."""
        return self.record.by_arm[arm.name]

    def gain(self, a: Arm, b: Arm, style: str = "original") -> Difference:
        """How much more of the questions ``a`` answers at once than ``b``."""
        one, other = ([p.answers[style].ranks for p in self.points(arm)] for arm in (a, b))
        return difference(one, other)

    def recall(self, arm: Arm, k: int = 1, style: str = "original") -> float:
        """R@k, both ways together, mean over the seeds."""
        return float(np.mean([p.answers[style].recall(k) for p in self.points(arm)]))


def _identity(
    rows: bytes, captions: Iterable[str], questions: Questions, seed: int, budget: Budget, words: Characters
) -> str:
    """What a point depends on, as 24 hex digits."""
    digest = hashlib.blake2b(rows, digest_size=12)
    told = {k: v for k, v in asdict(budget).items() if k not in ("seeds", "threads")}
    asked = hashlib.blake2b(questions.images.numpy().tobytes()).hexdigest()
    about = [told, settings(budget), seed, list(captions), asked, questions.captions, list(words.ids)]
    digest.update(json.dumps(about, ensure_ascii=False, sort_keys=True).encode())
    return digest.hexdigest()
