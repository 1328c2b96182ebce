from __future__ import annotations

import hashlib
import io
import os
import tarfile
from pathlib import Path

import pytest

from tuwen.export.ustar import UstarWriter

MEMBERS = [
    ("00000000.jpg", b"\xff\xd8" + bytes(range(256)) * 3),
    ("empty.txt", b""),
    ("block.txt", b"x" * 512),
    ("图.txt", "一".encode() * 100),
    ("n" * 100, b"longest name"),
    *((f"{n:032x}.json", b"{}" * n) for n in range(400)),
]


def by_tarfile(members: list[tuple[str, bytes]], owner: str) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size, member.mode, member.uname, member.gname = len(data), 0o644, owner, owner
            tar.addfile(member, io.BytesIO(data))
    return out.getvalue()


@pytest.mark.parametrize("owner", ["", "tuwen"])
@pytest.mark.parametrize("count", [0, 1, 3, len(MEMBERS)])
def test_the_bytes_are_those_that_tarfile_writes(tmp_path: Path, owner: str, count: int) -> None:
    at = tmp_path / "a.tar"
    with UstarWriter(at, owner, digest=True) as tar:
        starts = [tar.add(name, data) for name, data in MEMBERS[:count]]
    written = at.read_bytes()
    assert written == by_tarfile(MEMBERS[:count], owner)
    assert (tar.size, tar.sha256) == (len(written), hashlib.sha256(written).hexdigest())
    for start, (_, data) in zip(starts, MEMBERS, strict=False):
        assert written[start : start + len(data)] == data


def test_a_system_that_takes_little_at_a_time_gets_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def little(file: int, buffers: list[memoryview]) -> int:
        return os.write(file, b"".join(buffers)[:1000])

    monkeypatch.setattr(os, "writev", little)
    with UstarWriter(tmp_path / "a.tar") as tar:
        for name, data in MEMBERS[:20]:
            tar.add(name, data)
    assert (tmp_path / "a.tar").read_bytes() == by_tarfile(MEMBERS[:20], "")


@pytest.mark.parametrize("name", ["", "x" * 101, "图" * 34])
def test_a_name_that_does_not_fit_is_refused(tmp_path: Path, name: str) -> None:
    with UstarWriter(tmp_path / "a.tar") as tar, pytest.raises(ValueError, match="1 to 100"):
        tar.add(name, b"x")


def test_images_are_not_gathered_beyond_a_few_megabytes(tmp_path: Path) -> None:
    with UstarWriter(tmp_path / "a.tar") as tar:
        for n in range(8):
            tar.add(f"{n}.jpg", bytes(2**20))
        assert (tmp_path / "a.tar").stat().st_size > 2**22
