"""What a training writes as it goes: one JSON line per interval, and the same for TensorBoard where it is installed."""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class Journal:
    """Appends to ``path``; records from ``step`` on that an interrupted training left there are taken out."""

    def __init__(self, path: Path | None, step: int = 0, board: Path | None = None) -> None:
        self.records: list[dict[str, Any]] = []
        self._path, self._board = path, None
        if path is not None:
            kept = path.read_text("utf-8").splitlines() if step and path.exists() else []
            self.records = [r for r in map(json.loads, kept) if r["step"] < step]
            path.write_text("".join(json.dumps(r) + "\n" for r in self.records), "utf-8")
        if board is not None:
            self._board = _writer(board, step)

    def write(self, record: Mapping[str, Any]) -> None:
        """One record; numbers in it become TensorBoard's scalars at its ``step``."""
        self.records.append(dict(record))
        if self._path is not None:
            with self._path.open("a", encoding="utf-8") as handle:
                handle.write(json.dumps(record) + "\n")
        if self._board is not None:
            for name, value in record.items():
                if name != "step" and isinstance(value, int | float):
                    self._board.add_scalar(f"train/{name}", value, record["step"])
            self._board.flush()

    def close(self) -> None:
        """Finish TensorBoard's file."""
        if self._board is not None:
            self._board.close()


def has_tensorboard() -> bool:
    """Whether the package is installed."""
    return importlib.util.find_spec("tensorboard") is not None


def _writer(folder: Path, step: int) -> Any:
    if not has_tensorboard():
        return None
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder), purge_step=step or None)
