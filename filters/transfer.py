"""One try to fetch one address with libcurl, and what came of it.

Outcomes are classes that say what a user can do: ``dns``, ``refused``, ``tls``, ``timeout_connect``,
``timeout_read``, ``reset``, ``empty``, ``too_large``, ``not_an_image``, ``http_404`` and its like,
``opted_out``, ``robots``, ``blocked_address``, ``redirect_loop``, ``bad_url``, ``bad_response``, ``network``.
"""

from __future__ import annotations

import fnmatch
import socket
import ssl
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pycurl

from . import image_kind
from .addresses import refusal
from .robots_tag import OPT_OUT, directives
from .urls import host_of, literal_address, quote_bytes

_CLASSES = {
    pycurl.E_COULDNT_RESOLVE_HOST: "dns",
    pycurl.E_URL_MALFORMAT: "bad_url",
    pycurl.E_UNSUPPORTED_PROTOCOL: "bad_url",
    pycurl.E_SSL_CONNECT_ERROR: "tls",
    pycurl.E_PEER_FAILED_VERIFICATION: "tls",
    pycurl.E_GOT_NOTHING: "empty",
    pycurl.E_RECV_ERROR: "reset",
    pycurl.E_SEND_ERROR: "reset",
    pycurl.E_PARTIAL_FILE: "reset",
    pycurl.E_HTTP2: "reset",
    92: "reset",  # CURLE_HTTP2_STREAM, which pycurl does not name
    100: "bad_response",  # CURLE_TOO_LARGE: headers without end
    pycurl.E_COULDNT_CONNECT: "refused",
    pycurl.E_FILESIZE_EXCEEDED: "too_large",
    pycurl.E_FTP_WEIRD_SERVER_REPLY: "bad_response",
}
RULES_BYTES = 500 * 1024
_SLOW = 200
"""Bytes per second under which a transfer counts as stalled."""


@dataclass(frozen=True)
class Limits:
    """What a fetch may cost and where it may go; see the fields of the same names in ``fetch.py``."""

    max_bytes: int = 16 * 2**20
    max_redirects: int = 5
    honour_opt_out: bool = True
    robots: bool = True
    tdm_file: bool = True
    allow_private: bool = False
    allow_hosts: frozenset[str] = frozenset()
    user_agent: str = "tuwen"
    connect_seconds: float = 10.0
    total_seconds: float = 60.0
    stall_seconds: int = 15
    retries: int = 2
    backoff_seconds: float = 0.5
    concurrency: int = 64
    per_host: int = 6
    proxy: str = ""
    connect_to: tuple[tuple[str, str], ...] = ()

    def stand_in(self, host: str) -> str | None:
        """ADDRESS:PORT that stands in for ``host``, or None."""
        return next((at for pattern, at in self.connect_to if fnmatch.fnmatchcase(host, pattern.lower())), None)

    def unchecked(self, host: str) -> bool:
        """Whether ``host`` may have any address."""
        return self.allow_private or host in self.allow_hosts


@dataclass
class Outcome:
    """What came of one address: bytes, or an error class with its detail.

    ``redirect`` is where the server sends on to, ``retry_after`` what it asked and ``tdm`` its TDM-Reservation
    header, in its own words.
    """

    body: bytes | None = None
    status: int = 0
    error: str | None = None
    detail: str | None = None
    opt_out: str | None = None
    milliseconds: int = 0
    redirect: str | None = None
    tdm: str | None = None
    retry_after: str | None = None


class Transfer:
    """A libcurl handle for one try of one URL (as ``wire_url`` makes it); redirects are not followed here.

    The queue follows them, so that each hop's host goes through the same checks as the first. ``rules`` says
    that robots.txt or tdmrep.json is asked for: any body will do, and only its first half megabyte counts
    (RFC 9309, 2.5).
    """

    def __init__(self, url: str, limits: Limits, rules: bool = False) -> None:
        self._limits, self._rules = limits, rules
        self._host = host_of(url)
        self._at = limits.stand_in(self._host)
        self._chunks: list[bytes] = []
        self._size = 0
        self._headers: dict[str, list[str]] = {}
        self._blocked: str | None = None
        self._too_large = False
        self._started = time.perf_counter()
        self.curl = self._handle(url)

    def _handle(self, url: str) -> pycurl.Curl:
        limits, curl = self._limits, pycurl.Curl()
        curl.setopt(pycurl.URL, url)
        curl.setopt(pycurl.PROTOCOLS, pycurl.PROTO_HTTP | pycurl.PROTO_HTTPS)
        curl.setopt(pycurl.FOLLOWLOCATION, 0)
        curl.setopt(pycurl.NOSIGNAL, 1)
        curl.setopt(pycurl.CONNECTTIMEOUT_MS, int(limits.connect_seconds * 1000))
        curl.setopt(pycurl.TIMEOUT_MS, int(limits.total_seconds * 1000))
        curl.setopt(pycurl.LOW_SPEED_LIMIT, _SLOW)
        curl.setopt(pycurl.LOW_SPEED_TIME, limits.stall_seconds)
        curl.setopt(pycurl.USERAGENT, limits.user_agent)
        curl.setopt(pycurl.HTTPHEADER, ["Accept: image/avif,image/webp,image/*;q=0.9,*/*;q=0.5"])
        if not self._rules:
            curl.setopt(pycurl.MAXFILESIZE, limits.max_bytes)
        curl.setopt(pycurl.WRITEFUNCTION, self._on_body)
        curl.setopt(pycurl.HEADERFUNCTION, self._on_header)
        curl.setopt(pycurl.OPENSOCKETFUNCTION, self._on_socket)
        # An empty proxy also switches off http_proxy and its kin: behind a proxy that nobody asked for,
        # the address that is checked would be the proxy's.
        curl.setopt(pycurl.PROXY, limits.proxy)
        if bundle := certificates():
            curl.setopt(pycurl.CAINFO, bundle)
        if self._at:
            curl.setopt(pycurl.CONNECT_TO, [f"::{self._at}"])
        return curl

    def _on_socket(self, purpose: int, address: Any) -> Any:
        """Open the socket unless its address, the one really connected to, must not be fetched from."""
        ip = str(address.addr[0])
        checked = not (self._at or self._limits.proxy or self._limits.unchecked(self._host))
        if checked and (why := refusal(ip)):
            self._blocked = f"{ip} is a {why}; allow it with fetch.allow_hosts or fetch.allow_private"
            return pycurl.SOCKET_BAD
        return socket.socket(address.family, address.socktype, address.protocol)

    def _on_header(self, line: bytes) -> None:
        text = line.decode("latin-1").strip()
        if text.startswith("HTTP/"):
            self._headers = {}
            return
        name, colon, value = text.partition(":")
        if colon:
            self._headers.setdefault(name.lower(), []).append(value.strip())

    def _on_body(self, data: bytes) -> int | None:
        self._size += len(data)
        if self._rules and self._size > RULES_BYTES:
            return -1
        if self._size > self._limits.max_bytes:
            self._too_large = True
            return -1
        self._chunks.append(data)
        return None

    def end(self, code: int, message: str) -> Outcome:
        """Close the handle and say what came of it; ``code`` and ``message`` are libcurl's, 0 where all went well."""
        curl, headers = self.curl, self._headers
        status = int(curl.getinfo(pycurl.RESPONSE_CODE))
        # The times are no help: a transfer that never connected has some, one on an open connection has none.
        asked = curl.getinfo(pycurl.REQUEST_SIZE) > 0
        # Raw: a Location may hold bytes in any character set.
        redirect = curl.getinfo_raw(pycurl.REDIRECT_URL)
        curl.close()
        told = Outcome(
            status=status,
            milliseconds=int((time.perf_counter() - self._started) * 1000),
            opt_out=_reservation(headers),
            tdm=headers.get("tdm-reservation", [None])[-1],
            retry_after=headers.get("retry-after", [None])[-1],
        )
        if self._rules and 200 <= status < 300 and code in (0, pycurl.E_WRITE_ERROR):
            told.body = b"".join(self._chunks)
        elif self._too_large or code == pycurl.E_FILESIZE_EXCEEDED:
            told.error, told.detail = "too_large", f"more than {self._limits.max_bytes:,} bytes"
        elif code and self._blocked:
            told.error, told.detail = "blocked_address", self._blocked
        elif code == pycurl.E_OPERATION_TIMEDOUT:
            told.error, told.detail = ("timeout_read" if asked else "timeout_connect"), message
        elif code:
            told.error, told.detail = _CLASSES.get(code, "network"), f"{message} (curl {code})"
        elif 300 <= status < 400 and redirect:
            told.redirect = quote_bytes(redirect)
        elif not 200 <= status < 300:
            told.error, told.detail = f"http_{status}", f"the server answered {status}"
        elif told.opt_out and self._limits.honour_opt_out:
            told.error, told.detail = "opted_out", told.opt_out
        else:
            self._take_body(told)
        return told

    def _take_body(self, told: Outcome) -> None:
        body = b"".join(self._chunks)
        kind = image_kind.sniff(body)
        if not body:
            told.error, told.detail = "empty", f"the server answered {told.status} without a body"
        elif kind not in image_kind.IMAGE:
            sent = self._headers.get("content-type", ["no type given"])[-1][:100]
            told.error = "not_an_image"
            told.detail = f"sent as {sent}, is {kind or 'of no known kind'}; begins with {body[:12]!r}"
        else:
            told.body = body


def blocked_literal(url: str, limits: Limits) -> str | None:
    """Why a URL whose host is an address itself is refused; for requests that a proxy connects for us."""
    host = host_of(url)
    literal = literal_address(host)
    if literal is None or limits.unchecked(host) or limits.stand_in(host):
        return None
    why = refusal(literal)
    return f"{literal} is a {why}" if why else None


def _reservation(headers: dict[str, list[str]]) -> str | None:
    """The header by which the server keeps the image from training, as sent."""
    for value in headers.get("x-robots-tag", []):
        if directives(value) & OPT_OUT:
            return f"X-Robots-Tag: {value}"[:200]
    # W3C TDM Reservation Protocol.
    if "1" in headers.get("tdm-reservation", []):
        policy = headers.get("tdm-policy", [""])[-1]
        return f"TDM-Reservation: 1{f', TDM-Policy: {policy}' if policy else ''}"[:200]
    return None


@cache
def certificates() -> str | None:
    """The system's certificate bundle: libcurl's wheels do not know where this system keeps it."""
    known = (ssl.get_default_verify_paths().cafile, "/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/cert.pem")
    if found := next((path for path in known if path and Path(path).is_file()), None):
        return found
    try:
        import certifi
    except ImportError:
        return None
    return certifi.where()
