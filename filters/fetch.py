"""Fetches images over HTTP(S): many at once, bounded in size and time, polite to hosts.

The transfers are libcurl's (``transfer.py``, ``fetch_queue.py``); here are the limits and what becomes of each outcome.
The field's usual fetcher (img2dataset 1.47) caps no size and checks no address.
"""

from __future__ import annotations

from typing import Any, ClassVar

import polars as pl
from pydantic import Field

from ..pipeline.columns import COLUMNS, with_missing, without
from ..pipeline.stage import StageModel, operational
from .fetch_queue import fetch_all
from .transfer import Limits, Outcome

_NOTHING = Outcome()
"""What a row got that asked for nothing."""


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
    tdm_file: bool = Field(
        True, description="read each host's /.well-known/tdmrep.json (W3C TDMRep); one more request for every host"
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
        urls = batch["image_url"].to_list()
        held = batch["image"].to_list() if "image" in batch.columns else [None] * batch.height
        wanted = dict.fromkeys(u for u, image in zip(urls, held, strict=True) if u is not None and image is None)
        if not wanted:
            return with_missing(batch, ("image",))
        got = fetch_all(list(wanted), self._limits())
        rows = [got.get(u or "", _NOTHING) if i is None else _NOTHING for u, i in zip(urls, held, strict=True)]
        written: dict[str, list[Any]] = {
            "image": [row.body if image is None else image for row, image in zip(rows, held, strict=True)],
            "http_status": [row.status or None for row in rows],
            "fetch_error": [row.error for row in rows],
            "fetch_ms": [None if row is _NOTHING else row.milliseconds for row in rows],
            "opt_out": [row.opt_out for row in rows],
            "detail": [row.detail for row in rows],
        }
        columns = [pl.Series(name, values, COLUMNS[name].dtype) for name, values in written.items()]
        failure = [row.error and f"fetch_{row.error}" for row in rows]
        return without(batch, *written).hstack([*columns, pl.Series("failure", failure, pl.String)])

    def _limits(self) -> Limits:
        return Limits(
            max_bytes=self.max_bytes,
            max_redirects=self.max_redirects,
            honour_opt_out=self.honour_opt_out,
            robots=self.robots,
            tdm_file=self.tdm_file,
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
