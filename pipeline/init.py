"""A recipe for somebody's own input: look at some of its pairs, choose a shipped recipe, say what each value does.

Stages that need neither the network nor a model are really run on the pairs looked at, one after another and without
dropping anything, so that beside each threshold stands the share that it would drop.
"""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import polars as pl

from .comparisons import Comparison, choices, comparisons, drops_with
from .errors import InputError, UsageError
from .recipe import Recipe, load, parse
from .remedies import with_columns_for
from .sources import open_input, read_unit
from .stage import StageModel, Tally, apply_stage

UNITS = 20
"""Slices of the input that are looked at, spread over it."""
OFFLINE = ("normalise", "social", "language", "fragments", "boilerplate", "sensitive", "length", "names", "decode")
"""Stages that need neither the network nor a model; those that the recipe names are run."""
PAGES = ("warc", "arc", "html")


@dataclass(frozen=True)
class Seen:
    """What was looked at: some pairs of an input, measured by the stages of ``OFFLINE``."""

    source: str
    options: dict[str, str]
    readers: Counter[str]
    units: int
    rows: pl.DataFrame
    counts: Counter[str]

    @property
    def local(self) -> bool:
        """Whether the images came with the input."""
        return self.share(pl.col("local")) > 0.5

    @property
    def usable(self) -> pl.DataFrame:
        """The pairs that could be read."""
        return self.rows.filter(pl.col("unread").is_null())

    def share(self, expr: pl.Expr) -> float:
        """The share of the usable pairs for which ``expr`` is true."""
        rows = self.usable
        return float(rows.select(expr.fill_null(False).mean()).item() or 0.0) if rows.height else 0.0


def look(source: str, options: Mapping[str, str], pairs: int = 500) -> Seen:
    """Read up to ``pairs`` pairs of ``source``, from slices spread over it, and measure them."""
    units = open_input(source, 0, options)
    if not units:
        raise InputError(f"nothing to read in {source}")
    chosen = units[:: max(1, len(units) // UNITS)][:UNITS]
    counts: Counter[str] = Counter()
    frames = []
    for unit in chosen:
        wanted = -(-pairs // len(chosen))
        for batch in _first(read_unit(unit, counts), wanted):
            frames.append(measured(batch, load("oppovl").stages))
    rows = pl.concat(frames, how="diagonal_relaxed") if frames else measured(_empty(), ())
    bare = rows.filter(pl.col("local"), pl.col("unread") == "caption_missing").height
    if 2 * bare > rows.height and "caption" not in options:
        named = look(source, {**options, "caption": "filename"}, pairs)
        named.counts["images_without_caption"] += bare
        return named
    return Seen(source, dict(options), Counter(u.reader for u in units), len(units), rows.head(pairs), counts)


def _first(batches: Iterator[pl.DataFrame], rows: int) -> Iterator[pl.DataFrame]:
    for batch in islice(batches, rows):
        yield batch.head(rows)
        rows -= batch.height
        if rows <= 0:
            return


def _empty() -> pl.DataFrame:
    return pl.DataFrame(schema={"image": pl.Binary, "reason": pl.String, "status": pl.String, "caption_raw": pl.String})


def measured(batch: pl.DataFrame, stages: Sequence[StageModel]) -> pl.DataFrame:
    """``batch`` with the columns of the offline stages, whatever they would drop; ``unread`` and ``local`` beside."""
    batch = batch.with_columns(
        unread=pl.when(pl.col("status").is_not_null()).then("reason"), local=pl.col("image").is_not_null()
    )
    extra = batch.select("unread", "local")
    rows = batch.drop("unread", "local")
    for stage in (s for s in stages if s.name in OFFLINE):
        if stage.on_images and not extra["local"].any():
            continue
        rows = apply_stage(stage, rows, Tally(), dropped_too=True)
    return pl.concat([rows.drop("image", "caption_offsets", strict=False), extra], how="horizontal")


def choose(seen: Seen) -> tuple[str, str]:
    """(the shipped recipe that fits, why)."""
    if seen.counts["images_without_caption"] > seen.usable.height or seen.options.get("caption") == "filename":
        return "images", "most images have no caption of their own"
    if set(seen.readers) & set(PAGES):
        return "oppovl", "captions come from web pages, so text rules and a score decide"
    if seen.local:
        return "photos", "the images lie beside their captions, which are taken as written for them"
    return "oppovl", "the images lie on the web, so text rules come first and a score decides"


def report(seen: Seen) -> list[str]:
    """What was found, in lines for people."""
    rows = seen.usable
    lines = [f"{seen.source}: {_list(seen.readers)}; {rows.height} pairs looked at"]
    unread = seen.rows["unread"].drop_nulls().value_counts(sort=True)
    lines += [f"  {n} could not be read: {reason}" for reason, n in unread.rows()]
    if seen.counts["images_without_caption"]:
        lines.append(f"  {seen.counts['images_without_caption']} images without a caption")
    if not rows.height:
        return lines
    lines.append(f"  images: {'with the input' if seen.local else 'on the web, to be fetched'}")
    if "lang" in rows.columns:
        languages = rows["lang"].drop_nulls().value_counts(sort=True).head(5).rows()
        lines.append("  languages: " + ", ".join(f"{word} {n / rows.height:.0%}" for word, n in languages))
    for column, said in (("chars", "caption length"), ("width", "image width"), ("height", "image height")):
        if column in rows.columns and rows[column].count():
            low, middle, high = (rows[column].quantile(q) for q in (0.05, 0.5, 0.95))
            lines.append(f"  {said}: {low:.0f} to {high:.0f}, median {middle:.0f}")
    return lines


def _list(counted: Counter[str]) -> str:
    return ", ".join(f"{n} slice{'' if n == 1 else 's'} of {word}" for word, n in counted.most_common())


def write_recipe(seen: Seen, path: Path, name: str = "", force: bool = False) -> dict[str, Any]:
    """Write the recipe to ``path``; returns what was seen, chosen, and the command to go on with."""
    if path.exists() and not force:
        raise UsageError(f"{path} is there already; give another -o, or --force to write over it")
    if not seen.usable.height and not seen.counts["images_without_caption"]:
        raise InputError(
            f"none of the pairs of {seen.source} could be read: {'; '.join(report(seen)[1:]) or 'it is empty'}"
        )
    chosen, because = (name, "as asked") if name else choose(seen)
    recipe = load(chosen)
    text = recipe_text(seen, recipe, chosen, because)
    parse(text, str(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")
    reading = "".join(f" --input {k}={v}" for k, v in seen.options.items())
    if chosen == "images" and "caption" not in seen.options:
        reading += " --input caption=filename"
    command = f"curate run {seen.source} -o OUT -r {path}{reading}"
    return {"recipe": chosen, "because": because, "seen": report(seen), "path": str(path), "next": command}


def recipe_text(seen: Seen, recipe: Recipe, chosen: str, because: str) -> str:
    """The recipe as commented YAML; it loads to the same stages and values as the shipped one."""
    name = Path(seen.source.rstrip("/")).name.split(".")[0] or "mine"
    lines = [f"# Written by curate init from the recipe {chosen}: {because}.", *(f"# {line}" for line in report(seen))]
    lines += ["# Shares are of the pairs looked at, each rule by itself. Every field: curate stages NAME", ""]
    lines += [f"name: {name!r}", f"about: {f'{chosen}, for {name}'!r}"]
    lines += [f"source: {recipe.source!r}"] if recipe.source else []
    lines.append("stages:")
    for stage in recipe.stages:
        lines += _stage_lines(seen, stage)
    lines += ["shards:", f"  samples: {recipe.shards.samples}  # samples per shard, on average"]
    return "\n".join(lines) + "\n"


def _stage_lines(seen: Seen, stage: StageModel) -> Iterator[str]:
    about = (type(stage).__doc__ or "").split("\n")[0]
    fields = [f for f in type(stage).model_fields if f in stage.thresholds() or f in stage.model_fields_set]
    yield f"  - {stage.name}{':' if fields else ''}  # {about}"
    for note in _notes(seen, stage):
        yield f"      # {note}"
    compared = {c.field: c for c in comparisons(stage)}
    for field in fields:
        info = type(stage).model_fields[field]
        yield from (f"      # {line}" for line in textwrap.wrap(info.description or "", 108))
        share = _share(seen, stage, field, compared.get(field))
        yield f"      {field}: {_yaml(getattr(stage, field))}{f'  # {share}' if share else ''}"


def _notes(seen: Seen, stage: StageModel) -> Iterator[str]:
    """What a reader must know of a stage on this input."""
    if stage.name == "score" and getattr(stage, "scorer", "") == "embedded":
        yield "The embedded scorer knows the sample only: give scorer: (open_clip NAME/WEIGHTS or a folder), and find"
        yield "the threshold for it with: curate calibrate INPUT --scorer NAME"
    if stage.name == "image_safety" and getattr(stage, "detector", "") == "sample":
        yield "The sample's stand-in finds the sample's own marks only: give detector: onnx:PATH or nudenet"
    if stage.name == "language" and "lang" in seen.usable.columns:
        other = seen.share(~pl.col("lang").is_in(list(getattr(stage, "keep", ()))))
        if other > 0.5:
            yield f"{other:.0%} of the captions looked at are in other languages: is the right caption column read?"
    if stage.name == "fetch" and seen.local:
        yield "The images came with the input: nothing is fetched"


def _share(seen: Seen, stage: StageModel, field: str, compared: Comparison | None) -> str:
    """The share that a threshold drops by itself, and where the values lie; empty where it was not measured."""
    if stage.name not in OFFLINE or not seen.usable.height:
        return ""
    rows = with_columns_for(seen.usable, [stage])
    if compared is not None:
        told = rows.select(v=compared.value.cast(pl.Float64), d=compared.drops() & _reason(stage, compared))
        if not told["v"].count():
            return ""
        low, high = told["v"].quantile(0.05), told["v"].quantile(0.95)
        return f"drops {_percent(told['d'].fill_null(False).mean())}; 90 in 100 lie in {low:.4g} to {high:.4g}"
    read = [c for e in stage.reasons().values() for c in e.meta.root_names()]
    if choices(stage, field) != [False, True] or not any(rows[c].count() for c in read):
        return ""
    off, on = (rows.select(drops_with(stage.model_copy(update={field: v})).mean()).item() for v in (False, True))
    return f"the stage drops {_percent(on)} with true, {_percent(off)} with false"


def _reason(stage: StageModel, compared: Comparison) -> pl.Expr:
    return stage.reasons()[compared.reason].fill_null(False)


def _percent(share: Any) -> str:
    share = float(share or 0)
    return "nothing" if share == 0 else f"{share:.1%}" if share < 0.1 else f"{share:.0%}"


def _yaml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (tuple, list)):
        return f"[{', '.join(_yaml(v) for v in value)}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{k}: {_yaml(v)}" for k, v in value.items()) + "}"
    if value is None:
        return "null"
    return "'" + value.replace("'", "''") + "'" if isinstance(value, str) else str(value)
