"""Where a crawl may connect to, and what robots.txt means where it cannot be had."""

from __future__ import annotations

from typing import Any

from scrapy.crawler import Crawler
from scrapy.downloadermiddlewares.robotstxt import RobotsTxtMiddleware
from scrapy.exceptions import IgnoreRequest
from scrapy.http import Request, Response
from scrapy.resolver import CachingThreadedResolver
from scrapy.utils.httpobj import urlparse_cached
from twisted.internet.defer import Deferred, succeed

from ...filters.addresses import refusal
from ...filters.urls import host_of, literal_address

REFUSED = "tuwen/blocked_address"


class BlockedAddress(IgnoreRequest):
    """The address lies in a network that is nobody's website."""


class GuardedResolver(CachingThreadedResolver):
    """Names resolve to public addresses or not at all; what it answers is what is connected to."""

    allow_private = False
    fixed: dict[str, str] = {}
    proxy = ""

    @classmethod
    def from_crawler(cls, crawler: Crawler, reactor: Any) -> GuardedResolver:
        made: GuardedResolver = super().from_crawler(crawler, reactor)
        made.allow_private = crawler.settings.getbool("TUWEN_ALLOW_PRIVATE")
        made.fixed = crawler.settings.getdict("TUWEN_RESOLVE")
        made.proxy = host_of(crawler.settings.get("TUWEN_PROXY"))
        return made

    def getHostByName(self, name: str, timeout: Any = ()) -> Deferred[str]:
        if name in self.fixed:
            return succeed(self.fixed[name])
        return super().getHostByName(name, timeout).addCallback(self._checked, name)

    def _checked(self, address: str, name: str) -> str:
        why = None if self.allow_private or name == self.proxy else refusal(address)
        if why:
            raise BlockedAddress(f"{name} resolves to {address}, a {why}")
        return address


class LiteralGuard:
    """Refuses URLs whose host is a private address itself: no resolver is asked for those.

    It also sees to it that no proxy of the environment is used, behind which nobody's address would be checked; one
    that was asked for resolves names itself, and only literal addresses are refused then.
    """

    def __init__(self, crawler: Crawler) -> None:
        self.allow_private = crawler.settings.getbool("TUWEN_ALLOW_PRIVATE")
        self.proxy = crawler.settings.get("TUWEN_PROXY") or None

    @classmethod
    def from_crawler(cls, crawler: Crawler) -> LiteralGuard:
        return cls(crawler)

    def process_request(self, request: Request) -> None:
        literal = literal_address(host_of(request.url))
        why = refusal(literal) if literal and not self.allow_private else None
        if why:
            raise BlockedAddress(f"{literal} is a {why}")
        request.meta["proxy"] = self.proxy


class StrictRobots(RobotsTxtMiddleware):
    """RFC 9309, 2.3.1: without robots.txt (4xx) all is allowed; while it cannot be had (5xx, no answer) nothing is.

    Where nobody answers, the site's pages fail by the same cause as its robots.txt and are not asked for.
    """

    def __init__(self, crawler: Crawler) -> None:
        super().__init__(crawler)
        self._unreachable: dict[str, Exception] = {}

    async def process_request(self, request: Request, spider: Any = None) -> None:
        await super().process_request(request)
        cause = self._unreachable.get(urlparse_cached(request).netloc)
        if cause is not None and not request.meta.get("dont_obey_robotstxt"):
            raise cause

    def _robots_error(self, exc: Exception, netloc: str) -> None:
        if not isinstance(exc, IgnoreRequest):
            self._unreachable[netloc] = exc
        super()._robots_error(exc, netloc)

    async def _parse_robots(self, response: Response, netloc: str, request: Request) -> None:
        if response.status >= 500:
            response = response.replace(body=b"User-agent: *\nDisallow: /")
        elif response.status >= 400:
            response = response.replace(body=b"")
        await super()._parse_robots(response, netloc, request)
