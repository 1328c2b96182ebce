from __future__ import annotations

import json

import pytest

from tuwen.filters.tdmrep import Reservations, Rule, parse


@pytest.mark.parametrize(
    ("location", "path", "matches"),
    [
        ("/", "/a/b.jpg", True),
        ("/img", "/images/a.jpg", False),
        ("/img", "/img-2/a.jpg", True),
        ("/img/*.jpg", "/img/x/a.jpg?w=2", True),
        ("/img/*.jpg$", "/img/x/a.jpg?w=2", False),
        ("/img/*.jpg$", "/img/x/a.jpg", True),
        ("/%E5%9B%BE/", "/图/a.jpg", True),
        ("/a.b", "/axb", False),
        ("*.jpg", "/a.jpg", True),
        ("/*a*a$", "/xa", False),
        ("/*a*a$", "/xaya", True),
        ("/a*$", "/ab", True),
        ("/ab$", "/ab", True),
        ("/ab$", "/abc", False),
        ("/ab*b$", "/ab", False),
    ],
)
def test_patterns_are_those_of_robots_txt(location: str, path: str, matches: bool) -> None:
    assert Rule(location, True).matches(path) is matches


def test_a_pattern_that_was_made_to_be_slow_is_not() -> None:
    assert not Rule("/" + "*a" * 60 + "b", True).matches("/" + "a" * 400)


def test_a_work_is_reserved_where_the_first_or_the_longest_rule_says_so() -> None:
    rules = (Rule("/", True), Rule("/open/", False), Rule("/open/not/", True))
    for order in (rules, rules[::-1]):
        told = Reservations(order)
        assert told.reserves("https://a.cn/x.jpg")
        assert told.reserves("https://a.cn/open/not/x.jpg")
    assert Reservations(rules).reserves("https://a.cn/open/x.jpg")
    assert Reservations(rules[1:]).reserves("https://a.cn/open/x.jpg") is None
    assert Reservations(rules[1:]).reserves("https://a.cn/x.jpg") is None


def test_a_query_and_escapes_belong_to_the_path() -> None:
    told = parse(json.dumps([{"location": "/get?id=*", "tdm-reservation": 1}]).encode())
    assert told.reserves("https://a.cn/get?id=7")
    assert told.reserves("https://a.cn/get") is None
    assert parse(b'[{"location": "/\xe5\x9b\xbe", "tdm-reservation": 1}]').reserves("https://a.cn/%E5%9B%BE/1")


@pytest.mark.parametrize(
    "body",
    [
        None,
        b"",
        b"<!DOCTYPE html>",
        b"\xff\xfe",
        b"[" * 100_000,
        b"7",
        b'[{"tdm-reservation": 1}]',
        b'[{"location": "/"}]',
    ],
)
def test_what_is_no_rule_reserves_nothing(body: bytes | None) -> None:
    assert parse(body) == Reservations()


def test_one_rule_without_its_array_a_text_for_the_number_and_a_path_without_slash_are_understood() -> None:
    told = parse(b'{"location": "img", "tdm-reservation": "1", "tdm-policy": "https://a.cn/p.json"}')
    assert told == Reservations((Rule("/img", True, "https://a.cn/p.json"),))
