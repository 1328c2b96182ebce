"""The documentation's links lead somewhere, its commands are run, its stage works."""

from __future__ import annotations

import io
import re
import shlex
import sys
import tarfile
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import polars as pl
import pytest

from tests.conftest import Finished, here
from tuwen.pipeline.sources import open_input, read_unit

ROOT = Path(__file__).parents[1]
DOCS = sorted((ROOT / "docs").glob("*.md"))
PAGES = [*DOCS, ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]
_FENCE = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.S | re.M)


def blocks(page: Path, info: str) -> Iterator[str]:
    """The fenced blocks of a page that are marked ``info``."""
    return (code for kind, code in _FENCE.findall(page.read_text()) if kind == info)


def anchors(page: Path) -> set[str]:
    """What headings of a page are called in a link, as forges do it."""
    heads = re.findall(r"^#+ (.*)$", _FENCE.sub("", page.read_text()), re.M)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in heads}


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"`[^`\n]*`", "", _FENCE.sub("", page.read_text()))
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"https?://|mailto:", target):
            continue
        name, _, anchor = target.partition("#")
        to = (page.parent / name).resolve() if name else page
        assert to.is_relative_to(ROOT), target
        assert to.exists(), f"{page.name}: {target}"
        assert not anchor or anchor in anchors(to), f"{page.name}: {target}"


def test_every_page_is_in_the_index() -> None:
    index = (ROOT / "docs" / "README.md").read_text()
    assert [p.name for p in DOCS if p.name != "README.md" and f"({p.name})" not in index] == []


@pytest.mark.parametrize("page", DOCS, ids=lambda p: p.name)
def test_commands_are_run_or_marked(page: Path) -> None:
    for kind, code in _FENCE.findall(page.read_text()):
        if re.search(r"^\$? ?(PYTHONPATH=\S+ )?(curate|python|scripts/|pip) ", code, re.M):
            assert kind in ("console", "bash plan", "bash notrun"), f"{page.name}: {code[:80]}"


@pytest.fixture(scope="module")
def folder(finished: Finished, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The reader's folder: photos with sidecars, and every other kind of input that the pages name."""
    root = tmp_path_factory.mktemp("reader")
    for name in ("photos", "pages", "shards"):
        (root / name).mkdir()
    shard = sorted((finished.run / "shards").glob("train-*.tar"))[0]
    (root / "shards" / "train-000000.tar").write_bytes(shard.read_bytes())
    with tarfile.open(shard) as tar:
        members = [m for m in tar if m.name.endswith((".jpg", ".txt"))][:40]
        for member in members:
            content = tar.extractfile(member)
            assert content
            (root / "photos" / member.name).write_bytes(content.read())
    images = sorted((root / "photos").glob("*.jpg"))
    captions = [p.with_suffix(".txt").read_text() for p in images]
    for path, caption in zip(images, captions, strict=True):
        path.with_suffix(".json").write_text(f'{{"title": "{caption}"}}')
    table = pl.DataFrame({"photo": [f"photos/{p.name}" for p in images], "title": captions})
    table.write_csv(root / "pairs.csv")
    table.rename({"photo": "image", "title": "caption"}).write_ndjson(root / "pairs.jsonl")
    table.rename({"photo": "image", "title": "caption"}).write_parquet(root / "pairs.parquet")
    addresses = [f"https://example.org/{p.name}" for p in images]
    (root / "urls.tsv").write_text("".join(f"{a}\t{c}\n" for a, c in zip(addresses, captions, strict=True)))
    tags = "".join(f'<img src="{p.name}" alt="{c}">' for p, c in zip(images, captions, strict=True))
    (root / "pages" / "a.html").write_text(f"<!DOCTYPE html><meta charset=utf-8><title>照片</title>{tags}")
    (root / "crawl.warc.gz").write_bytes((finished.sample / "sample.warc.gz").read_bytes())
    return root


def test_every_input_of_the_page_is_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    seen = 0
    for code in blocks(ROOT / "docs" / "inputs.md", "bash plan"):
        for line in code.splitlines():
            words = shlex.split(line, comments=True)
            assert words[:2] == ["curate", "run"], line
            given = dict(w.split("=", 1) for k, w in pairwise(words) if k == "--input")
            rows = [b for unit in open_input(words[2], options=given) for b in read_unit(unit)]
            pairs = pl.concat(rows)
            assert pairs.filter(pl.col("status").is_null()).height >= 20, line
            seen += 1
    assert seen >= 10


@pytest.mark.parametrize("name", ["tutorial.md", "recipes.md"])
def test_the_commands_of_a_page(name: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "photos").mkdir()
    for path in (folder / "photos").glob("*.[jt][px][gt]"):
        (tmp_path / "photos" / path.name).write_bytes(path.read_bytes())
    monkeypatch.chdir(tmp_path)
    ran = 0
    for code in blocks(ROOT / "docs" / name, "console"):
        for line in re.findall(r"^\$ curate (.*)$", code, re.M):
            key = ""
            if (tmp_path / "out" / "ledger").exists():
                key = pl.read_parquet(tmp_path / "out" / "ledger" / "*.parquet")["key"].sort()[0]
                (tmp_path / "keys.txt").write_text(key + "\n")
            words = [key[:12] if w == "KEY" else w for w in shlex.split(line)]
            if words[0] == "run":
                words += ["-j", "1"]
            assert here(*words).stdout
            ran += 1
    assert ran >= 3
    if name == "tutorial.md":
        told = "20 pairs = 20 kept + 0 dropped + 0 failed"
        assert told in (ROOT / "docs" / name).read_text()
        removed = pl.read_parquet(tmp_path / "out" / "ledger" / "*.parquet")
        assert removed.height == 20
        assert removed.filter(pl.col("reason") == "removed").height == 1


def test_the_recipes_of_the_pages_hold() -> None:
    from tuwen.pipeline.recipe import parse

    for code in blocks(ROOT / "docs" / "tutorial.md", "yaml"):
        assert parse(code, "tutorial.md").name == "mine"


def test_the_stage_of_the_page(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = ROOT / "docs" / "stage.md"
    (code,), (recipe,) = blocks(page, "python stage"), blocks(page, "yaml digits")
    assert len(code.splitlines()) <= 30
    (tmp_path / "digits.py").write_text(code)
    (tmp_path / "mine.yaml").write_text(recipe)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").mkdir()
    image = next((folder / "photos").glob("*.jpg")).read_bytes()
    for i, caption in enumerate(("海边的一只狗", "型号 8642-1357", "三十号 2024年5月的照片")):
        (tmp_path / "in" / f"{i}.jpg").write_bytes(image + bytes(i))
        (tmp_path / "in" / f"{i}.txt").write_text(caption)
    try:
        here("run", "in", "-o", "out", "-r", "mine.yaml", "-j", "1")
        ledger = pl.read_parquet(tmp_path / "out" / "ledger" / "*.parquet").sort("origin")
        assert ledger["reason"].to_list() == [None, "caption_of_digits", None]
        assert "chars 0.8 > 0.4 (digits.most)" in here("why", "out", ledger["key"][1]).stdout
        here("replay", "out", "-o", "stricter", "--set", "digits.most=0.1")
        again = pl.read_parquet(tmp_path / "stricter" / "ledger" / "*.parquet").sort("origin")
        assert again["reason"].to_list() == [None, "caption_of_digits", "caption_of_digits"]
        assert "digits:Digits" in (tmp_path / "out" / "README.md").read_text()
    finally:
        sys.modules.pop("digits", None)


def test_a_stage_that_cannot_be_had_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    stage = "from tuwen.pipeline.stage import StageModel\nclass A(StageModel):\n    name = 'length'\n"
    (tmp_path / "odd_stages.py").write_text(stage + "class B(A):\n    name = 'b'\n    adds = ('brightness',)\n")
    try:
        for given, told in (
            ("nosuchmodule:X", "is the module's folder on PYTHONPATH"),
            ("odd_stages:C", "cannot be imported"),
            ("odd_stages:StageModel", "expected a subclass"),
            ("odd_stages:A", "as one that ships"),
            ("odd_stages:B", "adds brightness, which the ledger does not know"),
        ):
            (tmp_path / "r.yaml").write_text(f"name: x\nstages:\n  - {given}\n")
            done = here("run", tmp_path, "-o", tmp_path / "out", "-r", tmp_path / "r.yaml", check=False)
            assert done.returncode == 2, done.stderr
            assert told in done.stderr
    finally:
        sys.modules.pop("odd_stages", None)


def test_nothing_in_the_pages_is_wider_than_a_screen() -> None:
    long = [(p.name, len(t)) for p in DOCS for t in io.StringIO(p.read_text()) if len(t) > 160 and "|" not in t]
    assert [x for x in long if x[0] not in ("ledger.md", "runners.md")] == []
