"""Serves a sample crawl on 127.0.0.1, so that a run on it really fetches.

The Host header picks the site; ``behaviours.json`` says which addresses answer otherwise.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

TYPES = {".html": "text/html", ".jpg": "image/jpeg", ".png": "image/png", ".webp": "image/webp", ".gif": "image/gif"}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = 1 << 16
    root: Path
    behaviours: dict[str, Any]

    def log_message(self, format: str, *args: object) -> None:
        """Quiet: what was fetched stands in the ledger."""

    def do_GET(self) -> None:
        host = (self.headers.get("Host") or "").split(":")[0].lower()
        name = host + unquote(urlsplit(self.path).path)
        told = self.behaviours.get(name, {})
        path = (self.root / name).resolve()
        inside = path.is_relative_to(self.root)
        if "body" in told:
            body, status = told["body"].encode(), told.get("status", 200)
        elif told.get("status") or not inside or not path.is_file():
            body, status = b"not here\n", told.get("status", 404)
        else:
            body, status = path.read_bytes(), 200
        self.send_response(status)
        self.send_header("Content-Type", told.get("type") or TYPES.get(path.suffix, "text/plain"))
        self.send_header("Content-Length", str(len(body)))
        for header, value in told.get("headers", {}).items():
            self.send_header(header, value)
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def serve(directory: Path) -> Iterator[int]:
    """Serve ``directory`` (as written by ``write_sample``) while the block runs; gives the port."""
    known = json.loads((directory / "behaviours.json").read_text("utf-8"))
    handler = type("Handler", (_Handler,), {"root": (directory / "web").resolve(), "behaviours": known})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.1,), daemon=True)
    thread.start()
    try:
        yield int(server.server_address[1])
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
