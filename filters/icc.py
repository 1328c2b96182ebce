"""What an ICC profile calls itself, and whether it is one: the colour space of a file in a few words.

Source of the layout: ICC.1:2022 (version 4), which keeps version 2's header and tag table.
"""

from __future__ import annotations

import struct

_HEADER = 128
_MOST_TAGS = 200
_LONGEST = 64


def valid(profile: bytes) -> bool:
    """Whether ``profile`` has the signature and the length that its header declares, so that it is nothing else."""
    return len(profile) >= _HEADER + 4 and profile[36:40] == b"acsp" and int.from_bytes(profile[:4]) == len(profile)


def description(profile: bytes) -> str:
    """The profile's own name ("sRGB IEC61966-2.1", "Display P3"), at most 64 characters; empty where none is found."""
    if len(profile) < _HEADER + 4:
        return ""
    count = int.from_bytes(profile[_HEADER : _HEADER + 4])
    for at in range(_HEADER + 4, _HEADER + 4 + 12 * min(count, _MOST_TAGS), 12):
        if profile[at : at + 4] == b"desc" and at + 12 <= len(profile):
            start, size = struct.unpack_from(">II", profile, at + 4)
            return _text(profile[start : start + size])
    return ""


def _text(tag: bytes) -> str:
    if tag[:4] == b"desc":  # version 2: ASCII, its length counts the closing NUL
        length = int.from_bytes(tag[8:12])
        found = tag[12 : 12 + length].decode("ascii", "ignore")
    elif tag[:4] == b"mluc" and len(tag) >= 28:  # version 4: records of a language, the first is the default
        length, start = struct.unpack_from(">II", tag, 20)
        found = tag[start : start + length].decode("utf-16-be", "ignore")
    else:
        return ""
    return "".join(c for c in found if c.isprintable()).strip()[:_LONGEST]
