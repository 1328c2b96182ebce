"""What runs on the device: forward passes alone, by onnxruntime, with whatever parameters it holds. No torch here.

The folder ``device`` holds

    frames.onnx     frames (n, 3, side, side) float32 to features (n, f)
    clip.onnx       frames (n, t, 3, side, side) and parameters (1, p) to rows (n, embed)
    text.onnx       ids (n, l) int64 to unit rows (n, embed)
    question.onnx, answer.onnx    where questions are answered
    device.json     sizes, characters, answers, how anchors are picked, the model's name
    anchors.npy     the learned projection of the selector, where there is one

A device begins with the static model, and takes parameters only whole and checked; they are kept in ``parameters.npy``
and taken again at the next start. Whatever goes wrong, the model that it had goes on working.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...pipeline.errors import UsageError
from .client import Exchange, Limits, ask
from .exchange import F32, unpack_parameters
from .files import DEVICE, session, told_in
from .pick import pick

U8 = NDArray[np.uint8]
KEPT = "parameters.npy"
BATCH = 64


class Adapted(NamedTuple):
    """What an adaptation did: which model works now (adapted or static), why, and what it cost."""

    working: str
    reason: str
    anchors: int
    sent: int
    received: int
    feature_seconds: float
    exchange_seconds: float


class DeviceModel:
    """The light model of a folder; ``parameters`` are what its dynamic layers hold now."""

    def __init__(self, folder: Path, state: Path | None = None) -> None:
        """``state``: the folder that parameters are kept in, the model's own by default."""
        self.folder, self.state = folder, state or folder
        self.told = told_in(folder, DEVICE)
        self._sessions: dict[str, Any] = {}
        self._characters = {c: i for i, c in enumerate(self.told["characters"], start=2)}
        projection = folder / "anchors.npy"
        self.projection: F32 | None = np.load(projection) if projection.is_file() else None
        self.static = np.zeros((1, int(self.told["parameters"])), np.float32)
        self.parameters = self.static
        self.note = ""
        """What went wrong with the parameters that are kept, where something did."""
        self._restore()

    @property
    def working(self) -> str:
        """adapted or static."""
        return "static" if self.parameters is self.static else "adapted"

    def features(self, frames: U8) -> F32:
        """(n, f) of frames (n, 3, side, side): all that may leave the device, of a few of them."""
        return self._run("frames", {"frames": scaled(frames)})

    def clips(self, frames: U8) -> F32:
        """(n, embed) rows of clips (n, t, 3, side, side); ``rows / |rows|`` are compared with ``texts``."""
        return self._run("clip", {"frames": scaled(frames)}, {"parameters": self.parameters})

    def texts(self, captions: Sequence[str]) -> F32:
        """(n, embed) unit rows."""
        return self._run("text", {"ids": self._ids(captions)})

    def answers(self, clips: F32, questions: Sequence[str]) -> list[str]:
        """The answer to each question about the clip of the same number (rows of ``clips``)."""
        if not self.told["answers"]:
            raise UsageError(f"{self.folder} answers no questions: its training shards held none (qa in KEY.json)")
        asked = self._run("question", {"ids": self._ids(questions)})
        logits = self._run("answer", {"clips": clips, "questions": asked})
        return [self.told["answers"][i] for i in logits.argmax(1)]

    def adapt(self, frames: U8, url: str, limits: Limits | None = None, anchors: int = 0, seed: int = 0) -> Adapted:
        """Upload anchors of the roll ``frames`` (N, 3, side, side), in the order taken, and take what comes back.

        Where nothing usable comes, the model stays as it is.
        """
        if not len(frames):
            raise UsageError("a roll without a frame cannot be adapted to; give at least one photo")
        started = time.perf_counter()
        seen = self.features(frames)
        chosen = pick(self.told["policy"], seen, anchors or int(self.told["anchors"]), self.projection, seed)
        passed = time.perf_counter() - started
        told: Exchange = ask(
            url,
            self.told["model"],
            seen[chosen],
            int(self.told["parameters"]),
            float(self.told["largest"]),
            limits,
        )
        if told.parameters is not None:
            self.take(told.parameters)
        return Adapted(self.working, told.reason, len(chosen), told.sent, told.received, passed, told.seconds)

    def take(self, parameters: F32) -> None:
        """Hold ``parameters`` (p,) from now on, and, where they can be kept, at the next start."""
        self.parameters = parameters[None].astype(np.float32)
        try:
            self.state.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=self.state, prefix=".parameters-")
            with os.fdopen(handle, "wb") as file:
                np.save(file, parameters.astype(np.float16), allow_pickle=False)
            Path(name).replace(self.state / KEPT)
        except OSError as error:
            self.note = f"the parameters work, but cannot be kept in {self.state}: {error}"

    def forget(self) -> None:
        """Go back to the static model."""
        self.parameters = self.static
        (self.state / KEPT).unlink(missing_ok=True)

    def _restore(self) -> None:
        path = self.state / KEPT
        if not path.is_file():
            return
        with contextlib.suppress(OSError, ValueError, EOFError):
            kept = np.load(path, allow_pickle=False)
            body = kept.astype("<f2").tobytes()
            self.parameters = unpack_parameters(body, self.static.size, float(self.told["largest"]))[None]
            return
        self.note = f"{path} cannot be used; the static model works until the next adaptation"

    def _ids(self, texts: Sequence[str]) -> NDArray[np.int64]:
        length = int(self.told["length"])
        found = np.zeros((len(texts), length), np.int64)
        for i, text in enumerate(texts):
            row = [self._characters.get(c, 1) for c in text[:length]] or [1]
            found[i, : len(row)] = row
        return found

    def _run(self, name: str, given: dict[str, Any], whole: dict[str, Any] | None = None) -> F32:
        if name not in self._sessions:
            self._sessions[name] = session(self.folder / f"{name}.onnx")
        run: Callable[..., Any] = self._sessions[name].run
        n = len(next(iter(given.values())))
        parts = [
            run(None, {k: v[at : at + BATCH] for k, v in given.items()} | (whole or {}))[0] for at in range(0, n, BATCH)
        ]
        return np.concatenate(parts).astype(np.float32)


def scaled(frames: U8) -> F32:
    """uint8 to -1 to 1, as the model takes them."""
    return frames.astype(np.float32) / np.float32(127.5) - np.float32(1)
