"""The report page: one file that opens offline, with aggregates and samples inside.

The data goes into the page as JSON in which ``<`` is escaped, and the page's script writes it with
``textContent`` only: captions come from the web and may hold anything.
"""

from __future__ import annotations

import json
from importlib.resources import files as package_files

from ..pipeline import files
from .aggregate import aggregate


def write_report(run: str) -> None:
    """(Re)write ``report.html`` of a finished run."""
    told = json.loads(files.read_bytes(files.join(run, "run.json")))
    data = json.dumps(aggregate(run, told), ensure_ascii=False, separators=(",", ":"))
    safe = data.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
    page = (package_files(__package__) / "page.html").read_text("utf-8").replace("/*DATA*/null", safe, 1)
    files.write_bytes(files.join(run, "report.html"), page.encode("utf-8", "replace"))
