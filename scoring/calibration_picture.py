"""The picture of a calibration: histograms of both kinds of pairs, and the ROC. Plain SVG, no plotting library."""

from __future__ import annotations

from html import escape

import numpy as np

from .calibration import F64, I64, Calibration, Curve, Scores

WIDTH, HEIGHT = 860, 360
LEFT, RIGHT, TOP, SIDE = 60, 530, 56, 250
"""Pixels: where the two panels begin, and their height; the ROC is a square of that side."""
BARS = 48
TRUE, SHUFFLED, INK = "#0072b2", "#d55e00", "#444"
"""Blue and vermilion of Okabe and Ito's palette, told apart by colour-blind readers too."""


def svg(scores: Scores, found: Curve, told: Calibration, title: str) -> str:
    """An SVG document of ``WIDTH`` by ``HEIGHT`` pixels."""
    return "\n".join(
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" '
            f'height="{HEIGHT}" font-family="sans-serif" font-size="12" fill="{INK}">',
            f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
            _text(LEFT, 22, title, size=14),
            *_histograms(scores, told),
            *_roc(found, told),
            "</svg>\n",
        )
    )


def _histograms(scores: Scores, told: Calibration) -> list[str]:
    """Both densities over one axis, with the threshold and its interval."""
    both = np.concatenate([scores.true, scores.shuffled])
    low, high = float(both.min()), float(both.max())
    high = high if high > low else low + 1e-3
    width = RIGHT - LEFT - 90
    shares = [np.histogram(side, BARS, (low, high))[0] / len(side) for side in (scores.true, scores.shuffled)]
    top = max(float(s.max()) for s in shares)

    def x(value: float) -> float:
        return LEFT + (value - low) / (high - low) * width

    out = [_steps(s / top, colour, width) for s, colour in zip(shares, (TRUE, SHUFFLED), strict=True)]
    out += [_line(LEFT, TOP + SIDE, LEFT + width, TOP + SIDE)]
    for value in np.linspace(low, high, 5):
        out.append(_text(x(value), TOP + SIDE + 16, f"{value:.2f}", anchor="middle"))
    out.append(_text(LEFT + width / 2, TOP + SIDE + 36, "score (cosine)", anchor="middle"))
    out.append(_text(LEFT, TOP - 8, f"{told.pairs} true pairs", colour=TRUE))
    out.append(_text(LEFT + width, TOP - 8, f"{told.shuffled} shuffled pairs", colour=SHUFFLED, anchor="end"))
    if told.threshold is not None:
        a, b = told.threshold_interval
        left, right = x(low if a is None else a), x(high if b is None else b)
        out.append(
            f'<rect x="{left:.1f}" y="{TOP}" width="{max(1.0, right - left):.1f}" height="{SIDE}" '
            'fill="#000" fill-opacity=".08"/>'
        )
        out.append(_line(x(told.threshold), TOP, x(told.threshold), TOP + SIDE, dash="4 3"))
        late = x(told.threshold) > LEFT + 0.6 * width
        words, anchor = f"threshold {told.threshold:.4f}", "end" if late else "start"
        out.append(_text(x(told.threshold) + (-4 if late else 4), TOP + 12, words, anchor=anchor))
    return out


def _roc(found: Curve, told: Calibration) -> list[str]:
    """TPR over FPR, from (0, 0) to (1, 1), with the threshold as a point."""
    tpr, fpr = (np.concatenate([[0.0], side[::-1]]) for side in (found.tpr, found.fpr))
    keep = _corners(fpr, tpr)
    points = " ".join(
        f"{RIGHT + f * SIDE:.1f},{TOP + (1 - t) * SIDE:.1f}" for f, t in zip(fpr[keep], tpr[keep], strict=True)
    )
    low, high = told.auc_interval
    out = [
        f'<rect x="{RIGHT}" y="{TOP}" width="{SIDE}" height="{SIDE}" fill="none" stroke="{INK}"/>',
        _line(RIGHT, TOP + SIDE, RIGHT + SIDE, TOP, dash="2 4"),
        f'<polyline points="{points}" fill="none" stroke="{TRUE}" stroke-width="2"/>',
        _text(RIGHT, TOP - 8, f"AUC {told.auc:.3f} ({low:.3f} to {high:.3f})"),
        _text(RIGHT + SIDE / 2, TOP + SIDE + 36, "share of shuffled pairs kept", anchor="middle"),
        f'<text transform="translate({RIGHT - 26},{TOP + SIDE / 2}) rotate(-90)" text-anchor="middle">'
        "share of true pairs kept</text>",
    ]
    for share in (0.0, 0.5, 1.0):
        out.append(_text(RIGHT + share * SIDE, TOP + SIDE + 16, f"{share:g}", anchor="middle"))
        out.append(_text(RIGHT - 6, TOP + (1 - share) * SIDE + 4, f"{share:g}", anchor="end"))
    if told.keep is not None and told.false_keep is not None:
        x, y = RIGHT + told.false_keep * SIDE, TOP + (1 - told.keep) * SIDE
        out.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{INK}"/>')
        words = f"keeps {told.keep:.1%} and {told.false_keep:.1%}"
        right = x > RIGHT + SIDE / 2
        out.append(_text(x - 8 if right else x + 8, y + 14, words, anchor="end" if right else "start"))
    return out


def _corners(x: F64, y: F64) -> I64:
    """Numbers of the points at which a path of axis-parallel or straight steps turns, first and last among them."""
    if len(x) < 3:
        return np.arange(len(x))
    dx, dy = np.diff(x), np.diff(y)
    turns = np.abs(dx[1:] * dy[:-1] - dx[:-1] * dy[1:]) > 1e-15
    return np.concatenate([[0], np.flatnonzero(turns) + 1, [len(x) - 1]])


def _steps(heights: F64, colour: str, width: float) -> str:
    """A filled histogram; ``heights`` in [0, 1]."""
    edges = LEFT + np.arange(len(heights) + 1) / len(heights) * width
    tops = TOP + SIDE - heights * SIDE
    path = "".join(f"L{a:.1f},{y:.1f}L{b:.1f},{y:.1f}" for a, b, y in zip(edges[:-1], edges[1:], tops, strict=True))
    return (
        f'<path d="M{LEFT},{TOP + SIDE}{path}L{edges[-1]:.1f},{TOP + SIDE}Z" fill="{colour}" fill-opacity=".35" '
        f'stroke="{colour}"/>'
    )


def _line(x1: float, y1: float, x2: float, y2: float, dash: str = "") -> str:
    dashed = f' stroke-dasharray="{dash}"' if dash else ""
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{INK}"{dashed}/>'


def _text(x: float, y: float, words: str, anchor: str = "start", colour: str = INK, size: int = 12) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}" font-size="{size}">'
        f"{escape(words)}</text>"
    )
