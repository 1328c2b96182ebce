"""A cloud for devices that does one thing wrong, and devices that do: what adaptation's client and server must bear.

``FaultyCloud(fault, …)`` is an ``AdaptServer`` whose every answer has one of ``FAULTS``; ``UPLOADS`` are broken
requests to a right server, each with the status that it must get, 0 where the connection just ends.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np

from ..trainers.adaptation.exchange import DIGEST, MODEL, PATH, digest, pack_parameters
from ..trainers.adaptation.server import AdaptServer, Handler

FAULTS = {
    "never answers": "the connection stays open and nothing comes",
    "drips": "one byte of a header at a time, without end",
    "hangs up": "the connection is closed without an answer",
    "breaks off": "half of the body, then the connection is closed",
    "500": "always",
    "503 once": "then the right answer",
    "404": "always",
    "redirect": "to another address",
    "web page": "200 with HTML, as hotel networks do",
    "endless": "a body without end",
    "no digest": "the right body without its digest",
    "wrong digest": "a body that was changed on its way",
    "too short": "fewer parameters, with their digest",
    "no numbers": "parameters that are no numbers, with their digest",
    "too large": "parameters larger than the cloud ever made, with their digest",
    "no HTTP": "an answer in another protocol",
}
MENDS = frozenset(("503 once",))
"""Faults after which another try gets the parameters."""


class FaultyCloud(AdaptServer):
    """``fault`` is done to every request that would have been answered."""

    def __init__(self, fault: str, *given: Any, **more: Any) -> None:
        super().__init__(*given, **more)
        self.fault, self.asked = fault, 0
        self.RequestHandlerClass = _Faulty


class _Faulty(Handler):
    server: FaultyCloud

    def do_POST(self) -> None:
        server, fault = self.server, self.server.fault
        server.asked += 1
        body = pack_parameters(server.generate(self._anchors()))
        headers = {DIGEST: digest(body), MODEL: server.model}
        kind = "application/octet-stream"
        if fault == "never answers":
            time.sleep(server.seconds)
        elif fault == "drips":
            with suppress(OSError):
                for byte in b"HTTP/1.1 200 OK\r\nX-Slow: " + b"x" * 10_000:
                    self.wfile.write(bytes([byte]))
                    time.sleep(0.05)
        elif fault == "breaks off":
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: len(body) // 2])
        elif fault in ("500", "404") or (fault == "503 once" and server.asked == 1):
            self._send(int(fault[:3]), b'{"error": "planted"}', "application/json", {})
        elif fault == "503 once":
            self._send(200, body, kind, headers)
        elif fault == "redirect":
            self._send(302, b"", kind, {"Location": "http://127.0.0.1:9/elsewhere"})
        elif fault == "web page":
            self._send(200, b"<html>log in first</html>", "text/html", {})
        elif fault == "endless":
            self.send_response(200)
            self.end_headers()
            with suppress(OSError):
                while True:
                    self.wfile.write(b"x" * 4096)
        elif fault == "no digest":
            self._send(200, body, kind, {})
        elif fault == "wrong digest":
            self._send(200, bytes([body[0] ^ 1]) + body[1:], kind, headers)
        elif fault in ("too short", "no numbers", "too large"):
            count = len(body) // 2
            values = {
                "too short": np.zeros(count - 3, np.float32),
                "no numbers": np.full(count, np.nan, np.float32),
                "too large": np.full(count, 6e4, np.float32),
            }[fault]
            wrong = pack_parameters(values)
            self._send(200, wrong, kind, {DIGEST: digest(wrong)})
        elif fault == "no HTTP":
            self.wfile.write(b"SSH-2.0-OpenSSH_9.6\r\n")
        self.close_connection = True


def _request(
    model: str, body: bytes, path: str = PATH, declared: int | None = None, signed: bytes | None = None
) -> bytes:
    length = len(body) if declared is None else declared
    lines = [
        f"POST {path} HTTP/1.1",
        "Host: localhost",
        f"{MODEL}: {model}",
        f"{DIGEST}: {digest(body if signed is None else signed)}",
        *([f"Content-Length: {length}"] if length >= 0 else []),
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


UPLOADS: dict[str, tuple[int, Callable[[str, bytes], bytes]]] = {
    "right": (200, _request),
    "too large": (413, lambda model, body: _request(model, body * 100)),
    "says it is huge": (413, lambda model, body: _request(model, body, declared=10**12)),
    "breaks off": (0, lambda model, body: _request(model, body[:20], declared=len(body))),
    "changed on its way": (400, lambda model, body: _request(model, body, signed=body[::-1] + b"x")),
    "no whole anchors": (400, lambda model, body: _request(model, body[:-1])),
    "empty": (400, lambda model, body: _request(model, b"")),
    "another model": (409, lambda model, body: _request("0" * 16, body)),
    "another path": (404, lambda model, body: _request(model, body, path="/")),
    "no length": (411, lambda model, body: _request(model, body, declared=-1)),
    "no HTTP": (0, lambda model, body: b"hello\r\n\r\n"),
    "says nothing": (0, lambda model, body: b""),
}


def upload(server: AdaptServer, name: str, body: bytes, seconds: float = 10.0) -> tuple[int, float]:
    """Send ``UPLOADS[name]`` to a running server; the status that came, 0 for none, and the seconds until the end."""
    started = time.monotonic()
    request = UPLOADS[name][1](server.model, body)
    with socket.create_connection(server.server_address[:2], timeout=seconds) as wire:  # type: ignore[arg-type]
        came = b""
        with suppress(OSError):
            wire.sendall(request)
            while data := wire.recv(65536):
                came += data
                if b"\r\n\r\n" in came:
                    break
    words = came.split(b" ", 2)
    return (int(words[1]) if len(words) > 1 and words[1].isdigit() else 0), time.monotonic() - started
