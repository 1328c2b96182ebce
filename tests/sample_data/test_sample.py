from __future__ import annotations

import json
import urllib.request
from pathlib import Path

import cv2
import numpy as np
import pytest
from warcio.archiveiterator import ArchiveIterator

from tuwen.pipeline.sources import open_input, read_unit
from tuwen.sample_data.draw import render
from tuwen.sample_data.faults import plant
from tuwen.sample_data.generate import write_sample
from tuwen.sample_data.serve import serve
from tuwen.sample_data.world import COLOURS, KINDS, Scene, Thing, caption, caption_en, random_scene


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sample")
    write_sample(folder, seed=11)
    return folder


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_the_same_seed_gives_the_same_bytes_and_another_gives_others(sample: Path, tmp_path: Path) -> None:
    write_sample(tmp_path / "again", seed=11)
    assert tree(tmp_path / "again") == tree(sample)
    write_sample(tmp_path / "other", seed=12)
    assert tree(tmp_path / "other")["labels.jsonl"] != tree(sample)["labels.jsonl"]
    assert sum(map(len, tree(sample).values())) < 15e6


def test_every_pair_of_the_pages_is_labelled_and_every_label_found(sample: Path) -> None:
    labels = [json.loads(line) for line in (sample / "labels.jsonl").read_text().splitlines()]
    rows = [
        r for u in open_input(str(sample / "sample.warc.gz")) for b in read_unit(u) for r in b.iter_rows(named=True)
    ]
    assert sorted((r["image_url"], r["caption_raw"]) for r in rows) == sorted(
        (x["image_url"], x["caption_raw"]) for x in labels
    )
    assert {r["status"] for r in rows} == {None}
    assert len({x["fault"] for x in labels}) >= 20


def test_the_warc_opens_with_warcio_and_pages_use_chinese_charsets(sample: Path) -> None:
    with (sample / "sample.warc.gz").open("rb") as handle:
        bodies = [r.content_stream().read() for r in ArchiveIterator(handle)]
    assert len(bodies) == json.loads((sample / "sample.json").read_text())["pages"]
    declared = {c for c in (b"utf-8", b"gb2312", b"gbk") if any(b'charset="' + c in body for body in bodies)}
    assert declared == {b"utf-8", b"gb2312", b"gbk"}


def test_the_server_answers_as_planted(sample: Path) -> None:
    told = json.loads((sample / "behaviours.json").read_text())
    dead = next(name for name, b in told.items() if b.get("status") == 404)
    labels = [json.loads(line) for line in (sample / "labels.jsonl").read_text().splitlines()]
    clean = next(x["image_url"] for x in labels if x["fault"] == "clean")
    with serve(sample) as port:

        def ask(name: str) -> tuple[int, bytes]:
            host, _, path = name.partition("/")
            request = urllib.request.Request(f"http://127.0.0.1:{port}/{path}", headers={"Host": host})
            try:
                with urllib.request.urlopen(request, timeout=10) as answer:
                    return answer.status, answer.read()
            except urllib.error.HTTPError as error:
                return error.code, b""

        assert ask(dead)[0] == 404
        status, body = ask(clean.removeprefix("http://"))
        assert status == 200
        assert body[:2] == b"\xff\xd8"
        assert ask("img.sample.invalid/../../../etc/passwd")[0] == 404
        assert ask("img.sample.invalid/%2e%2e/%2e%2e/sample.json")[0] == 404


def test_pictures_follow_from_their_scene_alone() -> None:
    scene = random_scene(np.random.default_rng(4))
    assert np.array_equal(render(scene, 96), render(scene, 96))
    assert render(scene, 96).shape == (96, 96, 3)


@pytest.mark.parametrize("kind", list(KINDS))
def test_every_kind_shows_its_colour(kind: str) -> None:
    for colour, rgb in COLOURS.items():
        pixels = render(Scene((Thing(kind, colour, size="大"),), "房间", "", 7), 128).astype(int)
        near = np.abs(pixels - np.array(rgb)).sum(axis=2) < 110
        assert near.mean() > 0.003, (kind, colour)


def test_captions_tell_the_truth() -> None:
    rng = np.random.default_rng(2)
    for _ in range(300):
        scene = random_scene(rng)
        text = caption(scene, rng)
        for thing in scene.things:
            assert any(name in text for name in KINDS[thing.kind].names)
            assert thing.colour[0] in text
            assert ("零一两三四"[thing.count] + KINDS[thing.kind].measure) in text
            assert KINDS[thing.kind].english in caption_en(scene, rng)


def test_faults_are_what_they_claim() -> None:
    pairs = plant(np.random.default_rng(1))
    by = {p.fault: p for p in pairs}
    assert by["bomb"].image is not None
    assert len(by["bomb"].image) < 1000
    assert int.from_bytes(by["bomb"].image[16:20], "big") >= 30000
    assert by["personal_metadata"].image is not None
    assert b"Sample Camera" in by["personal_metadata"].image
    small = by["too_small"].image
    assert small is not None
    decoded = cv2.imdecode(np.frombuffer(small, np.uint8), 1)
    assert decoded is not None
    assert min(decoded.shape[:2]) < 100
