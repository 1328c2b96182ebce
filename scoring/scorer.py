"""Contrastive image-text encoders behind one interface: embedded, open_clip, Chinese-CLIP, ONNX exports of these.

    embedded                    the checkpoint that ships (knows the sample world only)
    open_clip name              e.g. ViT-B-32/laion2b_s34b_b79k; weights come from where open_clip finds them
    folder                      open_clip's format (open_clip_config.json), a Chinese-CLIP folder of transformers,
                                or ONNX exports of either (scorer.yaml; see onnx_scorer.py)

A threshold belongs to a scorer, so each carries its own default.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Callable, Sequence
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from PIL import Image

from ..pipeline.errors import RecipeError
from ..pipeline.once import once
from .blocks import Embeddings, encode_blocks
from .pictures import opened

EMBEDDED = "embedded"
ONNX = "scorer.yaml"
"""Marks a folder of ONNX files."""
ARTICLE_THRESHOLD = 0.3
"""OPPOVL's bound for its scorer (BriVL); matched Chinese-CLIP pairs lie between 0.3 and 0.6."""
PUBLISHED = {"ViT-B-32/openai": 0.28, "ViT-B-32-quickgelu/openai": 0.28}
"""Thresholds that published data sets were made with (LAION-5B: 0.28)."""
CALIBRATION = "calibration.json"
"""What ``curate calibrate -o FOLDER`` leaves in a scorer's folder: its threshold is that scorer's default."""


class Run(NamedTuple):
    """How a model is run; ``batch`` inputs at once, always."""

    device: str
    batch: int
    threads: int = 1
    precision: str = "fp32"


class Scorer(Protocol):
    """Encodes images and captions into one space.

    ``embed_images`` and ``embed_texts`` return (n, d) rows of unit length. What a row is must not depend on the
    other rows: batches are padded to a fixed size before the model sees them.
    """

    name: str
    hash: str
    threshold: float
    embedded: bool

    def embed_images(self, images: Sequence[bytes]) -> Embeddings: ...

    def embed_texts(self, captions: Sequence[str]) -> Embeddings: ...


class TorchScorer:
    """A scorer over two torch functions; ``encode_*`` take a batch as the model wants it and give (n, d)."""

    def __init__(
        self,
        name: str,
        digest: str,
        prepare: Callable[[Image.Image], Any],
        tokenize: Callable[[list[str]], Any],
        encode_images: Callable[[Any], Any],
        encode_texts: Callable[[Any], Any],
        run: Run,
        threshold: float = ARTICLE_THRESHOLD,
    ) -> None:
        self.name, self.hash, self.run = name, digest, run
        self.threshold, self.embedded = threshold, name == EMBEDDED
        self._prepare, self._tokenize = prepare, tokenize
        self._images, self._texts = encode_images, encode_texts

    def embed_images(self, images: Sequence[bytes]) -> Embeddings:
        return encode_blocks(images, self.run.batch, self.pixels, lambda block: self.forward(self._images, block))

    def embed_texts(self, captions: Sequence[str]) -> Embeddings:
        ready = self._tokenize
        return encode_blocks(captions, self.run.batch, ready, lambda ids: self.forward(self._texts, ids), ahead=False)

    def pixels(self, images: Sequence[bytes]) -> Any:
        """(n, 3, h, w) as the model wants them."""
        import torch

        return torch.stack([self._prepare(opened(data)) for data in images])

    def forward(self, encode: Callable[[Any], Any], block: Any) -> Any:
        """(n, d) features of one prepared block, in single precision."""
        import torch

        kind, half = torch.device(self.run.device).type, self.run.precision == "bf16"
        with torch.inference_mode(), torch.autocast(kind, torch.bfloat16, enabled=half):
            return encode(block.to(self.run.device)).float().cpu().numpy()


def load_scorer(
    spec: str = EMBEDDED, device: str = "auto", batch: int = 32, threads: int = 1, precision: str = "fp32"
) -> Scorer:
    """The scorer that ``spec`` names, loaded once per process; ``precision`` is fp32 or bf16.

    Raises ``RecipeError`` where there is no such model or its weights cannot be had.
    """
    if not (_folder(spec) / ONNX).is_file():
        import torch

        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
    return _load(spec, Run(device, batch, threads, precision))


@once(4)
def _load(spec: str, run: Run) -> Scorer:
    folder = _folder(spec)
    if not folder.is_dir():
        return _open_clip_name(spec, run)
    if (folder / ONNX).is_file():
        from .onnx_scorer import OnnxScorer

        if run.precision != "fp32":
            raise RecipeError(f"{spec} is exported in its precision; score.precision {run.precision!r} needs torch")
        return OnnxScorer(folder, fingerprint(spec), run.device, run.batch, run.threads, default_threshold(spec))
    if (folder / "open_clip_config.json").is_file():
        return _open_clip_folder(spec if spec == EMBEDDED else folder.name, folder, run)
    if (folder / "config.json").is_file():
        return _chinese_clip(folder, run)
    raise RecipeError(
        f"{spec} holds none of open_clip_config.json (open_clip), config.json (transformers), {ONNX} (ONNX)"
    )


def check_scorer(spec: str) -> None:
    """Raise ``RecipeError`` where ``spec`` is no folder and no name that open_clip knows; loads no weights."""
    if not _folder(spec).is_dir():
        _known_name(spec)


def _folder(spec: str) -> Path:
    return embedded_folder() if spec == EMBEDDED else Path(spec.removeprefix("local-dir:"))


def embedded_folder() -> Path:
    """Where the embedded checkpoint lies."""
    return Path(str(files(__package__) / "embedded"))


def default_threshold(spec: str) -> float:
    """The threshold that belongs to a scorer: from the calibration in its folder, as published, else the article's.

    Raises ``RecipeError`` where the calibration holds no threshold.
    """
    path = Path(spec.removeprefix("local-dir:")) / CALIBRATION
    if spec == EMBEDDED or not path.is_file():
        return PUBLISHED.get(spec, ARTICLE_THRESHOLD)
    try:
        return float(json.loads(path.read_text("utf-8"))["threshold"])
    except (ValueError, KeyError, TypeError):
        raise RecipeError(
            f"{path} holds no threshold (no calibration, or one that found none). Give score.threshold, or remove it"
        ) from None


def fingerprint(spec: str) -> str:
    """16 hex digits over a model's weights (for a name: over the name), without loading it."""
    folder = _folder(spec)
    if not folder.is_dir():
        return hashlib.sha256(spec.encode()).hexdigest()[:16]
    return _file_hash(folder, sum(p.stat().st_mtime_ns for p in folder.iterdir()))


@lru_cache(8)
def _file_hash(folder: Path, stamp: int) -> str:
    del stamp
    digest = hashlib.sha256()
    # Of ONNX exports all counts but a calibration: large ones keep their weights in files without a suffix.
    whole = (folder / ONNX).is_file()
    for path in sorted(folder.iterdir()):
        if path.suffix in (".safetensors", ".bin", ".pt") or (whole and path.stem != Path(CALIBRATION).stem):
            with path.open("rb") as handle:
                while chunk := handle.read(1 << 20):
                    digest.update(chunk)
    return digest.hexdigest()[:16]


def model_and_tokenizer(folder: Path, device: str) -> tuple[Any, Any, Any]:
    """(model, image preparation, tokenizer) of a folder in open_clip's format."""
    open_clip = import_open_clip()
    name = f"local-dir:{folder.absolute()}"
    model, _, prepare = open_clip.create_model_and_transforms(name, device=device)
    return model.eval(), prepare, open_clip.get_tokenizer(name)


def _open_clip_folder(name: str, folder: Path, run: Run) -> Scorer:
    model, prepare, tokenizer = model_and_tokenizer(folder, run.device)
    towers = (model.encode_image, model.encode_text)
    own = ARTICLE_THRESHOLD if name == EMBEDDED else default_threshold(str(folder))
    return TorchScorer(name, fingerprint(str(folder)), prepare, tokenizer, *towers, run, own)


def _open_clip_name(spec: str, run: Run) -> Scorer:
    model, prepare, tokenizer = open_clip_parts(spec, run.device)
    towers = (model.encode_image, model.encode_text)
    return TorchScorer(spec, fingerprint(spec), prepare, tokenizer, *towers, run, default_threshold(spec))


def open_clip_parts(spec: str, device: str) -> tuple[Any, Any, Any]:
    """(model, image preparation, tokenizer) of an open_clip NAME/WEIGHTS; ``RecipeError`` where it cannot be had."""
    open_clip = import_open_clip()
    name, weights = _known_name(spec)
    try:
        model, _, prepare = open_clip.create_model_and_transforms(name, pretrained=weights, device=device)
        return model.eval(), prepare, open_clip.get_tokenizer(name)
    except Exception as error:
        raise RecipeError(
            f"the weights of {spec!r} cannot be had: {type(error).__name__}: {str(error)[:200]}. Offline, give "
            "a folder that holds open_clip_config.json and open_clip_model.safetensors"
        ) from None


def _known_name(spec: str) -> tuple[str, str]:
    """NAME and WEIGHTS of an open_clip model."""
    open_clip = import_open_clip()
    name, _, weights = spec.partition("/")
    known = open_clip.list_models()
    if name not in known:
        close = difflib.get_close_matches(name, known, n=3)
        raise RecipeError(
            f"scorer {spec!r} is neither 'embedded', nor a folder, nor an open_clip model"
            + (f"; did you mean {' or '.join(close)}?" if close else "; `open_clip.list_models()` names them")
        )
    if not weights:
        tags = open_clip.list_pretrained_tags_by_model(name)
        raise RecipeError(
            f"scorer {spec!r} needs its weights named, as in {name}/{(tags or ['TAG'])[0]}; known: {tags}"
        )
    return name, weights


class ChineseClip(NamedTuple):
    """A Chinese-CLIP of transformers; ``images`` and ``texts`` take pixels and ids and give (n, d)."""

    model: Any
    tokenizer: Any
    context: int
    images: Callable[[Any], Any]
    texts: Callable[[Any], Any]


def chinese_clip_parts(folder: Path, device: str) -> ChineseClip:
    """What ``folder`` holds; ``RecipeError`` where that is no Chinese-CLIP."""
    kind = json.loads((folder / "config.json").read_text("utf-8")).get("model_type")
    if kind != "chinese_clip":
        raise RecipeError(f"{folder} holds a {kind!r} model; expected chinese_clip, or a folder in open_clip's format")
    from transformers import AutoTokenizer, ChineseCLIPModel

    model = ChineseCLIPModel.from_pretrained(folder).eval().to(device)
    tokenizer = AutoTokenizer.from_pretrained(folder)

    def texts(ids: Any) -> Any:
        return _pooled(model.get_text_features(input_ids=ids, attention_mask=ids.ne(tokenizer.pad_token_id).long()))

    def images(pixels: Any) -> Any:
        return _pooled(model.get_image_features(pixel_values=pixels))

    # 52 is what Chinese-CLIP was trained with.
    context = min(52, model.config.text_config.max_position_embeddings)
    return ChineseClip(model, tokenizer, context, images, texts)


def _chinese_clip(folder: Path, run: Run) -> Scorer:
    import torch

    parts, processor = chinese_clip_parts(folder, run.device), image_processor(folder)

    def prepare(image: Image.Image) -> Any:
        return torch.from_numpy(np.asarray(processor(images=image, return_tensors="np")["pixel_values"][0]))

    def tokenize(captions: list[str]) -> Any:
        made = parts.tokenizer(
            captions, padding="max_length", truncation=True, max_length=parts.context, return_tensors="pt"
        )
        return made.input_ids

    own = default_threshold(str(folder))
    return TorchScorer(folder.name, fingerprint(str(folder)), prepare, tokenize, parts.images, parts.texts, run, own)


def image_processor(folder: Path) -> Any:
    """Chinese-CLIP's image processor; the Pillow one where the installed transformers has it (no torchvision)."""
    import transformers

    cls = getattr(transformers, "ChineseCLIPImageProcessorPil", None) or transformers.ChineseCLIPImageProcessor
    return cls.from_pretrained(folder)


def _pooled(features: Any) -> Any:
    """Newer transformers return an object that holds the projected features as ``pooler_output``."""
    return features if hasattr(features, "shape") else features.pooler_output


def import_open_clip() -> Any:
    """open_clip; where a CPU torch meets the CUDA torchvision, two operators are declared so that it imports."""
    try:
        import open_clip
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
        import sys

        import torch

        for name in [m for m in sys.modules if m.split(".")[0] in ("torchvision", "open_clip")]:
            del sys.modules[name]
        library = torch.library.Library("torchvision", "FRAGMENT")
        library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _declared.append(library)
        import open_clip
    return open_clip


_declared: list[Any] = []
