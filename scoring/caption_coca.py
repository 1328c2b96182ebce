"""Captions by the decoder of a CoCa model in open_clip's format (Yu et al. 2022, arXiv 2205.01917)."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from ..pipeline.errors import RecipeError
from .caption_written import Written
from .scorer import import_open_clip, model_and_tokenizer

Decode = Callable[[list[int]], str]


class CocaCaptioner:
    """Greedy decoding; deterministic, a fixed number of images at once."""

    def __init__(self, model: Any, prepare: Any, tokenizer: Any, batch: int, device: str = "cpu") -> None:
        self.model, self.prepare, self.batch, self.device = model, prepare, batch, device
        core = getattr(tokenizer, "tokenizer", None)
        if core is None:  # open_clip's own byte-pair tokenizer, which pads with 0
            self.begin, self.end, self.pad = tokenizer.sot_token_id, tokenizer.eot_token_id, 0
            special = (self.begin, self.end, self.pad)
            self._decode: Decode = lambda ids: str(tokenizer.decode([i for i in ids if i not in special]))
        else:
            self.begin, self.end, self.pad = core.cls_token_id, core.sep_token_id, core.pad_token_id
            self._decode = lambda ids: str(core.decode(ids, skip_special_tokens=True))
        self.length = tokenizer.context_length - 1

    def captions(self, images: Sequence[bytes]) -> list[Written]:
        """One caption for each image, without special tokens."""
        out: list[str] = []
        for start in range(0, len(images), self.batch):
            chunk = list(images[start : start + self.batch])
            out += self._write([*chunk, *[chunk[-1]] * (self.batch - len(chunk))])[: len(chunk)]
        return [Written(text) for text in out]

    def _write(self, images: list[bytes]) -> list[str]:
        import torch

        with torch.inference_mode():
            pixels = torch.stack([self.prepare(Image.open(io.BytesIO(b)).convert("RGB")) for b in images])
            _, tokens = self.model._encode_image(pixels.to(self.device))
            ids = torch.full((len(images), 1), self.begin, device=self.device)
            open_ = torch.ones(len(images), dtype=torch.bool, device=self.device)
            while bool(open_.any()) and ids.shape[1] < self.length:
                # open_clip's text tower wants its full width: the rest is padding that causality hides.
                padded = torch.full((len(images), self.length + 1), self.pad, device=self.device)
                padded[:, : ids.shape[1]] = ids
                _, states = self.model._encode_text(padded)
                logits = self.model.text_decoder(tokens, states[:, : ids.shape[1]])[:, -1]
                best = torch.where(open_, logits.argmax(-1), self.pad)
                open_ &= best != self.end
                ids = torch.cat([ids, best[:, None]], 1)
        return [self._decode(row) for row in ids.tolist()]


def from_folder(folder: Path, device: str, batch: int) -> CocaCaptioner:
    """The CoCa of a folder that holds open_clip_config.json and its weights."""
    model, prepare, tokenizer = model_and_tokenizer(folder, device)
    if not hasattr(model, "text_decoder"):
        raise RecipeError(f"{folder} holds a {type(model).__name__}, which scores but cannot write; expected a CoCa")
    return CocaCaptioner(model, prepare, tokenizer, batch, device)


def from_name(name: str, device: str, batch: int) -> CocaCaptioner:
    """An open_clip CoCa by NAME/WEIGHTS, e.g. coca_ViT-L-14/mscoco_finetuned_laion2B-s13B-b90k."""
    open_clip = import_open_clip()
    known = [n for n in open_clip.list_models() if n.startswith("coca")]
    model_name, _, weights = name.partition("/")
    if model_name not in known or not weights:
        raise RecipeError(f"captioner coca:{name}: expected coca:NAME/WEIGHTS with a name out of {', '.join(known)}")
    try:
        model, _, prepare = open_clip.create_model_and_transforms(model_name, pretrained=weights, device=device)
        tokenizer = open_clip.get_tokenizer(model_name)
    except Exception as error:
        raise RecipeError(
            f"the weights of coca:{name} cannot be had: {type(error).__name__}: {str(error)[:200]}. Offline, give "
            "a folder that holds open_clip_config.json and open_clip_model.safetensors"
        ) from None
    model.eval()
    return CocaCaptioner(model, prepare, tokenizer, batch, device)
