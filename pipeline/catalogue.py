"""Every stage with its fields, units, defaults and reasons: what `curate stages` prints."""

from __future__ import annotations

import inspect
from typing import Any

from .registry import STAGES, stage_class


def describe(name: str) -> dict[str, Any]:
    """One stage: name, phase, first sentence of its docstring, fields, reasons, columns."""
    cls = stage_class(name)
    kinds = {**dict.fromkeys(cls.thresholds(), "threshold"), **dict.fromkeys(cls.operational(), "operational")}
    about = (inspect.getdoc(cls) or "").split("\n\n")[0].replace("\n", " ")
    return {
        "name": name,
        "phase": cls.phase,
        "about": about,
        "adds": list(cls.adds),
        "reasons": list(cls().reasons()),
        "fields": [
            {
                "name": n,
                "default": f.get_default(call_default_factory=True),
                "about": f.description or "",
                "kind": kinds.get(n, ""),
            }
            for n, f in cls.model_fields.items()
        ],
    }


def catalogue() -> list[dict[str, Any]]:
    """All stages in the order in which recipes use them."""
    return [describe(name) for name in STAGES]
