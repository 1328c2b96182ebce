from __future__ import annotations

import io
from typing import Any

import numpy as np
import polars as pl
import pytest
from PIL import Image, ImageCms

from tuwen.filters import jpeg_file
from tuwen.filters.jpeg import Jpeg, ship
from tuwen.pipeline.stage import Tally, apply_stage

PLACE = b"Hangzhou, West Lake"


def photo(width: int = 240, height: int = 160, seed: int = 0) -> Image.Image:
    small = Image.fromarray(np.random.default_rng(seed).integers(0, 255, (6, 9, 3), dtype=np.uint8))
    return small.resize((width, height), Image.Resampling.BICUBIC)


def saved(image: Image.Image, kind: str = "JPEG", **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def opened(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


def gps(turn: int = 1) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = turn
    exif[0x010F] = PLACE.decode()
    exif.get_ifd(0x8825)[1] = "N"
    return exif


def made(data: bytes, **fields: Any) -> dict[str, Any]:
    rows = pl.DataFrame({"key": ["k"], "image": [data]})
    return apply_stage(Jpeg(**fields), rows, Tally()).row(0, named=True)


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_a_fine_jpeg_passes_byte_for_byte(mode: str, progressive: bool) -> None:
    data = saved(photo().convert(mode), progressive=progressive, quality=80)
    out = made(data)
    assert (out["jpeg"], out["image"] == data) == ("passed", True)
    assert (out["shipped_width"], out["shipped_height"], out["image_bytes"]) == (240, 160, len(data))


@pytest.mark.parametrize("progressive", [False, True])
def test_personal_metadata_goes_and_pixels_stay(progressive: bool) -> None:
    xmp = b"<x:xmpmeta xmlns:x='adobe:ns:meta/'>" + PLACE + b"</x:xmpmeta>"
    icc = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    data = saved(photo(), exif=gps(), xmp=xmp, comment=PLACE, icc_profile=icc, progressive=progressive)
    iptc = b"Photoshop 3.0\0" + PLACE
    at = data.index(b"\xff\xdb")
    data = data[:at] + b"\xff\xed" + (len(iptc) + 2).to_bytes(2, "big") + iptc + data[at:] + b"\0\0ftypmp4 " + PLACE
    assert data.count(PLACE) == 5
    out = made(data)
    assert out["jpeg"] == "stripped"
    assert PLACE not in out["image"]
    before, after = opened(data), opened(out["image"])
    assert np.array_equal(np.asarray(before), np.asarray(after))
    assert after.info["icc_profile"] == icc
    assert not after.getexif()
    # The scans are the very same bytes.
    assert out["image"].endswith(data[data.index(b"\xff\xda") : data.rindex(b"\xff\xd9") + 2])
    assert made(out["image"])["jpeg"] == "passed"


def test_the_uncropped_thumbnail_in_jfif_goes() -> None:
    data = saved(photo())
    thumbnail = bytes(range(48))
    with_one = data[:4] + (16 + 48).to_bytes(2, "big") + data[6:18] + b"\x04\x04" + thumbnail + data[20:]
    out = made(with_one)
    assert out["jpeg"] == "stripped"
    assert thumbnail not in out["image"]
    assert out["image"] == data


def test_metadata_between_scans_goes() -> None:
    data = saved(photo(), progressive=True)
    file = jpeg_file.parse(data)
    second = [s for s in file.segments if s.marker == 0xDA][1]
    hidden = data[: second.start] + b"\xff\xfe\0\x15" + PLACE + data[second.start :]
    out = made(hidden)
    assert out["image"] == data


@pytest.mark.parametrize("turn", range(2, 9))
def test_a_turned_picture_ships_upright(turn: int) -> None:
    upright = photo(240, 160)
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    out = made(saved(upright.transpose(undo[turn]), exif=gps(turn), quality=95))
    assert out["jpeg"] == "encoded"
    image = opened(out["image"])
    assert image.size == (240, 160) == (out["shipped_width"], out["shipped_height"])
    assert np.abs(np.asarray(image, int) - np.asarray(upright, int)).mean() < 4
    assert PLACE not in out["image"]


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "GIF", "BMP", "TIFF"])
def test_other_kinds_become_jpeg(kind: str) -> None:
    out = made(saved(photo().convert("P") if kind == "GIF" else photo(), kind))
    image = opened(out["image"])
    assert (out["jpeg"], image.format, image.mode, image.size) == ("encoded", "JPEG", "RGB", (240, 160))
    assert set(image.info) <= {"jfif", "jfif_version", "jfif_unit", "jfif_density"}


def test_cmyk_and_foreign_profiles_become_srgb() -> None:
    out = made(saved(photo().convert("CMYK"), quality=95))
    image = opened(out["image"])
    assert (out["jpeg"], image.mode) == ("encoded", "RGB")
    assert np.abs(np.asarray(image, int) - np.asarray(photo(), int)).mean() < 6


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_a_foreign_colour_profile_is_applied_before_it_is_lost(kind: str) -> None:
    icc = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    # A profile whose red primary is blue and the other way round: its tag table's two offsets exchanged.
    red, blue = icc.index(b"rXYZ"), icc.index(b"bXYZ")
    swapped = bytearray(icc.replace("sRGB".encode("utf-16-be"), "xRGB".encode("utf-16-be")))
    swapped[red + 4 : red + 12], swapped[blue + 4 : blue + 12] = icc[blue + 4 : blue + 12], icc[red + 4 : red + 12]
    out = made(saved(Image.new("RGB", (120, 120), (250, 0, 0)), kind, icc_profile=bytes(swapped), lossless=True))
    assert opened(out["image"]).getpixel((60, 60)) == pytest.approx((0, 0, 250), abs=12)


def test_limits_on_side_and_bytes_hold() -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (400, 600, 3), dtype=np.uint8))
    small = made(saved(noise), longest_side=300)
    assert (small["jpeg"], small["shipped_width"], small["shipped_height"]) == ("encoded", 300, 200)
    light = made(saved(noise, quality=95), max_bytes=20_000)
    assert light["image_bytes"] <= 20_000
    assert opened(light["image"]).size == (light["shipped_width"], light["shipped_height"])
    tiny = made(saved(noise), max_bytes=4096)
    assert tiny["image_bytes"] <= 4096
    assert tiny["shipped_width"] < 600


def test_garbage_between_segments_is_encoded_anew() -> None:
    data = saved(photo())
    at = data.index(b"\xff\xdb")
    out = made(data[:at] + PLACE + data[at:])
    assert out["jpeg"] == "encoded"
    assert PLACE not in out["image"]


def test_encoding_is_the_same_each_time() -> None:
    data = saved(photo(), "PNG")
    assert ship(data, 128, 10**6, 90, 10**8) == ship(data, 128, 10**6, 90, 10**8)


def test_what_cannot_be_decoded_fails_with_its_reason() -> None:
    out = made(saved(photo())[:900])
    assert (out["status"], out["reason"]) == ("failed", "image_corrupt")
    assert "truncated" in out["detail"]
    assert made(b"not an image")["reason"] == "image_unsupported"


@pytest.mark.parametrize("size", [0, 1])
def test_damaged_lengths_are_named(size: int) -> None:
    data = saved(photo())
    with pytest.raises(jpeg_file.MalformedJpeg, match="length"):
        jpeg_file.parse(data[:4] + size.to_bytes(2, "big") + data[6:])
