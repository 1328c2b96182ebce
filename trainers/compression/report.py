"""report.html of a compression: the front, multipliers, what was removed where, how far the table was off. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from .. import curves
from ..value.page import STYLE, table

UNITS = {"latency_ms": "ms", "mflops": "MFLOPs", "size_mb": "MB", "memory_mb": "MB", "energy_mj": "mJ"}
WIDTH, HEIGHT, MARGIN = 640, 300, 56


def page(told: Mapping[str, Any]) -> str:
    """The page for what ``compression.json`` holds."""
    quality = told["quality"]
    named = escape(told["metric"].replace("_", " "))
    missed = "".join(f"<p><b>Missed:</b> {escape(m)}</p>" for m in told["missed"])
    body = (
        f"<header><h1>Compression of {escape(told['model'])}</h1>"
        f'<p class="soft">measured on {escape(told["device"])}; energy: {escape(told["energy"])}</p></header>'
        f'<p class="big">{named} {quality["uncompressed"]:.4g} to {quality["compressed"]:.4g}</p>'
        f'<p class="soft">on {told["held_out"]} samples ({escape(told["quality_on"])}); '
        f"masked and cut network differ by {told['masked_difference']:.1e} at most</p>{missed}"
        f"<h2>Costs</h2>{_costs(told)}"
        f"<h2>Accuracy and latency on the way</h2>{front(told)}"
        f"<h2>Multipliers, budgets, losses over the steps</h2>{_curves(told)}"
        f"<h2>What was removed where</h2>{_removed(told['removed'])}"
        f"<h2>How the final fit went</h2>{_fits(told)}"
        f"<h2>Whole models against the table</h2>{_predictions(told['predictions'])}"
        f"<h2>Settings</h2>{_flat(told['settings'])}{_flat({'version': told['versions']})}"
    )
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><title>Compression of '
        f"{escape(told['model'])}</title><style>{STYLE}</style></head><body><main>{body}</main></body></html>\n"
    )


def _costs(told: Mapping[str, Any]) -> str:
    rows = []
    for name, share in told["shares"].items():
        bound = told["budgets"].get(name)
        value = f"{told['measured'][name]:.4g}"
        if name == "latency_ms":
            low, high = told["measured"]["latency_interval"]
            value += f' <span class="soft">[{low:.4g}, {high:.4g}]</span>'
        rows.append(
            (
                f"{escape(name.rpartition('_')[0] or name)}, {UNITS[name]}",
                f"{told['reference'][name]:.4g}",
                "–" if bound is None else f"{bound:.4g}",
                value,
                f"{share:.3f}",
                "–" if bound is None else f"{told['measured'][name] / bound - 1:+.1%}",
            )
        )
    return table(("", "uncompressed", "target", "compressed", "share", "off target"), rows)


def front(told: Mapping[str, Any]) -> str:
    """Quality over latency: the whole network, every refresh of the search, and what came of it."""
    whole, last = told["reference"]["latency_ms"], told["measured"]["latency_ms"]
    points = [
        (h["measured latency_ms"], h["quality"], "searching")
        for h in told["history"]
        if "quality" in h and "measured latency_ms" in h
    ]
    points += [
        (whole, told["quality"]["uncompressed"], "uncompressed"),
        (last, told["quality"]["compressed"], "compressed"),
    ]
    top_x = 1.05 * max(x for x, _, _ in points)
    low, high = min(y for _, y, _ in points), max(y for _, y, _ in points)
    high = high if high > low else low + 1e-6

    def place(x: float, y: float) -> tuple[float, float]:
        across, down = WIDTH - 2 * MARGIN, HEIGHT - 2 * MARGIN
        return MARGIN + x / top_x * across, MARGIN + (high - y) / (high - low) * down

    colours = {"searching": "#9db8c9", "uncompressed": "#0072b2", "compressed": "#d55e00"}
    marks = []
    for x, y, kind in points:
        px, py = place(x, y)
        marks.append(f'<circle cx="{px:.1f}" cy="{py:.1f}" r="5" fill="{colours[kind]}"/>')
        if kind != "searching":
            marks.append(f'<text x="{px:.1f}" y="{py - 10:.1f}" text-anchor="middle">{kind} {y:.3g}</text>')
    bound = told["budgets"].get("latency_ms")
    if bound:
        px, _ = place(bound, low)
        marks.append(
            f'<line x1="{px:.1f}" x2="{px:.1f}" y1="{MARGIN}" y2="{HEIGHT - MARGIN}" stroke="#c8673a" '
            f'stroke-dasharray="4"/><text x="{px:.1f}" y="{HEIGHT - MARGIN + 30}" text-anchor="middle">target</text>'
        )
    axis = (
        f'<text x="{WIDTH - MARGIN}" y="{HEIGHT - MARGIN + 16}" text-anchor="end">{top_x:.3g} ms</text>'
        f'<text x="{MARGIN - 6}" y="{MARGIN + 4}" text-anchor="end">{high:.3g}</text>'
        f'<text x="{MARGIN - 6}" y="{HEIGHT - MARGIN}" text-anchor="end">{low:.3g}</text>'
        f'<rect x="{MARGIN}" y="{MARGIN}" width="{WIDTH - 2 * MARGIN}" height="{HEIGHT - 2 * MARGIN}" fill="none" '
        'stroke="#bbb"/>'
    )
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}">{axis}{"".join(marks)}</svg>'


def _curves(told: Mapping[str, Any]) -> str:
    kept = [{k: v for k, v in h.items() if k != "quality"} for h in told["history"]]
    return curves.svg([*kept, *told["losses"]])


def _removed(rows: Sequence[Mapping[str, Any]]) -> str:
    made = []
    for row in rows:
        widths = ", ".join(f"{escape(g)} {left} of {all_}" for g, (left, all_) in row["widths"].items())
        bits = ", ".join(f"{escape(s)} {b}" for s, b in row["bits"].items())
        before, after = row["latency_ms"]
        kind = (
            escape(row["is"]) if row["is"] == row["was"] else f"<b>{escape(row['is'])}</b> (was {escape(row['was'])})"
        )
        made.append(
            (
                escape(row["unit"]),
                kind,
                widths or "–",
                bits or "–",
                *(f"{ms:.3g}" if before else "–" for ms in (before, after)),
            )
        )
    return table(("unit", "block", "widths left", "bits", "ms before, as predicted", "after"), made)


def _fits(told: Mapping[str, Any]) -> str:
    rows = [(escape(f["how"]), f"{f['excess']:+.1%}", f"{f['latency_ms']:.4g}") for f in told["fits"]]
    return table(("step", "over the tightest target", "measured ms"), rows)


def _predictions(rows: Sequence[Mapping[str, Any]]) -> str:
    made = [
        (
            str(r["step"]),
            escape(r["metric"]),
            f"{r['predicted']:.4g}",
            f"{r['measured']:.4g}",
            f"{r['predicted'] / r['measured'] - 1:+.1%}",
        )
        for r in rows
        if r["step"] >= 0 and r["metric"] != "mflops"
    ]
    return table(("step", "cost", "predicted", "measured", "prediction off by"), made)


def _flat(settings: Mapping[str, Mapping[str, Any]]) -> str:
    rows = [(escape(f"{s}.{k}"), escape(str(v))) for s, fields in settings.items() for k, v in fields.items()]
    return table(("setting", ""), rows)
