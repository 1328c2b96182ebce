"""What the page asks of a run: selections, pages of them, stories, pictures, lists of keys."""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, fields
from functools import cached_property
from threading import Lock
from typing import Any, Generic, TypeVar

import cv2
import numpy as np
import numpy.typing as npt
import polars as pl

from ...filters.image_header import BadImage
from ...filters.images import load as load_image
from ...pipeline import amend, files
from ...pipeline.columns import COLUMNS
from ...pipeline.errors import InputError, TuwenError, UsageError, nearest
from ...pipeline.recipe import from_description
from ...scoring.score import Score
from ...scoring.scorer import Scorer, fingerprint, load_scorer
from ..words import words
from . import vectors
from .pictures import SIZES, Pictures
from .story import SPANS, spans, story, unsafe_test, with_unsafe
from .table import Rows, Table
from .vectors import Vectors

K = TypeVar("K")
V = TypeVar("V")
MOST_PAGE = 200
MOST_NEAR = 10_000
"""Pairs that a search by meaning puts in order; the rest are too far away to look at."""
MOST_TEXT = 1000
"""Characters of a query; no scorer reads as many."""
_SHOWN = (
    *("unit", "ordinal", "key", "status", "stage", "reason", "detail", "split", "shard", "caption_raw", "caption"),
    *("caption_synthetic", "score", "width", "height", "nsfw", "blocklisted", "prompt_margin", "image_url"),
    *("duplicate_of", *SPANS),
)
_LISTED = ("key", "status", "stage", "reason", "split", "score", "caption", "image_url", "origin")


class NotThere(TuwenError):
    """What was asked for is not in this run."""


@dataclass(frozen=True)
class Selection:
    """Which pairs, and in which order. Empty means any.

    ``text``, ``upload`` (what ``keep_image`` returned) or ``like`` (a row's number) put them in order of the cosine
    with the pairs' ``against`` (image or caption); else ``order`` names a column of numbers, with ``-`` in front for
    the largest first, and ``least`` and ``most`` bound it.
    """

    status: str = ""
    stage: str = ""
    reason: str = ""
    split: str = ""
    holding: str = ""
    order: str = ""
    least: str = ""
    most: str = ""
    text: str = ""
    upload: str = ""
    like: str = ""
    against: str = "image"

    @classmethod
    def of(cls, given: dict[str, str]) -> Selection:
        """From the fields of a query; ``UsageError`` for an unknown or an impossible one."""
        known = {f.name for f in fields(cls)}
        if unknown := sorted(given.keys() - known):
            raise UsageError(f"{unknown[0]!r} is no field of a selection; {nearest(unknown[0], known)}")
        made = cls(**given)
        if max(len(made.text), len(made.holding)) > MOST_TEXT:
            raise UsageError(f"the text has {max(len(made.text), len(made.holding))} characters; at most {MOST_TEXT}")
        if made.against not in vectors.KINDS:
            raise UsageError(f"against {made.against!r}; expected image or caption")
        if sum(map(bool, (made.text, made.upload, made.like))) > 1:
            raise UsageError("give one of text, upload and like")
        return made

    @property
    def by_meaning(self) -> bool:
        """Whether the order is that of a search."""
        return bool(self.text or self.upload or self.like)


@dataclass(frozen=True)
class Found:
    """``rows`` in order; ``values`` what put them in order, if something did."""

    rows: Rows
    values: npt.NDArray[np.floating[Any]] | None = None


class Browser:
    """One finished run, as it is now. Safe to use from many threads."""

    def __init__(self, run: str) -> None:
        self.run, self.told = run, amend.run_json(run)
        self.recipe = from_description(self.told["recipe"])
        self.table, self.pictures = Table(run), Pictures(run)
        self.unsafe = unsafe_test(self.recipe)
        self.uploads: _Recent[str, bytes] = _Recent(8)
        self._found: _Recent[Selection, Found] = _Recent(16)
        self._cosines: _Recent[tuple[str, ...], npt.NDArray[np.float32]] = _Recent(8)
        self._model = Lock()

    @cached_property
    def score_stage(self) -> Score | None:
        """The stage whose scorer made the run's vectors."""
        return next((s for s in self.recipe.stages if isinstance(s, Score)), None)

    def scorer(self, batch: int = 1) -> Scorer:
        """The run's own scorer; ``TuwenError`` where it cannot be had, or is another one now.

        ``batch`` is how many it sees at once: one for a query, the stage's for many.
        """
        stage = self.score_stage
        if stage is None:
            raise UsageError("the run's recipe has no score stage, so there is no scorer to search with")
        held = self.told.get("resources", {}).get("score", {}).get(stage.scorer)
        if held and held != fingerprint(stage.scorer):
            raise UsageError(
                f"{stage.scorer} holds other weights now ({fingerprint(stage.scorer)}) than when the run was made "
                f"({held}), so its vectors cannot be compared with the run's"
            )
        return load_scorer(stage.scorer, stage.device, batch, stage.threads, stage.precision)

    def embed(self) -> Iterator[tuple[int, int]]:
        """Make the vectors of the kept pairs, as the score stage would have; yields (done, of)."""
        batch = self.score_stage.batch_size if self.score_stage else 1
        yield from vectors.embed(self.run, self.table, self.pictures, self.scorer(batch))

    def space(self, kind: str) -> Vectors:
        """The run's vectors of images or captions, read when first asked for; ``UsageError`` where there are none."""
        with self._model:
            if kind not in self._vectors:
                self._vectors[kind] = vectors.load(self.run, self.table, kind)
        if (held := self._vectors[kind]) is None:
            raise UsageError(
                "this run kept no vectors to search by. Run it with --set score.embeddings=true, or make them for the "
                f"kept pairs: curate browse {self.run} --embed"
            )
        return held

    @cached_property
    def _vectors(self) -> dict[str, Vectors | None]:
        return {}

    def about(self) -> dict[str, Any]:
        """What the page needs to draw its controls."""
        reasons = {f["reason"] or "kept" for f in self.table.facets}
        vectors_there = files.exists(files.join(self.run, vectors.MADE)) or bool(
            self.score_stage and self.score_stage.embeddings
        )
        return {
            "name": self.run.rstrip("/").rsplit("/", 1)[-1],
            "recipe": self.told["recipe"]["name"],
            "version": self.told["version"],
            "created": self.told["created"],
            "counts": self.told["counts"],
            "splits": sorted(self.told["splits"]),
            "facets": self.table.facets,
            "stages": [*self.told["stages"]],
            "words": {r: words(r) for r in sorted(reasons)},
            "measures": [{"name": c, "unit": COLUMNS[c].unit, "about": COLUMNS[c].doc} for c in self.table.measures],
            "meaning": vectors_there,
            "scorer": self.score_stage.scorer if self.score_stage else None,
        }

    def select(self, chosen: Selection) -> Found:
        """The pairs of a selection, in its order."""
        if (held := self._found.get(chosen)) is None:
            held = self._select(chosen)
            self._found.put(chosen, held)
        return held

    def _select(self, chosen: Selection) -> Found:
        facets = {n: getattr(chosen, n) for n in ("status", "stage", "reason", "split") if getattr(chosen, n)}
        rows = self.table.facet(facets)
        if chosen.holding:
            rows = np.intersect1d(rows, self.table.holding(chosen.holding), assume_unique=True)
        bounded = chosen.order.removeprefix("-")
        values = None
        if bounded:
            measured = self.table.measure(bounded)
            values = measured[rows]
            keep = ~np.isnan(values)
            keep &= values >= _number("least", chosen.least, -np.inf)
            keep &= values <= _number("most", chosen.most, np.inf)
            rows, values = rows[keep], values[keep]
        elif chosen.least or chosen.most:
            raise UsageError("least and most bound the column that order names; give order as well")
        if chosen.by_meaning:
            return self._nearest(chosen, rows)
        if values is not None:
            order = np.argsort(-values if chosen.order.startswith("-") else values, kind="stable")
            return Found(rows[order], values[order])
        return Found(rows)

    def _nearest(self, chosen: Selection, rows: Rows) -> Found:
        held = self.space(chosen.against)
        asked = (chosen.text, chosen.upload, chosen.like, chosen.against)
        if (cosines := self._cosines.get(asked)) is None:
            cosines = held.cosines(self._query(chosen))
            self._cosines.put(asked, cosines)
        among = np.flatnonzero(np.isin(held.rows, rows, assume_unique=True)) if len(rows) < self.table.height else None
        places = np.arange(len(held.rows)) if among is None else among
        places = vectors.best(cosines, places, MOST_NEAR)
        return Found(held.rows[places], cosines[places])

    def _query(self, chosen: Selection) -> npt.NDArray[np.float32]:
        """(d,) the unit vector of what is searched for."""
        if chosen.like:
            row = self._row(chosen.like, ("unit", "ordinal", "key", "shard", "stage"))
            vector = self.space("image").of(int(chosen.like))
            if vector is not None:
                return vector
            data = self.pictures.bytes_of(row)
            if data is None:
                raise NotThere(f"pair {row['key'][:12]} has neither a vector nor a picture in this run")
        elif chosen.upload:
            data = self.uploads.get(chosen.upload)
            if data is None:
                raise NotThere("the picture is no longer held; give it again")
        else:
            with self._model:
                return np.asarray(self.scorer().embed_texts([chosen.text.strip()])[0])
        with self._model:
            return np.asarray(self.scorer().embed_images([data])[0])

    def keep_image(self, data: bytes) -> str:
        """Take a picture to search with; the word that ``Selection.upload`` then takes.

        Raises ``InputError`` where it is none, or has too many pixels.
        """
        try:
            pixels = load_image(data, 512, 2048)[1]
        except BadImage as error:
            raise InputError(
                f"this is no picture that can be read ({error.kind}: {error.message}). Expected JPEG, PNG, WebP, GIF "
                "or another common kind"
            ) from None
        name = hashlib.sha256(data).hexdigest()
        self.uploads.put(name, cv2.imencode(".png", pixels)[1].tobytes())
        return name

    def page(self, chosen: Selection, start: int, count: int) -> dict[str, Any]:
        """``count`` pairs of a selection from place ``start`` on, and how many it has."""
        found = self.select(chosen)
        rows = self.table.read(found.rows[start : start + min(count, MOST_PAGE)], _SHOWN)
        told = rows.with_columns(unsafe=with_unsafe(rows, self.unsafe)).to_dicts()
        values = None if found.values is None else found.values[start : start + len(told)].tolist()
        pairs = [_card(row, values[i] if values else None) for i, row in enumerate(told)]
        return {"total": len(found.rows), "start": start, "pairs": pairs}

    def pair(self, number: str) -> dict[str, Any]:
        """One pair's story; ``NotThere`` where the ledger has no such row."""
        row = self._row(number, sorted(self.table.names))
        frame = self.table.read(np.array([int(number)]), sorted(self.table.names))
        told = story(row, self.recipe) | {"row": int(number), "unsafe": bool(with_unsafe(frame, self.unsafe)[0])}
        return told | {"original": self.table.keyed(row["duplicate_of"], 1) if row.get("duplicate_of") else []}

    def picture(self, number: str, size: str) -> bytes | None:
        """A JPEG of a pair's picture; None where the run holds none that can be decoded."""
        if size not in SIZES:
            raise UsageError(f"size {size!r}; {nearest(size, SIZES)}")
        row = self._row(number, ("unit", "ordinal", "key", "shard", "stage"))
        return self.pictures.shown(row["unit"], row["ordinal"], row["key"], row["shard"], row["stage"], size)

    def find(self, key: str) -> list[int]:
        """Rows whose key starts with ``key`` (hex digits)."""
        if not key or len(key) > 64 or not set(key.lower()) <= set("0123456789abcdef"):
            raise UsageError(f"{key[:80]!r} is no key; expected its first digits, 0 to 9 and a to f")
        return self.table.keyed(key)

    def listed(self, chosen: Selection, form: str) -> Iterator[bytes]:
        """The selection as a list: ``txt`` (keys, each once, as ``curate remove --keys`` reads them) or ``jsonl``."""
        if form not in ("txt", "jsonl"):
            raise UsageError(f"format {form!r}; expected txt or jsonl")
        return self._listed(self.select(chosen), form)

    def _listed(self, found: Found, form: str) -> Iterator[bytes]:
        seen: set[str] = set()
        at = 0
        for piece in self.table.stream(found.rows, ("key",) if form == "txt" else _LISTED):
            if form == "txt":
                keys = [k for k in dict.fromkeys(piece["key"].to_list()) if k not in seen]
                seen.update(keys)
                yield "".join(f"{k}\n" for k in keys).encode()
                continue
            if found.values is not None:
                piece = piece.with_columns(value=pl.Series(found.values[at : at + piece.height]))
            at += piece.height
            yield piece.drop("row").write_ndjson().encode()

    def _row(self, number: str, columns: Any) -> dict[str, Any]:
        if not number.isascii() or not number.isdigit() or len(number) > 18 or int(number) >= self.table.height:
            raise NotThere(f"row {number[:40]!r}: expected a number from 0 to {self.table.height - 1}")
        told: dict[str, Any] = self.table.read(np.array([int(number)]), columns).to_dicts()[0]
        return told


def _card(row: dict[str, Any], value: float | None) -> dict[str, Any]:
    told = {
        **{name: row[name] for name in ("row", "key", "status", "stage", "reason", "split", "unsafe")},
        "raw": (row["caption_raw"] or "")[:400],
        "caption": (row["caption"] or "")[:400] if row["caption"] != row["caption_raw"] else None,
        "synthetic": row.get("caption_synthetic"),
        "score": None if row.get("score") is None else round(row["score"], 4),
        "size": f"{row['width']}×{row['height']}" if row.get("width") else None,
        "detail": (row["detail"] or "")[:300] or None,
        "spans": spans(row),
        "value": None if value is None else round(value, 4),
    }
    return {k: v for k, v in told.items() if v not in (None, [])}


def _number(name: str, given: str, default: float) -> float:
    if not given:
        return default
    try:
        return float(given)
    except ValueError:
        raise UsageError(f"{name} {given[:40]!r}: expected a number") from None


class _Recent(Generic[K, V]):
    """The last few values by key, for many threads."""

    def __init__(self, size: int) -> None:
        self._size, self._lock = size, Lock()
        self._held: OrderedDict[K, V] = OrderedDict()

    def get(self, key: K) -> V | None:
        with self._lock:
            if key in self._held:
                self._held.move_to_end(key)
            return self._held.get(key)

    def put(self, key: K, value: V) -> None:
        with self._lock:
            self._held[key] = value
            self._held.move_to_end(key)
            while len(self._held) > self._size:
                self._held.popitem(last=False)


def stamp(run: str) -> str:
    """What changes when a command changes the run: run.json's bytes."""
    return hashlib.sha256(files.read_bytes(files.join(run, "run.json"))).hexdigest()[:16]


def as_json(value: Any) -> bytes:
    """JSON as UTF-8; a lone surrogate, which UTF-8 has not, becomes a question mark."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False).encode("utf-8", "replace")
