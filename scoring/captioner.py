"""Synthetic captions: a second text beside the original, never in its place.

The embedded captioner is the decoder of the embedded CoCa; other captioners take its place through
the same interface. A caption ships only if it scores at least as well as the original.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, ClassVar, Protocol

import numpy as np
import polars as pl
from PIL import Image
from pydantic import Field

from ..pipeline.stage import StageModel, operational
from .scorer import EMBEDDED, embedded_folder, fingerprint, load_scorer, model_and_tokenizer


class Captioner(Protocol):
    """Writes one caption per image."""

    def captions(self, images: Sequence[bytes]) -> list[str]: ...


class CocaCaptioner:
    """Greedy decoding of a CoCa model in open_clip's format; deterministic, a fixed number of images at once."""

    def __init__(self, model: Any, prepare: Any, tokenizer: Any, batch: int) -> None:
        self.model, self.prepare, self.tokenizer, self.batch = model, prepare, tokenizer, batch
        core = tokenizer.tokenizer
        self.begin, self.end, self.pad = core.cls_token_id, core.sep_token_id, core.pad_token_id
        self.length = tokenizer.context_length - 1

    def captions(self, images: Sequence[bytes]) -> list[str]:
        """One caption for each image, without special tokens."""
        out: list[str] = []
        for start in range(0, len(images), self.batch):
            chunk = list(images[start : start + self.batch])
            out += self._decode([*chunk, *[chunk[-1]] * (self.batch - len(chunk))])[: len(chunk)]
        return out

    def _decode(self, images: list[bytes]) -> list[str]:
        import torch

        with torch.inference_mode():
            pixels = torch.stack([self.prepare(Image.open(io.BytesIO(b)).convert("RGB")) for b in images])
            _, tokens = self.model._encode_image(pixels)
            ids = torch.full((len(images), 1), self.begin)
            open_ = torch.ones(len(images), dtype=torch.bool)
            while bool(open_.any()) and ids.shape[1] < self.length:
                # open_clip's text tower wants its full width: the rest is padding that causality hides.
                padded = torch.full((len(images), self.length + 1), self.pad)
                padded[:, : ids.shape[1]] = ids
                _, states = self.model._encode_text(padded)
                logits = self.model.text_decoder(tokens, states[:, : ids.shape[1]])[:, -1]
                best = torch.where(open_, logits.argmax(-1), self.pad)
                open_ &= best != self.end
                ids = torch.cat([ids, best[:, None]], 1)
        core = self.tokenizer.tokenizer
        written = (core.decode(row, skip_special_tokens=True).replace(" ", "") for row in ids)
        # The tokenizer folds Chinese punctuation; captions ship with it (see filters/normalise.py).
        return [text.replace(",", "，") for text in written]


@lru_cache(2)
def _embedded(batch: int) -> CocaCaptioner:
    model, prepare, tokenizer = model_and_tokenizer(embedded_folder(), "cpu")
    return CocaCaptioner(model, prepare, tokenizer, batch)


def repeats(caption: str) -> float:
    """Share of character triples that occurred before: decoders that lost the thread repeat themselves."""
    triples = [caption[i : i + 3] for i in range(len(caption) - 2)]
    return 1 - len(set(triples)) / len(triples) if triples else 0.0


class SyntheticCaptions(StageModel):
    """Writes a caption for each kept image; it ships where it scores no worse than the original."""

    name: ClassVar[str] = "synthetic_captions"
    phase: ClassVar[Any] = "emit"
    on_images: ClassVar[bool] = True
    adds: ClassVar[tuple[str, ...]] = ("caption_synthetic", "synthetic_score")

    captioner: str = Field(EMBEDDED, description="embedded (knows the sample world only)", pattern="^embedded$")
    scorer: str = Field(EMBEDDED, description="the scorer that compares it with the original")
    margin: float = Field(0.0, description="cosine by which it must be better than the original", ge=-1, le=1)
    max_repetition: float = Field(
        0.3, description="share of repeated character triples; more is not shipped", ge=0, le=1
    )
    batch_size: int = Field(32, ge=1, description="images the model sees at once; fixed")
    device: str = operational("auto", "auto, cpu, cuda or cuda:N")

    def measure(self, batch: pl.DataFrame) -> pl.DataFrame:
        images = batch["image"].to_list()
        written = _embedded(self.batch_size).captions(images)
        scorer = load_scorer(self.scorer, self.device, self.batch_size)
        cosine = np.einsum("nd,nd->n", scorer.embed_images(images), scorer.embed_texts(written))
        scores = np.round(cosine.astype(np.float64), 4)
        original = batch["score"].to_list() if "score" in batch.columns else [None] * batch.height
        good = [
            bool(text)
            and repeats(text) <= self.max_repetition
            and (was is None or score >= round(was, 4) + self.margin)
            for text, score, was in zip(written, scores, original, strict=True)
        ]
        return batch.with_columns(
            caption_synthetic=pl.Series(
                [t if g else None for t, g in zip(written, good, strict=True)], dtype=pl.String
            ),
            synthetic_score=pl.Series(
                [float(s) if g else None for s, g in zip(scores, good, strict=True)], dtype=pl.Float32
            ),
        )

    def resources(self) -> dict[str, str]:
        return {self.captioner: fingerprint(self.captioner)}

    def notices(self) -> tuple[str, ...]:
        return ("Synthetic captions come from the embedded captioner, which knows the sample world only.",)
