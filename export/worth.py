"""What ``curate value`` found of a run, as far as the report shows it: value.json in, plain values out."""

from __future__ import annotations

import json
from typing import Any

from ..pipeline import files


def worth(run: str) -> dict[str, Any] | None:
    """The arms and, per stage that was trained with and without, its gain in points; None where nothing was asked."""
    path = files.join(run, "value.json")
    if not files.exists(path):
        return None
    told = json.loads(files.read_bytes(path))
    main = told["main"]
    stages = []
    for row in told["stages"]:
        out, add = row.get("leave_out") or {}, row.get("add_in") or {}
        if out or add:
            stages.append(
                {
                    "stage": row["stage"],
                    "only_it": row["only_it_drops"],
                    "planted": row.get("planted_share"),
                    "left_out": _points(out.get("gain")),
                    "left_out_random": _points(out.get("over_random")),
                    "alone": _points(add.get("gain")),
                    "alone_random": _points(add.get("over_random")),
                    "cost": row.get("seconds_per_point"),
                }
            )
    return {
        "samples": told["samples_seen"],
        "seeds": told["settings"]["seeds"],
        "questions": told["questions"],
        "verdict": main["verdict"],
        "ratio": main["ratio"],
        "share": main["pairs_share"],
        "arms": [[a["arm"], a["pairs"], round(100 * a["r1"], 1)] for a in main["arms"]],
        "stages": stages,
    }


def _points(found: dict[str, Any] | None) -> list[Any] | None:
    """[mean, low, high, verdict] in points of a hundred; bounds are None where one seed gives none."""
    if not found:
        return None
    shares = (found[k] for k in ("mean", "low", "high"))
    return [*(None if s is None else round(100 * s, 1) for s in shares), found["verdict"]]
