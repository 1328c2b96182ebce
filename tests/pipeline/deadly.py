"""A stage that takes its process with it, as a crash in a decoder or the system's out-of-memory killer would."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import polars as pl

from tuwen.pipeline.stage import StageModel


class Deadly(StageModel):
    """Kills the process at a caption that holds 雷, unless the file ``cured`` is there."""

    name: ClassVar[str] = "deadly"

    cured: str

    def measure(self, batch: pl.DataFrame) -> pl.DataFrame:
        if batch["caption"].str.contains("雷").any() and not Path(self.cured).exists():
            os.kill(os.getpid(), signal.SIGKILL)
        return batch

    def reasons(self) -> Mapping[str, pl.Expr]:
        return {}
