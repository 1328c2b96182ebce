"""Croissant metadata (JSON-LD, version 1.0): what the files are, and the ledger as a record set."""

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
    """The document: a file object per shard and ledger file, and a record set per ledger file."""
    objects = [_object(f"shards/{s['name']}", "application/x-tar", s["sha256"]) for s in shards]
    tables = [_object(f"ledger/{name}", "application/x-parquet", digest) for name, digest in ledger]
    return {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "name": f"tuwen-{told['recipe']['name']}",
        "description": f"Chinese image-text pairs made by tuwen {told['version']}: {told['counts']['kept']} kept.",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "version": "1.0.0",
        "datePublished": told["created"][:10],
        "license": "https://choosealicense.com/no-permission/",
        "url": "https://pypi.org/project/tuwen",
        "citeAs": "tuwen, Chinese image-text pairs",
        "distribution": [*objects, *tables],
        "recordSet": [_records(f"ledger-{i}", table["@id"]) for i, table in enumerate(tables)],
    }


def _object(path: str, kind: str, digest: str) -> dict[str, Any]:
    return {
        "@type": "cr:FileObject",
        "@id": path,
        "name": path,
        "contentUrl": path,
        "encodingFormat": kind,
        "sha256": digest,
    }


def _records(name: str, source: str) -> dict[str, Any]:
    return {"@type": "cr:RecordSet", "@id": name, "name": name, "field": [_field(name, source, c) for c in _plain()]}


@cache
def _plain() -> tuple[str, ...]:
    """Ledger columns of plain types: Croissant's fields hold no lists of structures."""
    return tuple(c.name for c in COLUMNS.values() if c.ledger and _type(c.dtype))


def _field(record: str, source: str, column: str) -> dict[str, Any]:
    return {
        "@type": "cr:Field",
        "@id": f"{record}/{column}",
        "name": column,
        "description": COLUMNS[column].doc,
        "dataType": _type(COLUMNS[column].dtype),
        "source": {"fileObject": {"@id": source}, "extract": {"column": column}},
    }


@cache
def _type(dtype: pl.DataType | type[pl.DataType]) -> str | None:
    if dtype == pl.String:
        return "sc:Text"
    if dtype == pl.Boolean:
        return "sc:Boolean"
    if dtype in (pl.Float32, pl.Float64):
        return "sc:Float"
    return "sc:Integer" if isinstance(dtype, type) and dtype.is_integer() else None
