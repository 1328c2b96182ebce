"""One crawl, from its options to its sums."""

from __future__ import annotations

import json
import logging
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ... import __version__
from ...filters.robots_tag import AGENT
from ..errors import RunError, UsageError
from .archive import Archive
from .scope import Scope, hosts_of

_MIDDLEWARES = {
    # Outermost is smallest. Robots and guards come before the archive, so that a stored page that is forbidden
    # today is not followed; the one that notes raw responses is next to the wire.
    "scrapy.downloadermiddlewares.robotstxt.RobotsTxtMiddleware": None,
    "tuwen.pipeline.crawl.guard.StrictRobots": 100,
    "tuwen.pipeline.crawl.guard.LiteralGuard": 110,
    "tuwen.pipeline.crawl.spider.FromArchive": 950,
    "tuwen.pipeline.crawl.spider.ToArchive": 960,
}


@dataclass(frozen=True)
class CrawlOptions:
    """What to crawl and what it may cost. Bounds and manners may change when a crawl goes on; its scope may not."""

    seeds: tuple[str, ...]
    contact: str
    hosts: tuple[str, ...] = ()
    path: str = ""
    language: str = "zh"
    pages: int = 10_000
    depth: int = 10
    bytes: int = 10 << 30
    seconds: int = 24 * 3600
    delay: float = 1.0
    per_host: int = 2
    page_bytes: int = 8 << 20
    honour_opt_out: bool = True
    allow_private: bool = False
    proxy: str = ""
    resolve: dict[str, str] = field(default_factory=dict)

    def scope(self) -> Scope:
        """The addresses and pages of the crawl."""
        return Scope(tuple(h.lower() for h in self.hosts) or hosts_of(self.seeds), self.path, self.language)

    def check(self) -> None:
        """Raises ``UsageError`` for what cannot be crawled with."""
        for seed in self.seeds:
            parts = urlsplit(seed)
            if parts.scheme not in ("http", "https") or not parts.hostname:
                raise UsageError(f"{seed!r} is no address to begin at; expected http(s)://host/…")
        if not re.fullmatch(r"https?://\S+|[^@\s]+@[^@\s]+\.[^@\s]+", self.contact):
            raise UsageError(
                f"--contact {self.contact!r}: expected a mail address or a URL; the sites that are crawled see it in "
                "the user agent and can ask you to stop"
            )
        try:
            re.compile(self.path)
        except re.error as error:
            raise UsageError(f"--path {self.path!r} is no regular expression: {error}") from None
        if self.proxy and not (urlsplit(self.proxy).scheme in ("http", "https") and urlsplit(self.proxy).hostname):
            raise UsageError(f"--proxy {self.proxy!r} is no HTTP proxy; expected http://host:port")
        if self.language not in ("", "zh"):
            raise UsageError(f"--language {self.language!r}: zh or nothing; only Chinese pages are recognised")


def crawl(options: CrawlOptions, out: Path) -> dict[str, Any]:
    """Crawl into ``out``, or go on with the crawl there; the sums, which also stand in OUT/crawl.json.

    Runs Twisted's reactor, which a process can do once.
    """
    try:
        from scrapy.crawler import CrawlerProcess
    except ImportError:
        raise UsageError("curate crawl needs Scrapy: pip install 'tuwen[crawl]'") from None

    from .spider import PageSpider

    for name in ("scrapy", "twisted", "asyncio"):
        logging.getLogger(name).setLevel(logging.ERROR)
    options.check()
    at = out / "crawl.json"
    told = _begin(options, at, out)
    agent = f"{AGENT}/{__version__} (+{options.contact})"
    archive = Archive(out, {"software": f"tuwen/{__version__}", "http-header-user-agent": agent, "robots": "obey"})
    before = archive.pages
    process = CrawlerProcess(_settings(options, agent))
    crawler = process.create_crawler(PageSpider)
    deferred = process.crawl(
        crawler,
        seeds=list(options.seeds),
        scope=options.scope(),
        archive=archive,
        most_pages=options.pages,
        most_bytes=options.bytes,
        honour=options.honour_opt_out,
    )
    broken: list[BaseException] = []

    def note(failure: Any) -> None:
        broken.append(failure.value)

    deferred.addErrback(note)
    process.start()
    archive.close()
    if broken:
        raise RunError(f"the crawl broke off: {type(broken[0]).__name__}: {broken[0]}. The same command goes on")
    stats = crawler.stats.get_stats()
    counts = {k.removeprefix("tuwen/"): int(v) for k, v in stats.items() if k.startswith("tuwen/")}
    told |= {
        "ended": stats.get("finish_reason", "unknown"),
        "pages": archive.pages,
        "new": archive.pages - before,
        "bytes": archive.size(),
        "counts": dict(sorted(counts.items())),
    }
    at.write_text(json.dumps(told, ensure_ascii=False, indent=1), "utf-8")
    return told


def _begin(options: CrawlOptions, at: Path, out: Path) -> dict[str, Any]:
    """Refuse a folder that holds something else; what crawl.json holds to begin with."""
    fixed = {"seeds": list(options.seeds), "scope": asdict(options.scope()) | {"hosts": list(options.scope().hosts)}}
    if at.is_file():
        old = json.loads(at.read_text("utf-8"))
        changed = [name for name in fixed if old.get(name) != fixed[name]]
        if changed:
            raise UsageError(
                f"{out} holds a crawl with another {' and '.join(changed)}: {old[changed[0]]}, given "
                f"{fixed[changed[0]]}. Give another -o"
            )
        return dict(old)
    if out.exists() and any(out.iterdir()):
        raise UsageError(f"{out} is not empty and holds no crawl. Give an empty or new folder with -o")
    out.mkdir(parents=True, exist_ok=True)
    at.write_text(json.dumps(fixed, ensure_ascii=False, indent=1), "utf-8")
    return fixed


def _settings(options: CrawlOptions, agent: str) -> dict[str, Any]:
    return {
        "USER_AGENT": agent,
        "ROBOTSTXT_OBEY": True,
        "ROBOTSTXT_USER_AGENT": AGENT,
        "DOWNLOADER_MIDDLEWARES": _MIDDLEWARES,
        "TWISTED_DNS_RESOLVER": "tuwen.pipeline.crawl.guard.GuardedResolver",
        "TUWEN_ALLOW_PRIVATE": options.allow_private,
        "TUWEN_RESOLVE": options.resolve,
        "TUWEN_PROXY": options.proxy,
        "AUTOTHROTTLE_ENABLED": options.delay > 0,
        "AUTOTHROTTLE_START_DELAY": options.delay,
        "DOWNLOAD_DELAY": options.delay,
        "CONCURRENT_REQUESTS": 32,
        "CONCURRENT_REQUESTS_PER_DOMAIN": options.per_host,
        "DEPTH_LIMIT": options.depth,
        # Breadth first: a bounded crawl sees the top of a site and not one deep branch of it.
        "DEPTH_PRIORITY": 1,
        "SCHEDULER_DISK_QUEUE": "scrapy.squeues.PickleFifoDiskQueue",
        "SCHEDULER_MEMORY_QUEUE": "scrapy.squeues.FifoMemoryQueue",
        "CLOSESPIDER_TIMEOUT": options.seconds,
        "DOWNLOAD_MAXSIZE": options.page_bytes,
        "DOWNLOAD_TIMEOUT": 60,
        "RETRY_TIMES": 2,
        "COOKIES_ENABLED": False,
        "METAREFRESH_ENABLED": False,
        "TELNETCONSOLE_ENABLED": False,
        "REMOTE_CONTROL_ENABLED": False,
        "LOG_INSTALL_ROOT_HANDLER": False,
    }
