"""A scorer from a folder of ONNX files: no torch, no transformers, one file that says how to feed it.

    scorer.yaml       ``OnnxDescription``
    image.onnx        pixels (n, 3, h, w), float32 -> features (n, d)
    text.onnx         ids (n, context), int64 -> features (n, d)
    tokenizer.json    of the library tokenizers, with truncation and padding to the context set

``curate export-scorer`` makes one of any open_clip or Chinese-CLIP scorer (``export_scorer.py``). Pictures go through
Pillow in the steps of the model's own preparation, so that scores are those of the model it was made of.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..pipeline.errors import RecipeError
from .blocks import Embeddings, encode_blocks
from .pictures import opened
from .scorer import ONNX


class OnnxDescription(BaseModel):
    """How to feed the two models."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    size: tuple[int, int] = Field(description="height and width in pixels that the image model wants")
    resize: Literal["squash", "shortest", "longest"] = Field(
        description="squash both sides to the size; or scale the shortest (longest) side to it and cut (pad) the rest"
    )
    interpolation: Literal["bicubic", "bilinear", "lanczos"] = "bicubic"
    cut: Literal["round", "floor"] = Field("round", description="where half a pixel goes: torchvision's, transformers'")
    fill: int = Field(0, ge=0, le=255, description="grey of the padding where the longest side is scaled")
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    context: int = Field(ge=1, description="tokens of a caption, special ones included")
    clean: Literal["none", "whitespace", "lower"] = Field(
        "none", description="what open_clip does to a caption before its tokenizer; nothing for Chinese-CLIP"
    )
    tokenizer: str = "tokenizer.json"
    image: str = "image.onnx"
    text: str = "text.onnx"


class OnnxScorer:
    """A ``Scorer`` over onnxruntime."""

    embedded = False

    def __init__(self, folder: Path, digest: str, device: str, batch: int, threads: int, threshold: float) -> None:
        from tokenizers import Tokenizer

        self.told = read_description(folder)
        self.name, self.hash, self.batch, self.threshold = self.told.name, digest, batch, threshold
        self._image = _session(folder / self.told.image, device, threads)
        self._text = _session(folder / self.told.text, device, threads)
        path = folder / self.told.tokenizer
        if not path.is_file():
            raise RecipeError(f"{path} is missing; expected the tokenizer in the format of the library tokenizers")
        self.tokenizer = Tokenizer.from_file(str(path))
        if not (self.tokenizer.truncation and self.tokenizer.padding):
            raise RecipeError(
                f"{path} sets no truncation or padding; both must be set to the context of {self.told.context} tokens"
            )

    def embed_images(self, images: Sequence[bytes]) -> Embeddings:
        return encode_blocks(images, self.batch, self._pixels, lambda block: _run(self._image, block))

    def embed_pictures(self, pictures: Sequence[Image.Image]) -> Embeddings:
        """As ``embed_images``, of RGB pictures that are decoded and upright already."""
        return encode_blocks(pictures, self.batch, self.pixels, lambda block: _run(self._image, block))

    def embed_texts(self, captions: Sequence[str]) -> Embeddings:
        return encode_blocks(captions, self.batch, self.ids, lambda block: _run(self._text, block), ahead=False)

    def _pixels(self, images: list[bytes]) -> npt.NDArray[np.float32]:
        return self.pixels([opened(data) for data in images])

    def pixels(self, pictures: Sequence[Image.Image]) -> npt.NDArray[np.float32]:
        """(n, 3, h, w) as the image model wants them."""
        return np.stack([prepare(picture, self.told) for picture in pictures])

    def ids(self, captions: Sequence[str]) -> npt.NDArray[np.int64]:
        """(n, context) as the text model wants them."""
        found = self.tokenizer.encode_batch([cleaned(c, self.told.clean) for c in captions])
        return np.array([one.ids for one in found], dtype=np.int64)


def prepare(image: Image.Image, told: OnnxDescription) -> npt.NDArray[np.float32]:
    """(3, h, w) values for the image model, as torchvision's transforms on Pillow images give them."""
    height, width = told.size
    method = Image.Resampling[told.interpolation.upper()]
    if told.resize == "squash":
        image = image.resize((width, height), method)
    elif told.resize == "shortest":
        w, h = image.size
        size = (height, int(height * h / w)) if w <= h else (int(height * w / h), height)
        image = _cut(image.resize(size, method), width, height, told.cut)
    else:
        w, h = image.size
        ratio = max(h / height, w / width)
        image = image.resize((round(w / ratio), round(h / ratio)), method)
        padded = Image.new("RGB", (width, height), (told.fill,) * 3)
        padded.paste(image, ((width - image.width) // 2, (height - image.height) // 2))
        image = padded
    values = np.asarray(image, dtype=np.float32).transpose(2, 0, 1) / np.float32(255)
    mean, std = (np.array(v, np.float32)[:, None, None] for v in (told.mean, told.std))
    return np.asarray((values - mean) / std, dtype=np.float32)


def _cut(image: Image.Image, width: int, height: int, how: str) -> Image.Image:
    """The middle; Python's rounding to even is torchvision's."""
    left, top = (
        (a - b) // 2 if how == "floor" else round((a - b) / 2) for a, b in zip(image.size, (width, height), strict=True)
    )
    return image.crop((left, top, left + width, top + height))


def cleaned(caption: str, how: str) -> str:
    """A caption as open_clip hands it to its tokenizer: mended, unescaped, single spaces."""
    if how == "none":
        return caption
    import ftfy

    text = " ".join(html.unescape(html.unescape(ftfy.fix_text(caption))).split())
    return text.lower() if how == "lower" else text


def read_description(folder: Path) -> OnnxDescription:
    """What ``scorer.yaml`` says; ``RecipeError`` names file and field where it does not hold."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    path = folder / ONNX
    try:
        told: Any = YAML(typ="safe").load(path.read_text("utf-8"))
        return OnnxDescription(**(told or {}))
    except (YAMLError, TypeError) as error:
        raise RecipeError(f"{path} is no mapping of fields in YAML: {error}") from None
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, d['loc']))}: {d['msg']}" for d in error.errors())
        raise RecipeError(f"{path}: {problems}") from None


def _session(path: Path, device: str, threads: int) -> Any:
    import onnxruntime

    if not path.is_file():
        raise RecipeError(f"{path} is missing; `curate export-scorer` makes a whole folder")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    here = onnxruntime.get_available_providers()
    cuda = device.startswith("cuda") and "CUDAExecutionProvider" in here
    providers = [*(["CUDAExecutionProvider"] if cuda else []), "CPUExecutionProvider"]
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=providers)
    except Exception as error:  # onnxruntime raises its own C++ exceptions
        raise RecipeError(f"{path} is no ONNX model that can be loaded: {str(error)[:200]}") from None
    return session


def _run(session: Any, block: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    features = np.asarray(session.run(None, {session.get_inputs()[0].name: block})[0], dtype=np.float32)
    if features.ndim != 2 or len(features) != len(block):
        raise RecipeError(f"the ONNX model gives {features.shape} for {len(block)} inputs; expected (n, d) features")
    return features
