"""The picture of a training: one small panel per figure of its log. Plain SVG, no plotting library."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

WIDTH, HEIGHT = 270, 150
ACROSS = 3
MARGIN_LEFT, MARGIN_TOP, MARGIN_BOTTOM = 46, 24, 26
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00")
"""From Okabe and Ito's palette, told apart by colour-blind readers too."""
LEFT_OUT = ("step", "seconds", "unusable")


def svg(records: Sequence[Mapping[str, Any]]) -> str:
    """An SVG document with a panel for each figure in ``records``, over their steps; panels for none are empty."""
    names = [n for n in dict.fromkeys(k for r in records for k in r) if n not in LEFT_OUT]
    rows = -(-len(names) // ACROSS)
    body = [panel(name, {name: records}, i % ACROSS * WIDTH, i // ACROSS * HEIGHT) for i, name in enumerate(names)]
    size = f"{ACROSS * WIDTH} {max(1, rows) * HEIGHT}"
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size}" font-family="sans-serif" font-size="11">'
    return "\n".join((head, '<rect width="100%" height="100%" fill="#fff"/>', *body, "</svg>\n"))


def panel(figure: str, series: Mapping[str, Sequence[Mapping[str, Any]]], x0: float, y0: float) -> str:
    """One panel: ``figure`` of each of ``series`` over the steps."""
    lines = {n: [(float(r["step"]), float(r[figure])) for r in rs if figure in r] for n, rs in series.items()}
    finite = [p for points in lines.values() for p in points if abs(p[1]) < float("inf")]
    if not finite:
        return ""
    last = max(1.0, max(x for x, _ in finite))
    low, high = min(y for _, y in finite), max(y for _, y in finite)
    high = high if high > low else low + 1e-9 + abs(low) * 0.1
    left, top = x0 + MARGIN_LEFT, y0 + MARGIN_TOP
    across, down = WIDTH - MARGIN_LEFT - 12, HEIGHT - MARGIN_TOP - MARGIN_BOTTOM
    out = [
        f'<text x="{left}" y="{top - 8}" font-weight="bold">{escape(figure.replace("_", " "))}</text>',
        f'<rect x="{left}" y="{top}" width="{across}" height="{down}" fill="none" stroke="#bbb"/>',
        f'<text x="{left - 4}" y="{top + 9}" text-anchor="end">{high:.3g}</text>',
        f'<text x="{left - 4}" y="{top + down}" text-anchor="end">{low:.3g}</text>',
        f'<text x="{left + across}" y="{top + down + 14}" text-anchor="end">step {last:.0f}</text>',
    ]
    for i, points in enumerate(lines.values()):
        path = " ".join(
            f"{left + x / last * across:.1f},{top + (high - y) / (high - low) * down:.1f}"
            for x, y in points
            if abs(y) < float("inf")
        )
        out.append(f'<polyline points="{path}" fill="none" stroke="{COLOURS[i % len(COLOURS)]}" stroke-width="1.5"/>')
    return "\n".join(out)


def page(
    title: str, records: Sequence[Mapping[str, Any]], facts: Mapping[str, Any], settings: Mapping[str, Any]
) -> str:
    """A self-contained HTML page: facts, curves, settings."""
    flat = [(f"{s}.{k}", v) for s, fields in settings.items() for k, v in fields.items()]
    return "\n".join(
        (
            f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(title)}</title>',
            "<style>body{font:14px/1.5 sans-serif;max-width:860px;margin:2em auto;color:#222}"
            "td{padding:1px 14px 1px 0;vertical-align:top}td:first-child{color:#666}</style>",
            f"<h1>{escape(title)}</h1>",
            _table(facts.items()),
            "<h2>Curves</h2>",
            svg(records),
            "<h2>Settings</h2>",
            _table(flat),
            "</html>\n",
        )
    )


def _table(rows: Any) -> str:
    cells = (f"<tr><td>{escape(str(k))}</td><td>{escape(str(v))}</td></tr>" for k, v in rows)
    return f"<table>{''.join(cells)}</table>"
