"""The findings of a study as lines of text for a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def tables(told: dict[str, Any]) -> list[str]:
    """The findings, as value.json holds them, in lines."""
    main, fixed = told["main"], told["settings"]
    lines = [
        f"{fixed['steps']} steps of {fixed['batch']}, {fixed['seeds']} seeds, {told['questions']} questions both ways; "
        f"{told['held_out']} pairs not trained on (held out with val and test, or without a picture)",
        "",
        *grid(
            ("arm", "pairs", "R@1", "R@5", "by seed", "curated better by"),
            [
                (
                    a["arm"],
                    f"{a['pairs']}",
                    percent(a["r1"]),
                    percent(a["r5"]),
                    " ".join(percent(r) for r in a["r1_by_seed"]),
                    gain(main["curated_less"].get(a["arm"])),
                )
                for a in main["arms"]
            ],
        ),
        f"chance {percent(told['chance'])}; ceiling less raw {gain(main['ceiling_less_raw'])}",
        f"curated has {main['ratio']} times raw's R@1 with {main['pairs_share']:.1%} of its pairs: {main['verdict']}",
    ]
    if told.get("stages"):
        lines += ["", *_stages(told["stages"])]
    if told.get("sizes"):
        lines += ["", *_sizes(told["sizes"])]
    if told.get("style"):
        lines += ["", *_style(told["style"])]
    lines += ["", *_diversity(told["diversity"])]
    return lines + [f"note: {n}" for n in told["notes"]]


def percent(share: float | None) -> str:
    """12.3 for 0.123."""
    return "-" if share is None else f"{100 * share:.1f}"


def gain(found: dict[str, Any] | None) -> str:
    """A difference in points with its interval and, where it is not proven, the word for that."""
    if not found:
        return "-"
    says = "" if found["verdict"] != "unproven" else " unproven"
    return f"{100 * found['mean']:+.1f} [{percent(found['low'])}, {percent(found['high'])}]{says}"


def grid(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of aligned columns: the first to the left, the others to the right."""
    every = [head, *rows]
    widths = [max(len(row[i]) for row in every) for i in range(len(head))]
    return [
        "  ".join(
            cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in every
    ]


def _stages(stages: Sequence[dict[str, Any]]) -> list[str]:
    rows = []
    for s in stages:
        out, add = s.get("leave_out", {}), s.get("add_in", {})
        planted, cost = s.get("planted_share"), s.get("seconds_per_point")
        rows.append(
            (
                s["stage"],
                str(s["dropped_alone"]),
                str(s["only_it_drops"]),
                "-" if planted is None else f"{planted:.0%}",
                gain(out.get("gain")),
                gain(out.get("over_random")),
                gain(add.get("gain")),
                gain(add.get("over_random")),
                "-" if s["seconds"] is None else f"{s['seconds']:.1f}",
                "-" if cost is None else f"{cost:g}",
            )
        )
    head = ("stage", "drops", "only it", "planted", "all less without", "over random", "alone less raw")
    return grid((*head, "over random", "seconds", "s/point"), rows)


def _sizes(sizes: dict[str, Any]) -> list[str]:
    rows = [
        (p["arm"], str(p["pairs"]), percent(p["r1"]), percent(p["r5"]))
        for curve in sizes["curves"].values()
        for p in curve
    ]
    needed = sizes["pairs_to_match_raw"]
    says = "no measured size of curated data matches raw"
    if needed is not None:
        share = f"{needed / sizes['raw_pairs']:.1%}"
        most = "at most" if sizes["at_most"] else "about"
        says = f"{most} {needed} curated pairs match {sizes['raw_pairs']} raw ones ({share})"
    return [*grid(("arm", "pairs", "R@1", "R@5"), rows), says]


def _style(style: dict[str, Any]) -> list[str]:
    rows = [
        (
            a["arm"],
            str(a["pairs"]),
            percent(a["original"]),
            gain(a["original_gain"]) if a["arm"] != "original" else "-",
            percent(a["synthetic"]),
            gain(a["synthetic_gain"]) if a["arm"] != "original" else "-",
        )
        for a in style["arms"]
    ]
    head = ("captions trained on", "pairs", "R@1 asked as found", "gain", "R@1 asked in synthetic", "gain")
    return [*grid(head, rows), f"{style['questions']} questions that have both captions"]


def _diversity(found: dict[str, Any]) -> list[str]:
    sets = found["sets"]
    rows = [(k.replace("_", " "), *(_figure(one.get(k)) for one in sets)) for k in sets[0] if k != "arm"]
    return grid(("", *(one["arm"] for one in sets)), rows)


def _figure(value: Any) -> str:
    return "-" if value is None else str(value) if isinstance(value, int) else f"{value:.3f}"
