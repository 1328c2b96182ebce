"""Nearest neighbours by the vectors that ``score`` kept (``embeddings: true``), or that ``curate browse --embed`` made.

Exact: the cosine of the query with every vector, which at a million is a second's work and needs no index.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from ...pipeline import files
from ...scoring.blocks import Embeddings
from ...scoring.scorer import Scorer
from .pictures import Pictures
from .table import Rows, Table

MADE = "embeddings.parquet"
"""Vectors made afterwards, beside the ledger: unit, ordinal, image_embedding, caption_embedding."""
KINDS = ("image", "caption")
_BLOCK = 1 << 15
"""Vectors widened to single precision at once: 64 MB at 512 dimensions."""


@dataclass(frozen=True)
class Vectors:
    """``halves`` (n, d) of unit length, 16-bit floats, and the ledger ``rows`` (n,) they belong to, ascending."""

    rows: Rows
    halves: npt.NDArray[np.float16]

    def cosines(self, query: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """(n,) cosine of each vector with ``query`` (d,)."""
        import torch  # widens half floats five times as fast as numpy

        out = np.empty(len(self.halves), np.float32)
        # One buffer for all blocks: asking the system for fresh memory would cost more than the product.
        wide = torch.empty((min(_BLOCK, len(out)), len(query)))
        for start in range(0, len(out), _BLOCK):
            block = wide[: len(out) - start]
            block.copy_(torch.from_numpy(self.halves[start : start + _BLOCK]))
            np.matmul(block.numpy(), query, out=out[start : start + _BLOCK])
        return out

    def of(self, row: int) -> npt.NDArray[np.float32] | None:
        """(d,) the vector of a ledger row, if it has one."""
        at = int(np.searchsorted(self.rows, row))
        return self.halves[at].astype(np.float32) if at < len(self.rows) and self.rows[at] == row else None


def load(run: str, table: Table, kind: str) -> Vectors | None:
    """The vectors of ``kind`` (image or caption) that the run holds; None where it holds none."""
    column = f"{kind}_embedding"
    if column not in table.names:
        return None
    held = table.lazy.select(column).with_row_index("row").drop_nulls(column).collect()
    made = files.join(run, MADE)
    if not held.height and files.exists(made):
        places = table.lazy.select("unit", "ordinal").with_row_index("row")
        extra = files.read_parquet(made, ["unit", "ordinal", column]).lazy()
        held = places.join(extra, on=["unit", "ordinal"]).select("row", column).sort("row").collect()
    if not held.height:
        return None
    return Vectors(held["row"].cast(pl.Int64).to_numpy(), matrix(held[column]))


def matrix(vectors: pl.Series) -> npt.NDArray[np.float16]:
    """(n, d) of a column of n byte strings, one vector each, without a copy of each."""
    array = vectors.rechunk().to_arrow().cast(pa.large_binary())
    flat = np.concatenate([_flat(chunk) for chunk in (array.chunks if isinstance(array, pa.ChunkedArray) else [array])])
    return flat.reshape(len(vectors), -1)


def _flat(array: pa.LargeBinaryArray) -> npt.NDArray[np.float16]:
    _, offsets, data = array.buffers()
    ends = np.frombuffer(offsets, np.int64)[array.offset : array.offset + len(array) + 1]
    return np.frombuffer(data, "<f2", count=(ends[-1] - ends[0]) // 2, offset=int(ends[0]))


def embed(run: str, table: Table, pictures: Pictures, scorer: Scorer, step: int = 256) -> Iterator[tuple[int, int]]:
    """Make the vectors of the kept pairs with the run's scorer and publish them; yields (done, of) as it goes."""
    rows = table.facet({"status": "kept"})
    made: list[pl.DataFrame] = []
    for start in range(0, len(rows), step):
        some = table.read(rows[start : start + step], ["unit", "ordinal", "key", "shard", "stage", "caption"])
        bodies = [pictures.bytes_of(row) for row in some.iter_rows(named=True)]
        some = some.filter(pl.Series([b is not None for b in bodies], dtype=pl.Boolean))
        images = scorer.embed_images([b for b in bodies if b is not None])
        captions = scorer.embed_texts(some["caption"].to_list())
        made.append(
            some.select("unit", "ordinal").with_columns(
                image_embedding=_column(images), caption_embedding=_column(captions)
            )
        )
        yield min(start + step, len(rows)), len(rows)
    if made:
        files.write_parquet(files.join(run, MADE), pl.concat(made))


def _column(values: Embeddings) -> pl.Series:
    return pl.Series([row.tobytes() for row in values.astype("<f2")], dtype=pl.Binary)


def best(values: npt.NDArray[np.float32], among: Rows, most: int) -> Rows:
    """The ``most`` of the places ``among`` with the largest values, best first, the smaller place on a tie."""
    chosen = values[among]
    if len(among) > most:
        # All that reach the value of the last place stay, so that ties are told by place and not by chance.
        bound = np.partition(chosen, len(chosen) - most)[len(chosen) - most]
        among = among[chosen >= bound]
    return among[np.lexsort((among, -values[among]))[:most]]
