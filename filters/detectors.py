"""Detectors of unsafe images: the sample's own, any ONNX classifier, an installed nudenet.

A detector gives for each picture the probability of its likeliest unsafe class and that class's name. None
that is real ships with the package: weights of public classifiers have licences that their user
has to accept.
"""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..pipeline.errors import RecipeError
from ..pipeline.once import once
from .pixels import Pixels, cv

Finding = tuple[float, str]


class Detector(Protocol):
    """Looks at upright pixels (h, w, 3), blue-green-red, whose shorter side is ``side`` where the image has that much.

    ``real`` is false for stand-ins that judge no real image. A finding depends on its own picture alone.
    """

    real: bool
    side: int

    def look(self, pictures: Sequence[Pixels]) -> list[Finding]: ...


class SampleDetector:
    """Finds the sample crawl's stand-in for an unsafe image, magenta and black stripes, and nothing else."""

    real = False
    side = 256
    FULL_SHARE = 0.25
    """Share of magenta pixels at which the probability is 1: stripes over half of the picture."""

    def look(self, pictures: Sequence[Pixels]) -> list[Finding]:
        return [(min(1.0, self._share(p) / self.FULL_SHARE), "hazard") for p in pictures]

    def _share(self, pixels: Pixels) -> float:
        cv2 = cv()
        magenta = cv2.inRange(pixels, (151, 0, 151), (255, 109, 255))
        if not cv2.countNonZero(magenta):
            return 0.0
        dark = cv2.inRange(pixels, (0, 0, 0), (79, 79, 79))
        # A purple object is magenta too; only stripes have as much black right beside it.
        near = cv2.dilate(dark, np.ones((25, 25), np.uint8))
        share = cv2.countNonZero(cv2.bitwise_and(magenta, near)) / magenta.size
        edges = float((magenta[:, 1:] != magenta[:, :-1]).mean())
        return share if edges > 0.02 else 0.0


class OnnxDescription(BaseModel):
    """The yaml beside an ONNX classifier: how to feed it and what its outputs mean."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    size: int = Field(224, ge=1, description="pixels; side of the square it wants")
    crop: bool = Field(False, description="cut the middle square out; otherwise the picture is squeezed into it")
    pad: bool = Field(False, description="lay black below or beside it until it is a square")
    resize: str = Field("area", pattern="^(area|linear)$", description="how it is brought to the size")
    channels: str = Field("RGB", pattern="^(RGB|BGR)$")
    layout: str = Field("NCHW", pattern="^(NCHW|NHWC)$")
    scale: float = Field(1 / 255, description="what pixel values are multiplied by before normalisation")
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    classes: tuple[str, ...]
    unsafe: tuple[str, ...]
    softmax: bool = Field(False, description="the outputs are logits")
    boxes: bool = Field(
        False, description="the output is (1, 4 + classes, boxes), as YOLOv8 gives: the best box counts"
    )


class OnnxDetector:
    """An image classifier, or a detector of boxes, in ONNX format; MODEL.yaml beside MODEL.onnx describes it."""

    real = True

    def __init__(self, path: Path, told: OnnxDescription) -> None:
        import onnxruntime

        self.told, self.side = told, told.size
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
        values = np.asarray(self.session.run(None, {self.input: _fed(pixels, told)})[0], np.float64)
        out = values.reshape(len(told.classes) + 4, -1)[4:].max(axis=1) if self._boxes(values) else values.ravel()
        if len(out) != len(told.classes):
            raise RecipeError(f"the classifier gives {len(out)} values, its yaml names {len(told.classes)} classes")
        if told.softmax:
            out = np.exp(out - out.max()) / np.exp(out - out.max()).sum()
        worst = max(told.unsafe, key=lambda name: float(out[told.classes.index(name)]))
        return float(out[told.classes.index(worst)]), worst

    def _boxes(self, values: np.ndarray[Any, Any]) -> bool:
        """Whether the output is one of boxes; RecipeError where it should be and is not."""
        rows = 4 + len(self.told.classes)
        if self.told.boxes and values.shape[:-1] not in ((1, rows), (rows,)):
            raise RecipeError(f"the detector gives {values.shape}; boxes of {rows - 4} classes are (1, {rows}, boxes)")
        return self.told.boxes


def _fed(pixels: Pixels, told: OnnxDescription) -> np.ndarray[Any, np.dtype[np.float32]]:
    """The model's input, one picture, from pixels (h, w, 3)."""
    cv2 = cv()
    if told.crop:
        side = min(pixels.shape[:2])
        top, left = (pixels.shape[0] - side) // 2, (pixels.shape[1] - side) // 2
        pixels = pixels[top : top + side, left : left + side]
    if told.pad:
        side = max(pixels.shape[:2])
        below, beside = side - pixels.shape[0], side - pixels.shape[1]
        pixels = cv2.copyMakeBorder(pixels, 0, below, 0, beside, cv2.BORDER_CONSTANT)
    way = cv2.INTER_AREA if told.resize == "area" else cv2.INTER_LINEAR
    small = cv2.resize(pixels, (told.size, told.size), interpolation=way).astype(np.float32)
    if told.channels == "RGB":
        small = small[..., ::-1]
    values = (small * told.scale - np.array(told.mean, np.float32)) / np.array(told.std, np.float32)
    values = values.transpose(2, 0, 1)[None] if told.layout == "NCHW" else values[None]
    return np.ascontiguousarray(values, np.float32)


NUDENET = OnnxDescription(
    size=320,
    pad=True,
    resize="linear",
    channels="BGR",
    boxes=True,
    classes=(
        "FEMALE_GENITALIA_COVERED",
        "FACE_FEMALE",
        "BUTTOCKS_EXPOSED",
        "FEMALE_BREAST_EXPOSED",
        "FEMALE_GENITALIA_EXPOSED",
        "MALE_BREAST_EXPOSED",
        "ANUS_EXPOSED",
        "FEET_EXPOSED",
        "BELLY_COVERED",
        "FEET_COVERED",
        "ARMPITS_COVERED",
        "ARMPITS_EXPOSED",
        "FACE_MALE",
        "BELLY_EXPOSED",
        "MALE_GENITALIA_EXPOSED",
        "ANUS_COVERED",
        "FEMALE_BREAST_COVERED",
        "BUTTOCKS_COVERED",
    ),
    unsafe=(
        "FEMALE_GENITALIA_EXPOSED",
        "MALE_GENITALIA_EXPOSED",
        "FEMALE_BREAST_EXPOSED",
        "ANUS_EXPOSED",
        "BUTTOCKS_EXPOSED",
    ),
)
"""What nudenet 3.4's own code feeds its model with (blue first, whatever its names say) and reads from it."""


def _nudenet() -> Path:
    """The model of an installed nudenet (AGPL-3.0, therefore never a dependency); its code is not run."""
    found = importlib.util.find_spec("nudenet")
    if found is None:
        raise RecipeError("image_safety.detector is nudenet, but it is not installed: pip install nudenet")
    path = Path(*(found.submodule_search_locations or [""])[:1]) / "320n.onnx"
    if not path.is_file():
        raise RecipeError(f"the installed nudenet has no {path}; expected version 3.4: pip install nudenet==3.4.2")
    return path


class NoDetector:
    """Looks at nothing."""

    real = False
    side = 0

    def look(self, pictures: Sequence[Pixels]) -> list[Finding]:
        return [(0.0, "none")] * len(pictures)


@once(4)
def load_detector(spec: str) -> Detector:
    """``sample``, ``none``, ``nudenet`` or ``onnx:PATH``, loaded once per process."""
    kind, _, path = spec.partition(":")
    if kind == "onnx":
        if not Path(path).is_file():
            raise RecipeError(f"image_safety.detector: no file at {path!r}; expected onnx:PATH of a classifier")
        return OnnxDetector(Path(path), _description(Path(path).with_suffix(".yaml")))
    if spec == "nudenet":
        return OnnxDetector(_nudenet(), NUDENET)
    made: dict[str, Callable[[], Detector]] = {"sample": SampleDetector, "none": NoDetector}
    if kind not in made:
        raise RecipeError(f"image_safety.detector {spec!r}; expected one of: sample, none, nudenet, onnx:PATH")
    return made[kind]()


def fingerprint(spec: str) -> str:
    """16 hex digits over the detector: its file where it is a model, its name otherwise."""
    path = _nudenet() if spec == "nudenet" else Path(spec.partition(":")[2])
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
