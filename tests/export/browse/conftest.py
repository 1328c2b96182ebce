"""A small real run with vectors, of pictures and captions of the sample, and a server of it."""

from __future__ import annotations

import io
import json
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.conftest import Finished, here
from tuwen.export.browse.server import Server
from tuwen.export.browse.service import Browser

HOSTILE = "红色的房子</script><script>window.hacked=1</script><img src=x onerror=window.hacked=1>"
RECIPE = """name: small
stages:
  - normalise
  - decode
  - image_safety
  - jpeg
  - score: {embeddings: true, threshold: 0.45}
  - split
"""


@pytest.fixture(scope="session")
def small(finished: Finished, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with 18 kept pairs of the sample, 4 that do not match, 2 unsafe ones, 1 hostile and 1 broken one."""
    root = tmp_path_factory.mktemp("small")
    (root / "in").mkdir()
    told = Browser(str(finished.run))
    for reason, most in (("", 18), ("low_score", 4), ("image_unsafe", 2)):
        rows = told.table.facet({"reason": reason} if reason else {"status": "kept"})[:most]
        wanted = told.table.read(rows, ["unit", "ordinal", "key", "shard", "stage", "caption_raw"])
        for i, row in enumerate(wanted.iter_rows(named=True)):
            data = told.pictures.bytes_of(row)
            assert data is not None
            kind = (Image.open(io.BytesIO(data)).format or "").lower()
            (root / "in" / f"{reason or 'kept'}{i}.{kind}").write_bytes(data)
            (root / "in" / f"{reason or 'kept'}{i}.txt").write_text(row["caption_raw"])
    first = next((root / "in").glob("kept0.*[!t]"))
    (root / "in" / f"hostile{first.suffix}").write_bytes(first.read_bytes())
    (root / "in" / "hostile.txt").write_text(HOSTILE)
    (root / "in" / "broken.jpeg").write_bytes(b"\xff\xd8\xff\xe0 no more than a beginning")
    (root / "in" / "broken.txt").write_text("一张坏图")
    (root / "recipe.yaml").write_text(RECIPE)
    here("run", root / "in", "-o", root / "run", "-r", root / "recipe.yaml", "--measure-all", "-j", "1")
    return root / "run"


@dataclass(frozen=True)
class Answer:
    """Status, headers and body of one answer."""

    status: int
    headers: Any
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def ask(url: str, data: bytes | None = None, headers: dict[str, str] | None = None) -> Answer:
    """One request, refused or not; redirections are not followed."""

    class Stay(urllib.request.HTTPRedirectHandler):
        def redirect_request(self, *args: Any) -> None:
            return None

    request = urllib.request.Request(url, data, headers or {})
    try:
        with urllib.request.build_opener(Stay).open(request, timeout=60) as answer:
            return Answer(answer.status, answer.headers, answer.read())
    except urllib.error.HTTPError as error:
        return Answer(error.code, error.headers, error.read())


Served = Callable[..., Server]


@pytest.fixture
def served() -> Iterator[Served]:
    """Serves runs until the test ends."""
    running: list[Server] = []

    def serve(run: Path, host: str = "127.0.0.1", token: str = "") -> Server:
        server = Server(str(run), host, 0, token)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        running.append(server)
        return server

    yield serve
    for server in running:
        server.shutdown()
        server.server_close()


def png(seed: int = 0) -> bytes:
    """A small picture."""
    pixels = np.random.default_rng(seed).integers(0, 255, (40, 40, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()
