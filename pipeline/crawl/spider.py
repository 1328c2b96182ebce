"""The spider and its middlewares: follow links in scope, hand exchanges to the archive, count what happened."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from scrapy import Spider
from scrapy.exceptions import (
    CannotResolveHostError,
    CloseSpider,
    DownloadCancelledError,
    DownloadConnectionRefusedError,
    DownloadFailedError,
    DownloadTimeoutError,
    IgnoreRequest,
    ResponseDataLossError,
)
from scrapy.http import HtmlResponse, Request, Response
from scrapy.http.request import NO_CALLBACK
from scrapy.linkextractors import LinkExtractor
from scrapy.responsetypes import responsetypes
from scrapy.spidermiddlewares.httperror import HttpError
from scrapy.utils.defer import maybe_deferred_to_future
from scrapy.utils.response import get_meta_refresh
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from ...filters.robots import origin_of
from ...filters.tdmrep import PATH, Reservations, parse
from .archive import Archive, Exchange
from .guard import BlockedAddress
from .optout import directives
from .scope import Scope

RAW = "tuwen_raw"
STORED = "stored"

CAUSES: dict[Any, str] = {
    CannotResolveHostError: "dns",
    DownloadConnectionRefusedError: "refused",
    DownloadTimeoutError: "timeout",
    DownloadCancelledError: "too_large",
    ResponseDataLossError: "reset",
    DownloadFailedError: "reset",
}
"""What Scrapy raises for a page that cannot be had, in the words of ``filters/transfer.py``."""


class PageSpider(Spider):
    """Crawls from the seeds, breadth first, within ``scope``, into ``archive``, as far as its bounds allow."""

    name = "tuwen"

    def __init__(
        self, seeds: list[str], scope: Scope, archive: Archive, most_pages: int, most_bytes: int, honour: bool
    ) -> None:
        super().__init__()
        self.seeds, self.scope, self.archive = seeds, scope, archive
        self.most_pages, self.most_bytes, self.honour = most_pages, most_bytes, honour
        self.links = LinkExtractor()
        self._sites: dict[str, Deferred[Reservations]] = {}

    async def start(self) -> AsyncIterator[Request]:
        for seed in self.seeds:
            yield Request(seed, callback=self.parse, errback=self.failed, dont_filter=True)

    async def parse(self, response: Response) -> AsyncIterator[Request]:
        """Archive a page, unless it reserves itself or is in another language, and follow its links."""
        if not isinstance(response, HtmlResponse):
            self._count("not_html")
            return
        if not self.scope.speaks(response.text):
            self._count("other_language")
            return
        self._stop_at_bounds()
        headers = {k.decode("latin-1").lower(): [v.decode("latin-1") for v in vs] for k, vs in response.headers.items()}
        said = directives(headers, response.body, (await self._site(response.url)).reserves(response.url))
        self._archive(response, said.reserved)
        if said.nofollow:
            self._count("nofollow")
            return
        onward = [link.url for link in self.links.extract_links(response) if not link.nofollow]
        # A refresh is a link and no redirect: pages of news ask to be loaded again every minute, and would be lost.
        refresh = get_meta_refresh(response)[1]
        for url in [refresh, *onward] if refresh else onward:
            if self.scope.allows(url):
                yield Request(url, callback=self.parse, errback=self.failed)

    async def _site(self, url: str) -> Reservations:
        """What the tdmrep.json of a page's site reserves: asked for once, and nothing where it cannot be had."""
        origin = origin_of(url)
        if origin not in self._sites:
            self._sites[origin] = Deferred()
            found = Reservations()
            try:
                request = Request(origin + PATH, meta={"handle_httpstatus_all": True}, callback=NO_CALLBACK)
                response = await self.crawler.engine.download_async(request)
                found = parse(response.body) if response.status == 200 else found
            except Exception as error:
                self.logger.info("%s%s: %s", origin, PATH, error)
            self._sites[origin].callback(found)
        # A deferred gives its result to the next callback: each waiting page gets one of its own.
        mine: Deferred[Reservations] = Deferred()

        def hand_on(told: Reservations) -> Reservations:
            mine.callback(told)
            return told

        self._sites[origin].addCallback(hand_on)
        return await maybe_deferred_to_future(mine)

    def failed(self, failure: Failure) -> None:
        """Count what could not be had, by cause."""
        error = failure.value
        if isinstance(error, BlockedAddress) or isinstance(getattr(error, "__cause__", None), BlockedAddress):
            self._count("blocked_address")
        elif isinstance(error, IgnoreRequest) and "robots" in str(error):
            self._count("robots")
        elif isinstance(error, HttpError):
            self._count(f"http_{error.response.status}")
        elif isinstance(error, DownloadFailedError) and "SSL" in str(error):
            self._count("tls")
        elif isinstance(error, IgnoreRequest) and "MAXSIZE" in str(error):  # what it unpacks to, not what was sent
            self._count("too_large")
        else:
            self._count(CAUSES.get(type(error), type(error).__name__))

    def _archive(self, response: Response, reserved: tuple[str, ...]) -> None:
        exchange: Exchange | None = response.request.meta.get(RAW) if response.request else None
        if exchange is None or STORED in response.flags:
            return
        exchange.notes = {"hopsFromSeed": str(response.meta.get("depth", 0)), "opt-out": list(reserved)}
        exchange.reserved = bool(reserved) and self.honour
        self.archive.write(exchange)
        self._count("reserved" if exchange.reserved else "pages")

    def _stop_at_bounds(self) -> None:
        if self.archive.pages >= self.most_pages:
            raise CloseSpider("pages")
        if self.archive.size() >= self.most_bytes:
            raise CloseSpider("bytes")

    def _count(self, what: str) -> None:
        self.crawler.stats.inc_value(f"tuwen/{what}")


class FromArchive:
    """Answers from the archive what an interrupted crawl has fetched already."""

    def __init__(self, archive: Archive) -> None:
        self.archive = archive

    @classmethod
    def from_crawler(cls, crawler: Any) -> FromArchive:
        return cls(crawler.spider.archive)

    def process_request(self, request: Request) -> Response | None:
        found = self.archive.read(request.url) if request.method == "GET" else None
        if found is None:
            return None
        status, headers, body = found
        kept: dict[str, list[str]] = {}
        for name, value in headers:
            kept.setdefault(name, []).append(value)
        first = {k.encode("latin-1"): v[0].encode("latin-1") for k, v in kept.items()}
        kind = responsetypes.from_args(headers=first, url=request.url)
        return kind(request.url, status=status, headers=kept, body=body, flags=[STORED], request=request)


class ToArchive:
    """Notes each response as it came off the wire; what is no page is written at once."""

    def __init__(self, archive: Archive) -> None:
        self.archive = archive

    @classmethod
    def from_crawler(cls, crawler: Any) -> ToArchive:
        return cls(crawler.spider.archive)

    def process_response(self, request: Request, response: Response) -> Response:
        if STORED in response.flags:
            return response
        # Now: what unpacks the body takes Content-Encoding out of these very headers.
        exchange = request.meta[RAW] = exchange_of(request, response)
        stated = request.url.endswith(PATH) and response.status == 200
        if 300 <= response.status < 400 or request.url.endswith("/robots.txt") or stated:
            self.archive.write(exchange)
        return response


def exchange_of(request: Request, response: Response) -> Exchange:
    """An exchange from Scrapy's request and response, before anything was decompressed."""

    def pairs(headers: Any) -> list[tuple[str, str]]:
        return [(k.decode("latin-1"), v.decode("latin-1")) for k, vs in headers.items() for v in vs]

    host = request.url.split("://", 1)[-1].split("/", 1)[0]
    address = str(response.ip_address) if response.ip_address else None
    sent = [("Host", host), *pairs(request.headers)]
    return Exchange(request.url, request.method, sent, response.status, pairs(response.headers), response.body, address)
