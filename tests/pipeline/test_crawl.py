"""A crawl of a small web on 127.0.0.1: manners, scope, archive, and going on after a kill."""

from __future__ import annotations

import gzip
import json
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from warcio.archiveiterator import ArchiveIterator
from warcio.checker import Checker

from tests.conftest import curate
from tuwen.pipeline.crawl.archive import Archive, Exchange
from tuwen.pipeline.crawl.optout import directives
from tuwen.pipeline.crawl.scope import Scope, is_chinese
from tuwen.pipeline.sources import open_input, read_unit

TEXT = "这是一页有图片也有说明文字的中文网页，内容足够长。"


def page(name: str, links: list[str], head: str = "") -> bytes:
    anchors = "".join(f'<a href="{link}">链接</a>' for link in links)
    picture = f'<img src="/{name}.jpg" alt="{name}的照片里有一座红色的房子">'
    return f"<html><head><meta charset=utf-8>{head}</head><body>{TEXT}{picture}{anchors}</body></html>".encode()


class Site(ThreadingHTTPServer):
    """Hosts a.test and b.test; what each path answers stands in ``_Handler``."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.hits: Counter[str] = Counter()
        self.agents: set[str] = set()
        self.pause = 0.0

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    def handle_error(self, request: object, client_address: object) -> None:
        """A crawler that is killed breaks its connections."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Site

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        host, path = (self.headers["Host"] or "").split(":")[0], self.path
        self.server.hits[f"{host}{path}"] += 1
        self.server.agents.add(self.headers["User-Agent"] or "")
        time.sleep(self.server.pause)
        if (host, path) == ("mute.test", "/robots.txt"):
            self.close_connection = True
            return
        status, headers, body = self.answer(host, path)
        self.send_response(status)
        for name, value in {"Content-Type": "text/html; charset=utf-8", **headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def answer(self, host: str, path: str) -> tuple[int, dict[str, str], bytes]:
        port = self.server.port
        if path == "/robots.txt":
            if host == "down.test":
                return 503, {}, b""
            return 200, {"Content-Type": "text/plain"}, b"User-agent: *\nDisallow: /secret\n"
        if path == "/.well-known/tdmrep.json" and host == "a.test":
            rules = [{"location": "/mined", "tdm-reservation": 1, "tdm-policy": "http://a.test/terms"}]
            return 200, {"Content-Type": "application/json"}, json.dumps(rules).encode()
        if host == "a.test" and path == "/":
            links = [*(f"/n{i}" for i in range(12)), "/secret/x", "/noai", "/header", "/moved", "/gz", "/en", "/deep"]
            links += [f"http://b.test:{port}/", f"http://down.test:{port}/", f"http://127.0.0.1:{port}/n0"]
            links += [
                "/inwards",
                "/gone",
                "/nofollow",
                "/photo.jpg",
                "mailto:a@b.cn",
                "/tdm",
                "/mined",
                "/mined-free",
                "/again",
            ]
            return 200, {}, page("a", links)
        if path.startswith("/n") and path[2:].isdigit():
            onward = [f"{path}0"] if len(path) < 5 else []
            return 200, {}, page(path[1:], onward)
        plain = {
            "/noai": (200, {}, page("noai", ["/behind"], '<meta name="robots" content="index, NoAI">')),
            "/header": (200, {"X-Robots-Tag": "noimageai"}, page("header", [])),
            "/tdm": (200, {"TDM-Reservation": "1"}, page("tdm", [])),
            "/mined": (200, {}, page("mined", [])),
            "/mined-free": (200, {"TDM-Reservation": "0"}, page("mined-free", [])),
            "/again": (200, {}, page("again", [], '<meta http-equiv="refresh" content="60; url=/refreshed">')),
            "/refreshed": (200, {}, page("refreshed", [], '<meta http-equiv="refresh" content="9; url=/refreshed">')),
            "/moved": (302, {"Location": "/target"}, b""),
            "/inwards": (302, {"Location": f"http://127.0.0.1:{port}/n1"}, b""),
            "/gz": (200, {"Content-Encoding": "gzip"}, gzip.compress(page("gz", []))),
            "/en": (200, {}, b"<html><body>" + b"A page in English with quite enough words. " * 4 + b"</body></html>"),
            "/nofollow": (200, {}, page("nofollow", ["/hidden"], '<meta name="robots" content="nofollow">')),
            "/deep": (200, {}, page("deep", ["/d2"]).replace(b"<a href", b"<a rel=nofollow href")),
        }
        if path in plain:
            return plain[path]
        known = path in ("/", "/target", "/behind", "/d2", "/hidden")
        return (200, {}, page(path.strip("/") or "b", [])) if known else (404, {}, b"")


@pytest.fixture
def site() -> Iterator[Site]:
    server = Site()
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def words(site: Site, out: Path, *more: str) -> list[str]:
    fixed = [w for host in ("a", "b", "down") for w in ("--resolve", f"{host}.test=127.0.0.1")]
    contact = ["--contact", "crawl@example.org", "--delay", "0"]
    return ["crawl", f"http://a.test:{site.port}/", "-o", str(out), *contact, *fixed, *more]


def stored(out: Path, kind: str = "response") -> dict[str, Any]:
    found = {}
    for path in sorted(out.glob("*.warc.gz")):
        with path.open("rb") as handle:
            for record in ArchiveIterator(handle):
                if record.rec_type == kind:
                    found[record.rec_headers.get_header("WARC-Target-URI")] = (
                        record.content_stream().read().decode("utf-8", "replace")
                    )
    return found


def paths(site: Site, out: Path) -> set[str]:
    return {url.replace(f":{site.port}", "").removeprefix("http://") for url in stored(out)}


def pairs(out: Path) -> list[tuple[str, str, str]]:
    frames = [f for path in sorted(out.glob("*.warc.gz")) for u in open_input(str(path)) for f in read_unit(u)]
    rows = pl.concat(frames, how="diagonal_relaxed").select("page_url", "image_url", "caption_raw")
    return sorted(rows.rows())


EXPECTED = {
    *("a.test/robots.txt", "a.test/.well-known/tdmrep.json", "a.test/mined-free"),
    *(f"a.test/{p}" for p in ("", "target", "moved", "gz", "behind", "nofollow", "deep", "inwards")),
    *("a.test/again", "a.test/refreshed"),
    *(f"a.test/n{i}{end}" for i in range(12) for end in ("", "0", "00")[: 3 if i < 10 else 2]),
}


def test_a_polite_crawl_in_scope(site: Site, tmp_path: Path) -> None:
    out = tmp_path / "crawl"
    told = json.loads(curate(*words(site, out, "--host", "a.test", "--host", "127.0.0.1"), "--json").stdout)
    assert paths(site, out) == EXPECTED
    assert told["ended"] == "finished"
    assert told["counts"] == {
        **{"blocked_address": 2, "http_404": 1, "nofollow": 1, "other_language": 1, "reserved": 4, "robots": 1},
        "pages": told["pages"],
    }
    assert told["pages"] == len(EXPECTED) - 4
    for never in ("a.test/secret/x", "a.test/hidden", "a.test/d2", "a.test/photo.jpg", "b.test/", "127.0.0.1/n0"):
        assert site.hits[never] == 0, never
    assert site.hits["a.test/robots.txt"] == site.hits["a.test/.well-known/tdmrep.json"] == 1
    assert all(agent.startswith("tuwen/") and "(+crawl@example.org)" in agent for agent in site.agents)
    notes = {u.rsplit("/", 1)[-1]: v for u, v in stored(out, "metadata").items()}
    assert "opt-out: meta robots: index, NoAI" in notes["noai"]
    assert "opt-out: X-Robots-Tag: noimageai" in notes["header"]
    assert "opt-out: TDM-Reservation: 1" in notes["tdm"]
    assert "opt-out: tdmrep.json: /mined is reserved, policy http://a.test/terms" in notes["mined"]
    assert "a.test/mined" not in paths(site, out)
    assert not {f"a.test/{name}" for name in ("noai", "header", "tdm")} & paths(site, out)
    # The reader of `curate run` finds a pair on every page, the compressed one too.
    assert {p.rsplit("/", 1)[-1] for p, _, _ in pairs(out)} >= {"gz", "target", "n000", ""}
    assert len(pairs(out)) == told["pages"]
    for path in out.glob("*.warc.gz"):
        with path.open("rb") as handle:
            got = {
                r.rec_headers.get_header("WARC-Target-URI"): r.http_headers
                for r in ArchiveIterator(handle)
                if r.rec_type == "response"
            }
        assert got[f"http://a.test:{site.port}/gz"].get_header("Content-Encoding") == "gzip"
        checker = Checker(type("Args", (), {"verbose": False, "inputs": [str(path)]})())
        checker.process_all()
        assert checker.exit_value == 0


def test_two_crawls_give_the_same_pairs_and_reserved_pages_come_where_asked(site: Site, tmp_path: Path) -> None:
    for name in ("one", "two"):
        curate(*words(site, tmp_path / name))
    assert pairs(tmp_path / "one") == pairs(tmp_path / "two")
    curate(*words(site, tmp_path / "all", "--ignore-opt-out", "--path", "/(noai|header|n1$)"))
    assert paths(site, tmp_path / "all") == {
        f"a.test/{p}" for p in ("", "noai", "header", "n1", "robots.txt", ".well-known/tdmrep.json")
    }
    assert "opt-out" in "".join(stored(tmp_path / "all", "metadata").values())


def test_hosts_without_answers_and_bounds(site: Site, tmp_path: Path) -> None:
    told = json.loads(curate(*words(site, tmp_path / "wide", "--host", "*.test"), "--json").stdout)
    assert told["counts"]["robots"] == 2
    assert site.hits["down.test/"] == 0
    assert f"http://b.test:{site.port}/" in stored(tmp_path / "wide")
    few = json.loads(curate(*words(site, tmp_path / "few", "--pages", "4"), "--json").stdout)
    assert few["ended"] == "pages"
    assert 4 <= few["pages"] <= 40
    shallow = json.loads(curate(*words(site, tmp_path / "shallow", "--depth", "1"), "--json").stdout)
    assert not any(path.endswith("n00") for path in paths(site, tmp_path / "shallow"))
    more = json.loads(curate(*words(site, tmp_path / "shallow"), "--json").stdout)
    assert more["pages"] == told["pages"] - 1 > shallow["pages"]


def test_a_site_whose_robots_txt_cannot_be_had_is_left_alone_and_no_proxy_is_taken_unasked(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    seeds = ["crawl", *(f"http://{host}.test:{site.port}/n1" for host in ("mute", "b")), "--json"]
    seeds += ["http://no-such-host.invalid/", "http://b.test:9/", f"https://b.test:{site.port}/"]
    manners = ["--contact", "a@b.cn", "--delay", "0", "--resolve", "mute.test=127.0.0.1"]
    manners += ["--resolve", "b.test=127.0.0.1"]
    told = json.loads(curate(*seeds, "-o", tmp_path / "straight", *manners).stdout)
    assert site.hits["mute.test/robots.txt"] and not site.hits["mute.test/n1"]
    assert {k: n for k, n in told["counts"].items() if k != "pages"} == {"dns": 1, "refused": 1, "reset": 1, "tls": 1}
    assert site.hits["b.test/n1"] == 1
    manners += ["--proxy", f"http://127.0.0.1:{site.port}"]
    asked = json.loads(curate(*seeds[:4], "-o", tmp_path / "proxied", *manners).stdout)
    assert asked["counts"]["http_404"] == 2  # this site is no proxy, and knows no path http://…
    assert site.hits["b.test/n1"] == 1


def test_a_killed_crawl_goes_on_to_the_same_pages(site: Site, tmp_path: Path) -> None:
    out = tmp_path / "killed"
    site.pause = 0.05
    for size in (6_000, 20_000):
        process = subprocess.Popen(
            [sys.executable, "-m", "tuwen.pipeline.cli", *words(site, out)], cwd=Path(__file__).parents[2]
        )
        deadline = time.monotonic() + 60
        while sum(p.stat().st_size for p in out.glob("*.gz")) < size and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        last = max(out.glob("*.gz"))
        with last.open("r+b") as handle:
            handle.truncate(last.stat().st_size - 7)
    site.pause = 0
    before = site.hits.copy()
    curate(*words(site, out))
    assert paths(site, out) == EXPECTED
    # What was stored is not asked for again.
    assert sum((site.hits - before).values()) < len(EXPECTED)
    curate(*words(site, tmp_path / "whole"))
    assert pairs(out) == pairs(tmp_path / "whole")


def test_what_cannot_be_crawled_says_so(site: Site, tmp_path: Path) -> None:
    def refused(*more: str) -> str:
        done = curate(*words(site, tmp_path / "x", *more), check=False)
        assert done.returncode == 2
        return done.stderr

    assert "mail address or a URL" in refused("--contact", "nobody")
    assert "no regular expression" in refused("--path", "(")
    assert "HOST=ADDRESS" in refused("--resolve", "a.test")
    assert "only Chinese" in refused("--language", "fr")
    assert "no HTTP proxy" in refused("--proxy", "10.0.0.7:3128")
    assert (
        "no address to begin at"
        in curate("crawl", "ftp://a", "-o", tmp_path / "x", "--contact", "a@b.cn", check=False).stderr
    )
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "mine").write_text("")
    assert "holds no crawl" in refused()
    curate(*words(site, tmp_path / "y", "--path", "/n1"))
    changed = curate(*words(site, tmp_path / "y"), check=False)
    assert changed.returncode == 2
    assert "another scope" in changed.stderr


def exchange(number: int, **more: Any) -> Exchange:
    url = f"http://a.test/{number}"
    return Exchange(url, "GET", [("Host", "a.test")], 200, [("Content-Type", "text/html")], b"x" * 300, **more)


def test_an_archive_that_was_cut_anywhere_keeps_its_whole_exchanges(tmp_path: Path) -> None:
    ends = []
    whole = Archive(tmp_path / "whole", {"software": "test"})
    for number in range(3):
        whole.write(exchange(number, reserved=number == 1, notes={"opt-out": ["noai"]}))
        ends.append(whole.size())
    whole.close()
    data = (tmp_path / "whole" / "crawl-000000.warc.gz").read_bytes()
    for cut in range(0, len(data) + 1, 61):
        folder = tmp_path / f"cut{cut}"
        folder.mkdir()
        (folder / "crawl-000000.warc.gz").write_bytes(data[:cut])
        found = Archive(folder, {})
        complete = sum(end <= cut for end in ends)
        assert len(found.stored) + len(found.reserved) == complete, cut
        found.write(exchange(9))
        found.close()
        again = Archive(folder, {})
        assert again.read("http://a.test/9") == (
            200,
            [("Content-Type", "text/html"), ("Content-Length", "300")],
            b"x" * 300,
        )
        assert again.pages == len(again.stored)


def test_directives_and_languages() -> None:
    assert directives({"x-robots-tag": ["otherbot: noai", "tuwen: noml"]}, b"").reserved == (
        "X-Robots-Tag: tuwen: noml",
    )
    assert not directives({"x-robots-tag": ["unavailable_after: 25 Jun 2030"]}, b"<p>noai</p>").reserved
    assert directives({}, b'<meta name="ROBOTS" content="none">').nofollow
    said = {"tdm-reservation": ["1"], "tdm-policy": ["https://a.cn/p"]}
    assert directives(said, b"").reserved == ("TDM-Reservation: 1, TDM-Policy: https://a.cn/p",)
    assert directives({}, b"", "tdmrep.json: /").reserved == ("tdmrep.json: /",)
    assert not directives({"tdm-reservation": ["0"]}, b"", "tdmrep.json: /").reserved
    assert not directives(said, b'<meta name="tdm-reservation" content="0">').reserved
    assert is_chinese(f"<body>{TEXT}</body>")
    assert not is_chinese("<body>これは日本語のページです。写真と説明があります。東京の風景です。</body>")
    assert is_chinese("<body>图</body>")
    assert Scope(("*.cn",), "/a").allows("https://x.cn/ab")
    assert not Scope(("*.cn",), "/a").allows("https://x.com/ab")
    assert not Scope(("*.cn",)).allows("ftp://x.cn/")
