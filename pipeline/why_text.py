"""A pair's story (``why.stories``) as a page of plain text."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .columns import COLUMNS

_OTHERWISE = {"<": "≥", "<=": ">", ">": "≤", ">=": "<"}


def page(story: dict[str, Any]) -> str:
    """The story to read from top to bottom: verdict, remedy, source, stages, what ships."""
    return "\n".join(_lines(story))


def _lines(story: dict[str, Any]) -> Iterator[str]:
    head = f"pair {story['key']}: {story['status']}"
    yield head + (f" by {story['stage']}, reason {story['reason']}: {story['in_words']}" if story["reason"] else "")
    if story["detail"]:
        yield f"  {story['detail']}"
    yield from _verdict(story)
    yield "source"
    yield from (f"  {name}: {value(held)}" for name, held in story["source"].items() if name != "caption_raw")
    spans = [span for stage in story["stages"] for held in stage["measured"].values() for span in _spans(held)]
    yield f"  caption_raw: {marked(story['source'].get('caption_raw', ''), spans)}"
    for stage in story["stages"]:
        yield from _stage(stage, story)
    if story["caption"] is not None:
        yield f"caption after these stages\n  {story['caption']}"
    if story["caption_synthetic"]:
        yield f"synthetic caption\n  {story['caption_synthetic']}"
    for negative in story["negatives"] or []:
        yield f"hard negative ({negative['kind']})\n  {negative['caption']}"
    if story["status"] != "kept":
        yield "not shipped"
    if story["shard"]:
        yield f"placed in shards/{story['shard']} as {story['key']}.jpg, .txt, .json ({story['split']})"


def _verdict(story: dict[str, Any]) -> Iterator[str]:
    if twin := story.get("duplicate_of"):
        size = f", {twin['width']}×{twin['height']}" if twin.get("width") else ""
        score = f", score {twin['score']:.4g}" if twin.get("score") is not None else ""
        yield f"the pair that stays ({twin['kind']}): {twin['key']}{score}{size}"
        yield from (
            f"  {name}: {twin[name]}" for name in ("origin", "image_url", "caption_raw", "shard") if twin.get(name)
        )
    if story.get("kept_by"):
        yield "what would have let it through this stage"
        yield from (f"  --set {change}" for change in story["kept_by"])
    elif story["status"] == "dropped" and not story.get("duplicate_of"):
        yield "no threshold of this stage would have let it through"
    if story.get("then"):
        yield f"  {story['then']}"
    if story.get("may_pass"):
        yield "  the cause may have passed: curate retry RUN fetches it again"


def _stage(stage: dict[str, Any], story: dict[str, Any]) -> Iterator[str]:
    yield stage["stage"] + (f"  <- {story['reason']}" if stage["decided"] else "")
    yield from (f"  {column}: {value(held)}{unit(column)}" for column, held in stage["measured"].items())
    for c in stage["compared"]:
        sign = c["sign"] if c["drops"] else _OTHERWISE[c["sign"]]
        word = "drops" if c["drops"] else "passes"
        if c["drops"] or not c["idle"]:
            yield f"  {word}: {c['of']} {c['value']:g} {sign} {c['threshold']:g} ({c['field']})"
    told = {c["field"].partition(".")[2] for c in stage["compared"]}
    yield from (f"  {stage['stage']}.{f} = {v!r}" for f, v in stage["thresholds"].items() if f not in told)


def _spans(held: Any) -> list[dict[str, Any]]:
    return [s for s in held if isinstance(s, dict) and "start" in s] if isinstance(held, list) else []


def marked(caption: str, spans: list[dict[str, Any]]) -> str:
    """``caption`` with each span in ⟦brackets⟧; one that begins inside another is left out."""
    out, at = [], 0
    for span in sorted(spans, key=lambda s: (s["start"], -s["end"])):
        if span["start"] >= at and span["end"] > span["start"]:
            out += [caption[at : span["start"]], "⟦", caption[span["start"] : span["end"]], "⟧"]
            at = span["end"]
    return value("".join(out) + caption[at:])


def value(held: Any) -> str:
    """A measure for people."""
    if isinstance(held, list):
        return "; ".join(value(v) for v in held) or "none"
    if isinstance(held, dict) and "word" in held:
        return f"{held['word']} [{held['start']}:{held['end']}] {held['category']} -> {held['action']}"
    if isinstance(held, dict):
        return ", ".join(f"{k} {v}" for k, v in held.items())
    text = f"{held:.4g}" if isinstance(held, float) else str(held)
    return text if len(text) <= 300 else f"{text[:300]}… ({len(text)} characters)"


def unit(column: str) -> str:
    """The unit of a column, where it says something that the number does not."""
    said = COLUMNS[column].unit
    return f" {said}" if said and said not in ("share", "cosine") else ""
