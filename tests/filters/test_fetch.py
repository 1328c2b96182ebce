from __future__ import annotations

import os
import signal
import socket
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import polars as pl
import pycurl
import pytest

from tuwen.filters.fetch import Fetch
from tuwen.filters.fetch_queue import fetch_all, seconds_asked
from tuwen.filters.transfer import Limits, Outcome, Transfer
from tuwen.pipeline.stage import Tally, apply_stage

Web = Any
"""The ``HostileWeb`` of conftest.py."""

PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 64


def limits(web: Web, **changes: object) -> Limits:
    chosen: dict[str, object] = {
        "connect_to": (("*.test", web.at),),
        "max_bytes": 200_000,
        "backoff_seconds": 0.01,
        "total_seconds": 0.8,
    }
    return Limits(**{**chosen, **changes})  # type: ignore[arg-type]


def fetch(web: Web, *urls: str, **changes: object) -> list[Outcome]:
    found = fetch_all(urls, limits(web, **changes))
    return [found[url] for url in urls]


OUTCOMES = {
    "missing": ("http_404", 404),
    "broken": ("http_500", 500),
    "later": ("http_429", 429),
    "page": ("not_an_image", 200),
    "nothing": ("empty", 200),
    "gzip": ("not_an_image", 200),
    "declared": ("too_large", 200),
    "endless": ("too_large", 200),
    "short": ("reset", 200),
    "half": ("reset", 200),
    "silent": ("timeout_read", 0),
    "headers": ("timeout_read", 200),
    "drip": ("timeout_read", 200),
    "reset": ("reset", 0),
    "hangup": ("empty", 0),
    "noai": ("opted_out", 200),
    "tdm": ("opted_out", 200),
    "circle": ("redirect_loop", 302),
    "ever": ("redirect_loop", 302),
    "inwards": ("blocked_address", 0),
    "tofile": ("bad_url", 302),
}


def test_every_misbehaviour_lands_in_its_class_and_stalls_nothing(web: Web) -> None:
    hosts = {"later": "late.test"}  # who asks for a pause gets it for the whole host
    urls = [f"http://{hosts.get(name, 'bad.test')}/{name}" for name in OUTCOMES] + ["http://good.test/ok.png"]
    started = time.monotonic()
    found = dict(zip(urls, fetch(web, *urls, retries=0), strict=True))
    assert time.monotonic() - started < 3
    told = {url.rsplit("/")[-1]: (o.error, o.status) for url, o in found.items()}
    assert told == {**OUTCOMES, "ok.png": (None, 200)}
    assert all(o.detail for o in found.values() if o.error)


def test_the_first_byte_has_a_limit_of_its_own(web: Web) -> None:
    started = time.monotonic()
    (told,) = fetch(web, "http://bad.test/silent", total_seconds=20, stall_seconds=1, retries=0)
    assert told.error == "timeout_read"
    assert time.monotonic() - started < 2.8


def test_passing_causes_are_tried_again_and_final_ones_are_not(web: Web) -> None:
    names = ("flaky", "busy", "broken", "missing")
    found = fetch(web, *(f"http://again.test/{n}" for n in names), retries=2)
    assert [o.error for o in found] == [None, None, "http_500", "http_404"]
    assert [web.hits[f"again.test/{n}"] for n in names] == [2, 2, 3, 1]


def test_a_pause_that_a_server_asks_for_holds_for_all_of_its_host(web: Web) -> None:
    fetch(web, "http://tired.test/ok/before")
    started = time.monotonic()
    found = fetch(web, "http://tired.test/wait", *(f"http://tired.test/ok/{i}" for i in range(9)), per_host=1)
    assert [o.error for o in found] == [None] * 10
    assert time.monotonic() - started > 1
    asked = [at for host, at in web.times if host == "tired.test" and at > started]
    assert min(b - a for a, b in pairwise(sorted(asked)[:2])) > 0.9

    fetch(web, "http://weary.test/ok/before")
    (later, *others) = fetch(
        web, "http://weary.test/later", *(f"http://weary.test/ok/{i}" for i in range(3)), per_host=1
    )
    assert (later.error, later.status) == ("http_429", 429)
    assert [(o.error, o.status) for o in others] == [("http_429", 0)] * 3
    assert "weary.test asked for a pause; 3,600 s of it are left" in (others[0].detail or "")
    assert web.hits["weary.test/ok"] == 1
    (elsewhere,) = fetch(web, "http://fresh.test/ok")
    assert elsewhere.body


def test_where_robots_txt_cannot_be_had_its_images_end_by_the_same_cause_and_are_not_asked_for(web: Web) -> None:
    urls = [f"http://stuck.test/ok/{i}" for i in range(20)] + ["http://cut.test/ok", "http://stilled.test/ok"]
    started = time.monotonic()
    found = fetch(web, *urls, retries=0)
    assert time.monotonic() - started < 2
    assert [o.error for o in found] == ["timeout_read"] * 20 + ["reset", "http_429"]
    assert (found[0].detail or "").startswith("robots.txt cannot be had: Operation timed out")
    assert [web.hits[f"{h}.test/ok"] for h in ("stuck", "cut", "stilled")] == [0, 0, 0]
    (asked,) = fetch(web, "http://cut.test/ok", robots=False, tdm_file=False)
    assert asked.body


def test_a_byte_order_mark_does_not_hide_a_rule(web: Web) -> None:
    (told,) = fetch(web, "http://marked.test/ok")
    assert told.error == "robots"


def test_a_directive_for_another_agent_is_not_for_us(web: Web) -> None:
    theirs, ours = fetch(web, "http://a.test/othersnoai", "http://a.test/ournoai")
    assert (theirs.error, theirs.opt_out) == (None, None)
    assert (ours.error, ours.opt_out) == ("opted_out", "X-Robots-Tag: otherbot: noindex, tuwen: noai")


def test_a_connection_that_does_not_come_about_is_another_cause_than_an_answer_that_does_not(web: Web) -> None:
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        waiting = [socket.socket() for _ in range(3)]  # fills the queue of a server that never takes anybody
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(deaf.getsockname())
        at = f"127.0.0.1:{deaf.getsockname()[1]}"
        how = {"connect_to": (("deaf.nowhere", at),), "connect_seconds": 0.3, "retries": 0, "robots": False}
        (told,) = fetch(web, "http://deaf.nowhere/a.jpg", tdm_file=False, **how)
        for one in waiting:
            one.close()
    assert told.error == "timeout_connect"


def test_headers_without_end_are_given_up(web: Web) -> None:
    (told,) = fetch(web, "http://bad.test/flood", retries=0)
    assert told.error == "bad_response"


def test_robots_txt_is_asked_once_for_each_host_and_obeyed(web: Web) -> None:
    urls = ["http://deny.test/ok", "http://some.test/ok", "http://some.test/private/ok", "http://moved.test/ok"]
    urls += ["http://ill.test/ok", "http://free.test/ok/1", "http://free.test/ok/2"]
    for _ in range(2):
        found = fetch(web, *urls, retries=0)
        assert [o.error for o in found] == ["robots", None, "robots", "robots", "robots", None, None]
    assert found[0].detail == "robots.txt of deny.test forbids it"
    assert "answered 503" in (found[4].detail or "")
    assert [web.hits[f"{h}.test/robots.txt"] for h in ("some", "free", "ill")] == [1, 1, 1]
    assert web.hits["deny.test/ok"] == web.hits["ill.test/ok"] == 0
    (asked,) = fetch(web, "http://deny.test/ok", robots=False)
    assert asked.error is None


def test_what_tdmrep_json_reserves_is_left_alone_unless_the_response_says_otherwise(web: Web) -> None:
    paths = ("reserved.test/ok/kept/a.png", "reserved.test/ok/other", "reserved.test/free.png", "soft.test/ok/kept")
    urls = [f"http://{path}" for path in paths] + ["http://closed.test/ok/kept"]
    for _ in range(2):
        found = fetch(web, *urls)
        assert [o.error for o in found] == ["opted_out", None, None, None, None]
    assert found[0].opt_out == "tdmrep.json: /ok/kept is reserved, policy https://reserved.test/policy"
    assert (found[0].body, found[0].status, found[2].opt_out) == (None, 200, None)
    assert [web.hits[f"{h}.test/.well-known"] for h in ("reserved", "soft", "closed")] == [1, 1, 0]
    (kept,) = fetch(web, urls[0], honour_opt_out=False)
    assert kept.body and kept.opt_out == found[0].opt_out
    (unread,) = fetch(web, urls[0], tdm_file=False)
    assert unread.body and unread.opt_out is None


def test_redirects_reach_other_hosts_by_the_same_rules(web: Web) -> None:
    moved, elsewhere = fetch(web, "http://a.test/moved", "http://a.test/elsewhere")
    assert moved.body == PNG + b"/ok.png?moved"
    assert elsewhere.body == PNG + b"/ok.png"
    (too_far,) = fetch(web, "http://a.test/moved", max_redirects=0)
    assert too_far.error == "redirect_loop"


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "2130706433", "0177.0.0.1", "0x7f.1", "[::1]", "[::ffff:127.0.0.1]", "localhost", "169.254.169.254"],
)
def test_private_addresses_are_refused_however_they_are_spelt(web: Web, host: str) -> None:
    port = web.at.split(":")[1]
    before = sum(web.hits.values())
    (told,) = fetch(web, f"http://{host}:{port}/ok.png", connect_to=())
    assert told.error == "blocked_address"
    assert told.detail
    assert sum(web.hits.values()) == before


def test_an_allowed_host_is_allowed_and_what_it_redirects_to_is_not(web: Web) -> None:
    port = web.at.split(":")[1]
    free = {"connect_to": (), "allow_hosts": frozenset({"localhost"})}
    ok, inwards = fetch(web, f"http://localhost:{port}/ok.png", f"http://localhost:{port}/inwards", **free)
    assert ok.body == PNG + b"/ok.png"
    assert inwards.error == "blocked_address"
    (allowed,) = fetch(web, f"http://{web.at}/ok.png", connect_to=(), allow_private=True)
    assert allowed.body == PNG + b"/ok.png"


def test_a_name_that_resolves_to_a_private_address_is_refused(web: Web) -> None:
    try:
        private = socket.gethostbyname(socket.gethostname())
    except OSError:
        pytest.skip("this machine's name does not resolve")
    if not private.startswith(("127.", "10.", "172.", "192.168.")):
        pytest.skip("this machine's name resolves to a public address")
    (told,) = fetch(web, f"http://{socket.gethostname()}/ok.png", connect_to=())
    assert told.error == "blocked_address"


def test_the_address_that_is_connected_to_is_checked_each_time_whatever_the_name_said_before() -> None:
    def opened(address: str) -> object:
        transfer = Transfer("http://rebound.example/a.jpg", Limits())
        told = SimpleNamespace(addr=(address, 80), family=socket.AF_INET, socktype=socket.SOCK_STREAM, protocol=0)
        got = transfer._on_socket(0, told)
        if isinstance(got, socket.socket):
            got.close()
        assert (transfer.end(pycurl.E_COULDNT_CONNECT, "").error == "blocked_address") is (got == pycurl.SOCKET_BAD)
        return got

    assert isinstance(opened("93.184.215.14"), socket.socket)
    assert opened("10.0.0.7") == pycurl.SOCKET_BAD


def test_unreachable_and_malformed_addresses_have_their_classes(web: Web) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        dead = f"127.0.0.1:{unused.getsockname()[1]}"
        refused, dns, tls, *bad = fetch(
            web,
            "http://dead.nowhere/a.jpg",
            "http://no-such-host.invalid/a.jpg",
            "https://plain.test/ok.png",
            "http:///a.jpg",
            "ftp://a.test/a.jpg",
            "file:///etc/passwd",
            "http://[::1/a.jpg",
            "http://a.test:99999/a.jpg",
            retries=0,
            connect_to=(("*.test", web.at), ("dead.nowhere", dead)),
        )
    assert (refused.error, dns.error, tls.error) == ("refused", "dns", "tls")
    assert [o.error for o in bad] == ["bad_url"] * 5


def test_chinese_hosts_and_paths_are_encoded(web: Web) -> None:
    (told,) = fetch(web, "http://图片.test/ok/红色 的车.png", connect_to=(("xn--*.test", web.at),))
    assert told.body == PNG + b"/ok/%E7%BA%A2%E8%89%B2%20%E7%9A%84%E8%BD%A6.png"


def test_one_host_never_sees_more_connections_than_allowed(web: Web) -> None:
    urls = [f"http://busy.test/slow/{i}" for i in range(9)]
    web.most_at_once = 0
    # The last turn comes after 0.45 s: waiting for one's turn is not connecting, so 0.4 s to connect suffice.
    found = fetch(web, *urls, per_host=3, connect_seconds=0.4, retries=0)
    assert [o.error for o in found] == [None] * 9
    assert web.most_at_once == 3


def batch(*rows: tuple[str | None, bytes | None]) -> pl.DataFrame:
    return pl.DataFrame(
        {"key": [str(i) for i in range(len(rows))], "image_url": [r[0] for r in rows], "image": [r[1] for r in rows]},
        schema={"key": pl.String, "image_url": pl.String, "image": pl.Binary},
    )


def test_the_stage_fills_images_in_order_and_fetches_each_address_once(web: Web) -> None:
    stage = Fetch(connect_to={"*.test": web.at}, retries=0, user_agent="tests (+mailto:a@b.test)")
    rows = batch(
        ("http://once.test/ok", None),
        ("http://once.test/missing", None),
        ("http://once.test/ok", None),
        ("http://once.test/noai", None),
        ("http://once.test/ok", b"came with the input"),
        (None, b"local"),
    )
    tally = Tally()
    out = apply_stage(stage, rows, tally)
    assert out["image"].to_list() == [PNG + b"/ok", None, PNG + b"/ok", None, b"came with the input", b"local"]
    assert out["status"].to_list() == [None, "failed", None, "failed", None, None]
    assert out["reason"].to_list() == [None, "fetch_http_404", None, "fetch_opted_out", None, None]
    assert out["http_status"].to_list() == [200, 404, 200, 200, None, None]
    assert out["opt_out"].to_list()[3] == "X-Robots-Tag: noarchive, noimageai"
    assert web.hits["once.test/ok"] == 1
    assert "tests (+mailto:a@b.test)" in web.agents
    assert (tally["kept"], tally["failed"]) == (4, 2)


def test_a_reserved_image_may_be_kept_with_the_evidence(web: Web) -> None:
    stage = Fetch(connect_to={"*.test": web.at}, honour_opt_out=False)
    out = apply_stage(stage, batch(("http://a.test/noai", None)), Tally())
    assert out["status"].to_list() == [None]
    assert out["opt_out"].to_list() == ["X-Robots-Tag: noarchive, noimageai"]


def test_a_forked_worker_opens_its_own_connections(web: Web) -> None:
    assert fetch(web, "http://fork.test/ok")[0].body == PNG + b"/ok"
    child = os.fork()
    if not child:
        try:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(10)
            os._exit(0 if fetch(web, "http://fork.test/ok")[0].body == PNG + b"/ok" else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert fetch(web, "http://fork.test/ok")[0].body == PNG + b"/ok"


def test_retry_after_is_a_number_or_a_date() -> None:
    assert seconds_asked("120") == 120
    soon = seconds_asked(format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True))
    assert soon is not None and 55 < soon <= 60
    assert seconds_asked("soon") is None
    assert seconds_asked(None) is None


def test_what_a_host_said_may_grow_old_while_its_images_wait(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tuwen.filters.robots.UNKNOWN_SECONDS", 0.3)
    monkeypatch.setattr("tuwen.filters.fetch_queue.UNKNOWN_SECONDS", 0.3)
    urls = [f"http://forgetful.test/slow/{i}" for i in range(6)]
    found = fetch(web, *urls, per_host=1, retries=0)
    assert [o.error for o in found] == [None] * 6
    assert web.hits["forgetful.test/.well-known"] > 1
