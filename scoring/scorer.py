"""Contrastive image-text encoders behind one interface: embedded, open_clip, Chinese-CLIP.

    embedded                    the checkpoint that ships (knows the sample world only)
    open_clip name              e.g. ViT-B-32/laion2b_s34b_b79k; weights come from where open_clip finds them
    folder                      open_clip's format (open_clip_config.json) or a Chinese-CLIP folder of transformers

A threshold belongs to a scorer, so each carries its own default.
"""

from __future__ import annotations

import difflib
import hashlib
import io
import json
from collections.abc import Callable, Sequence
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..pipeline.errors import RecipeError

Embeddings = NDArray[np.float32]
EMBEDDED = "embedded"
ARTICLE_THRESHOLD = 0.3
"""OPPOVL's bound for its scorer (BriVL); matched Chinese-CLIP pairs lie between 0.3 and 0.6."""
PUBLISHED = {"ViT-B-32/openai": 0.28, "ViT-B-32-quickgelu/openai": 0.28}
"""Thresholds that published data sets were made with (LAION-5B: 0.28)."""
CALIBRATION = "calibration.json"
"""What ``curate calibrate -o FOLDER`` leaves in a scorer's folder: its threshold is that scorer's default."""


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
        device: str,
        batch: int,
        threshold: float = ARTICLE_THRESHOLD,
    ) -> None:
        self.name, self.hash, self.device, self.batch = name, digest, device, batch
        self.threshold, self.embedded = threshold, name == EMBEDDED
        self._prepare, self._tokenize = prepare, tokenize
        self._images, self._texts = encode_images, encode_texts

    def embed_images(self, images: Sequence[bytes]) -> Embeddings:
        import torch

        def block(chunk: Sequence[bytes]) -> Any:
            return torch.stack([self._prepare(_open(b)) for b in chunk])

        return self._run(images, block, self._images)

    def embed_texts(self, captions: Sequence[str]) -> Embeddings:
        return self._run(captions, lambda chunk: self._tokenize(list(chunk)), self._texts)

    def _run(
        self, values: Sequence[Any], prepare: Callable[[Sequence[Any]], Any], encode: Callable[[Any], Any]
    ) -> Embeddings:
        import torch

        out = []
        with torch.inference_mode():
            for start in range(0, len(values), self.batch):
                chunk = list(values[start : start + self.batch])
                # Always the same shape: a matrix product's last bits depend on it.
                full = prepare([*chunk, *[chunk[-1]] * (self.batch - len(chunk))])
                rows = encode(full.to(self.device))[: len(chunk)].float()
                out.append(torch.nn.functional.normalize(rows, dim=-1).cpu().numpy())
        return np.concatenate(out) if out else np.zeros((0, 1), np.float32)


def load_scorer(spec: str = EMBEDDED, device: str = "auto", batch: int = 32, threads: int = 1) -> Scorer:
    """The scorer that ``spec`` names, loaded once per process.

    Raises ``RecipeError`` where there is no such model or its weights cannot be had.
    """
    import torch

    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.set_num_threads(threads)
    return _load(spec, device, batch)


@lru_cache(4)
def _load(spec: str, device: str, batch: int) -> Scorer:
    if spec == EMBEDDED:
        return _open_clip_folder(spec, embedded_folder(), device, batch)
    folder = Path(spec.removeprefix("local-dir:"))
    if folder.is_dir():
        if (folder / "open_clip_config.json").is_file():
            return _open_clip_folder(folder.name, folder, device, batch)
        if (folder / "config.json").is_file():
            return _chinese_clip(folder, device, batch)
        raise RecipeError(f"{spec} holds neither open_clip_config.json (open_clip) nor config.json (transformers)")
    return _open_clip_name(spec, device, batch)


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
    folder = embedded_folder() if spec == EMBEDDED else Path(spec.removeprefix("local-dir:"))
    if not folder.is_dir():
        return hashlib.sha256(spec.encode()).hexdigest()[:16]
    return _file_hash(folder, sum(p.stat().st_mtime_ns for p in folder.iterdir()))


@lru_cache(8)
def _file_hash(folder: Path, stamp: int) -> str:
    del stamp
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.suffix in (".safetensors", ".bin", ".pt"):
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


def _open_clip_folder(name: str, folder: Path, device: str, batch: int) -> Scorer:
    model, prepare, tokenizer = model_and_tokenizer(folder, device)
    return TorchScorer(
        name,
        fingerprint(str(folder)),
        prepare,
        tokenizer,
        model.encode_image,
        model.encode_text,
        device,
        batch,
        default_threshold(str(folder)),
    )


def _open_clip_name(spec: str, device: str, batch: int) -> Scorer:
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
    try:
        model, _, prepare = open_clip.create_model_and_transforms(name, pretrained=weights, device=device)
        tokenizer = open_clip.get_tokenizer(name)
    except Exception as error:
        raise RecipeError(
            f"the weights of {spec!r} cannot be had: {type(error).__name__}: {str(error)[:200]}. Offline, give "
            "a folder that holds open_clip_config.json and open_clip_model.safetensors"
        ) from None
    model.eval()
    return TorchScorer(
        spec,
        fingerprint(spec),
        prepare,
        tokenizer,
        model.encode_image,
        model.encode_text,
        device,
        batch,
        default_threshold(spec),
    )


def _chinese_clip(folder: Path, device: str, batch: int) -> Scorer:
    kind = json.loads((folder / "config.json").read_text("utf-8")).get("model_type")
    if kind != "chinese_clip":
        raise RecipeError(f"{folder} holds a {kind!r} model; expected chinese_clip, or a folder in open_clip's format")
    import torch
    from transformers import AutoTokenizer, ChineseCLIPModel

    model = ChineseCLIPModel.from_pretrained(folder).eval().to(device)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    processor = image_processor(folder)
    longest = model.config.text_config.max_position_embeddings

    def prepare(image: Image.Image) -> Any:
        return torch.from_numpy(np.asarray(processor(images=image, return_tensors="np")["pixel_values"][0]))

    def tokenize(captions: list[str]) -> Any:
        # 52 is what Chinese-CLIP was trained with.
        return tokenizer(
            captions, padding="max_length", truncation=True, max_length=min(52, longest), return_tensors="pt"
        ).input_ids

    def texts(ids: Any) -> Any:
        return _pooled(model.get_text_features(input_ids=ids, attention_mask=ids.ne(tokenizer.pad_token_id).long()))

    def images(pixels: Any) -> Any:
        return _pooled(model.get_image_features(pixel_values=pixels))

    threshold = default_threshold(str(folder))
    return TorchScorer(
        folder.name, fingerprint(str(folder)), prepare, tokenize, images, texts, device, batch, threshold
    )


def image_processor(folder: Path) -> Any:
    """Chinese-CLIP's image processor; the Pillow one where the installed transformers has it (no torchvision)."""
    import transformers

    cls = getattr(transformers, "ChineseCLIPImageProcessorPil", None) or transformers.ChineseCLIPImageProcessor
    return cls.from_pretrained(folder)


def _pooled(features: Any) -> Any:
    """Newer transformers return an object that holds the projected features as ``pooler_output``."""
    return features if hasattr(features, "shape") else features.pooler_output


def _open(data: bytes) -> Image.Image:
    with Image.open(io.BytesIO(data)) as image:
        return image.convert("RGB")


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
