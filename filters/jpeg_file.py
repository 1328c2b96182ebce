"""The structure of a JPEG file: its segments, its header, and the file without personal metadata.

Source of the layout: ITU-T T.81 annex B. Pixels are never touched here.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass

from . import exif, icc

_TEM, _SOI, _EOI, _SOS = 0x01, 0xD8, 0xD9, 0xDA
_SOF0, _DRI = 0xC0, 0xDD
_APP0, _APP1, _APP2, _APP14 = 0xE0, 0xE1, 0xE2, 0xEE
_FRAMES = frozenset((0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF))
_PROGRESSIVE = frozenset((0xC2, 0xC6, 0xCA, 0xCE))
# In entropy-coded data FF is followed by 00 or a restart marker; anything else is a real marker.
_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
_ICC = b"ICC_PROFILE\0"
_JFIF = b"JFIF\0"
_JFIF_SIZE, _ADOBE_SIZE = 14, 12
"""Bytes behind the length: of JFIF 1.02 without a thumbnail, and of Adobe's segment."""


class MalformedJpeg(ValueError):
    """The segment structure does not hold; the message says where and what was expected."""


@dataclass(frozen=True, slots=True)
class Segment:
    """Bytes ``start:end`` of a file: a marker with its payload, and behind SOS its entropy-coded data."""

    marker: int
    start: int
    body: int
    end: int


@dataclass(frozen=True, slots=True)
class JpegFile:
    """A JPEG's segments and what its header says; ``width`` and ``height`` as stored, in pixels.

    ``complete`` is false where the data ends before the end marker, ``clean`` where bytes that belong
    to no segment had to be skipped, as decoders do. ``end`` is where the image ends: what lies behind
    it is no part of the picture (other pictures, videos, place tags of phones); ``length`` is the file's.
    """

    segments: tuple[Segment, ...]
    width: int
    height: int
    components: int
    precision: int
    orientation: int
    icc: bytes
    complete: bool
    clean: bool
    end: int
    length: int

    @property
    def progressive(self) -> bool:
        """Whether it comes in several passes, so that a decoder has to hold all of it."""
        return any(s.marker in _PROGRESSIVE for s in self.segments)

    @property
    def scans(self) -> int:
        """Passes over the picture: 1 to 3 of a baseline file, about 10 of a progressive one."""
        return sum(s.marker == _SOS for s in self.segments)

    @property
    def usual(self) -> bool:
        """Whether every decoder reads it alike: 8-bit grey or colour, Huffman coded, baseline or progressive."""
        coding = next((s.marker for s in self.segments if s.marker in _FRAMES), 0)
        return self.precision == 8 and self.components in (1, 3) and coding in (0xC0, 0xC1, 0xC2)


def parse(data: bytes) -> JpegFile:
    """Walk all segments of ``data`` up to the end of the first image."""
    if data[:2] != b"\xff\xd8":
        raise MalformedJpeg(f"starts with {data[:2].hex() or 'nothing'}, a JPEG starts with ffd8")
    segments: list[Segment] = []
    at, complete, clean = 2, False, True
    while found := _MARKER.search(data, at):
        # Any number of FF may fill the space before a marker.
        clean &= data.count(b"\xff", at, found.start()) == found.start() - at
        body, marker = found.end(), data[found.end() - 1]
        if marker == _EOI:
            at, complete = body, True
            break
        if marker in (_SOI, _TEM) or marker < 0xC0:
            raise MalformedJpeg(f"marker ff{marker:02x} at byte {found.start():,} has no place there: damaged data")
        size = int.from_bytes(data[body : body + 2], "big")
        at = body + size
        if at > len(data):
            break
        if size < 2:
            raise MalformedJpeg(f"segment ff{marker:02x} at byte {found.start():,} gives a length of {size}")
        if marker == _SOS:
            scan_end = _MARKER.search(data, at)
            at = scan_end.start() if scan_end else len(data)
        segments.append(Segment(marker, found.start(), body + 2, at))
    return _describe(data, tuple(segments), complete, clean, min(at, len(data)))


def fits(data: bytes, file: JpegFile) -> bool:
    """Whether ``file`` describes ``data`` too: as long, and the same marker before each segment."""
    return file.length == len(data) and all(data[s.body - 3] == s.marker for s in file.segments)


def _describe(data: bytes, segments: tuple[Segment, ...], complete: bool, clean: bool, end: int) -> JpegFile:
    frame = next((s for s in segments if s.marker in _FRAMES and s.end - s.body >= 6), None)
    precision, height, width, components = struct.unpack_from(">BHHB", data, frame.body) if frame else (0, 0, 0, 0)
    turn, parts = 1, []
    for s in segments:
        if s.marker == _APP1 and turn == 1 and data.startswith(b"Exif\0\0", s.body):
            turn = exif.orientation(data[s.body + 6 : s.end])
        elif s.marker == _APP2 and data.startswith(_ICC, s.body):
            parts.append((data[s.body + 12 : s.body + 13], data[s.body + 14 : s.end]))
    profile = b"".join(part for _, part in sorted(parts))
    return JpegFile(segments, width, height, components, precision, turn, profile, complete, clean, end, len(data))


def strip(data: bytes, file: JpegFile) -> bytes:
    """``data`` without EXIF, XMP, IPTC, comments, thumbnails, other APP segments and trailing bytes.

    What decoding needs stays byte for byte: a JFIF header, an ICC profile that is one, Adobe's APP14, and of the
    rest the segments that T.81 gives a meaning. Where nothing is to be removed, ``data`` itself comes back.
    """
    profile = icc.valid(file.icc)
    kept: list[bytes] = []
    removed = len(data) > file.end
    at = 2
    for s in file.segments:
        size = _ships(data, s, profile)
        if size == s.end - s.body:
            kept.append(data[at : s.end])
        else:
            removed = True
            if size:
                # JFIF may carry an uncropped thumbnail, whose size goes to 0 x 0; both may be longer than they are.
                body = data[s.body : s.body + size]
                body = body[:12] + b"\0\0" if s.marker == _APP0 else body
                kept.append(data[at : s.start] + b"\xff" + struct.pack(">BH", s.marker, size + 2) + body)
        at = s.end
    return b"\xff\xd8" + b"".join(kept) + b"\xff\xd9" if removed else data


def _ships(data: bytes, s: Segment, profile: bool) -> int:
    """How many of a segment's bytes ship: all, none, or as many as its kind has."""
    size = s.end - s.body
    if s.marker == _APP0:
        if size < _JFIF_SIZE or not data.startswith(_JFIF, s.body):
            return 0
        return _JFIF_SIZE
    if s.marker == _APP2:
        return size if profile and data.startswith(_ICC, s.body) else 0
    if s.marker == _APP14:
        return min(size, _ADOBE_SIZE) if data.startswith(b"Adobe", s.body) else 0
    return size if _SOF0 <= s.marker <= _DRI else 0
