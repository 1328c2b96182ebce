"""Captions by a vision-language model in transformers' format: BLIP, GIT, Qwen-VL, LLaVA and the like, from a folder.

A processor with a chat template is asked with the prompt; one without is a captioner that needs none. Decoding is
greedy. Chat models take images of any size, whose number of tokens differs, and padding would let one image change
another's last bits: they go one at a time. Captioners of one fixed size go in batches that are always full.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from ..pipeline.errors import RecipeError
from .caption_written import Written


class VisionLanguageCaptioner:
    """Greedy captions of a transformers image-to-text model."""

    def __init__(self, model: Any, processor: Any, prompt: str, longest: int, batch: int, device: str) -> None:
        self.model, self.processor, self.prompt, self.longest = model, processor, prompt, longest
        self.chat = bool(getattr(processor, "chat_template", None))
        self.batch, self.device = (1 if self.chat else batch), device

    def captions(self, images: Sequence[bytes]) -> list[Written]:
        out: list[Written] = []
        for start in range(0, len(images), self.batch):
            chunk = list(images[start : start + self.batch])
            out += self._write([*chunk, *[chunk[-1]] * (self.batch - len(chunk))])[: len(chunk)]
        return out

    def _write(self, images: list[bytes]) -> list[Written]:
        import torch

        pictures = [Image.open(io.BytesIO(b)).convert("RGB") for b in images]
        inputs: dict[str, Any] = {"images": pictures}
        if self.chat:
            content = [{"type": "image"}, {"type": "text", "text": self.prompt}]
            asked = self.processor.apply_chat_template(
                [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
            )
            inputs["text"] = [asked]
        ready = self.processor(**inputs, return_tensors="pt").to(self.device)
        with torch.inference_mode():
            ids = self.model.generate(**ready, max_new_tokens=self.longest, do_sample=False, num_beams=1)
        # A decoder on its own repeats the prompt before its answer; an encoder-decoder does not.
        asked_ids = ready.get("input_ids")
        if asked_ids is not None and not self.model.config.is_encoder_decoder:
            ids = ids[:, asked_ids.shape[1] :]
        return [Written(text) for text in self._decode(ids)]

    def _decode(self, ids: Any) -> list[str]:
        decode = getattr(self.processor, "batch_decode", None) or self.processor.tokenizer.batch_decode
        return list(decode(ids, skip_special_tokens=True))


def from_folder(folder: Path, prompt: str, longest: int, device: str, batch: int) -> VisionLanguageCaptioner:
    """The model and processor of a folder in transformers' format; no code of the folder's own is run."""
    import transformers

    try:
        model = transformers.AutoModelForImageTextToText.from_pretrained(folder)
        processor = _processor(folder)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise RecipeError(
            f"{folder} cannot be read as an image-to-text model of transformers {transformers.__version__}: "
            f"{str(error)[:300]}"
        ) from None
    return VisionLanguageCaptioner(model.eval().to(device), processor, prompt, longest, batch, device)


def _processor(folder: Path) -> Any:
    """The folder's processor; where it has but an image processor and a tokenizer (vision-encoder-decoder), both."""
    import transformers

    found = transformers.AutoProcessor.from_pretrained(folder)
    if hasattr(found, "image_processor"):
        return found
    return _Pair(
        transformers.AutoImageProcessor.from_pretrained(folder), transformers.AutoTokenizer.from_pretrained(folder)
    )


class _Pair:
    """An image processor and a tokenizer that stand in for a processor."""

    chat_template = None

    def __init__(self, image_processor: Any, tokenizer: Any) -> None:
        self.image_processor, self.tokenizer = image_processor, tokenizer

    def __call__(self, images: list[Image.Image], return_tensors: str) -> Any:
        return self.image_processor(images=images, return_tensors=return_tensors)
