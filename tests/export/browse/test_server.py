from __future__ import annotations

import http.client
import json
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote, urlencode

import pytest

from tests.conftest import here
from tests.export.browse.conftest import HOSTILE, Served, ask, png
from tuwen.export.browse import server as serving
from tuwen.export.browse.server import LARGEST_UPLOAD, PAGES, Server, loopback
from tuwen.pipeline.errors import UsageError


def test_every_answer_forbids_what_a_page_need_not_do(small: Path, served: Served) -> None:
    server = served(small)
    for path in (*PAGES, "/api/run", "/api/pairs", "/image?row=0", "/export", "/nothing"):
        told = ask(server.url.rstrip("/") + path)
        assert told.status == (404 if path == "/nothing" else 200), path
        assert told.headers["Content-Security-Policy"].startswith("default-src 'self'")
        assert "http" not in told.headers["Content-Security-Policy"]
        assert told.headers["X-Content-Type-Options"] == "nosniff"
        assert "Access-Control-Allow-Origin" not in told.headers


def test_the_page_names_nothing_outside_this_machine(small: Path, served: Served) -> None:
    server = served(small)
    for path in PAGES:
        text = ask(server.url.rstrip("/") + path).body.decode()
        assert "//" not in text.replace("http://www.w3.org/2000/svg", "").replace("// ", "").replace('"://"', ""), path
        assert " style=" not in text
        assert "innerHTML" not in text


@pytest.mark.parametrize("host", ["evil.example", "evil.example:{port}", "127.0.0.1:1", "", "10.0.0.8:{port}", "a:b:c"])
def test_a_host_that_is_not_this_one_is_refused(small: Path, served: Served, host: str) -> None:
    server = served(small)
    told = ask(server.url, headers={"Host": host.format(port=server.server_port)})
    assert told.status == 421, told.body


@pytest.mark.parametrize("host", ["127.0.0.1:{port}", "localhost:{port}", "[::1]:{port}"])
def test_this_machines_own_names_are_taken(small: Path, served: Served, host: str) -> None:
    server = served(small)
    assert ask(server.url, headers={"Host": host.format(port=server.server_port)}).status == 200


def test_another_sites_page_gets_nothing(small: Path, served: Served) -> None:
    server = served(small)
    for path, headers in (
        ("api/pairs", {"Sec-Fetch-Site": "cross-site"}),
        ("image?row=0", {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "no-cors"}),
        ("export", {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}),
        ("api/run", {"Origin": "http://evil.example"}),
    ):
        assert ask(server.url + path, headers=headers).status == 403, path
    assert ask(server.url + "api/image", png(), {"Origin": "http://evil.example"}).status == 403
    assert ask(server.url, headers={"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}).status == 200


@pytest.mark.parametrize(
    "path",
    [
        "/../run.json", "/%2e%2e/run.json", "/page.js/../../run.json", "//etc/passwd", "/page.html%00.js", "/run.json",
        "/image?row=../../../etc/passwd", "/image?row=-1", "/image?row=1e3", "/image?row=٣", "/image?row=" + "9" * 400,
        "/image", "/api/pair?row=999999999", "/api/pair",
    ],
)  # fmt: skip
def test_there_is_no_way_to_other_files(small: Path, served: Served, path: str) -> None:
    server = served(small)
    line = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=60)
    line.putrequest("GET", quote(path, safe="/?=%&.-"), skip_host=True)
    line.putheader("Host", f"127.0.0.1:{server.server_port}")
    line.endheaders()
    told = line.getresponse()
    assert told.status == 404
    assert "error" in json.loads(told.read())


@pytest.mark.parametrize(
    "query",
    [
        "reason=nosuch", "order=nosuch", "order=image_embedding", "order=-caption", "order=score&least=x", "least=0.5",
        "from=-1", "from=x", "count=" + "9" * 40, "against=video&text=x", "colour=red", "text=" + "x" * 1001,
        "holding=" + "x" * 1001, "upload=x&text=y", "like=abc", "like=-3", "upload=..%2f..%2fetc", "status=%00",
        "split=%F0%9F%98%80", "text=x&like=1",
    ],
)  # fmt: skip
def test_an_impossible_selection_is_refused_in_words(small: Path, served: Served, query: str) -> None:
    told = ask(served(small).url + "api/pairs?" + query)
    assert told.status in (400, 404)
    assert len(told.json["error"]) > 15


@pytest.mark.parametrize(
    "query",
    [
        "holding=%5B%28*", "holding=%00", "holding=%ED%A0%80", "text=%00%00", "text=%F0%9F%98%80%E2%80%AE",
        "from=999999", "count=0", "count=9999", "order=score&least=nan", "order=score&least=-inf&most=inf",
        "text=%20%20", "holding=%22",
    ],
)  # fmt: skip
def test_an_odd_selection_is_answered(small: Path, served: Served, query: str) -> None:
    told = ask(served(small).url + "api/pairs?" + query)
    assert told.status == 200, told.body
    assert len(told.json["pairs"]) <= 200


def test_what_is_sent_must_be_a_picture_of_bearable_size(
    small: Path, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = served(small).url + "api/image"
    for data in (b"", b"no picture at all", b"<svg xmlns='http://www.w3.org/2000/svg' onload='x()'/>", png()[:60]):
        told = ask(url, data)
        assert told.status == 415, data
        assert "no picture that can be read" in told.json["error"]
    bomb = bytearray(png())
    bomb[16:24] = (60000).to_bytes(4, "big") * 2
    assert ask(url, bytes(bomb)).status == 415
    monkeypatch.setattr(serving, "LARGEST_UPLOAD", 100)
    told = ask(url, png())
    assert told.status == 413
    assert "at most 100" in told.json["error"]
    monkeypatch.undo()
    told = ask(url, png())
    assert told.status == 200
    found = ask(url.replace("image", "pairs?upload=" + told.json["upload"])).json
    assert found["total"] > 10
    assert ask(url.replace("/api/image", "/elsewhere"), png()).status == 404


def test_a_length_that_lies_costs_nothing(small: Path, served: Served) -> None:
    server = served(small)
    for length in (str(LARGEST_UPLOAD + 1), "-5", "12abc", ""):
        line = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=30)
        line.putrequest("POST", "/api/image")
        line.putheader("Content-Length", length)
        line.endheaders()
        told = line.getresponse()
        assert told.status in (411, 413), length
        assert told.getheader("Connection") == "close"
    with socket.create_connection(("127.0.0.1", server.server_port)) as raw:
        raw.sendall(b"POST /api/image HTTP/1.1\r\nContent-Length: 1000\r\n")  # and goes away
    assert ask(server.url + "api/run").status == 200


def test_lists_are_the_selection(small: Path, served: Served) -> None:
    server = served(small)
    query = urlencode({"status": "kept", "order": "-score"})
    pairs = ask(f"{server.url}api/pairs?{query}&count=200").json["pairs"]
    keys = ask(f"{server.url}export?{query}")
    assert keys.headers["Content-Disposition"] == 'attachment; filename="selection.txt"'
    assert keys.body.decode().split("\n") == [*dict.fromkeys(p["key"] for p in pairs), ""]
    lines = [json.loads(line) for line in ask(f"{server.url}export?{query}&format=jsonl").body.splitlines()]
    assert [(line["key"], round(line["value"], 4)) for line in lines] == [(p["key"], p["value"]) for p in pairs]
    assert ask(f"{server.url}export?format=exe").status == 400


def test_a_list_of_keys_is_what_remove_reads_and_then_it_is_gone(small: Path, served: Served, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(small, run)
    server = served(run)
    query = urlencode({"text": "红色的房子", "status": "kept"})
    first = ask(f"{server.url}api/pairs?{query}&count=1").json["pairs"][0]
    assert ask(f"{server.url}image?row={first['row']}").headers["Content-Type"] == "image/jpeg"
    (tmp_path / "keys.txt").write_text(first["key"] + "\n")
    here("remove", run, "--keys", tmp_path / "keys.txt")
    again = ask(f"{server.url}api/pairs?{query}&count=200").json["pairs"]
    assert first["key"] not in {p["key"] for p in again}
    row = ask(f"{server.url}api/find?key={first['key']}").json[0]
    assert ask(f"{server.url}image?row={row}").headers["Content-Type"] == "image/svg+xml"
    assert ask(f"{server.url}api/pair?row={row}").json["raw"] is None


def test_hostile_captions_travel_as_text(small: Path, served: Served) -> None:
    told = ask(served(small).url + "api/pairs?" + urlencode({"holding": "</script>"}))
    assert told.headers["Content-Type"].startswith("application/json")
    assert [p["raw"] for p in told.json["pairs"]] == [HOSTILE]


def test_pictures_are_jpegs_made_anew_or_a_sign_that_there_is_none(small: Path, served: Served) -> None:
    server = served(small)
    broken = ask(server.url + "api/pairs?reason=image_corrupt").json["pairs"][0]
    assert ask(f"{server.url}image?row={broken['row']}").headers["Content-Type"] == "image/svg+xml"
    kept = ask(server.url + "api/pairs?status=kept&count=1").json["pairs"][0]
    sizes = [len(ask(f"{server.url}image?row={kept['row']}&size={s}").body) for s in ("small", "large")]
    assert sizes[0] < sizes[1]
    assert ask(f"{server.url}image?row={kept['row']}&size=../x").status == 400


def test_an_address_that_others_reach_needs_a_token(small: Path, served: Served) -> None:
    assert [loopback(h) for h in ("127.0.0.1", "127.9.9.9", "::1", "localhost", "0.0.0.0", "example.org", "")] == [
        *(True, True, True, True, False, False, False)
    ]
    with pytest.raises(UsageError, match=r"others than you reach that address.*--with-token"):
        Server(str(small), "0.0.0.0", 0)
    server = served(small, "0.0.0.0", "secret-token")
    url = f"http://127.0.0.1:{server.server_port}/"
    for headers in ({}, {"Cookie": "tuwen_browse=wrong"}, {"Cookie": "ä; ="}):
        assert ask(url + "api/run", headers=headers).status == 401
    assert ask(url + "?token=wrong").status == 401
    entered = ask(url + "?token=secret-token")
    assert (entered.status, entered.headers["Location"]) == (303, "/")
    cookie = entered.headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    assert ask(url + "api/run", headers={"Cookie": cookie.split(";")[0]}).status == 200
    assert ask(url + "api/run", headers={"Host": f"evil.example:{server.server_port}"}).status == 421


def test_the_command_refuses_before_it_serves(small: Path, tmp_path: Path) -> None:
    done = here("browse", small, "--host", "0.0.0.0", check=False)
    assert done.returncode == 2
    assert "add --with-token" in done.stderr
    done = here("browse", tmp_path, check=False)
    assert done.returncode == 3
    assert "expected a finished run directory" in done.stderr
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = here("browse", small, "--port", str(taken.getsockname()[1]), check=False)
    assert done.returncode == 2
    assert "--port 0 for any that is free" in done.stderr
    assert here("browse", small, "--host", "no.such.host.invalid", "--with-token", check=False).returncode == 2


def test_the_command_serves_until_it_is_stopped(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(self: Server, poll_interval: float = 0.5) -> None:
        self.handle_request()  # the browser's first one
        raise KeyboardInterrupt

    opened: list[str] = []

    def open_page(url: str) -> Callable[[], None]:
        socket.create_connection(("127.0.0.1", int(url.rsplit(":", 1)[1].strip("/")))).close()
        opened.append(url)
        return lambda: None

    monkeypatch.setattr(Server, "serve_forever", stopped)
    monkeypatch.setattr("webbrowser.open", open_page)
    done = here("browse", small, "--open", "--port", "0")
    assert opened[0] in done.stdout
    assert done.stdout.rstrip().endswith("ended")
