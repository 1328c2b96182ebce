"""Each finding of the lint on a lexicon that earns it, and none on one that does not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.conftest import here
from tuwen.filters.common_words import common_words, commonest
from tuwen.filters.lexicon import load, read
from tuwen.filters.lexicon_check import Finding, check, frequent, rates


def findings(tmp_path: Path, text: str, name: str = "own.txt") -> list[Finding]:
    (tmp_path / name).write_text(text, "utf-8")
    problems: list[str] = []
    lexicon = read((str(tmp_path / name),), problems)
    return check(lexicon, problems)


@pytest.mark.parametrize(
    ("text", "level", "kind", "line", "message"),
    [
        ("赌博\n赌博\n", "warning", "duplicate", 2, "again: .*:1"),
        ("赌博\n賭 博\n", "warning", "duplicate", 2, "same as 赌博 after folding"),
        ("赌博\n賭博,other\n", "error", "conflicting_category", 2, "category own, here it is other"),
        ("赌博\n赌博,,drop\n", "error", "conflicting_action", 2, "action mask, here it is drop"),
        ("赌\n", "error", "one_character", 1, "one character"),
        ("赌*\n", "error", "one_character", 1, "one character"),
        ("***\n", "error", "nothing_left", 1, "never hit"),
        ("ab\n", "warning", "short_latin", 1, "two Latin"),
        ("赌博,,,博物馆\n", "error", "idle_exception", 1, "博物馆 does not contain"),
        ("赌博,,,賭博\n", "error", "idle_entry", 1, "the entry itself"),
        ("赌博\n赌博机器\n", "note", "inside_another", 2, "holds 赌博"),
        ("赌博\n赌博展览,,flag\n", "warning", "inside_another", 2, "mask wins.*exception"),
        ("我们\n", "warning", "common_word", 1, "3. commonest"),
        ("国家\n", "warning", "hits_common_words", 1, "exceptions keep"),
        ("赌博,,burn\n", "error", "does_not_parse", 1, "action 'burn'"),
        ("#: category=empty\n", "note", "empty_category", 0, "no entry"),
    ],
)
def test_each_finding(tmp_path: Path, text: str, level: str, kind: str, line: int, message: str) -> None:
    import re

    found = [f for f in findings(tmp_path, text) if f.kind == kind]
    assert [f.level for f in found] == [level]
    assert re.search(message, found[0].message)
    assert not line or found[0].source == f"{tmp_path / 'own.txt'}:{line}"


def test_all_lines_that_do_not_hold_are_told_at_once(tmp_path: Path) -> None:
    found = findings(tmp_path, "a: {action: burn, words: [白菜]}\nb: {boundary: never, words: [萝卜]}\n", "own.yaml")
    assert [(f.kind, f.source.rsplit(":", 1)[1]) for f in found if f.level == "error"] == [
        ("does_not_parse", "1"),
        ("does_not_parse", "2"),
    ]


def test_the_default_lexicon_has_no_error_and_no_warning() -> None:
    found = check(load(("default",)))
    assert {f.level for f in found} == {"note"}
    assert [f.word for f in found if f.kind == "empty_category"] == ["political"]


def test_rates_on_a_sample(tmp_path: Path) -> None:
    (tmp_path / "own.txt").write_text("赌博\n草地,,,草地莓\n", "utf-8")
    captions = ["草地上的狗", "草地和草地", "贝者博网站", "雪山", "草地莓"]
    read_, hit, told = rates(load((str(tmp_path / "own.txt"),)), captions)
    assert (read_, hit) == (5, 3)
    assert [(r.word, r.hits, r.rate, r.disguised, r.example) for r in told] == [
        ("草地", 2, 0.4, 0, "草地上的狗"),
        ("赌博", 1, 0.2, 1, "贝者博网站"),
    ]
    assert [f.word for f in frequent(told)] == ["草地", "赌博"]


def test_common_words_are_in_order_of_their_counts() -> None:
    assert commonest("好 9 a\n少见 1 v\n常见 5 v\nK粉 7 n\n") == ["常见", "少见"]
    assert common_words()["一个"] == 0
    assert len(common_words()) == 15_000


def test_the_command(tmp_path: Path) -> None:
    path, sample = tmp_path / "own.csv", tmp_path / "captions.csv"
    path.write_text("word,action\n赌博,mask\n赌,drop\n", "utf-8")
    sample.write_text("id,说明文\n1,有人赌博\n2,雪山[大]\n", "utf-8")
    done = here("lexicon", "check", path, "--sample", sample, "--input", "caption=说明文", check=False)
    assert done.returncode == 1
    assert "one_character" in done.stdout
    assert "2 captions, 1 with a hit (50.000%)" in done.stdout
    told = json.loads(here("lexicon", "check", "default", "--json").stdout)
    assert told["levels"] == {"note": len(told["findings"])}
    missing = here("lexicon", "check", tmp_path / "nowhere.txt", check=False)
    assert (missing.returncode, "no file" in missing.stderr) == (3, True)
    (tmp_path / "gbk.txt").write_bytes("赌博".encode("gbk"))
    assert here("lexicon", "check", tmp_path / "gbk.txt", check=False).returncode == 3
    assert here("lexicon", "check", check=False).returncode == 2
    assert here("lexicon", "check", path, "--input", "caption=x", check=False).returncode == 2
