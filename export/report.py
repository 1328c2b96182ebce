"""The report page: one file that opens offline, with aggregates and samples inside.

The data goes into the page as JSON in which ``<`` is escaped, and the page's script writes it with
``textContent`` only: captions come from the web and may hold anything.
"""

from __future__ import annotations

import json
from importlib.resources import files as package_files
from typing import Any

from ..pipeline import files
from .aggregate import aggregate
from .compare import compare

SCRIPTS = tuple(f"page_{part}.js" for part in ("words", "base", "run", "pairs", "worth", "compare", "start"))

LIMIT = 8_000_000
"""Bytes that a page stays under whatever the ledger's size; what makes it grow are pictures, a dozen per reason."""


def write_report(run: str) -> None:
    """(Re)write ``report.html`` of a finished run."""
    told = json.loads(files.read_bytes(files.join(run, "run.json")))
    files.write_bytes(files.join(run, "report.html"), page(aggregate(run, told)))


def write_comparison(run: str, other: str) -> dict[str, Any]:
    """Write ``comparison.html`` into ``run``: what it does otherwise than ``other``; returns what the page holds."""
    a, b = (json.loads(files.read_bytes(files.join(r, "run.json"))) for r in (run, other))
    data = compare(run, a, other, b)
    files.write_bytes(files.join(run, "comparison.html"), page(data))
    return data


def page(data: dict[str, Any]) -> bytes:
    """The page around ``data``, with its styles and scripts inside."""
    folder = package_files(__package__)
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    safe = text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
    script = "\n".join((folder / name).read_text("utf-8") for name in SCRIPTS)
    parts = {"/*STYLE*/": (folder / "page.css").read_text("utf-8"), "/*SCRIPT*/": script, "/*DATA*/null": safe}
    html = (folder / "page.html").read_text("utf-8")
    for mark, part in parts.items():
        html = html.replace(mark, part, 1)
    return html.encode("utf-8", "replace")
