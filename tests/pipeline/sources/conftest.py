from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tuwen.pipeline.columns import COLUMNS, SOURCE_COLUMNS
from tuwen.pipeline.sources import REASONS, open_input, read_unit

Read = Callable[..., list[dict[str, Any]]]
PNG = (
    b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x01\0\0\0\x01\x08\x06\0\0\0\x1f\x15\xc4\x89"
    b"\0\0\0\rIDATx\x9cc\xf8\xcf\xc0\xf0\x1f\0\x05\0\x01\xff\x89\x99=\x1d\0\0\0\0IEND\xaeB`\x82"
)


@pytest.fixture
def png() -> bytes:
    return PNG


@pytest.fixture
def read() -> Read:
    """All rows of an input, after the checks that hold for every input."""

    def all_rows(path: Path | str, counts: Counter[str] | None = None, **options: str) -> list[dict[str, Any]]:
        units = open_input(str(path), 0, options)
        assert len({u.id for u in units}) == len(units)
        rows = []
        for unit in units:
            seen = 0
            for frame in read_unit(unit, counts):
                assert frame.columns == [*SOURCE_COLUMNS, "status", "stage", "reason", "detail"]
                assert all(frame.schema[name] == COLUMNS[name].dtype for name in frame.columns)
                assert frame["ordinal"].to_list() == list(range(seen, seen + frame.height))
                assert 0 < frame.height <= 256
                seen += frame.height
                rows += frame.to_dicts()
        for row in rows:
            assert row["origin"].count("#") == 2 and not row["origin"].startswith("/")
            if row["status"] is None:
                assert row["caption_raw"] is not None and (row["image"] or row["image_url"]) and row["reason"] is None
            else:
                assert (
                    (row["status"], row["stage"]) == ("failed", "read") and row["reason"] in REASONS and row["detail"]
                )
        return rows

    return all_rows
