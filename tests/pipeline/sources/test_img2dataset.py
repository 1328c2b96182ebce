"""Files laid out as img2dataset 1.47 writes them, in its webdataset and its parquet format."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

Read = Callable[..., list[dict[str, Any]]]
NAMES = ("caption", "url", "key", "status", "error_message", "width", "height", "original_width", "original_height")
FAILED = {
    "000002": ("没有的照片", "http://img.example/none.jpg", "failed_to_download", "HTTP Error 404: File not found"),
    "000003": ("一个网页", "http://img.example/", "failed_to_resize", "Image decoding error"),
}


def rows(png: bytes) -> list[dict[str, Any]]:
    made: list[dict[str, Any]] = []
    told: tuple[object, ...]
    for key, caption in (("000000", "红色的车"), ("000001", "白色的猫")):
        told = (caption, f"http://img.example/{key}.jpg", key, "success", None, 1, 1, 512, 384)
        made.append({**dict(zip(NAMES, told, strict=True)), "exif": "{}", "sha256": hashlib.sha256(png).hexdigest()})
    for key, (caption, url, status, why) in FAILED.items():
        told = (caption, url, key, status, why, None, None, None, None)
        made.append({**dict(zip(NAMES, told, strict=True)), "exif": None, "sha256": None})
    return [made[0], made[2], made[1], made[3]]  # in the order in which the downloads ended


def table(path: Path, told: list[dict[str, Any]], png: bytes | None = None) -> None:
    sizes = {"width", "height", "original_width", "original_height"}
    schema = pa.schema([(n, pa.int32() if n in sizes else pa.string()) for n in (*NAMES, "exif", "sha256")])
    if png is not None:
        schema = schema.append(pa.field("jpg", pa.binary()))
        told = [row | {"jpg": png if row["status"] == "success" else None} for row in told]
    pq.write_table(pa.Table.from_pylist(told, schema), path)


def shard(folder: Path, png: bytes) -> Path:
    folder.mkdir()
    told = rows(png)
    with tarfile.open(folder / "00000.tar", "w") as tar:
        for row in told:
            texts = {"txt": row["caption"].encode(), "json": json.dumps(row, indent=4).encode()}
            for kind, data in {"jpg": png, **texts}.items() if row["status"] == "success" else ():
                member = tarfile.TarInfo(f"{row['key']}.{kind}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    table(folder / "00000.parquet", told)
    (folder / "00000_stats.json").write_text(json.dumps({"count": 4, "successes": 2, "failed_to_download": 1}))
    return folder


def check(found: list[dict[str, Any]], png: bytes) -> None:
    by_caption = {row["caption_raw"]: row for row in found}
    assert len(found) == len(by_caption) == 4
    for caption, key in (("红色的车", "000000"), ("白色的猫", "000001")):
        row = by_caption[caption]
        assert (row["image"], row["reason"]) == (png, None)
        assert row["image_url"] == f"http://img.example/{key}.jpg"
    for caption, url, status, why in FAILED.values():
        row = by_caption[caption]
        assert (row["reason"], row["detail"], row["image_url"]) == (status, f"img2dataset: {why}", url)


def test_a_folder_of_shards_gives_every_row_once_the_failed_ones_with_their_reason(
    tmp_path: Path, read: Read, png: bytes
) -> None:
    folder = shard(tmp_path / "shards", png)
    check(read(folder), png)
    check(read(folder / "00000.tar"), png)


def test_a_tar_without_its_table_or_with_another_is_read_alone(tmp_path: Path, read: Read, png: bytes) -> None:
    folder = shard(tmp_path / "shards", png)
    pq.write_table(pa.table({"x": [1]}), folder / "00000.parquet")
    assert len(read(folder)) == len(read(folder / "00000.tar")) == 2
    (folder / "00000.parquet").unlink()
    assert len(read(folder)) == len(read(folder / "00000.tar")) == 2


def test_tables_with_the_images_in_them(tmp_path: Path, read: Read, png: bytes) -> None:
    table(tmp_path / "00000.parquet", rows(png), png)
    (tmp_path / "00000_stats.json").write_text("{}")
    check(read(tmp_path / "00000.parquet"), png)
    check(read(tmp_path), png)


def test_a_table_alone_is_a_list_to_fetch_again(tmp_path: Path, read: Read, png: bytes) -> None:
    table(tmp_path / "00000.parquet", rows(png))
    found = read(tmp_path / "00000.parquet")
    assert [r["reason"] for r in found] == [None] * 4 and all(r["image_url"] and r["image"] is None for r in found)
