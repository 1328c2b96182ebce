"""Writes a torch scorer as a folder of ONNX files that ``onnx_scorer`` reads: ``curate export-scorer SCORER -o DIR``.

Both towers go out through torch's tracing exporter with a free batch dimension, the tokenizer with truncation and
padding set. The folder is then held against the scorer that it was made of, on pictures and captions drawn
here, and the greatest difference of their scores is told; a folder that differs is not kept.
"""

from __future__ import annotations

import io
import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..pipeline.errors import RecipeError, UsageError
from .onnx_scorer import OnnxDescription
from .scorer import (
    EMBEDDED,
    ONNX,
    Scorer,
    chinese_clip_parts,
    embedded_folder,
    image_processor,
    load_scorer,
    model_and_tokenizer,
    open_clip_parts,
)

OPSET = 17
TOLERANCE = 1e-3
"""Greatest difference of a score that may come of another order of summation; scores have four decimals."""
RESAMPLING = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}
"""Pillow's numbers, which transformers' processors write down."""


def export_scorer(spec: str, out: Path) -> dict[str, Any]:
    """Write ``spec`` (a torch scorer) to ``out``; the description, and ``difference``, the greatest of a score.

    Raises ``UsageError`` where ``out`` holds something else, and ``RecipeError`` for a scorer that cannot be
    exported or comes out different.
    """
    if out.exists() and any(out.iterdir()) and not (out / ONNX).is_file():
        raise UsageError(f"{out} is not empty and holds no scorer; give an empty or new folder")
    source = Path(spec.removeprefix("local-dir:"))
    if (source / ONNX).is_file():
        raise RecipeError(f"{spec} is a folder of ONNX files already")
    chinese = source.is_dir() and not (source / "open_clip_config.json").is_file()
    made = _Chinese(source) if chinese else _OpenClip(spec)
    out.mkdir(parents=True, exist_ok=True)
    try:
        made.write(out)
        difference = compare(load_scorer(spec, "cpu", 4), load_scorer(str(out), "cpu", 4))
        if difference > TOLERANCE:
            raise RecipeError(f"{spec}: scores of the exported models differ by {difference:.2g}; nothing was kept")
    except BaseException:
        shutil.rmtree(out)
        raise
    return {**made.told.model_dump(mode="json"), "difference": difference}


def compare(one: Scorer, other: Scorer, pictures: int = 8, seed: int = 0) -> float:
    """Greatest difference of the scores of ``pictures`` noisy pictures under captions of all lengths."""
    rng = np.random.default_rng(seed)
    images = []
    for i in range(pictures):
        coarse = rng.integers(0, 256, (6 + i, 9, 3), dtype=np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(coarse).resize((160 + 31 * i, 240 - 17 * i)).save(buffer, "PNG")
        images.append(buffer.getvalue())
    captions = [
        "湖",
        "一只红色的猫",
        "两辆 Blue 汽车，停在路边。",
        "雪" * 200,
        "山",
        "a small house",
        "车 和 狗",
        "&amp;",
    ]
    scores = [scorer.embed_images(images) @ scorer.embed_texts(captions).T for scorer in (one, other)]
    return float(np.abs(scores[0] - scores[1]).max())


class _OpenClip:
    """An open_clip model: its own preparation, read from the model; a Hugging Face tokenizer or CLIP's own."""

    def __init__(self, spec: str) -> None:
        import open_clip

        folder = embedded_folder() if spec == EMBEDDED else Path(spec.removeprefix("local-dir:"))
        self.model, _, self.tokenizer = (
            model_and_tokenizer(folder, "cpu") if folder.is_dir() else open_clip_parts(spec, "cpu")
        )
        wants = open_clip.get_model_preprocess_cfg(self.model)
        size = wants["size"]
        size = (size, size) if isinstance(size, int) else tuple(size[-2:])
        if wants.get("resize_mode") == "shortest" and size[0] != size[1]:
            raise RecipeError(f"{spec}: shortest-side scaling to {size} is not supported; only squares are")
        self.told = OnnxDescription(
            name=folder.name if folder.is_dir() and spec != EMBEDDED else spec.replace("/", "-"),
            size=size,
            resize=wants.get("resize_mode") or "shortest",
            interpolation=wants.get("interpolation") or "bicubic",
            fill=wants.get("fill_color") or 0,
            mean=tuple(wants["mean"]),
            std=tuple(wants["std"]),
            context=self.tokenizer.context_length,
            clean=_cleaning(spec, self.tokenizer),
        )

    def write(self, out: Path) -> None:
        _export(out, self.told, self.model.encode_image, self.model.encode_text, self.model)
        if hasattr(self.tokenizer, "tokenizer"):
            _save_tokenizer(self.tokenizer.tokenizer, self.told.context, out)
        else:
            _clip_tokenizer(self.tokenizer, self.told.context).save(str(out / self.told.tokenizer))


class _Chinese:
    """A Chinese-CLIP folder of transformers."""

    def __init__(self, folder: Path) -> None:
        self.parts = chinese_clip_parts(folder, "cpu")
        wants = image_processor(folder)
        if not (wants.do_resize and wants.do_rescale and wants.do_normalize):
            raise RecipeError(f"{folder}: only image processors that resize, rescale and normalise are known")
        resize, size = _sides(wants, folder)
        self.told = OnnxDescription(
            name=folder.name,
            size=size,
            resize=resize,
            cut="floor",
            interpolation=RESAMPLING[int(wants.resample)],
            mean=tuple(wants.image_mean),
            std=tuple(wants.image_std),
            context=self.parts.context,
        )

    def write(self, out: Path) -> None:
        _export(out, self.told, self.parts.images, self.parts.texts, self.parts.model)
        _save_tokenizer(self.parts.tokenizer, self.told.context, out)


def _sides(processor: Any, folder: Path) -> tuple[str, tuple[int, int]]:
    """The resize of a processor of transformers, and height and width of what it gives."""
    size: dict[str, int] = {k: v for k, v in dict(processor.size).items() if v}
    crop = {k: v for k, v in dict(processor.crop_size or {}).items() if v} if processor.do_center_crop else None
    if set(size) == {"height", "width"} and crop in (None, size):
        return "squash", (size["height"], size["width"])
    short = size.get("shortest_edge", 0)
    if set(size) == {"shortest_edge"} and crop == {"height": short, "width": short}:
        return "shortest", (short, short)
    raise RecipeError(f"{folder}: resizing to {size} with a crop of {crop} cannot be exported")


def _cleaning(spec: str, tokenizer: Any) -> str:
    """The name of the tokenizer's cleaning; ``RecipeError`` for tokenizers with modes of their own."""
    plain = hasattr(tokenizer, "clean_fn") and not getattr(tokenizer, "tokenizer_mode", "")
    known = {"_clean_whitespace": "whitespace", "_clean_lower": "lower"}
    odd = getattr(tokenizer, "strip_sep_token", False) or getattr(tokenizer, "reduction_fn", None)
    how = known.get(getattr(getattr(tokenizer, "clean_fn", None), "__name__", ""))
    if not plain or odd or how is None:
        raise RecipeError(f"{spec}: its tokenizer ({type(tokenizer).__name__}) has a mode that cannot be exported")
    return how


def _save_tokenizer(tokenizer: Any, context: int, out: Path) -> None:
    """A fast tokenizer of transformers with truncation and padding as the model wants them."""
    core = getattr(tokenizer, "backend_tokenizer", None)
    if core is None:
        raise RecipeError(f"{type(tokenizer).__name__} is no fast tokenizer, so it cannot be written as one file")
    core.enable_truncation(context, direction=tokenizer.truncation_side)
    core.enable_padding(
        direction=tokenizer.padding_side, pad_id=tokenizer.pad_token_id, pad_token=tokenizer.pad_token, length=context
    )
    core.save(str(out / "tokenizer.json"))


def _clip_tokenizer(simple: Any, context: int) -> Any:
    """CLIP's byte-pair tokenizer (``open_clip.SimpleTokenizer``) in the library tokenizers."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers, processors

    start, end = (simple.decoder[i] for i in (simple.sot_token_id, simple.eot_token_id))
    core = Tokenizer(
        models.BPE(vocab=simple.encoder, merges=list(simple.bpe_ranks), end_of_word_suffix="</w>", unk_token=end)
    )
    words = r"""'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"""
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(words), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    ends = [(start, simple.sot_token_id), (end, simple.eot_token_id)]
    core.post_processor = processors.TemplateProcessing(single=f"{start} $A {end}", special_tokens=ends)
    core.enable_truncation(context)
    core.enable_padding(pad_id=0, pad_token="!", length=context)
    return core


def _export(out: Path, told: OnnxDescription, images: Any, texts: Any, model: Any) -> None:
    """Both towers and the description; tracing follows one picture and one caption through them."""
    import torch
    from ruamel.yaml import YAML

    class Tower(torch.nn.Module):
        def __init__(self, encode: Any) -> None:
            super().__init__()
            self.model, self.encode = model, encode

        def forward(self, x: Any) -> Any:
            return self.encode(x)

    pixels = torch.zeros(2, 3, *told.size)  # (n, colours, h, w)
    ids = torch.ones(2, told.context, dtype=torch.int64)
    fast = torch.backends.mha.get_fastpath_enabled()
    # The fused attention of inference has no counterpart in ONNX.
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        for encode, given, name in ((images, pixels, told.image), (texts, ids, told.text)):
            with torch.inference_mode(), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                torch.onnx.export(
                    Tower(encode).eval(),
                    (given,),
                    str(out / name),
                    dynamo=False,
                    opset_version=OPSET,
                    input_names=["input"],
                    output_names=["features"],
                    dynamic_axes={"input": {0: "n"}, "features": {0: "n"}},
                )
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    with (out / ONNX).open("w", encoding="utf-8") as handle:
        YAML(typ="safe", pure=True).dump(json.loads(told.model_dump_json()), handle)
