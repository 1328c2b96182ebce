"""The emit phase: kept pairs to shards, every pair to the ledger.

Neither rows nor bytes travel: a unit lays its kept rows out by shard (``<unit>.kept``, a deflated Arrow stream each)
and sends references of a few bytes; the shard's element reads its streams, and the bytes from the part
files, a slice at a time. So memory follows the size of a shard and not of the run. Each output file is
written by exactly one element: a shard and its ledger rows by the shard's element, the rows of dropped and
failed pairs by their unit's.
"""

from __future__ import annotations

import hashlib
import io
import json
import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from functools import cache
from typing import IO, Any

import apache_beam as beam
import polars as pl
from apache_beam.metrics import Metrics

from ..export.shards import sample_jsons, write_shard
from . import beam_run, files
from .columns import LEDGER_SCHEMA, with_missing, without
from .measure import SLICE_ROWS
from .stage import StageModel, Tally, apply_stage

PLACE = tuple[str, int, int]
"""Where rows of a shard are: a unit, and offset and length in its ``.kept`` file."""

ROUTED = tuple[str, PLACE]
KEPT = ".kept"


@dataclass(frozen=True)
class EmitOptions:
    """Where things are and how kept pairs are laid out.

    ``shards`` is split name to number of shards, ``first`` the number of each split's first (0 where it is
    not told). ``bytes_from`` is the folder that holds the bytes (a replay reads those of the run it came
    from); None writes the ledger alone, with no stage run.
    """

    out: str
    parts: str
    bytes_from: str | None
    shards: dict[str, int]
    seed: int
    first: Mapping[str, int] = field(default_factory=dict)

    def shard_name(self, split: str, key: str) -> str:
        """The shard of a pair: a keyed hash of its key, so that it is the same on every runner."""
        digest = hashlib.blake2b(key.encode(), digest_size=8, key=self.seed.to_bytes(8, "big", signed=True)).digest()
        number = int.from_bytes(digest, "big") % self.shards[split] + self.first.get(split, 0)
        return f"{split}-{number:06d}.tar"


def emit(units: Sequence[str], stages: list[StageModel], options: EmitOptions, beam_options: Any) -> None:
    """Write all shards and the ledger."""
    beam_run.run(
        "emit",
        lambda p: (
            p
            | "Units" >> beam.Create(list(units), reshuffle=True)
            | "Route" >> beam.ParDo(RouteRows(options)).with_output_types(ROUTED)
            | "ByShard" >> beam.GroupByKey()
            | "Write" >> beam.ParDo(WriteShard(stages, options))
        ),
        beam_options,
    )


def unit_rows(unit: str, options: EmitOptions) -> pl.DataFrame:
    """All rows of a unit with the verdicts of the relate phase written over those of the measure phase."""
    rows = files.read_parquet(files.join(options.parts, f"{unit}.parquet"))
    related = files.read_parquet(files.join(options.parts, f"{unit}.relate.parquet"))
    if rows.height != related.height:
        raise ValueError(f"unit {unit}: {rows.height} rows measured, {related.height} related")
    own = [c for c in related.columns if c not in ("unit", "ordinal")]
    rows = rows.drop(own, strict=False).join(related.drop("unit"), on="ordinal", how="left", maintain_order="left")
    return with_missing(rows, tuple(LEDGER_SCHEMA))


class RouteRows(beam.DoFn):
    """Writes the ledger of a unit's dropped and failed pairs; sends the kept ones to their shards."""

    def __init__(self, options: EmitOptions) -> None:
        self.options = options

    def process(self, unit: str) -> Iterator[ROUTED]:
        rows = unit_rows(unit, self.options)
        done, kept = rows.filter(pl.col("status").is_not_null()), rows.filter(pl.col("status").is_null())
        if done.height:
            files.write_parquet(files.join(self.options.out, "ledger", f"dropped-{unit}.parquet"), _ledger(done))
        if not kept.height:
            return
        shards = [self.options.shard_name(s, k) for s, k in zip(kept["split"], kept["key"], strict=True)]
        kept = kept.with_columns(shard=pl.Series(shards, dtype=pl.String))
        places = []
        with files.publish(files.join(self.options.parts, f"{unit}{KEPT}")) as path, path.open("wb") as handle:
            for (shard,), group in kept.group_by("shard", maintain_order=True):
                start = handle.tell()
                handle.write(pack(group))
                places.append((str(shard), (unit, start, handle.tell() - start)))
        yield from places


def read_kept(place: PLACE, options: EmitOptions) -> pl.DataFrame:
    """Rows that ``RouteRows`` laid out for one shard."""
    unit, start, length = place
    with files.open_read(files.join(options.parts, f"{unit}{KEPT}")) as handle:
        handle.seek(start)
        return unpack(handle.read(length))


def pack(rows: pl.DataFrame) -> bytes:
    """Ledger rows as a deflated Arrow stream.

    In a large run a unit has one row for a shard, and an Arrow stream of one row is 16 kB of schema and padding.
    Deflated with what all such streams have in common as a dictionary it is a twentieth.
    """
    deflate = zlib.compressobj(level=1, zdict=_common())
    return deflate.compress(_stream(rows)) + deflate.flush()


def unpack(data: bytes) -> pl.DataFrame:
    """The rows that ``pack`` was given."""
    return pl.read_ipc_stream(io.BytesIO(zlib.decompressobj(zdict=_common()).decompress(data)))


def _stream(rows: pl.DataFrame) -> bytes:
    buffer = io.BytesIO()
    rows.rechunk().write_ipc_stream(buffer, compression="uncompressed")
    return buffer.getvalue()


@cache
def _common() -> bytes:
    """The stream of one row of nulls: what deflate may refer to, at most its window of 32 kB."""
    return _stream(pl.DataFrame([pl.Series(c, [None], dtype=d) for c, d in LEDGER_SCHEMA.items()]))[-32768:]


class WriteShard(beam.DoFn):
    """Reads a shard's bytes by reference, runs the emit stages, writes shard and ledger rows."""

    def __init__(self, stages: list[StageModel], options: EmitOptions) -> None:
        self.stages, self.options = stages, options

    def process(self, element: tuple[str, Iterable[PLACE]]) -> Iterator[str]:
        name, places = element
        rows = pl.concat([read_kept(place, self.options) for place in sorted(places)])
        counts = emit_shard(name, rows, self.stages, self.options)
        Metrics.counter("shards", "written").inc()
        for stage, tally in counts.items():
            for word, n in tally.items():
                Metrics.counter(stage, word).inc(int(n))
        yield name


def emit_shard(name: str, rows: pl.DataFrame, stages: list[StageModel], options: EmitOptions) -> dict[str, Tally]:
    """Write one shard and its ledger rows from its rows (in any order); the counts of the emit stages."""
    if options.bytes_from is None:
        kept = rows.sort("key").with_columns(status=pl.lit("kept"), shard=pl.lit(None, dtype=pl.String))
        files.write_parquet(_ledger_file(name, options), _ledger(kept))
        return {}
    folder = options.bytes_from
    counts: dict[str, Tally] = defaultdict(Tally)
    finished: list[pl.DataFrame] = []

    def samples() -> Iterator[tuple[str, bytes, str, dict[str, object]]]:
        with _Parts(folder) as parts:
            ordered = rows.sort("key")
            for start in range(0, ordered.height, SLICE_ROWS):
                piece, images = parts.attach(ordered.slice(start, SLICE_ROWS))
                if stages:
                    piece = piece.hstack([pl.Series("image", images, dtype=pl.Binary)])
                    for stage in stages:
                        piece = apply_stage(stage, piece, counts[stage.name])
                    images, piece = piece["image"].to_list(), without(piece, "image")
                finished.append(piece)
                still = piece["status"].is_null()
                kept = piece if still.all() else piece.filter(still)
                bodies = (image for image, stays in zip(images, still, strict=True) if stays)
                keys, captions = kept["key"].to_list(), kept["caption"].to_list()
                yield from zip(keys, bodies, captions, sample_jsons(kept), strict=True)

    info = write_shard(files.join(options.out, "shards", name), samples())
    gone = pl.col("status").is_not_null()
    ledger = with_missing(pl.concat(finished, how="diagonal_relaxed"), tuple(LEDGER_SCHEMA)).with_columns(
        status=pl.col("status").fill_null("kept"), shard=pl.when(gone).then(None).otherwise("shard")
    )
    files.write_parquet(_ledger_file(name, options), _ledger(ledger))
    told = {"info": asdict(info), "stages": counts}
    files.write_bytes(files.join(options.parts, f"{name}.json"), json.dumps(told).encode())
    return counts


def _ledger_file(shard: str, options: EmitOptions) -> str:
    return files.join(options.out, "ledger", f"{shard.removesuffix('.tar')}.parquet")


def _ledger(rows: pl.DataFrame) -> pl.DataFrame:
    return with_missing(rows, tuple(LEDGER_SCHEMA)).select(list(LEDGER_SCHEMA))


class _Parts:
    """Part files held open while one shard is written."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.stack = ExitStack()
        self.open: dict[str, IO[bytes]] = {}

    def __enter__(self) -> _Parts:
        return self

    def __exit__(self, *exc: object) -> None:
        self.stack.close()

    def attach(self, rows: pl.DataFrame) -> tuple[pl.DataFrame, list[bytes | None]]:
        """``rows`` and their images; a pair whose bytes cannot be read becomes failed, with the cause."""
        images: list[bytes | None] = []
        causes: list[str | None] = []
        for place in zip(rows["part"], rows["offset"], rows["length"], strict=True):
            try:
                images.append(self._read(*place))
                causes.append(None)
            except (OSError, EOFError) as error:
                images.append(None)
                causes.append(f"{type(error).__name__}: {error}")
        if not any(causes):
            return rows, images
        rows = rows.with_columns(_lost=pl.Series(causes, dtype=pl.String))
        bad = pl.col("_lost").is_not_null()
        rows = rows.with_columns(
            status=pl.when(bad).then(pl.lit("failed")).otherwise("status"),
            stage=pl.when(bad).then(pl.lit("emit")).otherwise("stage"),
            reason=pl.when(bad).then(pl.lit("bytes_missing")).otherwise("reason"),
            detail=pl.when(bad).then("_lost").otherwise("detail"),
        )
        return rows.drop("_lost"), images

    def _read(self, part: str | None, offset: int, length: int) -> bytes:
        if part is None:
            raise EOFError("the pair has no image: the recipe needs the decode and jpeg stages before shards")
        if part not in self.open:
            self.open[part] = self.stack.enter_context(files.open_read(files.join(self.folder, f"{part}.tar")))
        handle = self.open[part]
        handle.seek(offset)
        data = handle.read(length)
        if len(data) != length:
            raise EOFError(f"{part}.tar ends at {offset + len(data)}, expected {offset + length}; was it cut short?")
        return data
