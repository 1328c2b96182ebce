"""Writes docs/ledger.md from the table of columns: ``python -m tuwen.pipeline.ledger_docs > docs/ledger.md``."""

from __future__ import annotations

import polars as pl

from .columns import COLUMNS, NEGATIVE, SPAN

_HEAD = """\
# The ledger's columns

One row per input pair, in `OUT/ledger/*.parquet`: kept pairs beside their shard (`train-000000.parquet` holds
the rows of `train-000000.tar`), dropped and failed ones in `dropped-<unit>.parquet`. No image bytes. A column is
null where the stage that writes it did not see the pair. This page is generated from `pipeline/columns.py`.

```python
import polars as pl

ledger = pl.read_parquet("OUT/ledger/*.parquet")
ledger.group_by("status", "stage", "reason").len().sort("len", descending=True)
```

| column | type | unit | written by | meaning |
|---|---|---|---|---|
"""


def ledger_docs() -> str:
    """The page's text."""
    rows = [
        f"| `{c.name}` | {_type(c.dtype)} | {c.unit} | {c.writer} | {c.doc} |" for c in COLUMNS.values() if c.ledger
    ]
    spans = ", ".join(f"`{f.name}`" for f in SPAN.fields)
    tail = f"\nA *span* has {spans}: code points of `caption_raw`, half open; `action` is mask, cut, drop or flag.\n"
    return _HEAD + "\n".join(rows) + "\n" + tail


def _type(dtype: pl.DataType | type[pl.DataType]) -> str:
    if dtype == pl.List(SPAN):
        return "list of spans"
    if dtype == pl.List(NEGATIVE):
        return "list of (kind, caption)"
    return str(dtype).lower()


if __name__ == "__main__":
    print(ledger_docs(), end="")
