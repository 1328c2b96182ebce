"""Evaluation sets in the layouts their authors publish, read as items with captions and image hashes.

Recognised in a folder (images anywhere below it are matched by file name):

- COCO-CN, Flickr8k-CN, Flickr30k-CN (Li et al. 2016, 2019; Lan et al. 2017): text files of lines
  ``IMAGE#tag#number caption``;
- MUGE and what Chinese-CLIP prepares: ``*_texts.jsonl`` with ``text``, ``image_ids`` and
  ``*_imgs.tsv`` of id and base64 image;
- AIC-ICC: a JSON list of objects with ``image_id`` and a list ``caption``.

Everything else is read as ``curate run`` would read it: folders of images with or without sidecars,
tsv, csv, jsonl and parquet tables, tars.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterator
from typing import NamedTuple

import polars as pl

from ..pipeline import files
from ..pipeline.errors import InputError
from ..pipeline.once import once
from ..pipeline.sources import open_input, read_unit
from .decode import Decode

SCHEMA = {"item": pl.String, "caption": pl.String, "phash": pl.UInt64}
_LINE = re.compile(r"(\S+?)(?:\.jpe?g|\.png)?#\w+#\d+\s+(\S.*)")
_IMAGES = ("jpg", "jpeg", "png", "webp", "gif", "bmp")
_BATCH = 64
_HEAD = 65536


class Item(NamedTuple):
    """One evaluation image or caption; an item with several captions comes several times."""

    name: str
    caption: str | None = None
    image: bytes | None = None


@once(16)
def read_set(path: str) -> pl.DataFrame:
    """Columns item, caption, phash: one row per caption or image of the set at ``path``.

    Raises ``InputError`` where nothing is found or an image cannot be decoded: an item left out in
    silence would leave its copies in the training data.
    """
    rows: list[pl.DataFrame] = []
    batch: list[Item] = []
    for item in _items(path):
        batch.append(item)
        if len(batch) == _BATCH:
            rows.append(_hashed(path, batch))
            batch = []
    rows.append(_hashed(path, batch))
    frame = pl.concat(rows).filter(pl.col("caption").is_not_null() | pl.col("phash").is_not_null())
    if not frame.height:
        raise InputError(
            f"evaluation set {path} holds no caption and no image; expected a folder of images, a tsv, csv, jsonl or "
            "parquet table, or the published layout of COCO-CN, Flickr8k-CN, Flickr30k-CN, MUGE or AIC-ICC"
        )
    return frame.unique().sort("item", "caption", "phash")


def _hashed(path: str, batch: list[Item]) -> pl.DataFrame:
    images = pl.DataFrame(
        {"item": [i.name for i in batch if i.image], "image": [i.image for i in batch if i.image]},
        schema={"item": pl.String, "image": pl.Binary},
    )
    frame = pl.DataFrame([(i.name, i.caption, None) for i in batch], schema=SCHEMA, orient="row")
    if not images.height:
        return frame
    seen = Decode().measure(images)
    broken = seen.filter(pl.col("phash").is_null())
    if broken.height:
        raise InputError(
            f"evaluation set {path}: {broken.height} images cannot be decoded, first {broken['item'][0]}. "
            "Mend or remove them: their copies could not be found."
        )
    hashes = seen.select("item", caption=pl.lit(None, dtype=pl.String), phash=pl.col("phash").cast(pl.UInt64))
    return pl.concat([frame, hashes])


def _items(path: str) -> Iterator[Item]:
    fs, inner = files.filesystem(path)
    if not fs.exists(inner):
        raise InputError(f"no evaluation set at {path}: expected a folder or a table of images and captions")
    if not fs.isdir(inner):
        yield from _readers(path) or _as_input(path)
        return
    found = sorted(fs.unstrip_protocol(f) for f in fs.find(inner))
    special = [items for f in found for items in [_readers(f)] if items is not None]
    if not special:
        yield from _as_input(path)
        return
    for items in special:
        yield from items
    for file in found:
        if file.lower().rpartition(".")[2] in _IMAGES:
            yield Item(_stem(file), image=files.read_bytes(file))


def _readers(file: str) -> Iterator[Item] | None:
    """The items of a file in one of the published layouts, None where it is in none of them."""
    name = file.rsplit("/", 1)[-1].lower()
    if not name.endswith((".txt", ".jsonl", ".tsv", ".json")):
        return None
    with files.open_read(file) as handle:
        head = handle.read(_HEAD)
    first = head.lstrip().split(b"\n", 1)[0].decode("utf-8-sig", "replace")
    if name.endswith(".txt") and _LINE.match(first):
        return _hash_lines(file)
    if name.endswith(".jsonl") and '"image_ids"' in first and '"text"' in first:
        return _muge_texts(file)
    if name.endswith("_imgs.tsv"):
        return _muge_images(file)
    if name.endswith(".json") and head.lstrip().startswith(b"[") and b'"image_id"' in head and b'"caption"' in head:
        return _aic(file)
    return None


def _lines(file: str) -> Iterator[tuple[int, str]]:
    with files.open_read(file) as handle:
        for number, line in enumerate(handle, 1):
            text = line.decode("utf-8-sig", "replace").strip()
            if text:
                yield number, text


def _hash_lines(file: str) -> Iterator[Item]:
    for number, line in _lines(file):
        match = _LINE.match(line)
        if not match:
            raise InputError(f"{file}:{number}: expected 'IMAGE#tag#number caption', found {line[:60]!r}")
        yield Item(match[1], match[2])


def _muge_texts(file: str) -> Iterator[Item]:
    for number, line in _lines(file):
        try:
            told = json.loads(line)
            yield Item(f"text {told['text_id']}", str(told["text"]))
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{file}:{number}: expected an object with text_id and text ({error})") from None


def _muge_images(file: str) -> Iterator[Item]:
    for number, line in _lines(file):
        name, _, encoded = line.partition("\t")
        try:
            yield Item(f"image {name}", image=base64.b64decode(encoded.translate({45: "+", 95: "/"}), validate=True))
        except binascii.Error as error:
            raise InputError(f"{file}:{number}: expected an id, a tab and a base64 image ({error})") from None


def _aic(file: str) -> Iterator[Item]:
    try:
        for told in json.loads(files.read_bytes(file)):
            captions = told["caption"] if isinstance(told["caption"], list) else [told["caption"]]
            yield from (Item(_stem(str(told["image_id"])), str(c)) for c in captions)
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{file}: expected a list of objects with image_id and caption ({error!r})") from None


def _as_input(path: str) -> Iterator[Item]:
    """The set as the readers of ``curate run`` see it; images without captions count too."""
    last = None
    for unit in open_input(path):
        for batch in read_unit(unit):
            for origin, caption, image in batch.select("origin", "caption_raw", "image").rows():
                name = origin.rsplit("#", 1)[0]
                # The readers repeat the image with each of its captions; hashing it once will do.
                yield Item(name, caption or None, image if name != last else None)
                last = name


def _stem(file: str) -> str:
    return file.rsplit("/", 1)[-1].rpartition(".")[0]
