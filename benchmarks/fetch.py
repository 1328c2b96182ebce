"""The fetch against a hostile web, against disguised addresses, and beside img2dataset.

    python benchmarks/fetch.py outcomes
    python benchmarks/fetch.py addresses
    python benchmarks/fetch.py speed --img2dataset /path/to/python [--images 2000] [--rounds 3]

All servers are this program's own, on 127.0.0.1. ``outcomes`` and ``addresses`` end with 1 where a class is wrong or an
address is reached. ``speed`` gives both the same JPEGs from the same server and the
same 64 transfers at once in one process, and takes whole commands, from a list of URLs to a tar: bytes as they
came (tuwen's recipe is ``fetch`` alone, img2dataset runs with ``disable_all_reencoding``, so neither decodes an image),
or JPEGs of at most 256 pixels at quality 95. What a command costs beside its images (imports, mostly) is measured with
20 images, printed, and taken off its CPU seconds, which are those of the command and its children, the server's not
among them; both run from compiled modules. At most 2,000 pictures are drawn; further addresses lead to the same ones.
img2dataset cannot share an environment with tuwen, so its Python is named.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import polars as pl

from tuwen import __version__
from tuwen.filters.fetch_queue import fetch_all
from tuwen.filters.transfer import Limits

sys.path.insert(0, str(Path(__file__).parents[1]))

TRANSFERS = 64
DRAWN = 2000
EXPECTED = {
    "ok": "ok",
    "missing": "http_404",
    "broken": "http_500",
    "later": "http_429",
    "page": "not_an_image",
    "nothing": "empty",
    "gzip": "not_an_image",
    "bomb": "not_an_image",
    "declared": "too_large",
    "endless": "too_large",
    "short": "reset",
    "half": "reset",
    "reset": "reset",
    "hangup": "empty",
    "silent": "timeout_read",
    "drip": "timeout_read",
    "headers": "timeout_read",
    "flood": "bad_response",
    "noai": "opted_out",
    "tdm": "opted_out",
    "circle": "redirect_loop",
    "ever": "redirect_loop",
    "inwards": "blocked_address",
    "tofile": "bad_url",
}
"""What the test suite's hostile web does under each path, a host of its own for each, and the class that is right."""

ELSEWHERE = {
    "http://deny.test/ok": "robots",
    "http://ill.test/ok": "robots",
    "http://stuck.test/ok": "timeout_read",
    "http://cut.test/ok": "reset",
    "http://reserved.test/ok/kept/a.png": "opted_out",
    "http://mazy.test/ok": "ok",
    "https://plain.test/ok": "tls",
    "http://deaf.nowhere/ok": "timeout_connect",
    "http://dead.nowhere/ok": "refused",
    "http://no-such-host.invalid/a": "dns",
    "ftp://ok.test/a.jpg": "bad_url",
    "file:///etc/passwd": "bad_url",
}
"""The same where the host is what misbehaves, its robots.txt or its tdmrep.json."""

ADDRESSES = (
    *("127.0.0.1", "2130706433", "017700000001", "0177.0.0.1", "0x7f.1", "0x7f000001", "127.1", "0", "0.0.0.0"),
    *("127。0。0。1", "①②⑦.0.0.1", "%31%32%37.0.0.1", "good.example@127.0.0.1", "localhost", "LOCALHOST."),
    *("[::1]", "[::]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::127.0.0.1]", "[::ffff:0:127.0.0.1]"),
    *("[64:ff9b::7f00:1]", "[64:ff9b:1::7f00:1]", "[2002:7f00:1::]", "[2001:0:7f00:1::]", "[fe80::1]", "[fec0::1]"),
    *("10.0.0.1", "172.16.0.1", "192.168.1.1", "100.64.0.1", "169.254.169.254", "[fd00:ec2::254]"),
    *("100.100.100.200", "168.63.129.16", "224.0.0.1", "[ff02::1]", "255.255.255.255"),
)


def outcomes(options: argparse.Namespace) -> None:
    """What becomes of each kind of misbehaviour, all asked for at once, good addresses among them."""
    expected = {f"http://{path}.test/{path}": outcome for path, outcome in EXPECTED.items()} | ELSEWHERE
    with hostile() as web, deaf_and_dead() as (deaf, dead):
        stand_ins = (("deaf.nowhere", deaf), ("dead.nowhere", dead), ("*.test", web.at))
        limits = Limits(connect_to=stand_ins, max_bytes=200_000, total_seconds=1.0, connect_seconds=0.7, retries=0)
        started = time.monotonic()
        found = fetch_all(list(expected), limits)
        wall = time.monotonic() - started
    print(f"{'asked for':34} {'outcome':16} status     ms  detail")
    wrong = 0
    for url, right in expected.items():
        told = found[url]
        outcome, detail = told.error or "ok", (told.detail or "")[:70]
        wrong += outcome != right
        print(f"{url:34} {outcome:16} {told.status:6} {told.milliseconds:6}  {detail}")
        if outcome != right:
            print(f"{'':34} WRONG, expected {right}")
    hosts = len({url.split("/")[2] for url in expected})
    print(f"{len(expected)} addresses of {hosts} hosts in {wall:.2f} s, with a limit of 1 s each and one thread")
    print(f"in another class than expected: {wrong}")
    if wrong:
        raise SystemExit(1)


def addresses(options: argparse.Namespace) -> None:
    """Private and disguised addresses, directly and as the target of a redirect; none may be reached."""
    names = [*ADDRESSES, socket.gethostname()]
    reached = refused = 0
    with hostile() as web:
        port = web.at.split(":")[1]
        limits = Limits(total_seconds=2.0, connect_seconds=2.0, retries=0)
        urls = {name: f"http://{name}:{port}/ok" for name in names}
        there = {f"-> {name}": f"http://a.test/to?http://{name}:{port}/ok" for name in names}
        found = fetch_all(list(urls.values()), limits)
        before = sum(web.hits.values())
        found |= fetch_all(list(there.values()), Limits(connect_to=(("*.test", web.at),), total_seconds=2.0, retries=0))
        asked_inside = sum(n for at, n in web.hits.items() if not at.startswith("a.test/"))
    for name, url in (urls | there).items():
        told = found[url]
        reached += told.body is not None
        refused += told.error == "blocked_address"
        print(f"{name:28} {told.error or 'REACHED':16} {(told.detail or '')[:80]}")
    print(f"{refused} of {len(found)} refused, {reached} reached; requests that arrived: {before + asked_inside}")
    if refused < len(found) or before or asked_inside:
        raise SystemExit(1)


@contextmanager
def deaf_and_dead() -> Iterator[tuple[str, str]]:
    """An address whose server never takes a connection, its queue being full, and one where nobody listens."""
    with socket.socket() as deaf, socket.socket() as dead, ExitStack() as waiting:
        for one in (deaf, dead):
            one.bind(("127.0.0.1", 0))
        deaf.listen(0)
        for _ in range(3):
            one = waiting.enter_context(socket.socket())
            one.setblocking(False)
            one.connect_ex(deaf.getsockname())
        yield "{}:{}".format(*deaf.getsockname()), "{}:{}".format(*dead.getsockname())


@contextmanager
def hostile() -> Iterator[Any]:
    """The test suite's hostile web."""
    from tests.filters.conftest import HostileWeb

    web = HostileWeb()
    thread = threading.Thread(target=web.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield web
    finally:
        web.shutdown()
        web.server_close()


class _Quiet(SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = 1 << 16

    def log_message(self, format: str, *args: object) -> None:
        """Two thousand lines say nothing."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 512


def _serve(folder: str, told: Any) -> None:
    server = _Server(("127.0.0.1", 0), partial(_Quiet, directory=folder))
    told.send(server.server_address[1])
    server.serve_forever()


def speed(options: argparse.Namespace) -> None:
    """Images per second and per CPU-second, passing through and resized."""
    with tempfile.TemporaryDirectory(dir=options.scratch) as scratch:
        work = Path(scratch)
        (work / "web").mkdir()
        drawn = min(options.images, DRAWN)
        total = pictures(work / "web", drawn)
        ours, theirs = get_context("spawn").Pipe()
        server = get_context("spawn").Process(target=_serve, args=(str(work / "web"), theirs), daemon=True)
        server.start()
        port = ours.recv()
        for name, count in (("few", 20), ("all", options.images)):
            urls = [f"http://127.0.0.1:{port}/{i % drawn}.jpg?{i // drawn}" for i in range(count)]
            captions = [f"第{i}张照片" for i in range(count)]
            pl.DataFrame({"url": urls, "caption": captions}).write_parquet(work / f"{name}.parquet")
        print(f"{options.images} JPEGs of {total / drawn / 1024:.0f} KB, {TRANSFERS} transfers at once")
        ways: dict[str, Callable[[str, Path], list[str]]] = {
            "pass through: tuwen": partial(curate, 0),
            "resize to 256: tuwen": partial(curate, 256),
        }
        if options.img2dataset:
            ways["pass through: img2dataset"] = partial(img2dataset, options.img2dataset, 0)
            ways["resize to 256: img2dataset"] = partial(img2dataset, options.img2dataset, 256)
        told: dict[str, list[tuple[float, float, float]]] = {way: [] for way in ways}
        for way, command in ways.items():  # compiles the modules
            spent(command(str(work / "few.parquet"), work / f"first-{way}"), work)
        for turn in range(options.rounds):
            for way, command in ways.items():
                few = spent(command(str(work / "few.parquet"), work / f"few-{turn}-{way}"), work)
                all_ = spent(command(str(work / "all.parquet"), work / f"all-{turn}-{way}"), work)
                images = options.images - 20
                told[way].append((options.images / all_[0], images / (all_[1] - few[1]), few[1]))
        server.terminate()
    rates = {way: [statistics.median(r[i] for r in rounds) for i in range(3)] for way, rounds in told.items()}
    for way, (wall, cpu, start) in sorted(rates.items()):
        print(f"{way:28} {wall:8.0f} images/s {cpu:8.0f} images per CPU-second after {start:.1f} CPU-seconds to start")
    for kind in ("pass through", "resize to 256"):
        if f"{kind}: img2dataset" in rates:
            ratio = rates[f"{kind}: tuwen"][1] / rates[f"{kind}: img2dataset"][1]
            print(f"{kind}: {ratio:.2f} times img2dataset's images per CPU-second")


def pictures(folder: Path, count: int) -> int:
    """Write ``count`` JPEGs of 512 pixels with the grain of photographs; their bytes in all."""
    drawn, total = np.random.default_rng(3), 0
    for number in range(count):
        layers = [
            cv2.resize(drawn.normal(0, 45 / 2**i, (3 * 4**i, 4 * 4**i, 3)), (512, 384), interpolation=cv2.INTER_CUBIC)
            for i in range(4)
        ]
        pixels = np.clip(128 + np.sum(layers, axis=0) + drawn.normal(0, 2, (384, 512, 3)), 0, 255).astype(np.uint8)
        data = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 85])[1].tobytes()
        (folder / f"{number}.jpg").write_bytes(data)
        total += len(data)
    return total


def curate(side: int, table: str, out: Path) -> list[str]:
    """The command line of tuwen for the same work; ``side`` 0 passes the bytes through."""
    recipe = out.with_suffix(".yaml")
    recipe.write_text(
        "name: fetch\nstages:\n"
        f"  - fetch: {{allow_private: true, concurrency: {TRANSFERS}, per_host: {TRANSFERS}}}\n"
        + (f"  - jpeg: {{longest_side: {side}, quality: 95}}\n" if side else "")
    )
    return [sys.executable, "-m", "tuwen.pipeline.cli", "run", table, "-o", str(out), "-r", str(recipe), "-j", "1"]


def img2dataset(python: str, side: int, table: str, out: Path) -> list[str]:
    """The command line of img2dataset; ``side`` 0 passes the bytes through."""
    same = {"url_list": table, "input_format": "parquet", "url_col": "url", "caption_col": "caption"}
    same |= {"output_format": "webdataset", "output_folder": str(out), "processes_count": 1}
    same |= {"thread_count": TRANSFERS, "enable_wandb": False, "compute_hash": "sha256", "encode_quality": 95}
    if side:
        same |= {"resize_mode": "keep_ratio_largest", "image_size": side, "resize_only_if_bigger": True}
    else:
        same |= {"resize_mode": "no", "disable_all_reencoding": True}
    call = f"from img2dataset import download; download(**{json.dumps(same)})".replace("false", "False")
    call = call.replace("true", "True")
    return [python, "-c", f"if __name__ == '__main__':\n    {call}"]


def spent(command: list[str], work: Path) -> tuple[float, float]:
    """Wall and CPU seconds of a command and its children; compiled modules are kept in ``work``."""
    quiet = {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(work / f"modules-{Path(command[0]).parts[-3]}")}
    quiet |= {"NO_ALBUMENTATIONS_UPDATE": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": os.environ.get("PYTHONPATH", "")}
    before, started = os.times(), time.monotonic()
    done = subprocess.run(command, env={**os.environ, **quiet}, capture_output=True, text=True)
    wall, after = time.monotonic() - started, os.times()
    if done.returncode:
        raise SystemExit(f"{command[:3]} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return wall, cpu


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["outcomes", "addresses", "speed"])
    parser.add_argument("--img2dataset", help="a Python that has img2dataset")
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--scratch", help="folder for temporary files")
    options = parser.parse_args()
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, "
        f"tuwen {__version__}, pycurl {version('pycurl')}"
    )
    {"outcomes": outcomes, "addresses": addresses, "speed": speed}[options.what](options)


if __name__ == "__main__":
    main()
