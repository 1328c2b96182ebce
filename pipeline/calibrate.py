"""What ``curate calibrate`` reads: pairs of an input, or of a finished run, as unit vectors of one scorer.

An input goes through the recipe's own stages up to the score, on a seeded sample, so that the threshold is found on
the pairs that the score stage will see. Of a run the recorded vectors are taken where there are any; else the
images of its shards are read, which are those of kept pairs alone.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl

from ..filters.shingles import I64, fold_column, hash_strings, mix64
from ..scoring.blocks import Embeddings
from ..scoring.calibration import Calibration, Curve, Scores, calibrate, curve, score_pairs
from ..scoring.calibration_picture import svg
from ..scoring.score import Score
from ..scoring.scorer import fingerprint, load_scorer
from . import files
from .columns import with_missing
from .errors import InputError, RunError, UsageError
from .ledger import scan_ledger
from .measure import SLICE_ROWS
from .recipe import Recipe, from_description
from .replay import byte_places
from .sources import open_input, read_unit
from .stage import StageModel, Tally, apply_stage
from .units import Unit

SCAN = 20
"""Pairs read for each one wanted: of a large input a part is read, in units drawn at random."""
PAIRS = 2000
LEAST = 20
"""Pairs under which nothing is computed."""


@dataclass(frozen=True)
class Gathered:
    """Unit vectors of ``n`` pairs; ``image`` and ``caption`` number what is equal, from 0."""

    scorer: str
    name: str
    images: Embeddings
    captions: Embeddings
    image: I64
    caption: I64
    told: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Found:
    """A calibration with what drawing it needs."""

    gathered: Gathered
    scores: Scores
    curve: Curve
    calibration: Calibration

    def describe(self) -> dict[str, Any]:
        """As one JSON document; ``recipe_line`` is null where no threshold was found."""
        told = self.calibration.describe()
        told["warnings"] += self.gathered.notes
        line = None
        if self.calibration.threshold is not None and self.calibration.separates:
            line = recipe_line(self.gathered.scorer, self.calibration.threshold)
        return {"scorer": self.gathered.name, **self.gathered.told, **told, "recipe_line": line}

    def summary(self) -> str:
        """The same for people, a line per finding."""
        told, made = self.describe(), self.calibration
        low, high = made.auc_interval
        lines = [
            f"{made.pairs} pairs with {made.images} images of {told['source']}, {made.shuffled} shuffled pairs",
            f"scorer     {told['scorer']}",
            f"AUC        {made.auc:.4f} ({low:.4f} to {high:.4f})",
        ]
        if made.threshold is not None and made.keep is not None and made.precision_interval is not None:
            ends = " to ".join("?" if t is None else f"{t:.4f}" for t in made.threshold_interval)
            sure = " to ".join(f"{p:.3f}" for p in made.precision_interval)
            lines += [
                f"threshold  {made.threshold:.4f} ({ends}) for a precision of {made.wanted:g} where "
                f"{made.mismatched:.0%} of the pairs are mismatched",
                f"           there {made.precision:.3f} ({sure}) of the kept pairs match; it keeps the best "
                f"{made.keep:.1%} of the pairs as given and {made.false_keep:.1%} of shuffled ones",
            ]
        lines.append(
            f"mismatched at most {made.mismatched_found:.1%} of the pairs as given, judged by their low scores"
        )
        lines += [f"warning: {words}" for words in told["warnings"]]
        if told["recipe_line"]:
            lines += ["for the recipe:", f"  {told['recipe_line']}"]
        return "\n".join(lines)

    def write(self, folder: str) -> None:
        """``calibration.json`` and ``calibration.svg`` in ``folder``."""
        text = json.dumps(self.describe(), ensure_ascii=False, indent=1) + "\n"
        files.write_bytes(files.join(folder, "calibration.json"), text.encode())
        drawn = svg(
            self.scores, self.curve, self.calibration, f"{self.gathered.name} on {self.gathered.told['source']}"
        )
        files.write_bytes(files.join(folder, "calibration.svg"), drawn.encode())


def recipe_line(scorer: str, threshold: float) -> str:
    """The line of a recipe that uses this scorer with this threshold."""
    plain = scorer.replace("-", "").replace("/", "").replace(".", "").replace("_", "").isalnum()
    return f"- score: {{scorer: {scorer if plain else json.dumps(scorer, ensure_ascii=False)}, threshold: {threshold}}}"


def find(gathered: Gathered, precision: float, mismatched: float, seed: int = 0) -> Found:
    """Calibrate on what was gathered; ``UsageError`` for a share out of range, ``InputError`` for too little data."""
    for name, share in (("--precision", precision), ("--mismatched", mismatched)):
        if not 0 < share < 1:
            raise UsageError(f"{name} {share:g}: expected a share above 0 and below 1, e.g. 0.95")
    if len(gathered.image) < LEAST:
        raise InputError(
            f"{gathered.told['source']}: {len(gathered.image)} pairs to score; at least {LEAST} are needed"
        )
    scores = score_pairs(gathered.images, gathered.captions, gathered.image, gathered.caption, seed=seed)
    try:
        return Found(gathered, scores, curve(scores), calibrate(scores, precision, mismatched, seed=seed))
    except ValueError as error:
        raise InputError(f"{gathered.told['source']}: {error}") from None


def is_run(path: str) -> bool:
    """Whether ``path`` is a run directory."""
    return files.exists(files.join(path, "run.json")) or files.exists(files.join(path, "plan.json"))


def from_input(
    paths: tuple[str, ...], recipe: Recipe, scorer: str | None, pairs: int, seed: int, options: dict[str, str]
) -> Gathered:
    """A seeded sample of ``pairs`` of the inputs, through the recipe's stages before the score.

    Raises ``InputError`` where an input cannot be read, or says which stages let nothing through.
    """
    units = [u for i, path in enumerate(paths) for u in open_input(path, i, options)]
    stage = next((s for s in recipe.stages if isinstance(s, Score)), Score())
    before = recipe.phase("measure")
    before = before[: before.index(stage)] if stage in before else before
    first = next((i for i, s in enumerate(before) if s.on_images), len(before))
    tallies: dict[str, Tally] = {}
    scanned = Counter[str]()
    rows = _smallest(_text(units, before[:first], tallies, scanned, pairs, seed), pairs, seed)
    done = [_through(before[first:], rows[i : i + SLICE_ROWS], tallies) for i in range(0, rows.height, SLICE_ROWS)]
    alive = [_open(frame) for frame in done]
    seen = pl.concat(alive, how="diagonal_relaxed") if alive else rows
    told = {"source": ", ".join(paths), "read": scanned["read"], "sampled": rows.height, "seed": seed}
    lost = {f"{n}.{r.removeprefix('dropped_')}": c for n, t in tallies.items() for r, c in t.items() if _loses(r) and c}
    if seen.height < LEAST:
        raise InputError(
            f"{told['source']}: of {scanned['read']} pairs {seen.height} came to the score; at least {LEAST} are "
            f"needed. Lost before it: {lost or 'all in reading'}. A recipe with fewer stages: -r photos, -r images"
        )
    return _embedded(scorer or stage.scorer, stage, seen, {**told, "lost": lost})


def _loses(word: str) -> bool:
    return word == "failed" or word.startswith("dropped_")


def _text(
    units: list[Unit], stages: list[StageModel], tallies: dict[str, Tally], scanned: Counter[str], pairs: int, seed: int
) -> Iterator[pl.DataFrame]:
    """What is left of the inputs after the text stages; units come in an order drawn from ``seed``."""
    ids = pl.Series([u.id for u in units])
    as_found = not any("caption" in stage.adds for stage in stages)
    for i in np.argsort(_drawn(ids, seed), kind="stable"):
        for batch in read_unit(units[i]):
            scanned["read"] += batch.height
            if as_found:
                batch = batch.with_columns(caption=pl.col("caption_raw"))
            yield _open(_through(stages, batch.with_columns(unit=pl.lit(units[i].id)), tallies))
            if scanned["read"] >= SCAN * pairs:
                return


def _through(stages: list[StageModel], batch: pl.DataFrame, tallies: dict[str, Tally]) -> pl.DataFrame:
    for stage in stages:
        batch = apply_stage(stage, batch, tallies.setdefault(stage.name, Tally()))
    return batch


def _open(batch: pl.DataFrame) -> pl.DataFrame:
    return batch.filter(pl.col("status").is_null())


def _smallest(batches: Iterable[pl.DataFrame], pairs: int, seed: int) -> pl.DataFrame:
    """The ``pairs`` rows whose keys have the smallest hashes, whatever the order of the batches."""
    held = pl.DataFrame()
    for batch in batches:
        drawn = batch.with_columns(_drawn=pl.Series(_drawn(batch["key"], seed)))
        if held.height == pairs:
            # Most rows of a long input end here, before their images are copied.
            drawn = drawn.filter(pl.col("_drawn") <= held["_drawn"].max())
        if held.width and not drawn.height:
            continue
        held = pl.concat([held, drawn], how="diagonal_relaxed") if held.width else drawn
        held = held.sort("_drawn", "key", "origin").head(pairs)
    return held.drop("_drawn", strict=False)


def _drawn(keys: pl.Series, seed: int) -> Any:
    """(keys,) a 64-bit number per key and seed."""
    return mix64(hash_strings(keys) ^ mix64(np.array([seed], dtype=np.uint64)))


def from_run(run: str, scorer: str | None, pairs: int, seed: int) -> Gathered:
    """A seeded sample of a finished run's pairs: its recorded vectors, or the images of its shards.

    Raises ``RunError`` where the run did not finish, ``UsageError`` where no scorer is known or no image is left.
    """
    if not files.exists(files.join(run, "run.json")):
        raise RunError(f"{run} has no run.json: the run did not finish. Finish it, or give its input instead")
    told = json.loads(files.read_bytes(files.join(run, "run.json")))
    recipe = from_description(told["recipe"])
    used = next((s for s in recipe.stages if isinstance(s, Score)), None)
    if scorer is None and used is None:
        raise UsageError(f"{run} was made without a score stage; name a scorer with --scorer")
    ledger = scan_ledger(run)
    where = {"source": run, "seed": seed}
    recorded = _recorded(ledger, used, scorer)
    if recorded is not None:
        rows = _chosen(ledger.filter(recorded), _COLUMNS, pairs, seed)
        if rows.height:
            return _from_vectors(scorer or str(used and used.scorer), rows, where)
    folder, places = byte_places(run, sorted(ledger.select(pl.col("unit").unique()).collect()["unit"]))
    everything = bool(told["dropped_too"]) and folder == files.join(run, "parts")
    came = _came_to_score(recipe) if everything else pl.col("status") == "kept"
    there = pl.col("part").is_not_null()
    held = ledger.filter(came).join(places.lazy().filter(there), on=["unit", "ordinal"], suffix="_there")
    rows = _chosen(held, (*_COLUMNS[:4], "part", "offset", "length"), pairs, seed)
    if not rows.height:
        raise UsageError(f"{run} holds no vectors and no images of kept pairs; give the run's input instead")
    rows = rows.with_columns(image=pl.Series(_images(folder, rows), dtype=pl.Binary))
    notes = () if used is None or everything else (_KEPT_ONLY.format(used.threshold),)
    return _embedded(scorer or str(used and used.scorer), used or Score(), rows, where | {"vectors": "made"}, notes)


_KEPT_ONLY = (
    "only kept pairs have images in this run, and it kept what scored at least {:g}: the lowest true scores are "
    "missing. Calibrate on the input, or on a run with --measure-all or --set score.embeddings=true"
)


def _came_to_score(recipe: Recipe) -> pl.Expr:
    """Ledger rows that no stage before the score dropped or failed."""
    names = [s.name for s in recipe.stages]
    earlier = names[: names.index(Score.name)] if Score.name in names else [s.name for s in recipe.phase("measure")]
    return pl.col("stage").is_null() | ~pl.col("stage").is_in(["read", "removed", *earlier])


_COLUMNS = ("key", "origin", "caption", "image_sha256", "image_embedding", "caption_embedding")


def _recorded(ledger: pl.LazyFrame, used: Score | None, scorer: str | None) -> pl.Expr | None:
    """Where the run recorded vectors of the wanted scorer; None where its ledger has none."""
    if used is None or "image_embedding" not in ledger.collect_schema().names():
        return None
    there = pl.col("image_embedding").is_not_null() & pl.col("caption_embedding").is_not_null()
    if scorer is None or scorer == used.scorer:
        return there
    return there & pl.col("scorer").str.ends_with(f"@{fingerprint(scorer)}")


def _chosen(rows: pl.LazyFrame, columns: tuple[str, ...], pairs: int, seed: int) -> pl.DataFrame:
    """The sample's ``columns``; only names are read of the pairs that are not in it."""
    drawn = _smallest([rows.select("key", "origin").collect()], pairs, seed)
    found = rows.select(*columns).filter(pl.col("key").is_in(drawn["key"].implode())).collect()
    return found.join(drawn, on=["key", "origin"], how="semi").sort("key", "origin")


def _images(folder: str, rows: pl.DataFrame) -> list[bytes]:
    """The bytes of each row, by part, offset and length; each tar is opened once."""
    found: dict[int, bytes] = {}
    for (part,), some in rows.with_row_index("_at").group_by("part"):
        with files.open_read(files.join(folder, f"{part}.tar")) as handle:
            for at, offset, length in some.sort("offset").select("_at", "offset", "length").rows():
                handle.seek(offset)
                found[at] = handle.read(length)
    return [found[i] for i in range(rows.height)]


def _from_vectors(scorer: str, rows: pl.DataFrame, told: dict[str, Any]) -> Gathered:
    images, captions = (_matrix(rows[c]) for c in ("image_embedding", "caption_embedding"))
    name = f"{scorer} (recorded vectors)"
    return Gathered(scorer, name, images, captions, *_numbers(rows), {**told, "vectors": "recorded"})


def _matrix(vectors: pl.Series) -> Embeddings:
    """(rows, d) unit vectors; 16 bits leave a length that is 1 to three digits."""
    made = np.frombuffer(b"".join(vectors.to_list()), "<f2").reshape(len(vectors), -1).astype(np.float32)
    return np.asarray(made / np.maximum(np.linalg.norm(made, axis=1, keepdims=True), 1e-6), dtype=np.float32)


def _embedded(
    scorer: str, stage: Score, rows: pl.DataFrame, told: dict[str, Any], notes: tuple[str, ...] = ()
) -> Gathered:
    model = load_scorer(scorer, stage.device, stage.batch_size, stage.threads, stage.precision)
    images, captions = model.embed_images(rows["image"].to_list()), model.embed_texts(rows["caption"].to_list())
    return Gathered(scorer, f"{model.name}@{model.hash}", images, captions, *_numbers(rows), told, notes)


def _numbers(rows: pl.DataFrame) -> tuple[I64, I64]:
    """Numbers of equal images (by their hash; by key where none is known) and of equal folded captions."""
    rows = with_missing(rows, ("image_sha256",))
    if "image" in rows.columns and rows["image_sha256"].null_count():
        of_image = rows["image"].rank("dense")
    else:
        of_image = rows.select(pl.coalesce("image_sha256", "key")).to_series().rank("dense")
    captions = np.unique(fold_column(rows["caption"]).text_hash(), return_inverse=True)[1]
    return of_image.cast(pl.Int64).to_numpy() - 1, captions.astype(np.int64)
