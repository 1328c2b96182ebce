from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from tuwen.pipeline.errors import UsageError
from tuwen.trainers.value.split import clusters, hold_out


def frame(*rows: tuple[str, str, str, int]) -> pl.DataFrame:
    """caption, caption as found, page, image hash."""
    schema = {"caption": pl.String, "caption_raw": pl.String, "page_url": pl.String, "phash": pl.UInt64}
    return pl.DataFrame(list(rows), schema=schema, orient="row")


ROWS = frame(
    ("红色的车", "红色的车", "a", 0xFFFF_0000_FFFF_0000),  # 0 to be evaluated on
    ("蓝色的船", "蓝色的船", "b", 0xFFFF_0000_FFFF_0003),  # 1 near copy of 0's image
    ("红色 的车！", "红色 的车！", "c", 0x0F0F_0F0F_0F0F_0F0F),  # 2 its caption
    ("白猫", "白猫", "a", 0x3333_3333_3333_3333),  # 3 its page
    ("一朵花", "红色的车", "d", 0x00FF_00FF_00FF_00FF),  # 4 its caption before it was mended
    ("蓝色的船", "蓝色的船", "e", 0x5555_5555_5555_5555),  # 5 the caption of 1: in two steps
    ("黑狗", "黑狗", "f", 0x1111_2222_4444_8888),  # 6 nothing
    ("大树", "大树", "f", 0x9999_0000_9999_FFFF),  # 7 nothing
    ("小鸟", "小鸟", None, 0x0000_FFFF_1234_4321),  # type: ignore[arg-type]  # 8 nothing, and no page
    ("鱼", "鱼", None, 0x7777_1111_2222_0000),  # type: ignore[arg-type]  # 9 nothing, and no page
)


def test_what_is_tied_to_an_evaluation_pair_is_not_trained_on() -> None:
    seeds = np.arange(10) == 0
    held = hold_out(ROWS, seeds, most=1.0)
    assert np.flatnonzero(held.train).tolist() == [6, 7, 8, 9]
    assert held.evaluable[0]


def test_ties_can_be_chosen() -> None:
    seeds = np.arange(10) == 0
    assert np.flatnonzero(~hold_out(ROWS, seeds, ("image",)).train).tolist() == [0, 1]
    assert np.flatnonzero(~hold_out(ROWS, seeds, ("page",)).train).tolist() == [0, 3]
    assert np.flatnonzero(~hold_out(ROWS, seeds, ("caption",)).train).tolist() == [0, 2, 4]
    with pytest.raises(UsageError, match="--tie pages: expected some of image, caption, page"):
        hold_out(ROWS, seeds, ("pages",))


def test_too_much_held_out_is_an_error_that_says_what_to_do() -> None:
    with pytest.raises(UsageError, match=r"6 of 10 pairs are tied to 1 val and test pairs .* --tie image"):
        hold_out(ROWS, np.arange(10) == 0)
    with pytest.raises(UsageError, match="no val and no test pairs"):
        hold_out(ROWS, np.zeros(10, np.bool_))


def test_a_large_cluster_is_trained_on_and_not_asked_about() -> None:
    many = frame(
        *((f"词{i}" if i > 30 else "点击查看大图", "x", f"p{i}", i * 0x0123_4567_89AB_CDEF % 2**64) for i in range(200))
    )
    many = many.with_columns(caption_raw="caption")
    seeds = np.isin(np.arange(200), [3, 150])
    held = hold_out(many, seeds, ("caption", "page"))
    assert held.train[3] and not held.evaluable[3]
    assert np.flatnonzero(~held.train).tolist() == [150]


def test_evaluation_never_comes_from_clusters_or_pages_that_are_trained_on() -> None:
    """On random pairs with many ties: no cluster, no page and no image on both sides."""
    for seed in range(5):
        rng = np.random.default_rng(seed)
        n = 400
        rows = frame(
            *(
                (f"图{rng.integers(2000)}", f"图{rng.integers(2000)}", f"p{i // 3}", int(rng.integers(2**62)) << 1)
                for i in range(n)
            )
        )
        copies = rng.integers(0, n, 40)
        hashes = rows["phash"].to_numpy().copy()
        hashes[rng.integers(0, n, 40)] = hashes[copies] ^ np.uint64(1 << 5)
        rows = rows.with_columns(phash=pl.Series(hashes))
        held = hold_out(rows, rng.random(n) < 0.04, most=1.0)
        assert held.train.any() and held.evaluable.any()
        assert not (held.train & held.evaluable).any()
        cluster = clusters(rows)
        assert not set(cluster[held.train]) & set(cluster[held.evaluable])
        page_of = rows["page_url"].to_numpy()
        assert not set(page_of[held.train]) & set(page_of[held.evaluable])
        trained, asked = (rows.filter(pl.Series(m)) for m in (held.train, held.evaluable))
        spelled = set(trained["caption"]) | set(trained["caption_raw"])
        assert not spelled & (set(asked["caption"]) | set(asked["caption_raw"]))
        apart = np.bitwise_count(trained["phash"].to_numpy()[:, None] ^ asked["phash"].to_numpy()[None, :])
        assert apart.min() > 4
