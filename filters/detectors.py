"""Detectors of unsafe images: the sample's own, any ONNX classifier, an installed nudenet.

A detector gives for each picture the probability of its likeliest unsafe class and that class's name. None
that is real ships with the package: weights of public classifiers have licences that their user
has to accept.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..pipeline.errors import RecipeError

Pixels = NDArray[np.uint8]
Finding = tuple[float, str]


class Detector(Protocol):
    """Looks at RGB pixels (h, w, 3); ``real`` is false for stand-ins that judge no real image."""

    real: bool

    def look(self, pictures: Sequence[Pixels]) -> list[Finding]: ...


class SampleDetector:
    """Finds the sample crawl's stand-in for an unsafe image, magenta and black stripes, and nothing else."""

    real = False
    FULL_SHARE = 0.25
    """Share of magenta pixels at which the probability is 1: stripes over half of the picture."""

    def look(self, pictures: Sequence[Pixels]) -> list[Finding]:
        return [(min(1.0, self._share(p) / self.FULL_SHARE), "hazard") for p in pictures]

    def _share(self, pixels: Pixels) -> float:
        r, g, b = (pixels[..., i].astype(np.int16) for i in range(3))
        magenta = (r > 150) & (b > 150) & (g < 110)
        dark = np.maximum(np.maximum(r, g), b) < 80
        # A purple object is magenta too; only stripes have as much black right beside it.
        near = cv2.dilate(dark.astype(np.uint8), np.ones((25, 25), np.uint8)) > 0
        share = float((magenta & near).mean())
        edges = float((magenta[:, 1:] != magenta[:, :-1]).mean())
        return share if edges > 0.02 else 0.0


class OnnxDescription(BaseModel):
    """The yaml beside an ONNX classifier: how to feed it and what its outputs mean."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    size: int = Field(224, ge=1, description="pixels; side of the square it wants")
    layout: str = Field("NCHW", pattern="^(NCHW|NHWC)$")
    scale: float = Field(1 / 255, description="what pixel values are multiplied by before normalisation")
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    classes: tuple[str, ...]
    unsafe: tuple[str, ...]
    softmax: bool = Field(False, description="the outputs are logits")


class OnnxDetector:
    """An image classifier in ONNX format; MODEL.yaml beside MODEL.onnx describes it."""

    real = True

    def __init__(self, path: Path) -> None:
        import onnxruntime

        self.told = _description(path.with_suffix(".yaml"))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        try:
            self.session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime raises its own C++ exceptions
            raise RecipeError(f"{path} is no ONNX model that can be loaded: {str(error)[:200]}") from None
        self.input = self.session.get_inputs()[0].name

    def look(self, pictures: Sequence[Pixels]) -> list[Finding]:
        return [self._one(p) for p in pictures]

    def _one(self, pixels: Pixels) -> Finding:
        told = self.told
        small = cv2.resize(pixels, (told.size, told.size), interpolation=cv2.INTER_AREA).astype(np.float32)
        values = (small * told.scale - np.array(told.mean, np.float32)) / np.array(told.std, np.float32)
        values = values.transpose(2, 0, 1)[None] if told.layout == "NCHW" else values[None]
        out = np.asarray(self.session.run(None, {self.input: values.astype(np.float32)})[0], np.float64).ravel()
        if len(out) != len(told.classes):
            raise RecipeError(f"the classifier gives {len(out)} values, its yaml names {len(told.classes)} classes")
        if told.softmax:
            out = np.exp(out - out.max()) / np.exp(out - out.max()).sum()
        worst = max(told.unsafe, key=lambda name: float(out[told.classes.index(name)]))
        return float(out[told.classes.index(worst)]), worst


class NudenetDetector:
    """An adapter for an installed nudenet (AGPL-3.0, therefore never a dependency)."""

    real = True
    UNSAFE = (
        "FEMALE_GENITALIA_EXPOSED",
        "MALE_GENITALIA_EXPOSED",
        "FEMALE_BREAST_EXPOSED",
        "ANUS_EXPOSED",
        "BUTTOCKS_EXPOSED",
    )

    def __init__(self) -> None:
        try:
            from nudenet import NudeDetector  # type: ignore[import-not-found,unused-ignore]
        except ImportError:
            raise RecipeError(
                "image_safety.detector is nudenet, but it is not installed: pip install nudenet"
            ) from None
        self.model = NudeDetector()

    def look(self, pictures: Sequence[Pixels]) -> list[Finding]:
        found = []
        for pixels in pictures:
            seen = self.model.detect(np.ascontiguousarray(pixels[..., ::-1]))
            unsafe = [(float(d["score"]), str(d["class"])) for d in seen if d["class"] in self.UNSAFE]
            found.append(max(unsafe, default=(0.0, "none")))
        return found


class NoDetector:
    """Looks at nothing."""

    real = False

    def look(self, pictures: Sequence[Pixels]) -> list[Finding]:
        return [(0.0, "none")] * len(pictures)


@lru_cache(4)
def load_detector(spec: str) -> Detector:
    """``sample``, ``none``, ``nudenet`` or ``onnx:PATH``, loaded once per process."""
    kind, _, path = spec.partition(":")
    if kind == "onnx":
        if not Path(path).is_file():
            raise RecipeError(f"image_safety.detector: no file at {path!r}; expected onnx:PATH of a classifier")
        return OnnxDetector(Path(path))
    made: dict[str, Callable[[], Detector]] = {"sample": SampleDetector, "none": NoDetector, "nudenet": NudenetDetector}
    if kind not in made:
        raise RecipeError(f"image_safety.detector {spec!r}; expected one of: sample, none, nudenet, onnx:PATH")
    return made[kind]()


def fingerprint(spec: str) -> str:
    """16 hex digits over the detector: its file for ONNX, its name otherwise."""
    path = Path(spec.partition(":")[2])
    return hashlib.sha256(path.read_bytes() if path.is_file() else spec.encode()).hexdigest()[:16]


def _description(path: Path) -> OnnxDescription:
    from ruamel.yaml import YAML

    if not path.is_file():
        raise RecipeError(
            f"no {path} beside the classifier; it says size, layout, mean, std, classes and which of them are unsafe"
        )
    told: Any = YAML(typ="safe").load(path.read_text("utf-8"))
    try:
        made = OnnxDescription(**(told or {}))
    except (ValidationError, TypeError) as error:
        raise RecipeError(f"{path}: {error}") from None
    unknown = [name for name in made.unsafe if name not in made.classes]
    if unknown or not made.unsafe:
        raise RecipeError(f"{path}: unsafe names {unknown or 'no class'}; classes are {', '.join(made.classes)}")
    return made
