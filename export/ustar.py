"""Plain tars written fast: the bytes that ``tarfile`` writes in its USTAR format, without its objects.

``tarfile`` spends some 60 microseconds of Python on a member; a header is 512 bytes of which three fields change
(POSIX.1-1988, ustar). Members are regular files of mode 0644, owner 0, time 0.
"""

from __future__ import annotations

import hashlib
import os
import tarfile
from collections.abc import Sequence
from pathlib import Path

BLOCK = tarfile.BLOCKSIZE
LONGEST_NAME = 100
"""Bytes of a name; a longer one would need the prefix field, which no name of ours does."""

LARGEST = 0o77777777777
"""Bytes of a member: what eleven octal digits hold."""

_AT_ONCE = 512
"""Buffers handed to one system call; systems allow 1024."""

_WAITING_BYTES = 4 * 2**20
"""Bytes gathered before they are written: bounds the memory, whatever the images' sizes."""

_PADDING = [bytes(n) for n in range(BLOCK)]


class UstarWriter:
    """Writes one tar; ``sha256`` is that of the whole file once it is closed.

    Members are gathered and written with one system call for many, straight from the images' own buffers.
    """

    def __init__(self, path: Path, owner: str = "", digest: bool = False) -> None:
        # Type "regular file", no link, magic and version, owner and group; no device and no prefix.
        self._tail = (b"0" + bytes(100) + b"ustar\x0000" + owner.encode().ljust(32, b"\0") * 2).ljust(
            BLOCK - 156, b"\0"
        )
        self._fixed = b"0000644\x00" + b"0000000\x00" * 2
        # The checksum counts its own field as eight spaces.
        self._sum = sum(self._tail) + sum(self._fixed) + sum(b"%011o\x00" % 0) + 8 * 32
        self._digest = hashlib.sha256() if digest else None
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_BINARY", 0), 0o600)
        self._waiting: list[bytes] = []
        self._flushed = self.size = 0

    def __enter__(self) -> UstarWriter:
        return self

    def __exit__(self, kind: object, *error: object) -> None:
        try:
            if kind is None:
                self._finish()
        finally:
            os.close(self._file)

    @property
    def sha256(self) -> str:
        """The digest of what was written, in hex."""
        if self._digest is None:
            raise ValueError("this tar was opened without a digest")
        return self._digest.hexdigest()

    def add(self, name: str, data: bytes) -> int:
        """Append a member; where its bytes start in the tar."""
        start = self.size + BLOCK
        self._put(self._header(name, len(data)))
        if data:
            self._put(data)
        if rest := -len(data) % BLOCK:
            self._put(_PADDING[rest])
        return start

    def _header(self, name: str, size: int) -> bytes:
        called = name.encode()
        if len(called) > LONGEST_NAME or not called:
            raise ValueError(f"{name!r} has {len(called)} bytes; a member's name has 1 to {LONGEST_NAME}")
        if size > LARGEST:
            raise ValueError(f"{name} has {size} bytes; a member has at most {LARGEST}")
        told = b"%011o\x00%011o\x00" % (size, 0)
        checksum = (self._sum + sum(called) + sum(told[:12])) & 0o777777
        return b"".join((called.ljust(LONGEST_NAME, b"\0"), self._fixed, told, b"%06o\x00 " % checksum, self._tail))

    def _put(self, data: bytes) -> None:
        self._waiting.append(data)
        self.size += len(data)
        if len(self._waiting) >= _AT_ONCE or self.size - self._flushed >= _WAITING_BYTES:
            self._flush()

    def _flush(self) -> None:
        waiting, self._waiting, self._flushed = self._waiting, [], self.size
        if self._digest is not None:
            for data in waiting:
                self._digest.update(data)
        _write_all(self._file, waiting)

    def _finish(self) -> None:
        """Two blocks of zeros, and more up to a whole record of 10,240 bytes."""
        end = self.size + 2 * BLOCK
        self._put(bytes(2 * BLOCK + -end % tarfile.RECORDSIZE))
        self._flush()


def _write_all(file: int, buffers: Sequence[bytes]) -> None:
    """Write ``buffers`` one after another; a system may take less than it is given."""
    if not hasattr(os, "writev"):
        buffers = [b"".join(buffers)]
    left = [memoryview(data) for data in buffers]
    while left:
        done = os.writev(file, left) if hasattr(os, "writev") else os.write(file, left[0])
        first = 0
        while first < len(left) and done >= len(left[first]):
            done -= len(left[first])
            first += 1
        left = left[first:]
        if left:
            left[0] = left[0][done:]
