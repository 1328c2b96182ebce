"""The device's side of the exchange: one upload of anchor features, one answer, within a time limit."""

from __future__ import annotations

import io
import time
from typing import NamedTuple

import numpy as np
import pycurl

from ...filters.transfer import certificates
from .exchange import DIGEST, F32, MODEL, PATH, digest, pack_features, unpack_parameters

PASSING = (429, 500, 502, 503, 504)
"""Answers after which another try may do better."""
_PLAIN = ("Content-Type: application/octet-stream", "Expect:", "Accept:")
"""Headers of every request; libcurl leaves out those without a value."""


class Limits(NamedTuple):
    """What an exchange may cost."""

    connect_seconds: float = 2.0
    seconds: float = 8.0
    """For everything, retries included."""
    tries: int = 2
    pause: float = 0.2
    """Seconds before another try."""


class Exchange(NamedTuple):
    """What came of it: parameters, or the reason why there are none; bytes with headers, and seconds."""

    parameters: F32 | None
    reason: str
    sent: int
    received: int
    seconds: float
    tries: int


class _Failed(Exception):
    def __init__(self, reason: str, passing: bool) -> None:
        super().__init__(reason)
        self.passing = passing


def ask(url: str, model: str, anchors: F32, count: int, largest: float, limits: Limits | None = None) -> Exchange:
    """Upload ``anchors`` (k, f) to the cloud at ``url`` for ``count`` parameters of at most ``largest``.

    Never raises for what a server or a network does, and ends within ``limits.seconds``.
    """
    limits = limits or Limits()
    started = time.monotonic()
    body = pack_features(anchors)
    sent = received = 0
    reason = ""
    for tried in range(1, limits.tries + 1):
        left = limits.seconds - (time.monotonic() - started)
        if left <= 0:
            break
        transfer = _Transfer(url.rstrip("/") + PATH, model, body, 2 * count, limits, left)
        try:
            parameters, reason, again = transfer.parameters(count, largest), "", False
        except _Failed as failed:
            parameters, reason, again = None, str(failed), failed.passing
        sent, received = sent + transfer.sent, received + transfer.received
        if not again:
            return Exchange(parameters, reason, sent, received, time.monotonic() - started, tried)
        time.sleep(max(0.0, min(limits.pause, limits.seconds - (time.monotonic() - started))))
    return Exchange(None, reason or "out of time", sent, received, time.monotonic() - started, tried)


class _Transfer:
    """One try; libcurl holds it to its time, whatever comes or does not."""

    def __init__(self, url: str, model: str, body: bytes, wanted: int, limits: Limits, left: float) -> None:
        self.sent = self.received = 0
        self._wanted, self._headers = wanted, dict[str, str]()
        self._body = io.BytesIO()
        curl = self._curl = pycurl.Curl()
        for option, value in (
            (pycurl.URL, url.encode()),
            (pycurl.PROTOCOLS, pycurl.PROTO_HTTP | pycurl.PROTO_HTTPS),
            (pycurl.NOSIGNAL, 1),
            (pycurl.PROXY, ""),
            (pycurl.POST, 1),
            (pycurl.POSTFIELDS, body),
            (pycurl.HTTPHEADER, [f"{MODEL}: {model}", f"{DIGEST}: {digest(body)}", *_PLAIN]),
            (pycurl.CONNECTTIMEOUT_MS, int(1000 * min(left, limits.connect_seconds))),
            (pycurl.TIMEOUT_MS, max(1, int(1000 * left))),
            (pycurl.WRITEFUNCTION, self._take),
            (pycurl.HEADERFUNCTION, self._header),
            (pycurl.VERBOSE, 1),
            (pycurl.DEBUGFUNCTION, self._count),
        ):
            curl.setopt(option, value)
        if bundle := certificates():
            curl.setopt(pycurl.CAINFO, bundle)

    def _take(self, data: bytes) -> int | None:
        self._body.write(data)
        # A refusal says why in JSON, briefly.
        return -1 if self._body.tell() > max(self._wanted, 4096) else None

    def _header(self, line: bytes) -> None:
        name, colon, value = line.decode("latin-1").partition(":")
        if colon:
            self._headers[name.strip().lower()] = value.strip()

    def _count(self, kind: int, data: bytes) -> None:
        self.sent += len(data) if kind in (pycurl.INFOTYPE_HEADER_OUT, pycurl.INFOTYPE_DATA_OUT) else 0
        self.received += len(data) if kind in (pycurl.INFOTYPE_HEADER_IN, pycurl.INFOTYPE_DATA_IN) else 0

    def parameters(self, count: int, largest: float) -> F32:
        curl = self._curl
        try:
            curl.perform()
        except pycurl.error as error:
            code, words = (*error.args, "")[:2]
            broken = code not in (pycurl.E_WRITE_ERROR, pycurl.E_OPERATION_TIMEDOUT)
            told = "the answer is too large" if code == pycurl.E_WRITE_ERROR else f"{words} (curl {code})"
            raise _Failed(told, broken) from None
        finally:
            status = int(curl.getinfo(pycurl.RESPONSE_CODE))
            curl.close()
        body = self._body.getvalue()
        if status != 200:
            raise _Failed(f"the cloud answered {status}: {body[:200].decode('utf-8', 'replace')}", status in PASSING)
        if self._headers.get(DIGEST.lower()) != digest(body):
            raise _Failed("the answer is not what its digest says", True)
        try:
            found = unpack_parameters(body, count, largest)
        except ValueError as error:
            raise _Failed(str(error), False) from None
        return np.ascontiguousarray(found)
