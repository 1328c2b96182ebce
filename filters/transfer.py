"""Many HTTP transfers at once through one libcurl multi handle per process.

Outcomes are classes that say what a user can do: ``dns``, ``refused``, ``tls``, ``timeout_connect``,
``timeout_read``, ``reset``, ``empty``, ``too_large``, ``not_an_image``, ``http_404`` and its like,
``opted_out``, ``blocked_address``, ``redirect_loop``, ``bad_url``.
"""

from __future__ import annotations

import fnmatch
import os
import random
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import pycurl

from . import image_kind
from .addresses import refusal

OPT_OUT = frozenset(("noai", "noimageai", "noml"))
"""X-Robots-Tag directives by which a site keeps its images from training (DeviantArt, img2dataset)."""

PASSING = frozenset(("timeout_connect", "timeout_read", "reset", "empty", "http_429"))
"""Causes that may be gone at the next try, with every http_5xx; the others are final."""

LONGEST_WAIT = 30.0
_CLASSES = {
    pycurl.E_COULDNT_RESOLVE_HOST: "dns",
    pycurl.E_URL_MALFORMAT: "bad_url",
    pycurl.E_UNSUPPORTED_PROTOCOL: "bad_url",
    pycurl.E_TOO_MANY_REDIRECTS: "redirect_loop",
    pycurl.E_SSL_CONNECT_ERROR: "tls",
    pycurl.E_PEER_FAILED_VERIFICATION: "tls",
    pycurl.E_GOT_NOTHING: "empty",
    pycurl.E_RECV_ERROR: "reset",
    pycurl.E_SEND_ERROR: "reset",
    pycurl.E_PARTIAL_FILE: "reset",
    pycurl.E_HTTP2: "reset",
    pycurl.E_COULDNT_CONNECT: "refused",
    pycurl.E_FILESIZE_EXCEEDED: "too_large",
}


@dataclass(frozen=True)
class Limits:
    """What a fetch may cost and where it may go; see the fields of the same names in ``fetch.py``."""

    max_bytes: int
    max_redirects: int
    honour_opt_out: bool
    allow_private: bool
    allow_hosts: frozenset[str]
    user_agent: str
    connect_seconds: float
    total_seconds: float
    stall_seconds: int
    retries: int
    backoff_seconds: float
    concurrency: int
    per_host: int
    connect_to: tuple[tuple[str, str], ...] = ()

    def stand_in(self, host: str) -> str | None:
        """ADDRESS:PORT that stands in for ``host``, or None."""
        return next((at for pattern, at in self.connect_to if fnmatch.fnmatchcase(host, pattern)), None)


@dataclass
class Outcome:
    """What came of one address: bytes, or an error class with its detail."""

    body: bytes | None = None
    status: int = 0
    error: str | None = None
    detail: str | None = None
    opt_out: str | None = None
    milliseconds: int = 0


@dataclass
class _Transfer:
    url: str
    limits: Limits
    tries: int = 0
    not_before: float = 0.0
    outcome: Outcome = field(default_factory=Outcome)
    chunks: list[bytes] = field(default_factory=list)
    size: int = 0
    headers: dict[str, list[str]] = field(default_factory=dict)
    stopped: tuple[str, str] | None = None
    started: float = 0.0

    def begin(self) -> pycurl.Curl:
        """A libcurl handle for the next try."""
        limits, host = self.limits, (urlsplit(self.url).hostname or "").lower()
        self.tries += 1
        self.chunks, self.size, self.headers, self.stopped = [], 0, {}, None
        self.started = time.perf_counter()
        curl = pycurl.Curl()
        curl.transfer = self  # type: ignore[attr-defined]
        curl.setopt(pycurl.URL, self.url.encode("utf-8"))
        curl.setopt(pycurl.PROTOCOLS, pycurl.PROTO_HTTP | pycurl.PROTO_HTTPS)
        curl.setopt(pycurl.REDIR_PROTOCOLS, pycurl.PROTO_HTTP | pycurl.PROTO_HTTPS)
        curl.setopt(pycurl.FOLLOWLOCATION, 1)
        curl.setopt(pycurl.MAXREDIRS, limits.max_redirects)
        curl.setopt(pycurl.NOSIGNAL, 1)
        curl.setopt(pycurl.CONNECTTIMEOUT_MS, int(limits.connect_seconds * 1000))
        curl.setopt(pycurl.TIMEOUT_MS, int(limits.total_seconds * 1000))
        curl.setopt(pycurl.LOW_SPEED_LIMIT, 200)
        curl.setopt(pycurl.LOW_SPEED_TIME, limits.stall_seconds)
        curl.setopt(pycurl.USERAGENT, limits.user_agent)
        curl.setopt(pycurl.HTTPHEADER, ["Accept: image/avif,image/webp,image/*;q=0.9,*/*;q=0.5"])
        curl.setopt(pycurl.MAXFILESIZE, limits.max_bytes)
        curl.setopt(pycurl.WRITEFUNCTION, self._body)
        curl.setopt(pycurl.HEADERFUNCTION, self._header)
        curl.setopt(pycurl.OPENSOCKETFUNCTION, self._socket)
        if limits.connect_to:
            literal = [h for h, _ in limits.connect_to if "*" not in h]
            targets = {h: limits.stand_in(h) for h in (*literal, host)}
            curl.setopt(pycurl.CONNECT_TO, [f"{h}::{at}" for h, at in targets.items() if at])
        return curl

    def _socket(self, purpose: int, address: Any) -> Any:
        """Opens the socket unless its address is one that must not be fetched from."""
        ip, port = address.addr[0], address.addr[1]
        given = {at for _, at in self.limits.connect_to}
        host = (urlsplit(self.url).hostname or "").lower()
        free = self.limits.allow_private or host in self.limits.allow_hosts or f"{ip}:{port}" in given
        why = None if free else refusal(str(ip))
        if why:
            self.stopped = ("blocked_address", f"{ip} is a {why}; allow it with fetch.allow_hosts or allow_private")
            return pycurl.SOCKET_BAD
        return socket.socket(address.family, address.socktype, address.protocol)

    def _header(self, line: bytes) -> None:
        text = line.decode("latin-1").strip()
        if text.startswith("HTTP/"):
            self.headers = {}
            return
        name, colon, value = text.partition(":")
        if colon:
            self.headers.setdefault(name.lower(), []).append(value.strip())

    def _body(self, data: bytes) -> int | None:
        self.size += len(data)
        if self.size > self.limits.max_bytes:
            self.stopped = ("too_large", f"more than {self.limits.max_bytes} bytes")
            return -1
        self.chunks.append(data)
        return None

    def end(self, curl: pycurl.Curl, code: int, message: str) -> Outcome:
        """Classify what happened."""
        status = int(curl.getinfo(pycurl.RESPONSE_CODE))
        told = Outcome(status=status, milliseconds=int((time.perf_counter() - self.started) * 1000))
        directives = [v for v in self.headers.get("x-robots-tag", []) if _reserved(v)]
        told.opt_out = "; ".join(directives)[:200] or None
        if self.stopped:
            told.error, told.detail = self.stopped
        elif code == pycurl.E_OPERATION_TIMEDOUT:
            connected = curl.getinfo(pycurl.PRETRANSFER_TIME) > 0
            told.error, told.detail = ("timeout_read" if connected else "timeout_connect"), message
        elif code:
            told.error, told.detail = _CLASSES.get(code, "network"), f"{message} (curl {code})"
        elif status >= 400:
            told.error, told.detail = f"http_{status}", f"the server answered {status}"
        elif told.opt_out and self.limits.honour_opt_out:
            told.error, told.detail = "opted_out", f"X-Robots-Tag: {told.opt_out}"
        elif not self.size:
            told.error, told.detail = "empty", f"the server answered {status} without a body"
        else:
            body = b"".join(self.chunks)
            if image_kind.sniff(body) not in image_kind.IMAGE:
                kind = self.headers.get("content-type", ["no type given"])[-1]
                told.error, told.detail = "not_an_image", f"{kind}; begins with {body[:12]!r}"
            else:
                told.body = body
        return told

    def wait(self, told: Outcome) -> float | None:
        """Seconds until the next try, or None where there is none."""
        passing = told.error in PASSING or (told.error or "").startswith("http_5")
        if not passing or self.tries > self.limits.retries:
            return None
        asked = self.headers.get("retry-after", [""])[-1]
        if asked.isdigit():
            return min(float(asked), LONGEST_WAIT)
        # Jitter spreads the retries of many workers; what is fetched does not depend on it.
        pause = self.limits.backoff_seconds * 2 ** (self.tries - 1)
        return float(min(pause * random.uniform(0.5, 1.5), LONGEST_WAIT))


def fetch_all(urls: Sequence[str], limits: Limits) -> dict[str, Outcome]:
    """Fetch distinct ``urls``; an outcome for each. Blocks until all are done or given up."""
    waiting = [_Transfer(u, limits) for u in reversed(list(dict.fromkeys(urls)))]
    done: dict[str, Outcome] = {}
    multi = _multi(limits)
    running: set[pycurl.Curl] = set()
    try:
        while waiting or running:
            now = time.monotonic()
            _start(multi, waiting, running, limits, now)
            while multi.perform()[0] == pycurl.E_CALL_MULTI_PERFORM:
                pass
            _collect(multi, waiting, running, done)
            if running:
                multi.select(0.2)
            elif waiting:
                time.sleep(max(0.0, min(t.not_before for t in waiting) - time.monotonic()))
    finally:
        for curl in running:
            multi.remove_handle(curl)
            curl.close()
    return done


def _start(
    multi: pycurl.CurlMulti, waiting: list[_Transfer], running: set[pycurl.Curl], limits: Limits, now: float
) -> None:
    ready = [i for i in range(len(waiting) - 1, -1, -1) if waiting[i].not_before <= now]
    for i in ready[: limits.concurrency - len(running)]:
        transfer = waiting.pop(i)
        curl = transfer.begin()
        multi.add_handle(curl)
        running.add(curl)


def _collect(
    multi: pycurl.CurlMulti, waiting: list[_Transfer], running: set[pycurl.Curl], done: dict[str, Outcome]
) -> None:
    left = 1
    while left:
        left, good, bad = multi.info_read()
        for curl, code, message in [(c, 0, "") for c in good] + list(bad):
            transfer: _Transfer = curl.transfer  # type: ignore[attr-defined]
            told = transfer.end(curl, code, message)
            multi.remove_handle(curl)
            running.discard(curl)
            curl.close()
            pause = transfer.wait(told)
            if pause is None:
                done[transfer.url] = told
            else:
                transfer.not_before = time.monotonic() + pause
                waiting.insert(0, transfer)


_held: tuple[int, pycurl.CurlMulti] | None = None


def _multi(limits: Limits) -> pycurl.CurlMulti:
    """The process's own multi handle: connections stay open between batches, and a fork gets a new one."""
    global _held
    if _held is None or _held[0] != os.getpid():
        _held = (os.getpid(), pycurl.CurlMulti())
    multi = _held[1]
    multi.setopt(pycurl.M_MAX_HOST_CONNECTIONS, limits.per_host)
    multi.setopt(pycurl.M_MAXCONNECTS, 2 * limits.concurrency)
    return multi


def _reserved(value: str) -> bool:
    words = value.lower().replace(":", ",").split(",")
    return any(w.strip() in OPT_OUT for w in words)
