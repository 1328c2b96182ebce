from __future__ import annotations

import io
from typing import Any

import cv2
import numpy as np
import polars as pl
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from tuwen.filters.decode import Decode
from tuwen.filters.jpeg import Jpeg
from tuwen.filters.overlays import Overlays, qr_codes, sharpness_map, watermark
from tuwen.pipeline.stage import Tally, apply_stage


def picture(seed: int = 0, side: int = 448) -> Image.Image:
    """Smooth patches of colour with grain."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 255, (7, 7, 3), dtype=np.uint8))
    big = np.asarray(small.resize((side, side), Image.Resampling.BICUBIC), np.int16)
    return Image.fromarray(np.clip(big + rng.integers(-8, 8, big.shape), 0, 255).astype(np.uint8))


def lettered(image: Image.Image) -> Image.Image:
    pen, out = ImageDraw.Draw(image), image
    pen.rectangle((0, 200, 448, 300), fill=(0, 0, 0))
    for line in range(3):
        text, font = "NEW ARRIVALS 50% OFF 2024", ImageFont.load_default(26)
        pen.text((12, 206 + 30 * line), text, font=font, fill=(255, 255, 255))
    return out


def coded(image: Image.Image, side: int = 130) -> Image.Image:
    code = Image.fromarray(np.asarray(cv2.QRCodeEncoder.create().encode("https://example.com/a-page")))
    image.paste(code.resize((side, side), Image.Resampling.NEAREST), (50, 180))
    return image


def marked(image: Image.Image, opacity: float = 0.4, tiles: int = 9) -> Image.Image:
    mask = Image.new("L", image.size)
    pen = ImageDraw.Draw(mask)
    for number in range(tiles * 5):
        row, column = divmod(number, 5)
        at = (column * 110 - (row % 2) * 55, row * 52)
        pen.text(at, "SAMPLE", font=ImageFont.load_default(22), fill=int(255 * opacity))
    image.paste((255, 255, 255), mask=mask)
    return image


def saved(image: Image.Image) -> bytes:
    out = io.BytesIO()
    image.save(out, "JPEG", quality=88)
    return out.getvalue()


def judged(*images: bytes, **fields: Any) -> pl.DataFrame:
    rows = pl.DataFrame({"key": [str(i) for i in range(len(images))], "image": list(images)})
    return apply_stage(Overlays(**fields), apply_stage(Decode(), rows, Tally()), Tally())


def test_each_measure_sees_its_own() -> None:
    rows = [saved(picture()), saved(lettered(picture())), saved(coded(picture())), saved(marked(picture()))]
    out = judged(*rows)
    assert out["status"].to_list() == [None] * 4, "measures alone drop nothing"
    clean, text, code, mark = out.select("text_share", "qr_codes", "watermark").rows(named=True)
    assert (clean["text_share"], clean["qr_codes"]) == (0.0, 0)
    assert clean["watermark"] < 0.3 < 0.9 < mark["watermark"]
    assert 0.05 < text["text_share"] < 0.35
    assert (text["qr_codes"], code["qr_codes"], mark["qr_codes"]) == (0, 1, 0)
    limits = judged(*rows, max_text_share=0.1, max_qr_codes=0, max_watermark=0.5)
    assert limits["reason"].to_list() == [None, "image_text", "image_qr_code", "image_watermarked"]


def test_limits_can_be_replayed_and_rows_stand_for_themselves() -> None:
    assert Overlays.thresholds() == {"max_text_share", "max_qr_codes", "max_watermark"}
    images = [saved(coded(picture(3))), saved(picture(4)), saved(lettered(picture(5)))]
    together = judged(*images, threads=3).drop("key")
    assert together.equals(pl.concat([judged(image, threads=1) for image in images]).drop("key"))


def test_edges_in_one_direction_are_no_text() -> None:
    fence: NDArray[np.uint8] = np.tile(np.array([0, 0, 255, 255], np.uint8), (256, 64))
    assert sharpness_map(fence).max() < 1
    assert sharpness_map(np.array(np.random.default_rng(0).integers(0, 255, (256, 256)), np.uint8)).min() > 40


def test_two_codes_are_two() -> None:
    image = picture()
    code = Image.fromarray(np.asarray(cv2.QRCodeEncoder.create().encode("one")))
    for left in (30, 250):
        image.paste(code.resize((140, 140), Image.Resampling.NEAREST), (left, 100))
    assert qr_codes(np.asarray(image.convert("L"))) == 2


def test_odd_sizes_are_measured() -> None:
    for height, width in ((1, 1), (1, 300), (300, 1), (3, 5), (40, 1024), (256, 256)):
        grey: NDArray[np.uint8] = np.full((height, width), 200, np.uint8)
        assert (watermark(grey), qr_codes(grey), float(sharpness_map(grey).max())) == (0.0, 0, 0.0)


def test_a_damaged_image_fails_alone() -> None:
    rows = pl.DataFrame({"key": ["a", "b"], "image": [saved(picture()), b"\xff\xd8\xff"], "image_sha256": ["x", "y"]})
    out = apply_stage(Overlays(), rows, Tally())
    assert out["status"].to_list() == [None, "failed"]
    assert out["reason"].to_list() == [None, "image_corrupt"]


def test_what_dropped_a_row_before_stays_told() -> None:
    rows = pl.DataFrame(
        {"key": ["a"], "image": [None], "status": ["dropped"], "reason": ["opted_out"], "detail": ["noai"]},
        schema_overrides={"image": pl.Binary},
    )
    for stage in (Decode(), Jpeg()):
        rows = apply_stage(stage, rows, Tally(), dropped_too=True)
    assert rows.select("reason", "detail", "blocked").row(0) == ("opted_out", "noai", "decode:image_missing")
