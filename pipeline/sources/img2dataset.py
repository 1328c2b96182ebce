"""What img2dataset (1.47) leaves: tars with a parquet beside each, or parquet files that hold the images.

Its parquet has a row for every URL, with ``status`` ``success``, ``failed_to_download`` or ``failed_to_resize`` and
``error_message``; a tar holds the successes alone, so the failures are read from the table that lies beside it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from . import where
from .rows import Pair, Reason
from .tablecols import CAPTIONS, PAGES
from .urls import resolve

TOLD = frozenset(("url", "key", "status", "error_message"))
"""Columns that no img2dataset table is without."""

UNREAD = "unread"
"""Column by which ``--fetch-with`` hands on what could not be read: ``reason: detail``."""

_BYTES = ("jpg", "png", "webp")
_FAILURES: dict[str, Reason] = {"failed_to_download": "failed_to_download", "failed_to_resize": "failed_to_resize"}


def is_table_of(path: str) -> bool:
    """Whether a file is a parquet table that img2dataset wrote."""
    try:
        with where.open_binary(path) as handle:
            return set(pq.ParquetFile(handle).schema_arrow.names) >= TOLD
    except (pa.ArrowException, OSError, ValueError):
        return False


def bytes_column(schema: pa.Schema) -> str:
    """The column that holds the images in a table of img2dataset's ``parquet`` format; empty where it is none."""
    if not set(schema.names) >= TOLD:
        return ""
    return next((n for n in _BYTES if n in schema.names and pa.types.is_binary(schema.field(n).type)), "")


def failed_pairs(root: str, file: str) -> Iterator[Pair]:
    """The pairs of the table beside a tar that are not in the tar, each with its reason."""
    with where.open_binary(where.join(root, file)) as handle:
        table = pq.ParquetFile(handle)
        names = [n for n in table.schema_arrow.names if not pa.types.is_binary(table.schema_arrow.field(n).type)]
        for batch in table.iter_batches(256, columns=names):
            for values in batch.to_pylist():
                if values["status"] != "success":
                    yield failed(values, f"{file}#{values['key']}#0", names)


def failed(values: Mapping[str, Any], origin: str, names: Sequence[str]) -> Pair:
    """The pair of a row whose status is not ``success``."""
    url = values.get("url")
    caption = next((values[c] for c in CAPTIONS if c in names and isinstance(values[c], str)), None)
    page = next((values[c] for c in PAGES if c in names and isinstance(values[c], str)), None)
    pair = Pair(origin, caption, "column", resolve(url).url if isinstance(url, str) else None, None, page)
    if values.get(UNREAD):
        reason, _, detail = str(values[UNREAD]).partition(": ")
        return pair._replace(reason=reason, detail=detail)  # type: ignore[arg-type]
    detail = f"img2dataset: {values.get('error_message') or values['status']}"
    return pair._replace(reason=_FAILURES.get(str(values["status"]), "failed_to_download"), detail=detail)
