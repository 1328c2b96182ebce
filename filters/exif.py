"""The one EXIF value that changes what is seen: the orientation."""

from __future__ import annotations

import struct

_ORIENTATION = 0x0112
_SHORT, _LONG = 3, 4


def orientation(tiff: bytes) -> int:
    """Orientation 1 to 8 from an EXIF block (its TIFF header first); 1 where absent or damaged.

    Source of the layout: EXIF 2.32 section 4.6.4. Damage is no error: viewers show such files upright.
    """
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    if order is None or len(tiff) < 14:
        return 1
    magic, start = struct.unpack_from(order + "HI", tiff, 2)
    if magic != 42 or start + 2 > len(tiff):
        return 1
    (entries,) = struct.unpack_from(order + "H", tiff, start)
    for at in range(start + 2, min(start + 2 + 12 * entries, len(tiff) - 11), 12):
        tag, kind, count = struct.unpack_from(order + "HHI", tiff, at)
        if tag == _ORIENTATION:
            if count != 1 or kind not in (_SHORT, _LONG):
                return 1
            (value,) = struct.unpack_from(order + ("H" if kind == _SHORT else "I"), tiff, at + 8)
            return int(value) if 1 <= value <= 8 else 1
    return 1


def turns(value: int) -> bool:
    """Whether this orientation swaps width and height."""
    return value >= 5
