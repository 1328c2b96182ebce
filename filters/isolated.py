"""A decoder in a process of its own: capped memory, capped time, and a crash costs one image.

Old and rare image formats are where decoders break. They are decoded in one child of each worker
process, started at the first such image; a child that dies or hangs is replaced. Parent and child
speak over a socket pair: a JSON line with lengths, then raw bytes; nothing is unpickled.
"""

from __future__ import annotations

import atexit
import json
import os
import resource
import socket
import struct
import subprocess
import sys
import threading
from typing import Any

import numpy as np

from ..pipeline.once import once
from .image_header import BadImage, Header
from .pixels import Pixels

MEMORY = 2 << 30
"""Address space of the child, bytes: a 90-megapixel image takes about 0.9 GB with its conversions."""
SECONDS = 60.0
"""Longest time for one image: a hundred times what the largest allowed image takes."""

_LENGTHS = struct.Struct(">II")


class IsolatedDecoder:
    """One child process; calls from several threads take turns."""

    def __init__(self, seconds: float = SECONDS, memory: int = MEMORY) -> None:
        self._seconds, self._memory = seconds, memory
        self._lock = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None
        self._line: socket.socket | None = None

    def decode(self, data: bytes, kind: str, short: int, long: int, max_pixels: int) -> tuple[Header, Pixels]:
        """Header (upright) and pixels of an image of any decodable kind; see ``pillow_decode.decode``."""
        ask = {"kind": kind, "short": short, "long": long, "max_pixels": max_pixels}
        with self._lock:
            meta, body = self._call(ask, data, kind)
        if "bad" in meta:
            why, message, size = meta["bad"]
            raise BadImage(why, message, tuple(size) if size else None)
        width, height = meta["shown"]
        pixels = np.frombuffer(body, np.uint8).reshape(height, width, 3)
        return Header(format=kind, **meta["header"]), pixels

    def _call(self, ask: dict[str, Any], data: bytes, kind: str) -> tuple[dict[str, Any], bytes]:
        line = self._line or self._start()
        try:
            _send(line, ask, data)
            return _receive(line)
        except TimeoutError as error:
            self.close()
            raise BadImage("corrupt", f"the {kind} decoder took more than {self._seconds:g} s") from error
        except (OSError, EOFError) as error:
            code = self.close()
            raise BadImage("corrupt", f"the {kind} decoder died of this image (exit status {code})") from error

    def _start(self) -> socket.socket:
        self._line, theirs = socket.socketpair()
        self._line.settimeout(self._seconds)
        path = os.pathsep.join(p for p in sys.path if p)
        self._child = subprocess.Popen(
            [sys.executable, "-m", __name__, str(theirs.fileno()), str(self._memory)],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        )
        theirs.close()
        return self._line

    def close(self) -> int | None:
        """End the child; its exit status."""
        if self._line:
            self._line.close()
        child, self._line, self._child = self._child, None, None
        if child is None:
            return None
        try:
            return child.wait(timeout=1)
        except subprocess.TimeoutExpired:
            child.kill()
            return child.wait()


@once(1)
def _of_process(pid: int) -> IsolatedDecoder:
    decoder = IsolatedDecoder()
    atexit.register(decoder.close)
    return decoder


def shared() -> IsolatedDecoder:
    """This process's decoder (a forked worker gets its own)."""
    return _of_process(os.getpid())


def _send(line: socket.socket, meta: dict[str, Any], body: bytes) -> None:
    head = json.dumps(meta).encode()
    line.sendall(_LENGTHS.pack(len(head), len(body)) + head)
    line.sendall(body)


def _receive(line: socket.socket) -> tuple[dict[str, Any], bytes]:
    head, body = _LENGTHS.unpack(_exactly(line, _LENGTHS.size))
    return json.loads(_exactly(line, head)), _exactly(line, body)


def _exactly(line: socket.socket, size: int) -> bytes:
    out = bytearray(size)
    view, at = memoryview(out), 0
    while at < size:
        got = line.recv_into(view[at:])
        if not got:
            raise EOFError
        at += got
    return bytes(out)


def _serve(line: socket.socket) -> None:
    from . import pillow_decode

    while True:
        try:
            ask, data = _receive(line)
        except EOFError:
            return
        try:
            found = pillow_decode.decode(data, ask["kind"], ask["short"], ask["long"], ask["max_pixels"])
        except BadImage as error:
            _send(line, {"bad": [error.kind, error.message, error.size]}, b"")
            continue
        _send(line, {"header": found.header, "shown": found.shown}, found.bgr)


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[2]),) * 2)
    _serve(socket.socket(fileno=int(sys.argv[1])))
