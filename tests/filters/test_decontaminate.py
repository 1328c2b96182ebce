from __future__ import annotations

import base64
import json
from pathlib import Path

import cv2
import numpy as np
import polars as pl
import pytest

from tuwen.filters.decode import Decode
from tuwen.filters.decontaminate import Decontaminate, near_hashes, near_texts
from tuwen.filters.evaluation_sets import read_set
from tuwen.filters.near_captions import CaptionRule
from tuwen.filters.shingles import fold_column
from tuwen.pipeline.errors import InputError
from tuwen.pipeline.stage import judge


def photo(seed: int, side: int = 96) -> np.ndarray:
    """Smooth random blobs: as rich in low frequencies as a photo."""
    noise = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return cv2.resize(noise, (side, side), interpolation=cv2.INTER_CUBIC)


def jpeg(pixels: np.ndarray, quality: int = 90) -> bytes:
    return cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()


def hashed(*images: bytes) -> list[int]:
    return Decode().measure(pl.DataFrame({"image": list(images)}))["phash"].to_list()


SENTENCES = ["一个小女孩在公园的草地上放风筝", "两位老人坐在湖边的长椅上聊天", "红色的公共汽车停在十字路口"]


def layouts(root: Path) -> dict[str, Path]:
    """The same two photos and three captions in each published layout."""
    one, two = jpeg(photo(1)), jpeg(photo(2))
    for name in ("coco", "flickr", "muge", "aic", "folder", "tsv"):
        (root / name / "images").mkdir(parents=True)
        if name not in ("muge", "folder"):
            (root / name / "images" / "a1.jpg").write_bytes(one)
            (root / name / "images" / "b2.jpg").write_bytes(two)
    lines = [f"a1#zhm#0\t{SENTENCES[0]}", f"b2#zhm#0\t{SENTENCES[1]}", f"b2#zhm#1\t{SENTENCES[2]}"]
    (root / "coco" / "imageid.human-written-caption.txt").write_text("\n".join(lines), encoding="utf-8")
    lines = [f"a1.jpg#zhc#0 {SENTENCES[0]}", f"b2.jpg#zhc#0 {SENTENCES[1]}", f"b2.jpg#zhc#1 {SENTENCES[2]}"]
    (root / "flickr" / "flickr8kzhc.caption.txt").write_text("\n".join(lines), encoding="utf-8")
    texts = [{"text_id": i, "text": s, "image_ids": [i]} for i, s in enumerate(SENTENCES)]
    (root / "muge" / "valid_texts.jsonl").write_text("\n".join(json.dumps(t) for t in texts), encoding="utf-8")
    encoded = [f"{i}\t{base64.urlsafe_b64encode(b).decode()}" for i, b in enumerate((one, two))]
    (root / "muge" / "valid_imgs.tsv").write_text("\n".join(encoded))
    told = [{"url": "", "image_id": "a1.jpg", "caption": SENTENCES[:1]}]
    told += [{"url": "", "image_id": "b2.jpg", "caption": SENTENCES[1:]}]
    (root / "aic" / "caption_validation_annotations.json").write_text(json.dumps(told), encoding="utf-8")
    for stem, data, captions in (("a1", one, SENTENCES[:1]), ("b2", two, SENTENCES[1:])):
        (root / "folder" / f"{stem}.jpg").write_bytes(data)
        (root / "folder" / f"{stem}.txt").write_text("\n".join(captions), encoding="utf-8")
    rows = ["image\tcaption", f"images/a1.jpg\t{SENTENCES[0]}", f"images/b2.jpg\t{SENTENCES[1]}"]
    (root / "tsv" / "test.tsv").write_text("\n".join([*rows, f"images/b2.jpg\t{SENTENCES[2]}"]), encoding="utf-8")
    return {p.name: p / "test.tsv" if p.name == "tsv" else p for p in sorted(root.iterdir())}


def test_every_layout_gives_the_same_captions_and_images(tmp_path: Path) -> None:
    hashes = set(hashed(jpeg(photo(1)), jpeg(photo(2))))
    for name, path in layouts(tmp_path).items():
        found = read_set(str(path))
        assert set(found["caption"].drop_nulls()) == set(SENTENCES), name
        assert set(found["phash"].drop_nulls()) == hashes, name


def test_pairs_that_match_image_or_caption_are_named_and_dropped(tmp_path: Path) -> None:
    paths = layouts(tmp_path)
    again, other = hashed(jpeg(cv2.resize(photo(2), (200, 150)), 60), jpeg(photo(9)))
    rows = pl.DataFrame(
        {
            "caption": ["湖边风光", f"图：{SENTENCES[0]}。", "另一句很长的和评测集无关的话", SENTENCES[0][:7]],
            "phash": pl.Series([again, other, other, None], dtype=pl.UInt64),
            "detail": pl.Series([None, None, "before", None], dtype=pl.String),
        }
    )
    stage = Decontaminate(sets={"flickr8k-cn": str(paths["flickr"]), "muge": str(paths["muge"])})
    out = judge(stage, stage.relate(rows))
    assert out["reason"].to_list() == ["in_evaluation_set", "in_evaluation_set", None, None]
    assert out["contaminates"].to_list() == ["flickr8k-cn/b2", "flickr8k-cn/a1", None, None]
    assert out["detail"][0].startswith("image of flickr8k-cn/b2, ")
    assert out["detail"].to_list()[1:] == ["caption of flickr8k-cn/a1", "before", None]
    only = Decontaminate(sets=stage.sets, match="caption").relate(rows)
    assert only["contaminates"].to_list() == [None, "flickr8k-cn/a1", None, None]


def test_near_hashes_finds_exactly_what_comparing_all_finds() -> None:
    drawn = np.random.default_rng(5)
    known = drawn.integers(0, 2**64, 40, dtype=np.uint64)
    image = np.concatenate([known[drawn.integers(0, 40, 400)], drawn.integers(0, 2**64, 100, dtype=np.uint64)])
    for _ in range(7):
        image ^= np.uint64(1) << drawn.integers(0, 64, len(image), dtype=np.uint64)
    for bits in (0, 3, 6):
        expected = np.argwhere(np.bitwise_count(image[:, None] ^ known) <= bits)
        assert np.array_equal(np.stack(near_hashes(image, known, bits), 1), expected)
        assert bits < 6 or len(expected) > 50


def test_near_texts_by_bands() -> None:
    captions = [SENTENCES[0], "一个小女孩在公园的草地上放着风筝", "一个小男孩在广场的台阶上吃西瓜"]
    rows, hits = near_texts(fold_column(pl.Series(captions)), fold_column(pl.Series(SENTENCES)), CaptionRule(0.8, 0.8))
    assert list(zip(rows.tolist(), hits.tolist(), strict=True)) == [(0, 0), (1, 0)]


def test_bad_sets_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no evaluation set at"):
        read_set(str(tmp_path / "missing"))
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "x.jpg").write_bytes(jpeg(photo(1))[:300])
    with pytest.raises(InputError, match=r"1 images cannot be decoded, first x\.jpg"):
        read_set(str(tmp_path / "broken"))
    (tmp_path / "bad.txt").write_text("a1#zhm#0 好\nno marks here", encoding="utf-8")
    with pytest.raises(InputError, match=r"bad\.txt:2: expected 'IMAGE#tag#number caption'"):
        read_set(str(tmp_path / "bad.txt"))


def test_without_sets_nothing_is_dropped() -> None:
    rows = pl.DataFrame({"caption": ["湖"], "phash": [1], "detail": [None]})
    assert Decontaminate().relate(rows)["contaminates"].to_list() == [None]
