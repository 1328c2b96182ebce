"""Synthetic captions: a second text beside the original, never in its place.

What the captioner wrote ships if it is a caption (``caption_gates.py``), passes the text stages of the recipe as the
original did, and scores no worse than the original. Otherwise ``synthetic_reason`` says why not, and the pair ships
as it is: nothing that goes wrong here costs a pair.
"""

from __future__ import annotations

import atexit
import os
import tempfile
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import Field, PrivateAttr

from ..pipeline.stage import StageModel, Tally, apply_stage, operational
from . import caption_gates
from .caption_http import Endpoint
from .caption_written import Captioner, Written
from .captioners import WEB, identity, load_endpoint, load_model
from .scorer import EMBEDDED, fingerprint, load_scorer

PROMPT = "请用一句简体中文客观地写出画面里有什么、是什么颜色、在什么位置。只写这一句，不要评论，也不要提到图片本身。"


class SyntheticCaptions(StageModel):
    """Writes a caption for each kept image; it ships where it passes the text rules and scores no worse."""

    name: ClassVar[str] = "synthetic_captions"
    phase: ClassVar[Any] = "emit"
    on_images: ClassVar[bool] = True
    adds: ClassVar[tuple[str, ...]] = (
        *("caption_synthetic", "synthetic_score", "synthetic_reason", "synthetic_detail", "synthetic_tokens"),
    )

    captioner: str = Field(
        EMBEDDED,
        min_length=1,
        description="embedded (knows the sample world only), coca:NAME/WEIGHTS, a folder (open_clip CoCa or an "
        "image-to-text model of transformers), or the address of an OpenAI-compatible endpoint, http://host/v1",
    )
    model: str = Field("", description="the model's name at the endpoint")
    prompt: str = Field(PROMPT, description="what an endpoint or a chat model is asked with the image")
    max_tokens: int = Field(128, ge=1, description="tokens of an answer at most; a longer one is refused (cut_short)")
    scorer: str = Field("", description="what compares it with the original; empty: the score stage's, if there is one")
    margin: float = Field(0.0, description="cosine by which it may score less than the original", ge=-1, le=1)
    shortest: int = Field(4, ge=0, description="letters; a shorter answer is refused")
    longest: int = Field(200, ge=1, description="letters; a longer answer is refused")
    max_repetition: float = Field(
        0.3, description="share of repeated character triples; more is not shipped", ge=0, le=1
    )
    max_requests: int = Field(0, ge=0, description="requests of a run, retries too; 0: no limit")
    max_run_tokens: int = Field(0, ge=0, description="tokens of a run, as the endpoint counts them; 0: no limit")
    api_key_env: str = operational("", "environment variable that holds the endpoint's key; the key is never written")
    batch_size: int = Field(32, ge=1, description="images the model sees at once; fixed")
    device: str = operational("auto", "auto, cpu, cuda or cuda:N")
    concurrency: int = operational(8, "requests under way at once, per process", ge=1, le=512)
    requests_per_second: float = operational(0.0, "requests a second, of all processes together; 0: no limit", ge=0)
    connect_seconds: float = operational(10.0, "seconds to wait for a connection", gt=0)
    read_seconds: float = operational(60.0, "seconds to wait for an answer", gt=0)
    retries: int = operational(3, "further tries after 429, 5xx and timeouts", ge=0, le=20)
    backoff_seconds: float = operational(1.0, "wait before the first retry; doubles, with jitter", ge=0)
    proxy: str = operational("", "proxy for the endpoint; empty: none, whatever the environment says")

    _rules: tuple[StageModel, ...] = PrivateAttr(())
    _scorer: str = PrivateAttr("")
    _meter: str = PrivateAttr("")

    def among(self, stages: Sequence[StageModel]) -> Self:
        """This stage with the recipe's text stages, its scorer, and a file in which its processes count requests."""
        bound = self.model_copy()
        bound._rules = tuple(s for s in stages if s.phase == "measure" and not s.on_images)
        bound._scorer = next((str(getattr(s, "scorer", "")) for s in stages if s.name == "score"), "")
        if self.captioner.startswith(WEB) and (self.max_requests or self.max_run_tokens or self.requests_per_second):
            bound._meter = _meter_file()
        return bound

    def measure(self, batch: pl.DataFrame) -> pl.DataFrame:
        images = batch["image"].to_list()
        rows = pl.DataFrame(
            [(w.text, w.reason, w.detail, w.tokens) for w in self._write(images)],
            schema={"text": pl.String, "reason": pl.String, "detail": pl.String, "tokens": pl.UInt32},
            orient="row",
        )
        rows = _by_text_rules(self._gated(rows).with_columns(key=batch["key"]), self._rules)
        rows = self._scored(rows, batch)
        shipped = pl.when(pl.col("reason").is_null())
        rows = rows.select(
            caption_synthetic=shipped.then("text"),
            synthetic_score="score",
            synthetic_reason="reason",
            synthetic_detail="detail",
            synthetic_tokens="tokens",
        )
        return batch.with_columns(rows.get_columns())

    def _write(self, images: list[bytes]) -> list[Written]:
        """What the captioner gives; an image that makes a model raise gets that as its reason, alone."""
        try:
            captioner = self._captioner()
            return captioner.captions(images)
        except Exception as error:
            if len(images) == 1:
                return [Written(None, "captioner_error", f"{type(error).__name__}: {error}"[:500])]
            return [w for image in images for w in self._write([image])]

    def _captioner(self) -> Captioner:
        if not self.captioner.startswith(WEB):
            return load_model(self.captioner, self.prompt, self.max_tokens, self.device, self.batch_size)
        endpoint = Endpoint(
            self.captioner,
            **{name: getattr(self, name) for name in Endpoint.__dataclass_fields__ if name != "url"},
        )
        return load_endpoint(endpoint, self._meter, self.requests_per_second, self.max_requests, self.max_run_tokens)

    def _gated(self, rows: pl.DataFrame) -> pl.DataFrame:
        """``rows`` (text, reason, detail) unwrapped, with what the gates refuse."""
        texts = [None if t is None else caption_gates.unwrap(t) for t in rows["text"]]
        words = [
            None
            if text is None
            else caption_gates.refused(text, self.prompt, self.shortest, self.longest, self.max_repetition)
            for text in texts
        ]
        gate = pl.Series("gate", words, dtype=pl.String)
        return rows.with_columns(
            text=pl.Series(texts, dtype=pl.String),
            reason=pl.coalesce("reason", gate),
            detail=pl.when(gate.is_not_null())
            .then(pl.Series(texts, dtype=pl.String).str.head(300))
            .otherwise("detail"),
        )

    def _scored(self, rows: pl.DataFrame, batch: pl.DataFrame) -> pl.DataFrame:
        """``rows`` with ``score``; what scores worse than the original, less the margin, is refused."""
        spec, scores = self.scorer or self._scorer, [None] * rows.height
        at = np.flatnonzero(rows["reason"].is_null().to_numpy())
        if not spec or not at.size:
            return rows.with_columns(score=pl.Series(scores, dtype=pl.Float32))
        scorer = load_scorer(spec, self.device, self.batch_size)
        images = scorer.embed_images(batch["image"].gather(at).to_list())

        def cosines(texts: pl.Series) -> NDArray[np.float64]:
            # Rounded as the score stage rounds: no decision hangs on the last bits of a sum.
            value = np.einsum("nd,nd->n", images, scorer.embed_texts(texts.gather(at).to_list()))
            rounded: NDArray[np.float64] = np.round(value.astype(np.float64), 4)
            return rounded

        name = f"{scorer.name}@{scorer.hash}"
        known = {"score", "scorer"} <= set(batch.columns) and bool((batch["scorer"] == name).all())
        made = cosines(rows["text"])
        own = np.round(batch["score"].gather(at).to_numpy(), 4) if known else cosines(batch["caption"])
        score = pl.Series("score", scores, dtype=pl.Float32).scatter(at, made.astype(np.float32))
        worse = np.zeros(rows.height, bool)
        worse[at] = np.round(made - own + self.margin, 4) < 0
        told = pl.Series([None] * rows.height, dtype=pl.String).scatter(
            at, [f"{m:.4f}, the original {o:.4f}" for m, o in zip(made, own, strict=True)]
        )
        low = pl.Series(worse)
        return rows.with_columns(
            score=score,
            reason=pl.when(low).then(pl.lit("low_score")).otherwise("reason"),
            detail=pl.when(low).then(told).otherwise("detail"),
        )

    def resources(self) -> Mapping[str, str]:
        held = {self.captioner: identity(self.captioner, self.model, self.prompt, self.api_key_env)}
        return held | ({self.scorer: fingerprint(self.scorer)} if self.scorer else {})

    def notices(self) -> tuple[str, ...]:
        if self.captioner == EMBEDDED:
            return ("Synthetic captions come from the embedded captioner, which knows the sample world only.",)
        if self.captioner.startswith(WEB):
            return (
                f"Synthetic captions come from {self.model} at {self.captioner}: the images that ship were sent there, "
                "and another run may get other answers.",
            )
        return ()


def _by_text_rules(rows: pl.DataFrame, rules: Sequence[StageModel]) -> pl.DataFrame:
    """``rows`` (key, text, reason, detail) after the recipe's text stages: what they drop is refused as STAGE:REASON.

    What they change (one spelling, cut phrases, masked names) is what ships, as for the original.
    """
    if not rules:
        return rows
    rows = rows.with_row_index("ordinal")
    batch = rows.filter(pl.col("reason").is_null()).select("ordinal", "key", caption_raw="text", caption="text")
    batch = batch.with_columns(status=pl.lit(None, dtype=pl.String))
    for rule in rules:
        batch = apply_stage(rule, batch, Tally())
    verdict = pl.when(pl.col("status").is_not_null()).then(pl.format("{}:{}", "stage", "reason"))
    told = batch.select("ordinal", after="caption", verdict=verdict, why=pl.coalesce("detail", "caption"))
    rows = rows.join(told, on="ordinal", how="left", maintain_order="left")
    refused = pl.col("verdict").is_not_null()
    return rows.with_columns(
        text=pl.coalesce("after", "text"),
        reason=pl.coalesce("reason", "verdict"),
        detail=pl.when(refused).then("why").otherwise("detail"),
    ).drop("ordinal", "after", "verdict", "why")


def _meter_file() -> str:
    """A name for the file in which the processes of one run count requests; the process that asked removes it."""
    path, owner = Path(tempfile.gettempdir()) / f"tuwen-captions-{uuid.uuid4().hex}.json", os.getpid()

    def remove() -> None:
        if os.getpid() == owner:
            path.unlink(missing_ok=True)

    atexit.register(remove)
    return str(path)
