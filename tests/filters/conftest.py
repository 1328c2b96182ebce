"""A small web on 127.0.0.1 whose paths misbehave in every way that a fetch has to survive."""

from __future__ import annotations

import gzip
import json
import os
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 64


class HostileWeb(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.hits: Counter[str] = Counter()
        self.agents: set[str] = set()
        self.times: list[tuple[str, float]] = []
        self.at_once = self.most_at_once = 0
        self.lock = threading.Lock()

    @property
    def at(self) -> str:
        return f"127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that give up are what is tested here."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: HostileWeb

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        host = (self.headers["Host"] or "").split(":")[0]
        web, name = self.server, self.path.strip("/").split("/")[0].split("?")[0]
        with web.lock:
            web.hits[f"{host}/{name}"] += 1
            web.times.append((host, time.monotonic()))
            web.agents.add(self.headers["User-Agent"] or "")
        known = name.partition(".")[0] or name.strip(".").replace("-", "_")
        getattr(self, f"on_{known}", self.on_missing)()

    def answer(self, status: int, body: bytes = b"", length: int | None = None, **headers: str) -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)

    def hits(self) -> int:
        host = (self.headers["Host"] or "").split(":")[0]
        return self.server.hits[f"{host}/{self.path.strip('/').split('/')[0]}"]

    def on_ok(self) -> None:
        self.answer(200, PNG + self.path.encode(), Content_Type="image/png")

    def on_slow(self) -> None:
        web = self.server
        with web.lock:
            web.at_once += 1
            web.most_at_once = max(web.most_at_once, web.at_once)
        time.sleep(0.15)
        with web.lock:
            web.at_once -= 1
        self.on_ok()

    def on_robots(self) -> None:
        host = (self.headers["Host"] or "").split(".")[0]
        rules = {"deny": b"User-agent: *\nDisallow: /", "some": b"User-agent: tuwen\nDisallow: /private"}
        rules["marked"] = b"\xef\xbb\xbfUser-agent: *\nDisallow: /"
        rules["closed"] = b"User-agent: *\nDisallow: /.well-known/"
        if host == "moved":
            self.answer(302, Location="http://deny.test/robots.txt")
        elif host == "ill":
            self.answer(503)
        elif host == "stuck":
            self.on_silent()
        elif host == "cut":
            self.on_reset()
        elif host == "stilled":
            self.answer(429)
        elif host in rules:
            self.answer(200, rules[host], Content_Type="text/plain")
        else:
            self.answer(404)

    def on_well_known(self) -> None:
        """tdmrep.json of two hosts, and a page in its place on a third."""
        host = (self.headers["Host"] or "").split(".")[0]
        rules = [
            {"location": "/ok/kept", "tdm-reservation": 1, "tdm-policy": "https://reserved.test/policy"},
            {"location": "/free*.png$", "tdm-reservation": 1},
        ]
        if host == "mazy":
            slow = {"location": "/" + "*o" * 40 + "x", "tdm-reservation": 1}
            self.answer(200, json.dumps([slow] * 100).encode(), Content_Type="application/json")
        elif host == "forgetful":
            self.answer(500)
        elif host in ("reserved", "closed"):
            self.answer(200, json.dumps(rules).encode(), Content_Type="application/json")
        elif host == "soft":
            self.answer(200, b"<!DOCTYPE html><p>not here</p>")
        else:
            self.answer(404)

    def on_free(self) -> None:
        self.answer(200, PNG, TDM_Reservation="0")

    def on_missing(self) -> None:
        self.answer(404, b"gone")

    def on_broken(self) -> None:
        self.answer(500)

    def on_flaky(self) -> None:
        self.answer(503) if self.hits() < 2 else self.on_ok()

    def on_busy(self) -> None:
        self.answer(429, Retry_After="0") if self.hits() < 2 else self.on_ok()

    def on_wait(self) -> None:
        self.answer(429, Retry_After="1") if self.hits() < 2 else self.on_ok()

    def on_later(self) -> None:
        self.answer(429, Retry_After="3600")

    def on_page(self) -> None:
        self.answer(200, b"<!DOCTYPE html><p>sold out</p>", Content_Type="image/jpeg")

    def on_nothing(self) -> None:
        self.answer(200, Content_Type="image/png")

    def on_gzip(self) -> None:
        self.answer(200, b"\x1f\x8b" + b"\0" * 2000, Content_Encoding="gzip", Content_Type="image/png")

    def on_bomb(self) -> None:
        """A hundred thousand bytes that unpack to sixteen million."""
        self.answer(200, gzip.compress(bytes(16 << 20), 1), Content_Encoding="gzip", Content_Type="image/png")

    def on_declared(self) -> None:
        self.answer(200, PNG, length=10**9)

    def on_endless(self) -> None:
        self.send_response(200)
        self.send_header("Connection", "close")
        self.end_headers()
        for _ in range(100_000):
            self.wfile.write(b"\x89PNG\r\n\x1a\n" * 1000)

    def on_short(self) -> None:
        self.answer(200, PNG, length=len(PNG) + 500)
        self.close_connection = True

    def on_silent(self) -> None:
        time.sleep(3)

    def on_drip(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "100000")
        self.end_headers()
        for _ in range(30):
            self.wfile.write(b"\x89")
            time.sleep(0.1)

    def on_half(self) -> None:
        """The server closes its side in the middle of the body and leaves the connection open."""
        self.answer(200, PNG, length=len(PNG) + 500)
        self.connection.shutdown(socket.SHUT_WR)
        time.sleep(2)

    def on_headers(self) -> None:
        """A header line now and then, and never the last."""
        self.send_response(200)
        for number in range(30):
            self.send_header(f"X-{number}", "a" * 10)
            self.flush_headers()
            time.sleep(0.1)

    def on_reset(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        os.close(self.connection.detach())

    def on_hangup(self) -> None:
        self.close_connection = True

    def on_noai(self) -> None:
        self.answer(200, PNG, X_Robots_Tag="noarchive, noimageai")

    def on_othersnoai(self) -> None:
        self.answer(200, PNG, X_Robots_Tag="otherbot: noai, noml")

    def on_ournoai(self) -> None:
        self.answer(200, PNG, X_Robots_Tag="otherbot: noindex, tuwen: noai")

    def on_flood(self) -> None:
        self.send_response(200)
        for number in range(20_000):
            self.send_header(f"X-{number}", "a" * 10)
        self.end_headers()

    def on_tdm(self) -> None:
        self.answer(200, PNG, TDM_Reservation="1")

    def on_moved(self) -> None:
        self.answer(302, Location="/ok.png?moved")

    def on_elsewhere(self) -> None:
        self.answer(302, Location="http://other.test/ok.png")

    def on_circle(self) -> None:
        self.answer(302, Location="/circle2")

    def on_circle2(self) -> None:
        self.answer(302, Location="/circle")

    def on_ever(self) -> None:
        self.answer(302, Location=f"/ever/{time.monotonic_ns()}")

    def on_to(self) -> None:
        self.answer(302, Location=self.path.partition("?")[2])

    def on_inwards(self) -> None:
        self.answer(302, Location=f"http://{self.server.at}/ok.png")

    def on_tofile(self) -> None:
        self.answer(302, Location="file:///etc/hostname")


@pytest.fixture(scope="module")
def web() -> Iterator[HostileWeb]:
    """The server, for the time of a module's tests."""
    web = HostileWeb()
    threading.Thread(target=web.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    try:
        yield web
    finally:
        web.shutdown()
        web.server_close()
