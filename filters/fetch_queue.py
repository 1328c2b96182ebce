"""Many transfers at once through one libcurl multi handle per thread: turns, hosts, redirects, retries."""

from __future__ import annotations

import os
import random
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import cast

import pycurl

from . import tdmrep
from .robots import SECONDS, UNKNOWN_SECONDS, UNREACHABLE, Held, Rules, origin_of, rules_of
from .transfer import Limits, Outcome, Transfer, blocked_literal
from .urls import host_of, wire_url

PASSING = frozenset(("timeout_connect", "timeout_read", "reset", "empty", "http_429"))
"""Causes that may be gone at the next try, with every http_5xx; the others are final."""

LONGEST_WAIT = 30.0
"""Seconds: what waits for a server that asks for a longer pause is given up, as if it had answered the same."""

_RESTS = frozenset((429, 503))
"""Statuses whose Retry-After speaks for the whole host: nobody asks it for anything until then (RFC 6585, RFC 9110)."""

_LONGEST_REST = 24 * 3600.0


@dataclass(eq=False)
class _Job:
    """An address on its way: where it stands after redirects, how often it was tried, when it may go on,
    and whether its host's rules are still to come.

    ``rules`` is the origin whose robots.txt or, with ``tdm``, tdmrep.json it is, None for an image.
    """

    asked: str
    url: str
    rules: str | None = None
    tdm: bool = False
    hops: list[str] = field(default_factory=list)
    tries: int = 0
    not_before: float = 0.0
    held_back: bool = False
    milliseconds: int = 0


def fetch_all(urls: Sequence[str], limits: Limits) -> dict[str, Outcome]:
    """Fetch distinct ``urls``; an outcome for each. Blocks until all are done or given up.

    Which bytes come back depends on the servers alone: order, jitter and reuse of connections change only when.
    """
    done: dict[str, Outcome] = {}
    waiting: list[_Job] = []
    for url in dict.fromkeys(urls):
        try:
            waiting.append(_Job(url, wire_url(url)))
        except ValueError as error:
            done[url] = Outcome(error="bad_url", detail=str(error))
    _Queue(limits, waiting, done).run()
    return done


class _Queue:
    """The jobs of one batch."""

    def __init__(self, limits: Limits, waiting: list[_Job], done: dict[str, Outcome]) -> None:
        self._limits, self._waiting, self._done = limits, waiting, done
        self._running: dict[pycurl.Curl, tuple[Transfer, _Job]] = {}
        self._hosts: Counter[str] = Counter()
        self._multi = _multi(limits)
        self._asked: set[str] = set()
        self._news = False

    def run(self) -> None:
        try:
            while self._waiting or self._running:
                self._start()
                while self._multi.perform()[0] == pycurl.E_CALL_MULTI_PERFORM:
                    pass
                self._collect()
                if self._running:
                    self._multi.select(min(0.2, self._pause()))
                elif self._waiting:
                    time.sleep(self._pause())
        finally:
            for curl in self._running:
                self._multi.remove_handle(curl)
                curl.close()

    def _pause(self) -> float:
        """Seconds until the next waiting job may start, if that is what is waited for."""
        if self._news:  # rules have come: what was held back for them may go
            return 0.0
        if len(self._running) >= self._limits.concurrency:
            return 0.2
        open_ = ((j, host_of(j.url)) for j in self._waiting if not j.held_back)
        free = [self._wait_of(j, host) for j, host in open_ if self._hosts[host] < self._limits.per_host]
        return max(0.0, min(free)) if free else 0.2

    def _wait_of(self, job: _Job, host: str) -> float:
        """Seconds until the job may start or is to be given up."""
        rest = _rests().left(host)
        return max(job.not_before - time.monotonic(), rest) if rest <= LONGEST_WAIT else 0.0

    def _start(self) -> None:
        """Start what may start. Hosts' turns are kept here: time in libcurl's own queue would count as connecting."""
        now, still = time.monotonic(), []
        self._news = False
        for job in self._with_rules():
            host = host_of(job.url)
            full = len(self._running) >= self._limits.concurrency or self._hosts[host] >= self._limits.per_host
            job.held_back = not self._known(job)
            rest = _rests().left(host)
            if rest > LONGEST_WAIT:
                said = f"{host} asked for a pause; {rest:,.0f} s of it are left"
                self._end(job, Outcome(error="http_429", detail=said, milliseconds=job.milliseconds))
            elif full or rest or job.not_before > now or job.held_back:
                still.append(job)
            elif job.rules is None and self._refused(job):
                continue
            elif self._limits.proxy and (why := blocked_literal(job.url, self._limits)):
                self._end(job, Outcome(error="blocked_address", detail=why))
            else:
                job.tries += 1
                transfer = Transfer(job.url, self._limits, job.rules is not None)
                self._running[transfer.curl] = (transfer, job)
                self._hosts[host] += 1
                self._multi.add_handle(transfer.curl)
        self._waiting = still

    def _refused(self, job: _Job) -> bool:
        """Whether robots.txt forbids an image or could not be had, so that the image is done with."""
        rules = _rules().get(origin_of(job.url)) if self._limits.robots else None
        why = rules.refuses(job.url) if rules is not None else None
        if rules is not None and why:
            cause = rules.unreachable.error if rules.unreachable is not None else "robots"
            self._done[job.asked] = Outcome(error=cause, detail=why, milliseconds=job.milliseconds)
        return bool(why)

    def _known(self, job: _Job) -> bool:
        """Whether all that must be known of the job's origin before it may start is known."""
        if job.rules is not None:
            return True
        origin = origin_of(job.url)
        if self._limits.robots and _rules().get(origin) is None:
            return False
        return not self._limits.tdm_file or _reservations().get(origin) is not None

    def _with_rules(self) -> list[_Job]:
        """The waiting jobs, and before them one for each robots.txt and tdmrep.json that nobody has asked for.

        The latter is asked for once robots.txt is known, and is taken for absent where that forbids it.
        """
        new: list[_Job] = []
        for origin in dict.fromkeys(origin_of(job.url) for job in self._waiting if job.rules is None):
            rules = _rules().get(origin)
            if self._limits.robots and rules is None:
                self._ask(f"{origin}/robots.txt", _Job("", "", origin), new)
            elif self._limits.tdm_file and _reservations().get(origin) is None:
                at = origin + tdmrep.PATH
                if self._limits.robots and rules is not None and rules.refuses(at):
                    _reservations().put(origin, tdmrep.Reservations(), _rules().left(origin))
                else:
                    self._ask(at, _Job("", "", origin, tdm=True), new)
        return [*new, *self._waiting]

    def _ask(self, url: str, job: _Job, new: list[_Job]) -> None:
        if url not in self._asked:
            self._asked.add(url)
            job.asked = job.url = url
            new.append(job)

    def _collect(self) -> None:
        left = 1
        while left:
            left, good, bad = self._multi.info_read()
            for curl, code, message in [*((c, 0, "") for c in good), *bad]:
                transfer, job = self._running.pop(curl)
                self._multi.remove_handle(curl)
                self._hosts[host_of(job.url)] -= 1
                self._settle(job, transfer.end(code, message))

    def _settle(self, job: _Job, told: Outcome) -> None:
        """Note the outcome, or send the job on its way again: to where a redirect points, or after a pause."""
        job.milliseconds += told.milliseconds
        told.milliseconds = job.milliseconds
        if told.status in _RESTS and (asked := seconds_asked(told.retry_after)):
            _rests().put(host_of(job.url), True, min(asked, _LONGEST_REST))
        if told.redirect is not None:
            self._redirect(job, told)
        elif (pause := _wait(told, job.tries, self._limits)) is not None:
            job.not_before = time.monotonic() + pause
            self._waiting.append(job)
        else:
            self._end(job, told)

    def _end(self, job: _Job, told: Outcome) -> None:
        if job.rules is None:
            self._reserve(job, told)
            self._done[job.asked] = told
            return
        self._asked.discard(job.asked)  # what is known may grow old while this queue lives
        self._news = True
        if job.tdm:
            _reservations().put(job.rules, tdmrep.parse(told.body), self._tdm_seconds(job, told))
        else:
            rules = rules_of(told)
            _rules().put(job.rules, rules, rules.seconds)

    def _tdm_seconds(self, job: _Job, told: Outcome) -> float:
        """How long an answer about tdmrep.json holds: a failure not for a day, a pause as long as it lasts."""
        if told.error not in UNREACHABLE and told.status < 500:
            return SECONDS
        rest = _rests().left(host_of(job.url))
        return rest if rest > LONGEST_WAIT else UNKNOWN_SECONDS

    def _reserve(self, job: _Job, told: Outcome) -> None:
        """Apply what the site's tdmrep.json says of an image whose own response says nothing."""
        known = _reservations().get(origin_of(job.url)) if self._limits.tdm_file else None
        if told.body is None or told.tdm is not None or known is None:
            return
        why = known.reserves(job.url)
        told.opt_out = told.opt_out or why
        if why and self._limits.honour_opt_out:
            told.error, told.detail, told.body = "opted_out", why, None

    def _redirect(self, job: _Job, told: Outcome) -> None:
        job.hops.append(job.url)
        trail = " -> ".join([*job.hops, told.redirect or ""])[:300]
        try:
            target = wire_url(told.redirect or "")
        except ValueError as error:
            told.error, told.detail = "bad_url", f"redirected: {error}"
        else:
            if target in job.hops:
                told.error, told.detail = "redirect_loop", trail
            elif len(job.hops) > self._limits.max_redirects:
                told.error, told.detail = "redirect_loop", f"more than {self._limits.max_redirects} redirects: {trail}"
            else:
                job.url, job.tries = target, 0
                self._waiting.append(job)
                return
        self._end(job, told)


def _wait(told: Outcome, tries: int, limits: Limits) -> float | None:
    """Seconds until the next try, or None where there is none."""
    passing = told.error in PASSING or (told.error or "").startswith("http_5")
    if not passing or tries > limits.retries:
        return None
    asked = seconds_asked(told.retry_after)
    if asked is not None:
        return asked if asked <= LONGEST_WAIT else None
    # Jitter spreads the retries of many workers; what is fetched does not depend on it.
    return float(min(limits.backoff_seconds * 2 ** (tries - 1) * random.uniform(0.5, 1.5), LONGEST_WAIT))


def seconds_asked(retry_after: str | None) -> float | None:
    """Seconds of a Retry-After header, given as a number or as a date (RFC 9110, 10.2.3); None where unreadable."""
    if not retry_after:
        return None
    if retry_after.isascii() and retry_after.isdigit():
        return float(retry_after)
    try:
        until = parsedate_to_datetime(retry_after)
    except ValueError:
        return None
    until = until if until.tzinfo else until.replace(tzinfo=UTC)
    return max(0.0, (until - datetime.now(UTC)).total_seconds())


_held = threading.local()
_inherited: list[pycurl.CurlMulti] = []


def _rules() -> Held[Rules]:
    """This thread's rules of robots.txt."""
    if not hasattr(_held, "rules"):
        _held.rules = Held[Rules]()
    return cast(Held[Rules], _held.rules)


def _rests() -> Held[bool]:
    """Hosts that asked this thread for a pause, each for as long as it lasts."""
    if not hasattr(_held, "rests"):
        _held.rests = Held[bool]()
    return cast(Held[bool], _held.rests)


def _reservations() -> Held[tdmrep.Reservations]:
    """This thread's reservations of tdmrep.json."""
    if not hasattr(_held, "reservations"):
        _held.reservations = Held[tdmrep.Reservations]()
    return cast(Held[tdmrep.Reservations], _held.reservations)


def _multi(limits: Limits) -> pycurl.CurlMulti:
    """This thread's multi handle: connections and names stay known between batches, and a fork gets a new one."""
    if getattr(_held, "pid", None) != os.getpid():
        if hasattr(_held, "multi"):
            # Closing what a fork inherits would wait for threads that it has not, and end the parent's connections.
            _inherited.append(_held.multi)
        _held.pid, _held.multi = os.getpid(), pycurl.CurlMulti()
    multi = cast(pycurl.CurlMulti, _held.multi)
    multi.setopt(pycurl.M_MAXCONNECTS, 2 * limits.concurrency)
    return multi
