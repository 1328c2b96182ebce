"""The arms of a study: which pairs of a run each trains on, and with which captions.

    raw          everything that has a picture, captions as found
    mended       the same pairs with the captions that ship: what the stages' edits bought, apart from their verdicts
    curated      what the run kept
    oracle       what is right by the labels of planted faults, where there are labels
    half …       1/8, 1/4 and 1/2 of raw and of curated, drawn at random
    without S    what the run would have kept without stage S; its control drops as many of them at random
    only S       what stage S alone leaves of raw; its control drops as many of raw at random
    original, synthetic, both    curated pairs that have a synthetic caption, with either caption or both

A control has the size of what it stands beside, so that a gain by fewer, better pairs is told from one by size.
Edits are not undone when a stage is left out: captions stay as the run mended them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from ...pipeline.errors import InputError
from ...pipeline.finish import REMOVED
from .points import Rows
from .subsets import Mask, Verdicts

FRACTIONS = (0.125, 0.25, 0.5)
LEAST = 0.02
"""Share of the pairs that a stage must decide on for its arm to be trained: less cannot show in a few trainings."""


@dataclass(frozen=True)
class Arm:
    """``rows`` of the ledger with their ``captions``, as many; a random ``draw`` of them for each seed where given."""

    name: str
    rows: Rows
    captions: list[str]
    draw: int | None = None
    style: bool = False
    """Judged on the held-out pairs that have a synthetic caption, by both captions."""

    @property
    def pairs(self) -> int:
        """How many pairs it trains on."""
        return len(self.rows) if self.draw is None else self.draw

    def drawn(self, seed: int) -> tuple[Rows, list[str]]:
        """The rows and captions to train on with this seed."""
        if self.draw is None:
            return self.rows, self.captions
        # Another stream than that of the batches, which the seed alone begins.
        chosen = np.sort(np.random.default_rng((seed, self.draw)).choice(len(self.rows), self.draw, replace=False))
        return self.rows[chosen], [self.captions[i] for i in chosen]

    def of(self, draw: int, name: str) -> Arm:
        """A random part of it under another name."""
        return replace(self, draw=min(draw, len(self.rows)), name=name)


@dataclass(frozen=True)
class Truth:
    """What was planted, per row of the ledger: whether the pair is ``right`` and the caption it should ship with."""

    right: Mask
    captions: pl.Series

    @classmethod
    def read(cls, path: str, rows: pl.DataFrame) -> Truth:
        """From labels.jsonl of a sample crawl: image_url, caption_raw, status and shipped per pair."""
        try:
            labels = pl.read_ndjson(path, schema_overrides={"shipped": pl.String})
            labels = labels.group_by("image_url", "caption_raw").agg(
                right=(pl.col("status") == "kept").any(), shipped=pl.col("shipped").first()
            )
        except (OSError, pl.exceptions.PolarsError) as error:
            raise InputError(
                f"--truth {path}: {error}; expected jsonl with image_url, caption_raw, status and shipped, "
                "like labels.jsonl of `curate sample`"
            ) from None
        joined = rows.select("image_url", "caption_raw").join(
            labels, on=["image_url", "caption_raw"], how="left", maintain_order="left"
        )
        if joined["right"].null_count() > 0.5 * rows.height:
            raise InputError(
                f"--truth {path}: labels {rows.height - joined['right'].null_count()} of the run's {rows.height} "
                "pairs; is it of another sample?"
            )
        captions = joined.select(pl.coalesce("shipped", "caption_raw")).to_series()
        return cls(joined["right"].fill_null(False).to_numpy(), captions)


@dataclass(frozen=True)
class StageArms:
    """A stage's arms; ``lone`` (n,) are the trainable pairs that no other stage would have dropped.

    An arm is None where the stage decides on too few pairs to show.
    """

    name: str
    dropped: int
    lone: Mask
    without: Arm | None
    without_control: Arm | None
    only: Arm | None
    only_control: Arm | None

    def arms(self) -> Iterator[Arm]:
        """Those that are there."""
        yield from (a for a in (self.without, self.without_control, self.only, self.only_control) if a is not None)


class Arms:
    """All arms over one run; ``trainable`` (n,) are the pairs with a picture that are not held out."""

    def __init__(self, verdicts: Verdicts, trainable: Mask, truth: Truth | None = None) -> None:
        rows = verdicts.rows
        self.verdicts, self.truth = verdicts, truth
        gone = (pl.col("stage") == REMOVED) | pl.col("caption_raw").str.strip_chars().eq("")
        self.trainable = trainable & ~rows.select(gone.fill_null(False)).to_series().to_numpy()
        self.found = rows["caption_raw"]
        self.shipped = rows.select(pl.coalesce("caption", "caption_raw")).to_series()
        self.raw = self.make("raw", np.ones(rows.height, np.bool_), self.found)
        self.mended = self.make("mended", np.ones(rows.height, np.bool_), self.shipped)
        self.curated = self.make("curated", verdicts.as_kept, self.shipped)
        self.small = self.raw.of(self.curated.pairs, "raw, as few")
        self.oracle = None
        if truth is not None:
            once = rows["key"].is_first_distinct().to_numpy()
            self.oracle = self.make("oracle", truth.right & once, truth.captions)

    def make(self, name: str, chosen: Mask, captions: pl.Series) -> Arm:
        """The trainable ones of ``chosen``."""
        at = np.flatnonzero(chosen & self.trainable)
        return Arm(name, at, captions.gather(at).to_list())

    def sizes(self) -> Iterator[Arm]:
        """Raw and curated at fractions of their sizes."""
        for whole in (self.raw, self.curated):
            for share in FRACTIONS:
                yield whole.of(max(1, round(share * whole.pairs)), f"{whole.name} {share:.1%}")

    def stage(self, name: str) -> StageArms:
        """Leave ``name`` out and add it in, each beside a random drop of equal size."""
        left_out, alone = self.verdicts.without(name), self.verdicts.alone(name)
        without = self.make(f"without {name}", left_out.kept, left_out.captions)
        only = self.make(f"only {name}", alone.kept, self.found)
        lone = left_out.kept & ~self.verdicts.as_kept & self.trainable
        dropped = self.raw.pairs - only.pairs
        shows = lone.sum() >= LEAST * self.curated.pairs
        adds = dropped >= LEAST * self.raw.pairs
        return StageArms(
            name,
            dropped,
            lone,
            without if shows else None,
            without.of(self.curated.pairs, f"without {name}, random") if shows else None,
            only if adds else None,
            self.raw.of(only.pairs, f"only {name}, random") if adds else None,
        )

    def styles(self) -> list[Arm]:
        """Curated pairs that have a synthetic caption: with their own, with that one, with both."""
        synthetic = self.verdicts.rows["caption_synthetic"]
        both = self.verdicts.as_kept & synthetic.is_not_null().to_numpy()
        own, made = self.make("original", both, self.shipped), self.make("synthetic", both, synthetic)
        mixed = Arm("both", np.concatenate([own.rows, made.rows]), own.captions + made.captions)
        return [replace(a, style=True) for a in (own, made, mixed)]
