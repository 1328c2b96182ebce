from __future__ import annotations

import io
import itertools
import json
import tarfile
from collections import Counter
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from tuwen.pipeline.errors import InputError, UsageError
from tuwen.trainers.order import Order, entries
from tuwen.trainers.shards import Shards, every, find
from tuwen.trainers.stream import DataConfig, Pairs, PairStream, Reader, crop, loader

SIZES = (3, 11, 6)


def picture(shade: int, kind: str = "jpg", side: int = 20) -> bytes:
    return bytes(cv2.imencode(f".{kind}", np.full((side, side, 3), shade, np.uint8))[1].tobytes())


def write(path: Path, members: list[tuple[str, bytes]]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def sample(key: str, caption: str, **told: Any) -> list[tuple[str, bytes]]:
    return [
        (f"{key}.jpg", picture(128)),
        (f"{key}.json", json.dumps(told).encode()),
        (f"{key}.txt", caption.encode()),
    ]


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Shards:
    """Three shards of different sizes; each sample's caption is its key."""
    folder = tmp_path_factory.mktemp("shards")
    for i, size in enumerate(SIZES):
        members = [m for n in range(size) for m in sample(f"{i}-{n:02d}", f"{i}-{n:02d}")]
        write(folder / f"train-{i:06d}.tar", members)
    return find([str(folder)])


def test_each_pass_deals_every_shard_once_over_all_readers() -> None:
    dealt = [itertools.islice(entries(SIZES, 0, r, 2), 60) for r in (0, 1)]
    turns = {slot.turn: slot.shard for slot in itertools.chain(*dealt)}
    for pass_ in range(2):
        assert sorted(turns[3 * pass_ + i] for i in range(3)) == [0, 1, 2]


def test_the_buffer_loses_nothing_and_mixes() -> None:
    order = Order(SIZES, 0, 0, 1, size=5)
    out = [next(order) for _ in range(200)]
    entered = list(itertools.islice(entries(SIZES, 0, 0, 1), 200 + len(order.waiting)))
    assert Counter(out) + Counter(order.waiting) == Counter(entered)
    assert out != entered[:200]


@pytest.mark.parametrize("position", [1, 7, 33, 95])
def test_a_reader_goes_on_where_it_left_off(shards: Shards, position: int) -> None:
    whole = [s.key for s in itertools.islice(Reader(shards, 1, 6, 1, 2), position + 30)]
    again = [s.key for s in itertools.islice(Reader(shards, 1, 6, 1, 2, position), 30)]
    assert again == whole[position:]


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_go_on_where_a_checkpoint_left_off(shards: Shards, workers: int) -> None:
    config = DataConfig(batch=8, workers=workers, shuffle=4)

    def batches(start: int, n: int, positions: list[int]) -> list[Pairs]:
        stream = PairStream(shards, config, 16, rank=1, ranks=2, positions=positions, start=start)
        return list(itertools.islice(loader(stream), n))

    whole = batches(0, 8, [])
    at: dict[int, int] = {}
    for batch in whole[:5]:
        at[batch.position[0]] = batch.position[1]
    rest = batches(5, 3, [at[i] for i in sorted(at)])
    assert [b.keys for b in rest] == [b.keys for b in whole[5:]]
    assert all(np.array_equal(a.images, b.images) for a, b in zip(rest, whole[5:], strict=True))
    assert whole[0].images.shape == (4, 3, 16, 16)


def test_ranks_read_different_samples_and_evaluation_reads_each_once(shards: Shards) -> None:
    config = DataConfig(batch=8, shuffle=4)
    first = [next(iter(PairStream(shards, config, 16, r, 2))).keys for r in (0, 1)]
    assert first[0] != first[1]
    keys = [s.key for rank in (0, 1) for s in every(shards, rank, 2)]
    assert sorted(keys) == [f"{i}-{n:02d}" for i, size in enumerate(SIZES) for n in range(size)]


def test_kinds_of_input(tmp_path: Path) -> None:
    members = [("a.png", picture(9, "png")), ("a.json", json.dumps({"caption": "猫"}).encode())]
    members += [("b.webp", picture(9, "webp")), ("b.txt", "狗".encode())]
    members += [("x/c.jpeg", picture(9)), ("x/c.txt", "鸟".encode()), ("x/c.json", b"{broken")]
    members += [("d.jpg", picture(9)), ("e.txt", "无图".encode())]
    path = write(tmp_path / "some.tar", members)
    found = find([str(path)])
    assert found.counts == (5,)
    assert [(s.key, s.caption) for s in every(found)] == [("a", "猫"), ("b", "狗"), ("x/c", "鸟")]
    batch = next(iter(PairStream(found, DataConfig(batch=9, shuffle=1), 16)))
    assert Counter(batch.captions) == {"猫": 3, "狗": 3, "鸟": 3}
    assert batch.unusable == 4


def test_synthetic_captions_and_hard_negatives(tmp_path: Path) -> None:
    made = [{"kind": "colour", "caption": "蓝猫"}, {"kind": "count", "caption": "两只红猫"}]
    told = {"caption_synthetic": "一只红色的猫", "negatives": made}
    found = find([str(write(tmp_path / "a.tar", sample("a", "红猫", **told) + sample("b", "狗")))])
    batch = next(iter(PairStream(found, DataConfig(batch=400, shuffle=1, synthetic=0.5, negatives=1), 16)))
    counted = Counter(batch.captions)
    assert counted["狗"] == 200
    assert 60 < counted["一只红色的猫"] < 140
    assert batch.negatives is not None
    given = Counter(n for some in batch.negatives for n in some)
    assert set(given) == {"蓝猫", "两只红猫"} and sum(given.values()) == 200
    plain = next(iter(PairStream(found, DataConfig(batch=40, shuffle=1), 16)))
    assert set(plain.captions) == {"红猫", "狗"} and plain.negatives is None


def test_what_cannot_be_read_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no shards there"):
        find([str(tmp_path)])
    with pytest.raises(InputError, match="does not exist"):
        find([str(tmp_path / "gone-{0..1}.tar")])
    with pytest.raises(InputError, match="hold no samples"):
        find([str(write(tmp_path / "empty.tar", []))])
    with pytest.raises(InputError, match=r"no train-\*.tar; it holds test"):
        (tmp_path / "run").mkdir()
        write(tmp_path / "run" / "test-000000.tar", sample("a", "猫"))
        find([str(tmp_path / "run")])
    cut = tmp_path / "cut.tar"
    cut.write_bytes(write(tmp_path / "whole.tar", sample("a", "猫") + sample("b", "狗")).read_bytes()[:2500])
    with pytest.raises(InputError, match="cannot be read to its end"):
        find([str(cut)])
    with pytest.raises(InputError, match="on end have no caption"):
        next(
            iter(PairStream(find([str(write(tmp_path / "no.tar", [("a.jpg", picture(1))]))]), DataConfig(batch=1), 16))
        )
    with pytest.raises(UsageError, match="multiple of 2"):
        PairStream(Shards(("a",), (1,)), DataConfig(batch=3), 16, 0, 2)


def test_crops_keep_what_they_must_and_are_not_mirrored() -> None:
    halves = np.zeros((64, 96, 3), np.uint8)
    halves[:, 48:] = 255
    data = bytes(cv2.imencode(".png", halves)[1].tobytes())
    rng = np.random.default_rng(0)
    for _ in range(20):
        made = crop(data, 32, 0.9, rng)
        assert made is not None and made.shape == (32, 32, 3)
        assert made[:, 0].max() < 60 and made[:, -1].min() > 190
    assert crop(b"no image", 32, 0.9, rng) is None
    red = bytes(cv2.imencode(".png", np.full((300, 300, 3), (0, 0, 250), np.uint8))[1].tobytes())
    made = crop(red, 32, 1, rng)
    assert made is not None and made[0, 0].tolist() == [250, 0, 0]
