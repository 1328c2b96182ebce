from __future__ import annotations

import io
import struct
import sys
import zlib
from typing import Any

import cv2
import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageDraw

from tuwen.filters import icc, pillow_decode, pixels
from tuwen.filters.decode import Decode, look
from tuwen.filters.image_header import BadImage
from tuwen.filters.image_measures import measure
from tuwen.filters.images import MAX_PIXELS, load
from tuwen.filters.isolated import IsolatedDecoder
from tuwen.filters.phash import phashes
from tuwen.pipeline.stage import Tally, apply_stage


def photo(width: int = 400, height: int = 300, seed: int = 0) -> Image.Image:
    """A smooth picture with some grain: neither flat nor noise."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 255, (9, 12, 3), dtype=np.uint8))
    big = np.asarray(small.resize((width, height), Image.Resampling.BICUBIC), np.int16)
    return Image.fromarray(np.clip(big + rng.integers(-8, 8, big.shape), 0, 255).astype(np.uint8))


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_claiming(width: int, height: int) -> bytes:
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(b"\0" * 100_000)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def jpeg_claiming(width: int, height: int) -> bytes:
    data = bytearray(saved(photo(64, 64), "JPEG"))
    at = data.index(b"\xff\xc0")
    data[at + 5 : at + 9] = struct.pack(">HH", height, width)
    return bytes(data)


def judged(*images: bytes | None, **fields: Any) -> pl.DataFrame:
    rows = pl.DataFrame(
        {"key": [str(i) for i in range(len(images))], "image": images}, schema_overrides={"image": pl.Binary}
    )
    return apply_stage(Decode(**fields), rows, Tally())


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000"])
def test_every_kind_gives_the_same_picture(kind: str) -> None:
    image = photo()
    found = look(saved(image, kind), MAX_PIXELS)
    assert (found.decode_error, found.width, found.height, found.frames) == (None, 400, 300, 1)
    assert found.format == {"JPEG2000": "jp2"}.get(kind, kind.lower())
    reference = look(saved(image, "PNG"), MAX_PIXELS)
    assert found.phash is not None and reference.phash is not None
    assert (found.phash ^ reference.phash).bit_count() <= 4
    # A GIF has 256 colours: its grey levels are fewer.
    assert found.image_entropy == pytest.approx(reference.image_entropy, abs=1.5 if kind == "GIF" else 0.3)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGBA", "LA", "CMYK", "I;16"])
def test_every_mode_of_pixels_is_read(mode: str) -> None:
    grey = photo().convert("L")
    if mode == "I;16":
        image = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    elif mode in ("RGBA", "LA"):
        image = grey.convert(mode)
        image.putalpha(Image.new("L", image.size, 255))
    else:
        image = grey.convert(mode)
    _, pixels = load(
        saved(image, "JPEG" if mode == "CMYK" else "PNG", **({"quality": 95} if mode == "CMYK" else {})), 300, 400
    )
    assert pixels.shape == (300, 400, 3)
    if mode != "1":
        assert np.abs(pixels[..., 1].astype(int) - np.asarray(grey)).mean() < 4


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "AVIF", "GIF"])
def test_transparency_lies_over_white(kind: str) -> None:
    image = photo().convert("RGBA")
    image.putalpha(0)
    _, pixels = load(saved(image, kind), 300, 400)
    assert pixels.min() >= 250


COLOURS = [
    ("JPEG", "RGB", "rgb", 8),
    ("JPEG", "L", "grey", 8),
    ("JPEG", "CMYK", "cmyk", 8),
    ("PNG", "P", "palette", 8),
    ("PNG", "1", "grey", 1),
    ("PNG", "I;16", "grey", 16),
    ("PNG", "LA", "grey", 8),
    ("WEBP", "RGBA", "rgb", 8),
    ("GIF", "P", "palette", 8),
    ("TIFF", "CMYK", "cmyk", 8),
    ("TIFF", "I;16", "grey", 16),
    ("TIFF", "LAB", "lab", 8),
    ("AVIF", "RGB", "rgb", 8),
    ("JPEG2000", "L", "grey", 8),
]


@pytest.mark.parametrize(("kind", "mode", "colour", "depth"), COLOURS)
def test_the_samples_of_a_file_are_named(kind: str, mode: str, colour: str, depth: int) -> None:
    image = Image.new(mode, (120, 120))
    found = look(saved(image, kind, **({"bits": depth} if (kind, mode) == ("PNG", "P") else {})), MAX_PIXELS)
    assert (found.decode_error, found.colour_space, found.bit_depth) == (None, colour, depth)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_a_colour_profile_is_named(kind: str) -> None:
    icc = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert look(saved(photo(), kind, icc_profile=icc), MAX_PIXELS).colour_profile == "sRGB built-in"
    assert look(saved(photo(), kind), MAX_PIXELS).colour_profile is None


def test_names_of_profiles_in_both_versions_and_of_damaged_ones() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    text = b"Display P3"
    old = b"desc" + b"\0" * 4 + (len(text) + 1).to_bytes(4, "big") + text + b"\0"
    head = profile[:128] + (1).to_bytes(4, "big") + b"desc" + (144).to_bytes(4, "big") + len(old).to_bytes(4, "big")
    assert icc.description(head + old) == "Display P3"
    assert icc.description(profile) == "sRGB built-in"
    assert [icc.description(profile[:n]) for n in (0, 100, 131, 140)] == [""] * 4
    assert icc.valid(profile)
    assert not icc.valid(profile + b"a place")
    assert not icc.valid(b"\0" * 500)


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "GIF", "TIFF", "AVIF"])
def test_transparency_is_measured_and_may_drop(kind: str) -> None:
    image = photo(400, 300).convert("RGBA")
    image.paste((0, 0, 0, 0), (0, 0, 100, 300))
    clear, opaque = saved(image, kind), saved(photo(400, 300).convert("RGBA"), kind)
    out = judged(clear, opaque, saved(photo(), "JPEG"), max_transparency=0.2)
    assert out["transparency"].to_list() == pytest.approx([0.25, 0, 0], abs=0.005)
    assert out["reason"].to_list() == ["image_transparent", None, None]


def test_large_images_are_decoded_where_memory_is_capped(monkeypatch: pytest.MonkeyPatch) -> None:
    files = [saved(photo(), "JPEG", progressive=True), saved(photo().convert("RGBA"), "PNG"), saved(photo(), "WEBP")]
    here = [load(data, 256, 1024) for data in files]
    monkeypatch.setattr(pixels, "IN_PROCESS_BYTES", 100_000)
    monkeypatch.setattr(pixels, "decode", None)
    for data, (header, seen) in zip(files, here, strict=True):
        again, there = load(data, 256, 1024)
        assert again == header
        assert np.abs(there.astype(int) - seen).mean() < 3


def test_heif_is_read_where_its_library_is_there() -> None:
    heif = pytest.importorskip("pillow_heif")
    out = io.BytesIO()
    heif.from_pillow(photo()).save(out, quality=90)
    found = look(out.getvalue(), MAX_PIXELS)
    assert (found.decode_error, found.format, found.width, found.height) == (None, "heif", 400, 300)
    assert (found.colour_space, found.bit_depth, found.frames) == ("rgb", 8, 1)
    assert (found.phash ^ look(saved(photo(), "PNG"), MAX_PIXELS).phash).bit_count() <= 4  # type: ignore[operator]


def test_without_that_library_the_reason_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    pillow_decode._reads_heif.cache_clear()
    with pytest.raises(BadImage, match="pip install pillow-heif") as caught:
        pillow_decode.decode(b"\0\0\0\x18ftypheic", "heif", 256, 1024, MAX_PIXELS)
    assert caught.value.kind == "unsupported"
    pillow_decode._reads_heif.cache_clear()


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_orientation_is_applied_to_size_and_pixels(turn: int, kind: str) -> None:
    upright = photo(320, 160)
    stored = {
        1: upright,
        2: upright.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        3: upright.transpose(Image.Transpose.ROTATE_180),
        4: upright.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
        5: upright.transpose(Image.Transpose.TRANSPOSE),
        6: upright.transpose(Image.Transpose.ROTATE_90),
        7: upright.transpose(Image.Transpose.TRANSVERSE),
        8: upright.transpose(Image.Transpose.ROTATE_270),
    }[turn]
    exif = Image.Exif()
    exif[0x0112] = turn
    header, pixels = load(saved(stored, kind, exif=exif), 160, 320)
    assert header.upright() == (320, 160)
    assert np.abs(pixels[..., ::-1].astype(int) - np.asarray(upright)).mean() < 6


@pytest.mark.parametrize("data", [png_claiming(30_000, 30_000), jpeg_claiming(60_000, 60_000)])
def test_bombs_are_refused_by_their_header(data: bytes) -> None:
    out = judged(data)
    assert out["reason"].to_list() == ["image_bomb"]
    assert "pixels" in out["detail"][0]
    assert out["width"][0] in (30_000, 60_000)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "AVIF", "JPEG2000"])
def test_a_file_cut_short_anywhere_is_corrupt(kind: str) -> None:
    options = {"progressive": True} if kind == "JPEG" else {}
    whole = saved(photo(), kind, **options)
    out = judged(*(whole[: len(whole) * tenth // 10] for tenth in range(10)), whole)
    reasons = out["reason"].to_list()
    assert reasons[-1] is None
    # An unfinished JPEG 2000 is a coarser picture by design: its decoder may accept a late cut.
    sure = reasons[:-1] if kind != "JPEG2000" else reasons[:3]
    assert set(sure) <= {"image_corrupt", "image_unsupported"}
    assert set(reasons[2:-1]) <= {"image_corrupt", None}


def test_flipped_bytes_never_raise() -> None:
    rng = np.random.default_rng(1)
    for kind in ("JPEG", "PNG", "WEBP", "GIF", "TIFF"):
        whole = np.frombuffer(saved(photo(120, 120), kind), np.uint8)
        damaged = []
        for _ in range(25):
            one = whole.copy()
            one[rng.integers(0, len(one), 4)] ^= rng.integers(1, 255, 4, dtype=np.uint8)
            damaged.append(one.tobytes())
        out = judged(*damaged)
        assert set(out["status"].to_list()) <= {None, "dropped"}, out["detail"].to_list()


def test_reasons_by_size_shape_motion_and_kind() -> None:
    frames = [photo(seed=s) for s in range(3)]
    moving = {"save_all": True, "append_images": frames[1:], "duration": 100}
    out = judged(
        saved(frames[0], "GIF", **moving),
        saved(frames[0], "PNG", **moving),
        saved(frames[0], "WEBP", **moving),
        saved(photo(99, 150), "PNG"),
        saved(photo(301, 100), "JPEG"),
        saved(photo(300, 100), "JPEG"),
        saved(Image.new("L", (1, 65_000)), "PNG"),
        b"<html>sorry</html>",
        b"",
        saved(photo(), "PNG") + b"trailing bytes",
        b"\xff\xd8\xff\xe0 not really",
        None,
    )
    assert out["reason"].to_list() == [
        "image_animated",
        "image_animated",
        "image_animated",
        "image_too_small",
        "image_bad_aspect",
        None,
        "image_too_small",
        "image_unsupported",
        "image_corrupt",
        None,
        "image_corrupt",
        "image_missing",
    ]
    assert out["frames"].to_list()[:3] == [3, 3, 3]
    assert out["status"].to_list()[-1] == "failed"


def test_huge_metadata_and_wrong_names_do_not_matter() -> None:
    icc = zlib.compress(b"\0" * (64 << 20))
    png = saved(photo(), "PNG")
    swollen = png[:33] + chunk(b"iCCP", b"x\0\0" + icc) + chunk(b"zTXt", b"k\0\0" + icc) + png[33:]
    exif = Image.Exif()
    exif[0x010E] = "x" * 60_000
    out = judged(swollen, saved(photo(), "JPEG", exif=exif))
    assert out["status"].to_list() == [None, None]


def test_measures_do_not_depend_on_the_batch() -> None:
    images = [saved(photo(seed=s), k) for s, k in enumerate(("JPEG", "PNG", "GIF", "JPEG"))]
    together = judged(*images, threads=4)
    apart = pl.concat([judged(image, threads=1) for image in images])
    assert together.drop("key").equals(apart.drop("key"))


def test_sharpness_entropy_and_saturation_mean_what_they_say() -> None:
    def of(image: Image.Image) -> Any:
        pixels = np.ascontiguousarray(np.asarray(image.convert("RGB"))[..., ::-1])
        return measure(pixels, cv2.cvtColor(pixels, cv2.COLOR_BGR2GRAY).astype(np.uint8))

    flat = of(Image.new("RGB", (300, 300), (200, 0, 0)))
    assert (flat.sharpness, flat.entropy, flat.saturation) == (0.0, 0.0, 1.0)
    halves = np.zeros((300, 300), np.uint8)
    halves[:, 150:] = 255
    assert of(Image.fromarray(halves)).entropy == 1.0
    sharp = photo()
    assert of(sharp).sharpness > 4 * of(sharp.resize((100, 75)).resize((400, 300))).sharpness
    assert of(sharp.convert("L")).saturation == 0


def test_the_hash_is_the_reference_formula() -> None:
    scipy_fft = pytest.importorskip("scipy.fft")
    small: NDArray[np.uint8] = np.asarray(photo(32, 32).convert("L"))
    low = np.round(scipy_fft.dctn(small.astype(np.float64), norm="ortho")[:8, :8], 2)
    bits = "".join("1" if value > np.median(low) else "0" for value in low.ravel())
    assert (phashes(small)[0] ^ int(bits, 2)).bit_count() <= 1
    turned = np.ascontiguousarray(small[:, ::-1])
    assert (phashes(small)[1] ^ phashes(turned)[0]).bit_count() <= 1


def test_the_hash_knows_the_same_picture_again() -> None:
    pictures = [photo(600, 450, seed=s) for s in range(6)]
    hashes = [look(saved(p, "PNG"), MAX_PIXELS).phash or 0 for p in pictures]
    for image, known in zip(pictures, hashes, strict=True):
        again = look(saved(image.resize((333, 250)), "JPEG", quality=60), MAX_PIXELS).phash or 0
        assert (again ^ known).bit_count() <= 4
    others = [(a ^ b).bit_count() for i, a in enumerate(hashes) for b in hashes[:i]]
    assert min(others) >= 12


def framed(image: Image.Image, *sides: int, colour: tuple[int, int, int] = (255, 255, 255)) -> Image.Image:
    left, top, right, bottom = sides
    out = Image.new("RGB", (image.width + left + right, image.height + top + bottom), colour)
    out.paste(image, (left, top))
    return out


@pytest.mark.parametrize("sides", [(20, 20, 20, 20), (0, 30, 0, 30), (0, 0, 0, 45), (60, 0, 0, 0)])
def test_a_border_is_seen_and_what_it_holds_is_the_picture(sides: tuple[int, int, int, int]) -> None:
    image = photo(400, 300)
    plain = look(saved(image, "JPEG"), MAX_PIXELS)
    found = look(saved(framed(image, *sides), "JPEG", quality=85), MAX_PIXELS)
    assert (plain.border, plain.phash_inside, plain.image_grid_inside) == (0.0, None, None)
    left, top, right, bottom = sides
    assert found.border == pytest.approx(1 - 400 * 300 / ((400 + left + right) * (300 + top + bottom)), abs=0.02)
    assert found.phash_inside is not None and plain.phash is not None
    assert (found.phash_inside ^ plain.phash).bit_count() <= 6


def test_a_plain_backdrop_is_no_border() -> None:
    shade = Image.new("RGB", (300, 300), (240, 240, 240))
    ImageDraw.Draw(shade).ellipse((90, 90, 210, 210), fill=(180, 30, 40))
    assert look(saved(shade, "JPEG"), MAX_PIXELS).border == 0
    assert look(saved(Image.new("RGB", (300, 300), (9, 9, 9)), "JPEG"), MAX_PIXELS).border == 0
    dropped = judged(saved(framed(photo(), 200, 0, 200, 0), "JPEG"), max_border=0.4)
    assert dropped["reason"].to_list() == ["image_bordered"]


def test_a_decoder_that_dies_or_hangs_costs_one_image(monkeypatch: pytest.MonkeyPatch) -> None:
    decoder = IsolatedDecoder(memory=256 << 20)
    gif = saved(photo(), "GIF")
    header, _ = decoder.decode(gif, "gif", 256, 1024, MAX_PIXELS)
    assert (header.width, header.height) == (400, 300)
    with pytest.raises(BadImage, match=r"memory|died"):
        decoder.decode(saved(Image.new("1", (8000, 7900)), "TIFF", compression="group4"), "tiff", 256, 1024, MAX_PIXELS)
    child: Any = decoder._child
    if child is not None:
        child.kill()
        with pytest.raises(BadImage, match="died"):
            decoder.decode(gif, "gif", 256, 1024, MAX_PIXELS)
    assert decoder.decode(gif, "gif", 256, 1024, MAX_PIXELS)[0].width == 400
    decoder.close()


def test_thresholds_can_be_replayed() -> None:
    expected = {"shorter_side", "max_aspect", "max_border", "min_entropy", "min_sharpness", "max_transparency"}
    assert Decode.thresholds() == expected | {"allow_animated"}
    assert judged(saved(photo(99, 99), "PNG"), shorter_side=99)["status"].to_list() == [None]
    out = judged(saved(Image.new("L", (200, 200)), "PNG"), min_entropy=3.0)
    assert out["reason"].to_list() == ["image_flat"]
