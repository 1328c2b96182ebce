"""Nothing that ships says who made a picture, where or with what; colours and the right way up stay."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms
from PIL.PngImagePlugin import PngInfo

from tests.filters.test_jpeg import PLACE, gps, made, opened, photo, saved
from tuwen.filters import jpeg_file
from tuwen.filters.images import load

THUMBNAIL = saved(photo(32, 24, seed=3), comment=PLACE)
XMP = b"<x:xmpmeta xmlns:x='adobe:ns:meta/'>" + PLACE + b"</x:xmpmeta>"
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def segment(marker: int, body: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


CARRIERS = {
    "exif with a thumbnail": segment(0xE1, b"Exif\0\0" + gps().tobytes().removeprefix(b"Exif\0\0") + THUMBNAIL),
    "xmp": segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + XMP),
    "extended xmp": segment(0xE1, b"http://ns.adobe.com/xmp/extension/\0" + b"0" * 32 + bytes(8) + XMP),
    "iptc": segment(0xED, b"Photoshop 3.0\x008BIM\x04\x04\0\0" + struct.pack(">I", len(PLACE)) + PLACE),
    "second pictures": segment(0xE2, b"MPF\0II*\0" + PLACE),
    "flashpix": segment(0xE2, b"FPXR\0" + PLACE),
    "content credentials": segment(0xEB, b"JP\0\1\0\0\0\1" + PLACE),
    "jfif extension": segment(0xE0, b"JFXX\0\x10" + THUMBNAIL),
    "maker's own": segment(0xEF, PLACE),
    "a second jfif of more than its length": segment(0xE0, b"JFIF\0\1\1\0\0\1\0\1\0\0" + PLACE),
    "adobe of more than its length": segment(0xEE, b"Adobe\0d\0\0\0\0\1" + PLACE),
    "a comment": segment(0xFE, PLACE),
    "a reserved segment": segment(0xF0, PLACE),
    "no profile": segment(0xE2, b"ICC_PROFILE\0\1\1" + bytes(36) + b"acsp" + PLACE),
}


@pytest.mark.parametrize("name", CARRIERS)
def test_a_jpeg_that_passes_carries_nothing_else(name: str) -> None:
    plain = saved(photo(), quality=90)
    first = plain.index(b"\xff\xdb")
    out = made(plain[:first] + CARRIERS[name] + plain[first:])
    assert out["jpeg"] == "stripped"
    assert PLACE not in out["image"]
    # The coded picture is the very same bytes; so are its pixels.
    scan = jpeg_file.parse(plain).segments[-1]
    assert out["image"].endswith(plain[scan.start : scan.end] + b"\xff\xd9")
    assert np.array_equal(np.asarray(opened(plain)), np.asarray(opened(out["image"])))
    assert made(out["image"])["jpeg"] == "passed"


@pytest.mark.parametrize("tail", [PLACE, THUMBNAIL, b"\0\0\0\x18ftypmp42" + PLACE, saved(photo(), "PNG") + PLACE])
def test_what_lies_behind_the_end_goes(tail: bytes) -> None:
    plain = saved(photo())
    assert made(plain + tail)["image"] == plain


def test_a_profile_beside_one_that_is_none_goes_too() -> None:
    plain = saved(photo(), icc_profile=PROFILE)
    first = plain.index(b"\xff\xdb")
    whole = segment(0xE2, b"ICC_PROFILE\0\2\2" + PLACE)
    out = made(plain[:first] + whole + plain[first:])
    assert PLACE not in out["image"]
    assert np.array_equal(np.asarray(opened(plain)), np.asarray(opened(out["image"])))


def told(kind: str) -> bytes:
    """A picture of ``kind`` that tells the place in every way that its format has."""
    options: dict[str, Any] = {"exif": gps(), "xmp": XMP}
    if kind == "PNG":
        notes = PngInfo()
        notes.add_text("Comment", PLACE.decode())
        notes.add_text("Location", PLACE.decode(), zip=True)
        notes.add_itxt("XML:com.adobe.xmp", XMP.decode())
        return saved(photo(), kind, exif=gps(), pnginfo=notes) + PLACE
    if kind == "GIF":
        return saved(photo().convert("P"), kind, comment=PLACE)
    if kind == "TIFF":
        options = {"exif": gps(), "description": PLACE.decode(), "artist": PLACE.decode()}
    if kind == "HEIF":
        pytest.importorskip("pillow_heif").register_heif_opener()
    return saved(photo(), kind, **options)


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "GIF", "TIFF", "AVIF", "HEIF"])
def test_what_is_encoded_anew_carries_nothing(kind: str) -> None:
    data = told(kind)
    assert PLACE in data
    out = made(data)
    assert out["jpeg"] == "encoded"
    assert PLACE not in out["image"]
    image = opened(out["image"])
    assert set(image.info) <= {"jfif", "jfif_version", "jfif_unit", "jfif_density"}
    assert not image.getexif()
    assert {s.marker for s in jpeg_file.parse(out["image"]).segments} <= {0xE0, 0xDB, 0xC0, 0xC4, 0xDA}


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF", "AVIF", "HEIF"])
@pytest.mark.parametrize("turn", range(1, 9))
def test_every_format_ships_upright(kind: str, turn: int) -> None:
    if kind == "HEIF":
        pytest.importorskip("pillow_heif").register_heif_opener()
    upright = photo(240, 160)
    undo = (None, 0, 3, 1, 5, 2, 6, 4)[turn - 1]  # Image.Transpose that the viewer's turn undoes
    stored = upright if undo is None else upright.transpose(Image.Transpose(undo))
    exif = Image.Exif()
    exif[0x0112] = turn
    # HEIF is turned by a property of its own, which its encoder writes for EXIF given as bytes.
    out = made(saved(stored, kind, exif=exif.tobytes() if kind == "HEIF" else exif, quality=95))
    image = opened(out["image"])
    assert image.size == (240, 160) == (out["shipped_width"], out["shipped_height"])
    assert np.abs(np.asarray(image, int) - np.asarray(upright, int)).mean() < 6


def swapped() -> bytes:
    """A profile whose red primary is blue and the other way round, by no known name: the widest gamut to notice."""
    red, blue = PROFILE.index(b"rXYZ"), PROFILE.index(b"bXYZ")
    made = bytearray(PROFILE.replace("sRGB".encode("utf-16-be"), "xRGB".encode("utf-16-be")))
    made[red + 4 : red + 12], made[blue + 4 : blue + 12] = PROFILE[blue + 4 : blue + 12], PROFILE[red + 4 : red + 12]
    return bytes(made)


def test_a_wide_profile_stays_with_pixels_that_stay_and_goes_with_those_that_are_made_anew() -> None:
    red = Image.new("RGB", (160, 160), (250, 0, 0))
    passed = made(saved(red, icc_profile=swapped()))
    assert passed["jpeg"] == "passed"
    assert opened(passed["image"]).info["icc_profile"] == swapped()
    for anew in (
        made(saved(red, icc_profile=swapped()), longest_side=100),
        made(saved(red, "PNG", icc_profile=swapped())),
    ):
        image = opened(anew["image"])
        assert "icc_profile" not in image.info
        assert image.getpixel((40, 40)) == pytest.approx((0, 0, 250), abs=12)


@pytest.mark.parametrize("mode", ["I;16", "P", "1", "CMYK", "LA", "RGBA"])
def test_every_mode_ships_as_grey_or_colour_that_looks_alike(mode: str) -> None:
    grey = photo().convert("L")
    image = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257) if mode == "I;16" else grey.convert(mode)
    data = saved(image, "TIFF" if mode == "CMYK" else "PNG")
    seen = np.asarray(opened(made(data, quality=95)["image"]).convert("L"), int)
    assert np.abs(seen - np.asarray(image.convert("L") if mode == "1" else grey, int)).mean() < (
        12 if mode == "1" else 5
    )
    assert load(data, 240, 240)[1].dtype == np.uint8
