from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from datasketch import MinHash

from tuwen.filters.minhash import caption_shingles, datasketch_signatures, signatures
from tuwen.filters.shingles import Folded, fold, fold_column, hash_strings

CAPTIONS = [
    *("在雪地中奔跑的狗。", "狗", "", "……", "臺灣的ＡＢＣ，1０0％", "㍿与½杯", None, "café CAFE\u0301", "𠮷野家"),
    "👍🏽好",
]


def test_folds_width_case_script_marks_and_punctuation_away() -> None:
    assert [fold(c or "") for c in CAPTIONS] == [
        *("在雪地中奔跑的狗", "狗", "", "", "台湾的abc100", "株式会社与1⁄2杯", "", "cafecafe", "𠮷野家", "好"),
    ]


def test_a_column_folds_like_its_captions_one_by_one() -> None:
    folded = fold_column(pl.Series(CAPTIONS))
    texts = ["".join(map(chr, folded.codes[a:b])) for a, b in zip(folded.starts, folded.starts[1:], strict=False)]
    assert texts == [fold(c or "") or "\0" for c in CAPTIONS]
    alone = [fold_column(pl.Series([c], dtype=pl.String)) for c in CAPTIONS]
    assert folded.text_hash().tolist() == [int(f.text_hash()[0]) for f in alone]
    assert np.array_equal(signatures(folded), np.concatenate([signatures(f) for f in alone], axis=1))
    picked = folded.take(np.array([8, 0, 2]))
    assert picked.text_hash().tolist() == folded.text_hash()[[8, 0, 2]].tolist()


def test_hashes_tell_texts_apart() -> None:
    folded = fold_column(pl.Series(["一二三", "三二一", "一二", "一二三四", "一二三 ！"]))
    hashes = folded.text_hash().tolist()
    assert hashes[0] == hashes[4]
    assert len(set(hashes)) == 4
    raw = hash_strings(pl.Series(["a.cn/1-2", "a.cn/12", "", None, "a.cn/1-2"]))
    assert raw[0] == raw[4] != raw[1]
    assert raw[2] == raw[3] != raw[0]


def test_shingles_are_a_captions_own() -> None:
    """No n-gram reaches into the next caption, and a very short caption has its text alone."""
    one, both = fold_column(pl.Series(["红色的汽车"])), fold_column(pl.Series(["红色的汽车", "汽车", "红色的"]))
    assert set(one.shingles()) == set(both.shingles()[:5])
    assert len(set(one.shingles())) == 4
    assert len(set(both.shingles()[5:7])) == len(set(both.shingles()[7:10])) == 1
    assert not set(both.shingles()[5:]) & set(both.shingles()[:5])


def test_signatures_estimate_jaccard() -> None:
    a, b = "公园里有一位老人坐在长椅上看报纸喝茶", "公园里有一位老人坐在长椅上听广播喝茶"
    sets = [set(caption_shingles(c)) for c in (a, b)]
    true = len(sets[0] & sets[1]) / len(sets[0] | sets[1])
    many = signatures(fold_column(pl.Series([a, b])), 4096)
    assert abs((many[:, 0] == many[:, 1]).mean() - true) < 0.03


@pytest.mark.parametrize("scheme", ["affine32", "legacy"])
def test_signatures_are_datasketchs(scheme: str) -> None:
    captions = [c for c in CAPTIONS if c is not None]
    ours = datasketch_signatures(captions, num_perm=32, seed=7, scheme=scheme)
    for row, caption in zip(ours, captions, strict=True):
        theirs = MinHash(num_perm=32, seed=7, scheme=scheme)
        for shingle in caption_shingles(caption):
            theirs.update(shingle.encode())
        assert row.tolist() == theirs.hashvalues.tolist()
    with pytest.raises(ValueError, match="unknown scheme 'other'"):
        datasketch_signatures(captions, scheme="other")


def test_nothing_in_nothing_out() -> None:
    nothing = fold_column(pl.Series([], dtype=pl.String))
    assert signatures(nothing).shape == (16, 0)
    assert len(nothing.text_hash()) == 0
    assert isinstance(nothing, Folded)
