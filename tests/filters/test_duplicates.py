from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import polars as pl
import pytest

from tuwen.filters.decode import Decode
from tuwen.filters.duplicates import PairDuplicates
from tuwen.filters.image_grid import BYTES, image_grid, same_layout
from tuwen.filters.repeats import CaptionRepeats, ImageRepeats
from tuwen.filters.semantic import SemanticDuplicates
from tuwen.filters.split import Split
from tuwen.pipeline.columns import COLUMNS
from tuwen.pipeline.errors import RunError
from tuwen.pipeline.stage import judge

LAKE = "清晨的湖面上漂着一层薄雾"


def rows(*pairs: dict[str, Any]) -> pl.DataFrame:
    base = {"caption": LAKE, "phash": 0, "score": None, "width": 10, "height": 10, "detail": None, "image_grid": None}
    base |= dict.fromkeys(("phash_mirrored", "phash_inside", "image_grid_inside"))
    names = ("phash", "phash_mirrored", "phash_inside", "score", "detail", "image_grid", "image_grid_inside")
    schema = {name: COLUMNS[name].dtype for name in names}
    told = [{**base, "key": f"{i:032x}", "origin": f"o{i}", **p} for i, p in enumerate(pairs)]
    return pl.DataFrame(told, schema_overrides=schema)


def stays(frame: pl.DataFrame, **fields: Any) -> list[int]:
    out = PairDuplicates(**fields).relate(frame)
    assert out["key"].equals(frame["key"])
    return np.flatnonzero(out["duplicate_of"].is_null()).tolist()


@pytest.mark.parametrize(
    ("pairs", "kept", "why"),
    [
        ([{}, {"score": 0.1}], 1, "o1 stays: it has a score"),
        ([{"score": 0.5}, {"score": 0.25, "width": 99}], 0, "o0 stays: score 0.5 > 0.25"),
        ([{"score": 0.5}, {"score": 0.5, "width": 99}], 1, "o1 stays: 990 > 100 pixels"),
        ([{"key": "f" * 32}, {"key": "e" * 32}], 1, "o1 stays: equal score and pixels, smaller key"),
        ([{"score": float("nan")}, {"score": 0.0}], 1, "o1 stays: it has a score"),
    ],
)
def test_the_best_stays_and_the_ledger_says_why(pairs: list[dict[str, Any]], kept: int, why: str) -> None:
    frame = rows(*pairs)
    out = PairDuplicates().relate(frame)
    assert out["duplicate_of"].is_null().to_list() == [kept == 0, kept == 1]
    assert out["duplicate_of"][1 - kept] == frame["key"][kept]
    assert out["detail"][1 - kept] == why
    assert out["duplicate_kind"].to_list().count("pair") == 1


def test_both_image_and_caption_must_match() -> None:
    other = {"phash": 0x0123456789ABCDEF}
    assert stays(rows({}, other, {"caption": "完全不同的一句说明文字"})) == [0, 1, 2]
    assert stays(rows({}, {"phash": 0b11}, {"phash": None}, {"phash": None})) == [0, 2, 3]


def test_a_chain_of_duplicates_is_one_group() -> None:
    chain = [{"phash": (1 << 3 * i) - 1, "caption": LAKE + "图" * (i % 2)} for i in range(12)]
    assert stays(rows(*chain), hash_bits=4) == [0]


def test_many_images_under_one_caption_all_stay() -> None:
    drawn = np.random.default_rng(1).integers(0, 2**64, 3000, dtype=np.uint64)
    near = drawn[:30] ^ np.uint64(1 << 40)
    frame = rows(*({"phash": int(h)} for h in np.concatenate([drawn, near])))
    assert stays(frame) == list(range(3000))


def photo(seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return cv2.resize(noise, (240, 200), interpolation=cv2.INTER_CUBIC)


def seen(pixels: np.ndarray) -> dict[str, Any]:
    data = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 60])[1].tobytes()
    found = Decode().measure(pl.DataFrame({"image": [data]}))
    names = ("phash", "phash_mirrored", "phash_inside", "image_grid", "image_grid_inside")
    return {name: found[name][0] for name in names}


def test_copies_of_a_picture_match_and_layouts_part_pictures_with_one_hash() -> None:
    one = photo(1)
    copies = [one, one[4:195, 5:236], cv2.resize(one, (100, 90)), np.clip(one * 0.9 + 15, 0, 255).astype(np.uint8)]
    marked = one.copy()
    cv2.putText(marked, "example", (10, 190), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (255, 255, 255), 1)
    frame = rows(*(seen(p) for p in [*copies, marked, photo(2)]))
    assert stays(frame) == [0, 5]
    same_hash = frame.with_columns(phash=pl.lit(7, pl.UInt64))
    assert stays(same_hash) == [0, 5]


def test_a_framed_copy_matches_and_a_mirrored_one_where_asked() -> None:
    one, other = photo(1), photo(2)
    framed = cv2.copyMakeBorder(one, 15, 15, 25, 25, cv2.BORDER_CONSTANT, value=(255, 255, 255))
    boxed = cv2.copyMakeBorder(one, 30, 30, 0, 0, cv2.BORDER_CONSTANT, value=(0, 0, 0))
    turned = np.ascontiguousarray(one[:, ::-1])
    other_framed = cv2.copyMakeBorder(other, 15, 15, 25, 25, cv2.BORDER_CONSTANT, value=(255, 255, 255))
    frame = rows(*(seen(p) for p in (one, framed, boxed, turned, other_framed)))
    assert stays(frame) == [0, 3, 4]
    assert stays(frame, mirrored=True) == [0, 4]
    sides = pl.Series([*["车在左边的路上停着"] * 3, "车在右边的路上停着", LAKE])
    assert stays(frame.with_columns(caption=sides), mirrored=True) == [0, 3, 4]
    assert Split(val=0.3).relate(frame)["cluster"].to_list() == [frame["key"][i] for i in (0, 0, 0, 3, 4)]


def test_layouts() -> None:
    plain = [np.full((50, 60, 3), c, np.uint8) for c in ((200, 30, 30), (30, 30, 200), (255, 255, 255), (0, 0, 0))]
    grids = np.frombuffer(b"".join(image_grid(p) for p in plain), np.uint8).reshape(-1, BYTES)
    assert np.array_equal(same_layout(np.repeat(grids, 4, 0), np.tile(grids, (4, 1))).reshape(4, 4), np.eye(4) > 0)


def test_no_near_duplicate_straddles_the_splits() -> None:
    drawn = np.random.default_rng(3)
    base = drawn.integers(0, 2**64, 400, dtype=np.uint64)
    near = base.copy()
    for _ in range(4):
        near ^= np.uint64(1) << drawn.integers(0, 64, 400, dtype=np.uint64)
    frame = rows(*({"phash": int(h), "caption": f"说明{i}"} for i, h in enumerate(np.concatenate([base, near]))))
    frame = frame.with_columns(key=pl.Series([f"{drawn.integers(2**62):032x}" for _ in range(800)]))
    out = Split(val=0.3, test=0.3).relate(frame)
    i, j = np.argwhere(np.bitwise_count(frame["phash"].to_numpy()[:, None] ^ frame["phash"].to_numpy()) <= 4).T
    split, cluster = out["split"].to_numpy(), out["cluster"].to_numpy()
    assert len(i) >= 1600
    assert (split[i] == split[j]).all()
    assert (cluster[i] == cluster[j]).all()
    assert out["cluster"].n_unique() == 400
    assert all((out["split"] == s).sum() > 80 for s in ("train", "val", "test"))
    smallest = out.group_by("cluster").agg(pl.col("key").min())
    assert smallest["cluster"].equals(smallest["key"])


def test_splits_stay_when_data_is_added_and_change_with_the_seed() -> None:
    drawn = np.random.default_rng(5)
    frame = rows(*({"phash": int(h)} for h in drawn.integers(0, 2**64, 500, dtype=np.uint64)))
    some = Split(val=0.2, test=0.2).relate(frame.head(250))
    all_ = Split(val=0.2, test=0.2).relate(frame)
    assert all_.head(250)["split"].equals(some["split"])
    grown = Split(val=0.3, test=0.2).relate(frame)
    assert set(all_.filter(pl.col("split") == "test")["key"]) == set(grown.filter(pl.col("split") == "test")["key"])
    assert not Split(val=0.2, test=0.2, seed=1).relate(frame)["split"].equals(all_["split"])
    with pytest.raises(ValueError, match="leave nothing for train"):
        Split(val=0.5, test=0.5)


def test_clusters_by_caption_and_page() -> None:
    pages = ["https://a.cn/1-2", "https://a.cn/12", "https://a.cn/1-2", None, None]
    drawn = [int(h) for h in np.random.default_rng(6).integers(0, 2**64, 5, dtype=np.uint64)]
    captions = ["湖面", "远山", "雪地", "湖面！", "街道"]
    frame = rows(*({"phash": h, "page_url": p, "caption": c} for h, p, c in zip(drawn, pages, captions, strict=True)))

    def clusters(**fields: Any) -> list[int]:
        return [int(c, 16) for c in Split(**fields).relate(frame)["cluster"]]

    assert clusters() == [0, 1, 2, 3, 4]
    assert clusters(by_page=True) == [0, 1, 0, 3, 4]
    assert clusters(by_caption=True) == [0, 1, 2, 0, 4]
    assert clusters(by_page=True, by_caption=True) == [0, 1, 0, 0, 4]


def test_caps_on_captions_of_an_image_and_images_of_a_caption() -> None:
    captions = ["湖面", "远山", "雪地", "湖面！"]
    frame = rows(*({"phash": 0b11 * (i % 2), "caption": c, "score": 0.1 * i} for i, c in enumerate(captions)))
    few = ImageRepeats(most=2).relate(frame)
    assert few["duplicate_kind"].to_list() == ["image", "image", None, None]
    assert few["duplicate_of"][0] == frame["key"][3]
    assert ImageRepeats(most=4).relate(frame)["duplicate_of"].null_count() == 4
    one = judge(CaptionRepeats(most=1), CaptionRepeats(most=1).relate(frame))
    assert one["reason"].to_list() == ["caption_repeated", None, None, None]
    assert CaptionRepeats().relate(frame)["duplicate_of"].null_count() == 4


def test_captions_of_one_image_can_be_merged_into_the_best_pair() -> None:
    captions = ["湖面", "远山", "远山", "湖上的雾"]
    frame = rows(*({"caption": c, "score": 0.1 * (3 - i)} for i, c in enumerate(captions)), {"phash": 2**63 - 1})
    out = judge(ImageRepeats(most=1, merge=2), ImageRepeats(most=1, merge=2).relate(frame))
    assert out["captions_merged"].to_list() == [["远山", "湖上的雾"], None, None, None, None]
    assert out["reason"].to_list() == [None, *["image_repeated"] * 3, None]
    assert ImageRepeats(most=1).relate(frame)["captions_merged"].null_count() == 5


def near_vectors(count: int, cosine: float, dimensions: int = 64) -> list[bytes]:
    """``count`` random unit vectors, then for each another at ``cosine`` from it."""
    drawn = np.random.default_rng(7).standard_normal((2, count, dimensions))
    one = drawn[0] / np.linalg.norm(drawn[0], axis=1, keepdims=True)
    aside = drawn[1] - np.einsum("nd,nd->n", drawn[1], one)[:, None] * one
    aside /= np.linalg.norm(aside, axis=1, keepdims=True)
    other = cosine * one + np.sqrt(1 - cosine**2) * aside
    return [v.astype("<f2").tobytes() for v in (*one, *other)]


def test_semantic_duplicates_by_the_vectors_of_images_and_captions() -> None:
    images, near = near_vectors(300, 0.985), near_vectors(300, 0.95)
    frame = rows(*({"phash": None} for _ in range(600))).with_columns(
        image_embedding=pl.Series(images), caption_embedding=pl.Series(near)
    )
    gone = SemanticDuplicates().relate(frame)["duplicate_of"]
    assert gone[300:].null_count() <= 6
    assert gone[:300].null_count() == 300
    assert SemanticDuplicates(caption_cosine=0.97).relate(frame)["duplicate_of"].null_count() == 600
    assert SemanticDuplicates(caption_cosine=0.97).relate(frame)["key"].equals(frame["key"])
    assert SemanticDuplicates(image_cosine=0.99, caption_cosine=None).relate(frame)["duplicate_of"].null_count() >= 599
    told = judge(SemanticDuplicates(caption_cosine=None), SemanticDuplicates(caption_cosine=None).relate(frame))
    assert set(told["reason"].drop_nulls()) == {"semantic_duplicate"}
    with pytest.raises(RunError, match="embeddings: true"):
        SemanticDuplicates().relate(frame.drop("image_embedding"))
