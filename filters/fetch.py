"""Fetches images over HTTP(S): many at once, bounded in size and time, polite to hosts.

The transfers are libcurl's (``transfer.py``, ``fetch_queue.py``); here are the limits and what becomes of each outcome.
The field's usual fetcher (img2dataset 1.47) caps no size and checks no address.
"""

from __future__ import annotations

from typing import ClassVar

import polars as pl
from pydantic import Field

from ..pipeline.stage import StageModel, operational
from .fetch_queue import fetch_all
from .transfer import Limits


class Fetch(StageModel):
    """Downloads the images that did not come with the input; a failure keeps its cause, status and evidence."""

    name: ClassVar[str] = "fetch"
    adds: ClassVar[tuple[str, ...]] = ("image", "http_status", "fetch_error", "fetch_ms", "opt_out")
    on_images: ClassVar[bool] = True

    max_bytes: int = Field(16 * 2**20, gt=0, description="bytes; a larger image fails as too_large, read no further")
    max_redirects: int = Field(5, ge=0, description="redirects followed; each target's address is checked anew")
    honour_opt_out: bool = Field(
        True, description="refuse images reserved by X-Robots-Tag (noai, noimageai, noml) or TDM-Reservation"
    )
    robots: bool = Field(
        True, description="obey the robots.txt of each host (as tuwen); one more request for every host"
    )
    allow_private: bool = Field(False, description="connect to private, loopback and other non-global addresses")
    allow_hosts: tuple[str, ...] = Field((), description="hosts whose addresses are not checked (intranets)")
    user_agent: str = operational("tuwen/0.1 (+https://pypi.org/project/tuwen)", "who asks; say how to reach you")
    connect_seconds: float = operational(10.0, "seconds to connect, name look-up included", gt=0)
    total_seconds: float = operational(60.0, "seconds for the whole response", gt=0)
    stall_seconds: int = operational(15, "seconds under 200 bytes/s after which a transfer is given up", gt=0)
    retries: int = operational(2, "further tries where the cause may pass", ge=0)
    backoff_seconds: float = operational(0.5, "wait before the first retry; doubles, with jitter, to 30", ge=0)
    concurrency: int = operational(64, "transfers at once", ge=1)
    per_host: int = operational(6, "connections per host (browsers use 6)", ge=1)
    proxy: str = operational("", "URL of an HTTP proxy; it then resolves names, and only literal addresses are checked")
    connect_to: dict[str, str] = operational({}, "host (or *.suffix) to ADDRESS:PORT that stands in for it in tests")

    def measure(self, batch: pl.DataFrame) -> pl.DataFrame:
        if "image" not in batch.columns:
            batch = batch.with_columns(image=pl.lit(None, dtype=pl.Binary))
        wanted = batch.select(pl.col("image").is_null() & pl.col("image_url").is_not_null()).to_series()
        urls = batch["image_url"].filter(wanted).unique(maintain_order=True).to_list()
        if not urls:
            return batch
        got = fetch_all(urls, self._limits())
        rows = [got[u] if w else None for u, w in zip(batch["image_url"], wanted, strict=True)]
        fetched = pl.DataFrame(
            {
                "_image": pl.Series([r.body if r else None for r in rows], dtype=pl.Binary),
                "http_status": pl.Series([r.status or None if r else None for r in rows], dtype=pl.UInt16),
                "fetch_error": pl.Series([r.error if r else None for r in rows], dtype=pl.String),
                "fetch_ms": pl.Series([r.milliseconds if r else None for r in rows], dtype=pl.UInt32),
                "opt_out": pl.Series([r.opt_out if r else None for r in rows], dtype=pl.String),
                "detail": pl.Series([r.detail if r else None for r in rows], dtype=pl.String),
            }
        )
        return (
            batch.with_columns(fetched)
            .with_columns(image=pl.coalesce("image", "_image"), failure=pl.format("fetch_{}", pl.col("fetch_error")))
            .drop("_image")
        )

    def _limits(self) -> Limits:
        return Limits(
            max_bytes=self.max_bytes,
            max_redirects=self.max_redirects,
            honour_opt_out=self.honour_opt_out,
            robots=self.robots,
            allow_private=self.allow_private,
            allow_hosts=frozenset(h.lower() for h in self.allow_hosts),
            user_agent=self.user_agent,
            connect_seconds=self.connect_seconds,
            total_seconds=self.total_seconds,
            stall_seconds=self.stall_seconds,
            retries=self.retries,
            backoff_seconds=self.backoff_seconds,
            concurrency=self.concurrency,
            per_host=self.per_host,
            proxy=self.proxy,
            connect_to=tuple(sorted(self.connect_to.items())),
        )
