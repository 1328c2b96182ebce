"""value.html: one self-contained page on what each part of the curation bought. Pure: findings in, HTML out."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

STYLE = """
:root{--bg:#fbfaf7;--fg:#1d2226;--soft:#69737c;--line:#ddd9d0;--card:#fff;--good:#2f7d5b;--bad:#c8673a;--bar:#9db8c9}
@media(prefers-color-scheme:dark){:root{--bg:#15181b;--fg:#e8e6e1;--soft:#98a2aa;--line:#31373c;--card:#1d2226;
--good:#58b38b;--bad:#e2895c;--bar:#4d6878}}
body{margin:0;background:var(--bg);color:var(--fg);font:15px/1.5 system-ui,"Noto Sans SC","PingFang SC",sans-serif}
main{max-width:1080px;margin:0 auto;padding:24px 20px 80px}
h1{font-size:26px;margin:0}h2{font-size:19px;margin:40px 0 8px}
.soft{color:var(--soft);font-size:13px}.big{font-size:24px;font-weight:600;margin:14px 0}
.wide{overflow-x:auto}table{border-collapse:collapse;font-size:14px;font-variant-numeric:tabular-nums}
td,th{padding:3px 14px 3px 0;border-bottom:1px solid var(--line);text-align:right;white-space:nowrap}
td:first-child,th:first-child{text-align:left}th{font-weight:600;color:var(--soft)}
.gain{color:var(--good)}.loss{color:var(--bad)}.unproven{color:var(--soft)}
svg{width:100%;max-width:720px;height:auto;display:block;background:var(--card);border:1px solid var(--line);
border-radius:10px}svg text{fill:var(--soft);font-size:12px}
"""


def page(told: dict[str, Any]) -> str:
    """The page for the findings of a study, as value.json holds them."""
    parts = [_head(told), _main(told)]
    if told.get("stages"):
        parts.append(_stages(told["stages"]))
    if told.get("sizes"):
        parts.append(_sizes(told["sizes"]))
    if told.get("style"):
        parts.append(_style(told["style"]))
    parts.append(_diversity(told["diversity"]))
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><title>What the data is worth</title>'
        f"<style>{STYLE}</style></head><body><main>{''.join(parts)}</main></body></html>\n"
    )


def points(share: float | None) -> str:
    """A share as points of a hundred: 0.123 is 12.3."""
    return "–" if share is None else f"{100 * share:.1f}"


def signed(found: dict[str, Any] | None) -> str:
    """A difference with its interval, coloured by its verdict."""
    if not found:
        return "–"
    low, high = (points(found[k]) for k in ("low", "high"))
    words = "" if found["verdict"] != "unproven" else " unproven"
    return (
        f'<span class="{escape(found["verdict"])}">{100 * found["mean"]:+.1f} '
        f'<span class="soft">[{low}, {high}]</span>{words}</span>'
    )


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; the cells are HTML, made by the functions here or escaped."""
    top = "".join(f"<th>{escape(h)}</th>" for h in head)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="wide"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def _head(told: dict[str, Any]) -> str:
    main, fixed = told["main"], told["settings"]
    notes = "".join(f"<p>{escape(n)}</p>" for n in told["notes"])
    ratio = "" if main["ratio"] is None else f"curated beats raw {main['ratio']:.2f}x in R@1 "
    says = {
        "gain": f"{ratio}with {main['pairs_share']:.0%} of the pairs",
        "loss": "curated is worse than raw",
        "unproven": "curated against raw: unproven",
    }.get(main["verdict"], main["verdict"])
    return (
        "<header><h1>What the data is worth</h1>"
        f'<p class="soft">Every arm trains the same model for {fixed["steps"]} steps of {fixed["batch"]} '
        f"({told['samples_seen']:,} samples), {fixed['seeds']} seeds; {told['questions']} held-out pairs are asked "
        f"both ways; {told['held_out']:,} pairs do not train, tied by {escape(', '.join(told['ties']))}. Differences "
        "are in points of R@1, paired, with intervals of 95 %; under twice their spread they are unproven.</p></header>"
        f'<p class="big">{escape(says)}</p><div class="soft">{notes}</div>'
    )


def _main(told: dict[str, Any]) -> str:
    main = told["main"]
    rows = [
        (
            escape(a["arm"]),
            f"{a['pairs']:,}",
            points(a["r1"]),
            points(a["r5"]),
            f"{a['median_rank']:.0f}",
            signed(main["curated_less"].get(a["arm"])),
        )
        for a in main["arms"]
    ]
    return (
        "<h2>Raw against curated</h2>"
        + table(("arm", "pairs", "R@1", "R@5", "median rank", "curated is better by"), rows)
        + f'<p class="soft">chance {points(told["chance"])}; ceiling less raw {signed(main["ceiling_less_raw"])}</p>'
    )


def _stages(stages: Sequence[dict[str, Any]]) -> str:
    rows = []
    for s in stages:
        out, add = s.get("leave_out", {}), s.get("add_in", {})
        planted = s.get("planted_share")
        cost = s.get("seconds_per_point")
        rows.append(
            (
                escape(s["stage"]),
                f"{s['dropped_alone']:,}",
                f"{s['only_it_drops']:,}",
                "–" if planted is None else f"{planted:.0%}",
                signed(out.get("gain")),
                signed(out.get("over_random")),
                signed(add.get("gain")),
                signed(add.get("over_random")),
                "–" if s["seconds"] is None else f"{s['seconds']:.1f}",
                "–" if cost is None else f"{cost:g}",
            )
        )
    head = (
        *("stage", "drops", "only it drops", "of those planted", "worth: all less without it"),
        *("over a random drop", "alone on raw", "over a random drop", "seconds", "s per point"),
    )
    return (
        "<h2>What each stage bought</h2>"
        + table(head, rows)
        + '<p class="soft">A dash: the stage decides on too few pairs to show. Random drops leave as many pairs as the '
        "stage does. Edits of captions are not undone when a stage is left out.</p>"
    )


def _sizes(sizes: dict[str, Any]) -> str:
    needed = sizes["pairs_to_match_raw"]
    says = "No measured size of curated data matches raw."
    if needed is not None:
        most = "at most " if sizes["at_most"] else "about "
        says = (
            f"{most}{needed:,} curated pairs match {sizes['raw_pairs']:,} raw ones ({needed / sizes['raw_pairs']:.0%})."
        )
    rows = [
        (escape(p["arm"]), f"{p['pairs']:,}", points(p["r1"]), points(p["r5"]))
        for curve in sizes["curves"].values()
        for p in curve
    ]
    return (
        f"<h2>How many pairs</h2><p>{escape(says[0].upper() + says[1:])}</p>"
        + curves(sizes["curves"])
        + table(("arm", "pairs", "R@1", "R@5"), rows)
    )


def curves(found: dict[str, Sequence[dict[str, Any]]]) -> str:
    """R@1 over pairs, on a logarithmic scale, a line per set."""
    width, height, left, bottom = 720, 280, 50, 40
    every = [p for curve in found.values() for p in curve]
    lo, hi = (math.log(f(max(1, p["pairs"]) for p in every)) for f in (min, max))
    top = float(max(max(max(p["r1_by_seed"]) for p in every), 1e-9)) * 1.08

    def x(pairs: float) -> float:
        return left + (math.log(max(1, pairs)) - lo) / ((hi - lo) or 1) * (width - left - 30)

    def y(r1: float) -> float:
        return height - bottom - r1 / top * (height - bottom - 20)

    drawn = [f'<line x1="{left}" x2="{width - 20}" y1="{y(0)}" y2="{y(0)}" stroke="var(--line)"/>']
    for share in (0.25, 0.5, 0.75, 1.0):
        level = share * top
        drawn.append(f'<text x="6" y="{y(level) + 4:.1f}">{100 * level:.0f}</text>')
    for name, curve in found.items():
        colour = "var(--good)" if name == "curated" else "var(--bad)"
        line = " ".join(f"{x(p['pairs']):.1f},{y(p['r1']):.1f}" for p in curve)
        drawn.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>')
        for p in curve:
            drawn += [
                f'<circle cx="{x(p["pairs"]):.1f}" cy="{y(r):.1f}" r="2.5" fill="{colour}"/>' for r in p["r1_by_seed"]
            ]
        last = curve[-1]
        drawn.append(
            f'<text x="{x(last["pairs"]) - 8:.1f}" y="{y(last["r1"]) - 10:.1f}" text-anchor="end">{escape(name)}</text>'
        )
    for p in every:
        drawn.append(f'<text x="{x(p["pairs"]):.1f}" y="{height - 20}" text-anchor="middle">{p["pairs"]:,}</text>')
    label = escape("R@1 in points over the number of pairs", quote=True)
    return f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{label}">{"".join(drawn)}</svg>'


def _style(style: dict[str, Any]) -> str:
    rows = [
        (
            escape(a["arm"]),
            f"{a['pairs']:,}",
            points(a["original"]),
            signed(a["original_gain"]) if a["arm"] != "original" else "",
            points(a["synthetic"]),
            signed(a["synthetic_gain"]) if a["arm"] != "original" else "",
        )
        for a in style["arms"]
    ]
    head = ("captions trained on", "pairs", "R@1, asked as found", "gain", "R@1, asked in synthetic ones", "gain")
    return (
        f"<h2>Style of the captions</h2>{table(head, rows)}"
        f'<p class="soft">{style["questions"]} questions that have both. A gain on synthetic questions alone is '
        "one of style: the training captions resemble the questions.</p>"
    )


def _diversity(found: dict[str, Any]) -> str:
    names = [k for k in found["sets"][0] if k != "arm"]
    rows = [(escape(name.replace("_", " ")), *(_figure(one.get(name)) for one in found["sets"])) for name in names]
    scores = [(name, h) for name, h in found["scores"].items() if h["counts"]]
    pictures = "".join(f"<p>scores of {escape(name)} pairs</p>{bars(h)}" for name, h in scores)
    return (
        f"<h2>How varied it is</h2>{table(('', *(one['arm'] for one in found['sets'])), rows)}"
        f'<p class="soft">Concepts: words of at least five captions; covered: those of {escape(found["concepts_of"])}. '
        f"What grows with the number of captions is of samples of one size.</p>{pictures}"
    )


def _figure(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:,}" if isinstance(value, int) else f"{value:,.3f}" if value < 100 else f"{value:,.0f}"


def bars(found: dict[str, Sequence[float]]) -> str:
    """A histogram."""
    most, n = max(found["counts"]), len(found["counts"])
    drawn = "".join(
        f'<rect x="{10 + i * 700 / n:.1f}" y="{110 - 100 * c / most:.1f}" width="{680 / n:.1f}" '
        f'height="{100 * c / most:.1f}" fill="var(--bar)"/>'
        for i, c in enumerate(found["counts"])
    )
    ends = found["edges"][0], found["edges"][-1]
    texts = f'<text x="10" y="128">{ends[0]:.2f}</text><text x="710" y="128" text-anchor="end">{ends[1]:.2f}</text>'
    return f'<svg viewBox="0 0 720 136" role="img" aria-label="histogram">{drawn}{texts}</svg>'
