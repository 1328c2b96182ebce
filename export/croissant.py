"""Croissant metadata (JSON-LD, version 1.0): what the files are, and ledger, images and captions as record sets."""

from __future__ import annotations

import hashlib
import json
from functools import cache
from typing import Any

import polars as pl

from ..pipeline import files
from ..pipeline.columns import COLUMNS

CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileProperty": "cr:fileProperty",
    "fileObject": "cr:fileObject",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}


def write_croissant(run: str) -> None:
    """Write ``croissant.json`` of a finished run."""
    told = json.loads(files.read_bytes(files.join(run, "run.json")))
    names = files.names(files.join(run, "ledger"), ".parquet")
    parts = [(n, hashlib.sha256(files.read_bytes(files.join(run, "ledger", n))).hexdigest()) for n in names]
    index = files.join(run, "shards", "index.json")
    shards = json.loads(files.read_bytes(index)) if files.exists(index) else []
    text = json.dumps(croissant(told, parts, shards), ensure_ascii=False, indent=1)
    files.write_bytes(files.join(run, "croissant.json"), text.encode())


def croissant(told: dict[str, Any], ledger: list[tuple[str, str]], shards: list[dict[str, Any]]) -> dict[str, Any]:
    """The document: every file with its hash, and as record sets the ledger, the images and the captions.

    Images and captions are two record sets that share ``key``: mlcroissant joins no two file sets of an archive.
    """
    objects = [_object(f"shards/{s['name']}", "application/x-tar", s["sha256"]) for s in shards]
    tables = [_object(f"ledger/{name}", "application/x-parquet", digest) for name, digest in ledger]
    sets = [_files("ledger-files", "ledger/*.parquet", "application/x-parquet", [])]
    records = [_record_set("ledger", [_column(c) for c in _plain()])]
    if shards:
        sets.append(_files("image-files", "*.jpg", "image/jpeg", objects))
        sets.append(_files("caption-files", "*.txt", "text/plain", objects))
        records.append(_record_set("images", _members("images", "image", "sc:ImageObject", "image-files", "jpg")))
        records.append(_record_set("captions", _members("captions", "caption", "sc:Text", "caption-files", "txt")))
    return {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "name": f"tuwen-{told['recipe']['name']}",
        "description": f"Chinese image-text pairs made by tuwen {told['version']}: {told['counts']['kept']} kept. "
        "README.md beside this file is the data statement.",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "version": "1.0.0",
        "datePublished": told["created"][:10],
        "inLanguage": "zh",
        "keywords": ["image-text", "Chinese", "webdataset"],
        "license": "https://choosealicense.com/no-permission/",
        "url": "https://pypi.org/project/tuwen",
        "citeAs": "tuwen, Chinese image-text pairs",
        "distribution": [*objects, *tables, *sets],
        "recordSet": records,
    }


def _files(name: str, pattern: str, kind: str, inside: list[dict[str, Any]]) -> dict[str, Any]:
    told = {"@type": "cr:FileSet", "@id": name, "name": name, "encodingFormat": kind, "includes": pattern}
    return told | ({"containedIn": [{"@id": o["@id"]} for o in inside]} if inside else {})


def _object(path: str, kind: str, digest: str) -> dict[str, Any]:
    return {
        "@type": "cr:FileObject",
        "@id": path,
        "name": path,
        "contentUrl": path,
        "encodingFormat": kind,
        "sha256": digest,
    }


def _record_set(name: str, fields: list[dict[str, Any]]) -> dict[str, Any]:
    return {"@type": "cr:RecordSet", "@id": name, "name": name, "field": fields}


@cache
def _plain() -> tuple[str, ...]:
    """Ledger columns of plain types: Croissant's fields hold no lists of structures."""
    return tuple(c.name for c in COLUMNS.values() if c.ledger and _type(c.dtype))


def _column(column: str) -> dict[str, Any]:
    kind = _type(COLUMNS[column].dtype)
    source = {"fileSet": {"@id": "ledger-files"}, "extract": {"column": column}}
    return _field("ledger", column, kind, COLUMNS[column].doc, source)


def _members(record: str, name: str, kind: str, source: str, suffix: str) -> list[dict[str, Any]]:
    """Fields ``key`` and ``name`` over the files ``KEY.suffix`` of the shards."""
    of = {"fileSet": {"@id": source}}
    named = {**of, "extract": {"fileProperty": "filename"}, "transform": {"regex": rf"^(.*)\.{suffix}$"}}
    content = {**of, "extract": {"fileProperty": "content"}}
    return [
        _field(record, "key", "sc:Text", COLUMNS["key"].doc, named),
        _field(record, name, kind, f"{name} as it ships", content),
    ]


def _field(record: str, name: str, kind: str | None, about: str, source: dict[str, Any]) -> dict[str, Any]:
    told = {"@type": "cr:Field", "@id": f"{record}/{name}", "name": name, "description": about}
    return {**told, "dataType": kind, "source": source}


@cache
def _type(dtype: pl.DataType | type[pl.DataType]) -> str | None:
    if dtype == pl.String:
        return "sc:Text"
    if dtype == pl.Boolean:
        return "sc:Boolean"
    if dtype in (pl.Float32, pl.Float64):
        return "sc:Float"
    return "sc:Integer" if isinstance(dtype, type) and dtype.is_integer() else None
