"""Changing a finished run, all at once or not at all.

New versions of files are staged under ``RUN/amending``; a journal says that they are complete; then they
take their places. Killed before the journal, nothing has changed; killed after it, the next command on the run
carries the change through (``settle``). What describes the run is then written anew from ledger and shards.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from ..export.card import write_card
from ..export.croissant import write_croissant
from ..export.report import write_report
from ..export.shards import read_index
from . import files
from .errors import InputError
from .finish import summary
from .ledger import scan_ledger
from .recipe import from_description

STAGED = "amending"
JOURNAL = "amend.json"


def run_json(run: str) -> dict[str, Any]:
    """What run.json of a finished run holds; ``InputError`` where there is none."""
    path = files.join(run, "run.json")
    if not files.exists(path):
        raise InputError(
            f"{run} holds no run.json; expected a finished run directory. If it was interrupted, run it again"
        )
    told: dict[str, Any] = json.loads(files.read_bytes(path))
    return told


def staged(run: str, *names: str) -> str:
    """Where the new version of a file of ``run`` is put until the change is complete."""
    return files.join(run, STAGED, *names)


def commit(run: str, deleted: Sequence[str], note: dict[str, Any]) -> dict[str, Any]:
    """Put all staged files of ``run`` in place, delete ``deleted`` (relative names); the new run.json.

    ``note`` is what run.json tells about the change, beside its time.
    """
    moved = files.tree(files.join(run, STAGED))
    now = datetime.now(UTC).isoformat(timespec="microseconds")
    journal = {"moved": moved, "deleted": list(deleted), "note": {"at": now, **note}}
    files.write_bytes(files.join(run, JOURNAL), json.dumps(journal, ensure_ascii=False).encode())
    told = settle(run)
    assert told is not None
    return told


def settle(run: str) -> dict[str, Any] | None:
    """Carry through a change that was interrupted after it was complete; forget one that was not."""
    journal = files.join(run, JOURNAL)
    told = None
    if files.exists(journal):
        change = json.loads(files.read_bytes(journal))
        for name in change["moved"]:
            if files.exists(staged(run, name)):
                files.move(staged(run, name), files.join(run, name))
        for name in change["deleted"]:
            files.remove(files.join(run, name))
        told = _describe(run, change["note"])
        files.remove(journal)
    files.remove(files.join(run, STAGED))
    return told


def _describe(run: str, note: dict[str, Any]) -> dict[str, Any]:
    """run.json, report and card of the run as it is now."""
    told = run_json(run)
    recipe = from_description(told["recipe"])
    spent = {name: int(stage["seconds"] * 1e6) for name, stage in told["stages"].items()}
    infos = read_index(files.join(run, "shards"))
    told |= summary(scan_ledger(run), recipe, told["counts"]["inputs"], spent, infos, bool(infos))
    # The same change told twice is one change whose telling was interrupted.
    told["amended"] = [*(n for n in told.get("amended", []) if n["at"] != note["at"]), note]
    files.write_bytes(files.join(run, "run.json"), json.dumps(told, ensure_ascii=False, indent=1).encode())
    write_card(run)
    write_croissant(run)
    write_report(run)  # last: it links what lies beside it
    return told
