"""Scores each pair by the cosine of image and caption and drops what lies under the threshold.

0.3 is OPPOVL's threshold for its scorer. It means nothing for another one until ``curate calibrate`` has
been run; matched and unrelated pairs of Chinese-CLIP, say, overlap around 0.3 to 0.4. Where a recipe names no
threshold, the scorer's own is taken and recorded. Rules that need other pairs are stages of the relate phase:
``score_percentile`` and ``rank_rule``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import numpy as np
import polars as pl
from pydantic import Field, model_validator

from ..pipeline.stage import StageModel, operational
from ..pipeline.stage import threshold as decides
from .blocks import Embeddings
from .prompts import margins, prompt_vectors, prompts_hash, read_prompts
from .scorer import ARTICLE_THRESHOLD, EMBEDDED, Scorer, check_scorer, default_threshold, fingerprint, load_scorer

DECIMALS = 4
"""Scores are rounded before any decision, so that the last bits of a sum cannot change a verdict."""


class Score(StageModel):
    """Cosine of image and caption by a contrastive scorer; pairs under the threshold are dropped."""

    name: ClassVar[str] = "score"
    adds: ClassVar[tuple[str, ...]] = (
        *("score", "scorer", "image_embedding", "caption_embedding"),
        *("prompt_margin", "prompt_class"),
    )
    on_images: ClassVar[bool] = True

    scorer: str = Field(
        EMBEDDED, description="embedded, an open_clip NAME/WEIGHTS, or a folder (open_clip, Chinese-CLIP, ONNX)"
    )
    threshold: float = decides(
        ARTICLE_THRESHOLD,
        "cosine; less drops (OPPOVL: 0.3 with BriVL); where none is given, the scorer's own: that of the "
        "calibration.json in its folder, or as published",
        ge=-1,
        le=1,
    )
    ceiling: float = decides(
        1.0, "cosine; more drops (DanQing: 0.44, above which text in the image is read)", ge=-1, le=1
    )
    embeddings: bool = Field(
        False,
        description="keep both unit vectors in the ledger, 4 bytes a dimension (semantic_duplicates)",
    )
    prompts: str = Field(
        "",
        description="zero-shot image safety: a file of 'class: prompt' lines, or default for the Chinese ones that "
        "ship; empty: none",
    )
    prompt_margin: float = decides(
        0.0,
        "cosine by which an unsafe prompt may be nearer to the image than the nearest safe one; more drops "
        "(0: the nearest prompt decides, as in CLIP's zero-shot classification)",
        ge=-2,
        le=2,
    )
    batch_size: int = Field(32, ge=1, description="pairs the model sees at once; fixed, the last batch is padded")
    precision: Literal["fp32", "bf16"] = Field(
        "fp32", description="bf16 is faster on a GPU, slower on most CPUs, and moves scores by up to about 0.01"
    )
    device: str = operational("auto", "auto, cpu, cuda or cuda:N")
    threads: int = operational(
        1, "torch threads per process; one, because sums over more differ in the last bits", ge=1
    )

    @model_validator(mode="before")
    @classmethod
    def _own_threshold(cls, given: Any) -> Any:
        if not isinstance(given, dict) or given.get("threshold") is not None:
            return given
        return {**given, "threshold": default_threshold(str(given.get("scorer", EMBEDDED)))}

    def measure(self, batch: pl.DataFrame) -> pl.DataFrame:
        model = load_scorer(self.scorer, self.device, self.batch_size, self.threads, self.precision)
        captions = batch["caption"].unique(maintain_order=True)
        texts = model.embed_texts(captions.to_list())
        rows = dict(zip(captions, range(len(captions)), strict=True))
        images = model.embed_images(batch["image"].to_list())
        at = [rows[c] for c in batch["caption"]]
        cosine = np.einsum("nd,nd->n", images, texts[at])
        return batch.with_columns(
            score=pl.Series(np.round(cosine.astype(np.float64), DECIMALS), dtype=pl.Float32),
            scorer=pl.lit(f"{model.name}@{model.hash}"),
            image_embedding=_vectors(images if self.embeddings else None, batch.height),
            caption_embedding=_vectors(texts[at] if self.embeddings else None, batch.height),
            **self._safety(model, images),
        )

    def _safety(self, model: Scorer, images: Embeddings) -> dict[str, pl.Series]:
        """Margin and class of the nearest unsafe prompt, by the vectors that the score has made."""
        if not self.prompts:
            return {}
        margin, kinds = margins(images, *prompt_vectors(model, self.prompts))
        rounded = np.round(margin.astype(np.float64), DECIMALS)
        return {"prompt_margin": pl.Series(rounded, dtype=pl.Float32), "prompt_class": pl.Series(kinds)}

    def reasons(self) -> Mapping[str, pl.Expr]:
        value = pl.col("score").cast(pl.Float64).round(DECIMALS)
        margin = pl.col("prompt_margin").cast(pl.Float64).round(DECIMALS)
        unsafe = {"unsafe_by_prompt": margin > self.prompt_margin} if self.prompts else {}
        return {**unsafe, "low_score": value < self.threshold, "high_score": value > self.ceiling}

    def resources(self) -> Mapping[str, str]:
        prompts = {self.prompts: prompts_hash(self.prompts)} if self.prompts else {}
        return {self.scorer: fingerprint(self.scorer), **prompts}

    def check(self) -> None:
        check_scorer(self.scorer)
        if self.prompts:
            read_prompts(self.prompts)

    def notices(self) -> tuple[str, ...]:
        if self.scorer != EMBEDDED:
            return ()
        return (
            "The embedded scorer knows the sample world only. On other data its scores mean nothing: give a real one "
            "with --scorer (an open_clip NAME/WEIGHTS, or a folder of open_clip or Chinese-CLIP).",
        )


def _vectors(values: Embeddings | None, rows: int) -> pl.Series:
    """(rows,) each vector of ``values`` (rows, dimensions) as bytes; null where there are none."""
    if values is None:
        return pl.Series([None] * rows, dtype=pl.Binary)
    return pl.Series([row.tobytes() for row in values.astype("<f2")], dtype=pl.Binary)
