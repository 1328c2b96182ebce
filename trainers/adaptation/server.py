"""The cloud as a small HTTP server: anchor features in, parameters of the dynamic layers out. Runs without torch.

Every connection has an end: a timer closes it, whatever the other side does or leaves undone. What is no request for
this model is refused with a reason in JSON: 400 (no whole anchors, too many of them, another digest), 404, 409 (another
model), 411, 413 (too large), 503 with Retry-After (too many at once), 500 (the model failed).
"""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np

from ...pipeline.errors import InputError
from .exchange import DIGEST, F32, MODEL, MOST_UPLOAD, PATH, digest, pack_parameters, unpack_features
from .files import CLOUD, session, told_in

Generate = Callable[[F32], F32]
DRAINED = 1 << 18
"""Bytes of a refused upload that are read and thrown away, so that the device gets to see why."""


class Refusal(Exception):
    """A request that is not served: status, reason, further headers."""

    def __init__(self, status: int, reason: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(reason)
        self.status, self.reason, self.headers = status, reason, dict(headers or {})


class AdaptServer(ThreadingHTTPServer):
    """Serves ``generate`` ((k, f) anchors to (p,) parameters) on 127.0.0.1 unless told otherwise."""

    daemon_threads = True

    def __init__(
        self,
        generate: Generate,
        model: str,
        features: int,
        anchors: int,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        seconds: float = 10.0,
        at_once: int = 8,
    ) -> None:
        super().__init__((host, port), Handler)
        self.generate, self.model, self.features, self.anchors = generate, model, features, anchors
        self.seconds, self.places = seconds, threading.BoundedSemaphore(at_once)

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://{self.server_address[0]!s}:{self.server_address[1]}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A device that went away is nothing to print about."""


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    server: AdaptServer

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""

    def handle(self) -> None:
        """All requests of the connection, ended after ``seconds`` by the timer."""
        timer = threading.Timer(self.server.seconds, self._hang_up)
        timer.daemon = True
        timer.start()
        try:
            with suppress(OSError):
                super().handle()
        finally:
            timer.cancel()

    def _hang_up(self) -> None:
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    def do_POST(self) -> None:
        """``PATH`` and nothing else."""
        server, self._taken = self.server, 0
        try:
            anchors = self._anchors()
            if not server.places.acquire(blocking=False):
                raise Refusal(503, "too many devices at once", {"Retry-After": "1"})
            try:
                body = pack_parameters(server.generate(anchors))
            except Exception as error:
                raise Refusal(500, f"the model failed: {type(error).__name__}") from error
            finally:
                server.places.release()
        except Refusal as refused:
            # What was not read would be taken for the next request; closing with bytes unread may lose the answer.
            self.close_connection = True
            told = json.dumps({"error": refused.reason}).encode()
            self._send(refused.status, told, "application/json", {"Connection": "close", **refused.headers})
            self._drain()
            return
        headers = {DIGEST: digest(body), MODEL: server.model}
        self._send(200, body, "application/octet-stream", headers)

    def do_GET(self) -> None:
        """Which model is served, for people and health checks."""
        told = {"model": self.server.model, "features": self.server.features, "anchors": self.server.anchors}
        self._send(200, json.dumps(told).encode(), "application/json", {})

    def _anchors(self) -> F32:
        server = self.server
        if self.path != PATH:
            raise Refusal(404, f"no such path; POST {PATH}")
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdigit()):
            raise Refusal(411, "Content-Length is missing")
        if int(length) > min(MOST_UPLOAD, server.features * server.anchors):
            raise Refusal(413, f"at most {server.anchors} anchors of {server.features} bytes are taken")
        if (model := self.headers.get(MODEL)) != server.model:
            raise Refusal(409, f"model {model} was asked for, {server.model} is served; update the device's files")
        body = self.rfile.read(int(length))
        self._taken = len(body)
        if len(body) < int(length):
            raise Refusal(400, "the upload broke off")
        if self.headers.get(DIGEST) != digest(body):
            raise Refusal(400, "the body is not what its digest says")
        try:
            return unpack_features(body, server.features)
        except ValueError as error:
            raise Refusal(400, str(error)) from None

    def _drain(self) -> None:
        length = self.headers.get("Content-Length", "")
        left = min(int(length), DRAINED) - self._taken if length.isascii() and length.isdigit() else 0
        while left > 0 and (data := self.rfile.read1(left)):
            left -= len(data)

    def _send(self, status: int, body: bytes, kind: str, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


def load(folder: Path) -> tuple[Generate, dict[str, Any]]:
    """What ``curate train adaptation`` left in the folder ``cloud``: anchors to parameters, and its description."""
    told = told_in(folder, CLOUD)
    if not (folder / "cloud.onnx").is_file():
        raise InputError(f"{folder} holds no cloud.onnx; give the folder cloud that `curate train adaptation` wrote")
    ran = session(folder / "cloud.onnx")

    def generate(anchors: F32) -> F32:
        found: F32 = np.asarray(ran.run(None, {"anchors": anchors[None]})[0][0], np.float32)
        return found

    return generate, told


@contextmanager
def serving(server: AdaptServer) -> Iterator[AdaptServer]:
    """``server``, running in a thread."""
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


def of_folder(folder: Path, **more: Any) -> AdaptServer:
    """The server of a folder ``cloud``."""
    generate, told = load(folder)
    return AdaptServer(generate, told["model"], told["features"], told["anchors"], **more)
