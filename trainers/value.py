"""What a dataset is worth, and what each part of its curation was: only the data changes, all else is fixed.

In DataComp's manner (Gadre et al. 2023, arXiv 2304.14108) every arm trains the same model for the same number of
samples. The arms are made from a finished run's ledger; no stage runs again. Every training is written down as soon
as it is done, so that a study that was interrupted goes on where it stopped.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import polars as pl
import torch

from ..pipeline import files
from ..pipeline.errors import UsageError
from . import diversity, value_pixels
from .subsets import Mask, Verdicts
from .value_arms import Arm, Arms, StageArms, Truth
from .value_judge import Difference, difference, pairs_to_match
from .value_model import SIDE, Characters
from .value_points import Answers, Budget, Point, Questions, settings, train
from .value_questions import External, external, questions_of
from .value_split import TIES, hold_out

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
        cluster = _clusters(rows, options)
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

    def tell(self, arm: Arm) -> dict[str, Any]:
        """An arm's pairs and scores as plain values."""
        each = [p.answers["original"].recall(1) for p in self.points(arm)]
        return {
            "arm": arm.name,
            "pairs": arm.pairs,
            "r1": round(float(np.mean(each)), 4),
            "r1_by_seed": [round(r, 4) for r in each],
            "r5": round(self.recall(arm, 5), 4),
            "median_rank": float(np.median([np.median(p.answers["original"].ranks) for p in self.points(arm)]) + 1),
        }

    def findings(self) -> dict[str, Any]:
        """Everything that was found, as value.json holds it."""
        arms, parts = self.arms, self.options.parts
        told: dict[str, Any] = {
            "settings": {**settings(self.options.budget), "seeds": self.options.budget.seeds, "side": SIDE},
            "samples_seen": self.options.budget.steps * self.options.budget.batch,
            "questions": len(self.questions.images),
            "chance": round(1 / len(self.questions.images), 5),
            "ties": list(self.options.ties),
            "largest_cluster": int(np.bincount(self.cluster).max()),
            "held_out": int(self.verdicts.rows.height - self.arms.trainable.sum()),
            "notes": self.notes,
            "main": self._main(),
        }
        if "sizes" in parts:
            told["sizes"] = self._sizes()
        told["stages"] = [self._stage(s) for s in self.stages]
        if "style" in parts and self.styled is not None:
            told["style"] = self._style(arms.styles())
        told["diversity"] = self._diversity()
        return told

    def _main(self) -> dict[str, Any]:
        arms = self.arms
        ceiling = arms.oracle or arms.curated
        room = self.gain(ceiling, arms.raw)
        chance = 1 / len(self.questions.images)
        raw, curated = self.recall(arms.raw), self.recall(arms.curated)
        above = all(self.recall(a) > 3 * chance for a in (arms.raw, ceiling))
        told = [arms.raw, arms.small, arms.mended, arms.curated, *([arms.oracle] if arms.oracle else [])]
        against = {"raw": arms.raw, "raw, as few": arms.small, "mended": arms.mended}
        verdict = "INVALID: baseline and ceiling are within noise of each other"
        if not above:
            verdict = "INVALID: an arm is at chance; give more --steps"
        elif room.proven:
            verdict = self.gain(arms.curated, arms.raw).describe()["verdict"]
        return {
            "arms": [self.tell(a) for a in told],
            "curated_less": {name: self.gain(arms.curated, arm).describe() for name, arm in against.items()},
            "ceiling_less_raw": room.describe(),
            "ratio": round(curated / raw, 3) if raw else None,
            "pairs_share": round(arms.curated.pairs / arms.raw.pairs, 4),
            "verdict": verdict,
        }

    def _sizes(self) -> dict[str, Any]:
        arms = self.arms
        part = list(arms.sizes())
        curves = {}
        for whole in (arms.raw, arms.curated):
            own = [*(a for a in part if a.name.startswith(f"{whole.name} ")), whole]
            curves[whole.name] = [self.tell(a) for a in own]
        curve = curves["curated"]
        needed = pairs_to_match([p["pairs"] for p in curve], [p["r1"] for p in curve], self.recall(arms.raw))
        return {
            "curves": curves,
            "pairs_to_match_raw": None if needed is None else round(needed),
            "at_most": needed is not None and round(needed) == curve[0]["pairs"],
            "raw_pairs": arms.raw.pairs,
        }

    def _stage(self, stage: StageArms) -> dict[str, Any]:
        told: dict[str, Any] = {
            "stage": stage.name,
            "dropped_alone": stage.dropped,
            "only_it_drops": int(stage.lone.sum()),
            "seconds": self.verdicts.told["stages"].get(stage.name, {}).get("seconds"),
        }
        if self.arms.truth is not None and stage.lone.any():
            told["planted_share"] = round(float((~self.arms.truth.right)[stage.lone].mean()), 4)
        if stage.without and stage.without_control:
            told["leave_out"] = {
                **self.tell(stage.without),
                "gain": self.gain(self.arms.curated, stage.without).describe(),
                "over_random": self.gain(self.arms.curated, stage.without_control).describe(),
                "random": self.tell(stage.without_control),
            }
        if stage.only and stage.only_control:
            told["add_in"] = {
                **self.tell(stage.only),
                "gain": self.gain(stage.only, self.arms.raw).describe(),
                "over_random": self.gain(stage.only, stage.only_control).describe(),
                "random": self.tell(stage.only_control),
            }
        if cost := _cost(told):
            told["seconds_per_point"] = cost
        return told

    def _style(self, arms: Sequence[Arm]) -> dict[str, Any]:
        own = arms[0]
        return {
            "questions": len(self.styled.images) if self.styled else 0,
            "arms": [
                {
                    "arm": a.name,
                    "pairs": a.pairs,
                    **{style: round(self.recall(a, 1, style), 4) for style in ("original", "synthetic")},
                    **{f"{style}_gain": self.gain(a, own, style).describe() for style in ("original", "synthetic")},
                }
                for a in arms
            ],
        }

    def _diversity(self) -> dict[str, Any]:
        arms, rows = self.arms, self.verdicts.rows
        chosen = [arms.raw, arms.curated, *([arms.oracle] if arms.oracle else [])]
        known = diversity.concepts(pl.Series(arms.oracle.captions if arms.oracle else arms.raw.captions))
        told = []
        for arm in chosen:
            one = {"arm": arm.name, **diversity.describe(rows[arm.rows.tolist()], arm.captions, self.cluster[arm.rows])}
            held = diversity.concepts(pl.Series(arm.captions))
            one["concepts"] = len(held)
            one["concept_coverage"] = round(len(held & known) / len(known), 4) if known else None
            told.append(one)
        dropped = pl.Series(~self.verdicts.as_kept)
        return {
            "sets": told,
            "concepts_of": "oracle" if arms.oracle else "raw",
            "scores": {
                "kept": diversity.histogram(rows["score"].filter(~dropped)),
                "dropped": diversity.histogram(rows["score"].filter(dropped)),
            },
        }


def study(run: str, options: Options, progress: Progress | None = None, workers: int = 1) -> dict[str, Any]:
    """Train, judge, and write value.json and value.html into ``run``; returns what value.json holds.

    The run's report is written anew: it shows what each stage bought and links the page. ``workers`` processes train;
    what they find is the same for any number of them.
    """
    from ..export.report import write_report
    from .value_page import page

    made = Study.of(run, options)
    if workers > 1:
        _train_beside(run, options, workers)
    made.train(progress)
    told = made.findings()
    text = json.dumps(told, ensure_ascii=False, indent=1, allow_nan=False) + "\n"
    files.write_bytes(files.join(run, "value.json"), text.encode())
    files.write_bytes(files.join(run, "value.html"), page(told).encode())
    if files.exists(files.join(run, "report.html")):
        write_report(run)
    return told


def _train_beside(run: str, options: Options, workers: int) -> None:
    """Train with several processes: each takes every so-manieth arm and leaves its points on record."""
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        for done in [pool.submit(_share, run, options, i, workers) for i in range(workers)]:
            done.result()


def _share(run: str, options: Options, worker: int, workers: int) -> None:
    made = Study.of(run, options)
    for seed in range(options.budget.seeds):
        for arm in made.all_arms()[worker::workers]:
            made.point(arm, seed)


def _clusters(rows: pl.DataFrame, options: Options) -> Any:
    from .value_split import clusters

    return clusters(rows, [t for t in options.ties if t != "page"])


def _cost(told: dict[str, Any]) -> float | None:
    """Seconds of the stage per point of R@1 that it gained over leaving it out; None where no gain is proven."""
    gain = told.get("leave_out", {}).get("gain")
    if not gain or gain["verdict"] != "gain" or not told["seconds"]:
        return None
    return round(float(told["seconds"]) / (100 * float(gain["mean"])), 3)


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
