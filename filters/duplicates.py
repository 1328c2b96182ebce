"""Pair duplicates: image near-identical *and* caption near-identical.

Text-only removal deletes good pairs (16 % of the human captions of Flickr8k-CN repeat another
word for word, mostly on other photos), image-only removal deletes good captions. Here a pair goes
only where both match one that stays:

- image: perceptual hashes at most ``image_bits`` of 64 apart and the same layout (``image_grid``), fewer
  bits where the layout is not known and where many pairs share the caption;
- caption: equal after folding, or character bigrams alike, or one with a suffix; and no contrast.

Rows that match form components that a garbled caption cannot bridge (``cautious``). Of each the row with
the highest score stays (none counts lowest), then the one with the most pixels, then the smallest key,
then the smallest origin; but before all, one that an earlier run put into the index.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import product
from typing import ClassVar

import numpy as np
import polars as pl
from pydantic import Field

from ..pipeline.columns import with_missing
from ..pipeline.index import indexed
from ..pipeline.stage import Phase, StageModel
from .candidates import all_pairs, allowed_bits, table_pairs
from .cautious import cautious_components
from .components import components
from .contrast import telling
from .image_grid import (
    BYTES,
    CHROMA,
    FRAMED_CHROMA,
    LUMA_RMS,
    SAME_WORDS_RMS,
    Grids,
    same_layout,
    turned_round,
)
from .minhash import PERMUTATIONS, sign_column
from .near_captions import CaptionRule, Flags
from .partitions import by_partition, key_number
from .shingles import I64, U32, U64, Folded, fold_column, mix64

CHUNK = 1 << 16
GRIDS = ("image_grid", "image_grid_inside")
RANK = ("score", "pixels", "key", "origin")


class PairDuplicates(StageModel):
    """Drops a pair whose image and caption both match a better pair's."""

    name: ClassVar[str] = "pair_duplicates"
    adds: ClassVar[tuple[str, ...]] = ("duplicate_of", "duplicate_kind")
    phase: ClassVar[Phase] = "relate"
    reads: ClassVar[tuple[str, ...]] = (
        *("caption", "phash", "phash_mirrored", "phash_inside", "image_grid", "image_grid_inside"),
        *("score", "width", "height", "duplicate_of"),
    )

    image_bits: int = Field(
        14,
        ge=0,
        le=20,
        description="bits of the 64-bit image hash that may differ where the layouts agree as well; re-encoding, "
        "resizing, brightness and a small watermark move 0 to 6, a crop of 5 % up to 14 (measured)",
    )
    hash_bits: int = Field(
        8,
        ge=0,
        le=16,
        description="the same where a pair carries no layout; of 179,700 pairs of photos 3 are within 14 (measured)",
    )
    jaccard: float = Field(
        0.7,
        ge=0.4,
        le=1,
        description="least Jaccard similarity of the captions' character bigrams (0.7 is the default of most "
        "MinHash tools); below, the two changed characters or the suffix must explain the difference",
    )
    edits: int = Field(2, ge=0, le=2, description="characters that may differ (1 from 5 characters on, 2 from 10 on)")
    affix: float = Field(
        0.4,
        gt=0,
        le=1,
        description="least share of the longer caption, where it begins or ends with the shorter one",
    )
    contrast: bool = Field(
        True, description="keep both where the captions differ in a number, colour, side, sex, size or season"
    )

    mirrored: bool = Field(False, description="a picture and its mirror image are one; about twice the candidates")
    index: str = Field("", description="directory of an index; pairs that match one it holds are dropped as well")

    def rule(self) -> CaptionRule:
        """The caption side of the rule."""
        return CaptionRule(self.jaccard, self.affix, self.edits, self.contrast)

    def relate(self, rows: pl.DataFrame) -> pl.DataFrame:
        """``rows`` with duplicate_of, duplicate_kind and detail for those that go; any order in, the same out.

        Rows without a candidate never move: only the others are laid out in order of key and settled.
        """
        rows = with_missing(rows, self.reads).with_row_index("_at")
        order = key_order(rows)
        a, b = self.pairs(rows, order)
        places, at = np.unique(np.concatenate([a, b]), return_inverse=True)
        settled = self.settle(rows[order[places]], at[: len(a)], at[len(a) :])
        told = settled.select("_at", "duplicate_of", "duplicate_kind", _told="detail")
        return (
            rows.drop("duplicate_of", "duplicate_kind", strict=False)
            .join(told, on="_at", how="left", maintain_order="left")
            .with_columns(detail=pl.coalesce("_told", "detail"))
            .drop("_at", "_told")
        )

    def pairs(self, rows: pl.DataFrame, order: I64) -> tuple[I64, I64]:
        """Candidate pairs (a, b), a < b, as places in ``order``, the row numbers of ``rows`` in order of key."""
        signed, text = sign_column(rows["caption"])
        shown = np.flatnonzero(rows["phash"].is_not_null().to_numpy())
        bits = np.zeros(rows.height, dtype=np.uint32)
        bits[shown] = self.bits(text[shown], rows["image_grid"].is_not_null().to_numpy()[shown])
        views = [(c, order[np.flatnonzero(rows[c].is_not_null().to_numpy()[order])]) for c in self.views()]
        taken = np.concatenate([rows_of for _, rows_of in views])
        image = np.concatenate([rows[c].gather(rows_of).to_numpy() for c, rows_of in views])
        a, b = all_pairs((values[taken] for values in signed), len(signed), image, bits[taken])
        place = np.empty(rows.height, dtype=np.int64)
        place[order] = np.arange(rows.height)
        return distinct_pairs(place[taken[a]], place[taken[b]])

    def views(self) -> tuple[str, ...]:
        """The columns of hashes under which a picture is looked for."""
        return ("phash", "phash_inside", "phash_mirrored") if self.mirrored else ("phash", "phash_inside")

    @property
    def entries_per_row(self) -> int:
        """One per table of signatures."""
        return PERMUTATIONS

    def spread(self, rows: pl.DataFrame, partitions: int) -> Iterator[tuple[int, pl.DataFrame]]:
        """For a run on many machines: entries of ``rows`` (with ``node``), by partition.

        What ``pairs`` sorts as a whole falls into partitions by table and signature value; ``meet`` finds
        in each what ``pairs`` finds in all.
        """
        hashed = with_missing(rows, self.reads).filter(pl.col("phash").is_not_null())
        signed, text = sign_column(hashed["caption"])
        entries = hashed.select("node", key_number(), *self.views(), pl.col("image_grid").is_not_null()).with_columns(
            text=pl.Series(text, dtype=pl.UInt64)
        )
        tables = (
            entries.with_columns(table=pl.lit(table, pl.UInt8), value=pl.Series(values))
            for table, values in enumerate(signed)
        )
        to = [
            mix64(values.astype(np.uint64) + np.uint64(table << 32)) % np.uint64(partitions)
            for table, values in enumerate(signed)
        ]
        return by_partition(pl.concat(tables), np.concatenate(to))

    def meet(self, entries: pl.DataFrame) -> tuple[U64, U64]:
        """Nodes (a, b) of the candidate pairs of one partition."""
        found = []
        for (table,), rows in entries.sort("table", "key", "node").group_by("table", maintain_order=True):
            bits = pl.Series(self.bits(rows["text"].to_numpy(), rows["image_grid"].to_numpy()))
            views = [rows.select("node", "value", image=c).with_columns(bits=bits).drop_nulls() for c in self.views()]
            seen = pl.concat(views)
            value, image, allowed, node = (seen[c].to_numpy() for c in ("value", "image", "bits", "node"))
            a, b = table_pairs(int(str(table)), PERMUTATIONS, value, image, allowed)
            found.append(distinct_pairs(node[a], node[b]))
        return np.concatenate([f[0] for f in found]), np.concatenate([f[1] for f in found])

    def settle(self, rows: pl.DataFrame, a: I64, b: I64) -> pl.DataFrame:
        """``rows``, in order of key, with verdicts: candidates (a, b) are verified, the best of a group stays."""
        nodes, at = np.unique(np.concatenate([a, b]), return_inverse=True)
        folded = fold_column(rows["caption"].gather(nodes))
        left, right = at[: len(a)], at[len(a) :]
        text = folded.text_hash()
        good = layouts_agree(rows, a, b, text[left] == text[right], self.mirrored)
        left, right = left[good], right[good]
        good = self.rule().near(folded, left, right, text)
        label = np.arange(rows.height)
        label[nodes] = nodes[self.groups(folded, left[good], right[good])]
        return mark(rows, pl.Series(label), "pair")

    def groups(self, folded: Folded, a: I64, b: I64) -> I64:
        """(captions,) the component of each caption's row under the edges ``a``, ``b``, as its smallest row."""
        rows = len(folded.starts) - 1
        return cautious_components(rows, a, b, telling(folded)) if self.contrast else components(rows, a, b)

    def bits(self, text: U64, with_grid: Flags) -> U32:
        """(rows,) how far each row's image may be from another's; ``text`` are the rows' caption hashes."""
        _, at, counts = np.unique(text, return_inverse=True, return_counts=True)
        shared = counts[at]
        return np.where(with_grid, allowed_bits(shared, self.image_bits), allowed_bits(shared, self.hash_bits))

    def reasons(self) -> Mapping[str, pl.Expr]:
        return {"pair_duplicate": pl.col("duplicate_kind") == "pair"}


def distinct_pairs(a: I64, b: I64) -> tuple[I64, I64]:
    """The pairs of two different rows, each once, the smaller number first."""
    pairs = pl.DataFrame({"a": np.minimum(a, b), "b": np.maximum(a, b)})
    pairs = pairs.filter(pl.col("a") != pl.col("b")).unique().sort("a", "b")
    return pairs["a"].to_numpy(), pairs["b"].to_numpy()


def layouts_agree(rows: pl.DataFrame, a: I64, b: I64, same_words: Flags, mirrored: bool = False) -> Flags:
    """(pairs,) whether the layouts of rows ``a`` and ``b`` agree: of the whole or of what plain borders hold.

    ``same_words`` says which pairs have one caption; their layouts must agree better.
    Where ``mirrored``, also turned round. True where one of them has no layout.
    """
    out: Flags = np.ones(len(a), dtype=np.bool_)
    for first in range(0, len(a), CHUNK):
        one, other = rows[a[first : first + CHUNK]], rows[b[first : first + CHUNK]]
        most = np.where(same_words[first : first + CHUNK], SAME_WORDS_RMS, LUMA_RMS).astype(np.float32)
        agree = (one["image_grid"].is_null() | other["image_grid"].is_null()).to_numpy().copy()
        for left, right in product(GRIDS, GRIDS):
            todo = np.flatnonzero((one[left].is_not_null() & other[right].is_not_null()).to_numpy() & ~agree)
            ours, theirs = _matrix(one[left].gather(todo)), _matrix(other[right].gather(todo))
            chroma = CHROMA if left == right == GRIDS[0] else FRAMED_CHROMA
            same = same_layout(ours, theirs, chroma, most[todo])
            if mirrored:
                same |= same_layout(ours, turned_round(theirs), chroma, most[todo])
            agree[todo] = same
        out[first : first + CHUNK] = agree
    return out


def _matrix(grid: pl.Series) -> Grids:
    return np.frombuffer(b"".join(grid.to_list()), dtype=np.uint8).reshape(-1, BYTES)


def mark(rows: pl.DataFrame, group: pl.Series, kind: str, most: int = 1) -> pl.DataFrame:
    """``rows`` with duplicate_of, duplicate_kind and detail on all but the best ``most`` rows of each ``group``."""
    several = (group.is_duplicated()).arg_true()
    few = with_missing(rows[several], ("unit", "duplicate_of", *RANK[:1]))
    ranked = few.select(
        several.alias("_row"),
        *("score", "key", "origin"),
        pixels=_pixels(),
        group=group.gather(several),
        held=indexed(),
        copy=pl.col("duplicate_of").is_not_null(),
    )
    order = ranked.filter(pl.len().over("group") > most).sort(
        ~pl.col("held"),
        "copy",
        pl.col("score").fill_null(float("-inf")).fill_nan(float("-inf")),
        *RANK[1:],
        descending=[False, False, True, True, False, False],
    )
    best = order.unique("group", keep="first", maintain_order=True).select(
        "group", *(pl.col(c).alias(f"best_{c}") for c in (*RANK, "held"))
    )
    place = pl.int_range(pl.len()).over("group")
    gone = order.filter(place >= most).join(best, on="group")
    told = gone.select("_row", "best_key", why=why_it_stays())
    return (
        rows.with_row_index("_row")
        .join(told, on="_row", how="left", maintain_order="left")
        .with_columns(
            duplicate_of=pl.col("best_key"),
            duplicate_kind=pl.when(pl.col("best_key").is_not_null()).then(pl.lit(kind)),
            detail=pl.coalesce("why", "detail"),
        )
        .drop("_row", "best_key", "why")
    )


def key_order(rows: pl.DataFrame) -> I64:
    """Row numbers in order of key, then origin; by the first half of keys of 32 hex digits where that decides."""
    lead = rows["key"].str.head(16).str.to_integer(base=16, dtype=pl.UInt64, strict=False)
    order = lead.arg_sort()
    sure = rows.height and rows["key"].str.len_bytes().min() == 32 and not lead.null_count()
    if not sure or (lead.gather(order).diff() == 0).any():
        order = rows.select(pl.arg_sort_by("key", "origin")).to_series()
    return order.cast(pl.Int64).to_numpy()


def _pixels() -> pl.Expr:
    return (pl.col("width").cast(pl.UInt64) * pl.col("height")).fill_null(0)


def why_it_stays() -> pl.Expr:
    """A sentence that says which row stays and what decided: score, pixels, key or origin."""
    score, best = pl.col("score").fill_nan(None), pl.col("best_score").fill_nan(None)
    return (
        pl.when(pl.col("best_held"))
        .then(pl.format("{} stays: an earlier run kept it", "best_origin"))
        .when(best.is_not_null() & score.is_null())
        .then(pl.format("{} stays: it has a score", "best_origin"))
        .when(best > score)
        .then(pl.format("{} stays: score {} > {}", "best_origin", best.round(4), score.round(4)))
        .when(pl.col("best_pixels") > pl.col("pixels"))
        .then(pl.format("{} stays: {} > {} pixels", "best_origin", "best_pixels", "pixels"))
        .when(pl.col("best_key") < pl.col("key"))
        .then(pl.format("{} stays: equal score and pixels, smaller key", "best_origin"))
        .otherwise(pl.format("{} stays: equal but for the origin", "best_origin"))
    )
