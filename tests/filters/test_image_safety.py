from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray
from PIL import Image

from tuwen.filters.decode import Decode
from tuwen.filters.detectors import load_detector
from tuwen.filters.image_safety import ImageSafety
from tuwen.pipeline.errors import RecipeError
from tuwen.pipeline.stage import Tally, apply_stage


def stripes(share: float, side: int = 288, colours: tuple[Any, Any] = ((255, 0, 255), (0, 0, 0))) -> Image.Image:
    """Diagonal stripes 8 pixels wide over ``share`` of a quiet picture."""
    pixels = np.full((side, side, 3), (120, 150, 90), np.uint8)
    y, x = np.mgrid[0:side, 0:side]
    marked = x < side * share
    on = ((x + y) // 8) % 2 == 0
    pixels[marked & on], pixels[marked & ~on] = colours
    return Image.fromarray(pixels)


def jpeg(image: Image.Image, quality: int = 80) -> bytes:
    out = io.BytesIO()
    image.save(out, "JPEG", quality=quality)
    return out.getvalue()


def judged(*images: bytes, **fields: Any) -> pl.DataFrame:
    rows = pl.DataFrame({"key": [str(i) for i in range(len(images))], "image": list(images)})
    return apply_stage(ImageSafety(**fields), apply_stage(Decode(), rows, Tally()), Tally())


def test_the_stand_in_finds_the_marks_and_nothing_else() -> None:
    purple = Image.new("RGB", (288, 288), (255, 0, 255))
    out = judged(
        jpeg(stripes(1.0)),
        jpeg(stripes(0.31)),
        jpeg(stripes(0.5, side=640), 60),
        jpeg(stripes(0.02)),
        jpeg(stripes(1.0, colours=((255, 255, 255), (0, 0, 0)))),
        jpeg(purple),
    )
    assert out["reason"].to_list() == ["image_unsafe"] * 3 + [None] * 3
    assert out["unsafe_class"].to_list()[:3] == ["hazard"] * 3
    assert not load_detector("sample").real
    assert "No real detector" in ImageSafety().notices()[0]


def redness(path: Path, **description: Any) -> str:
    """A classifier whose class ``red`` is the mean of its first channel; the recipe's word for it."""
    import onnx
    from onnx import TensorProto, helper

    size = description.get("size", 8)
    graph = helper.make_graph(
        [
            helper.make_node("ReduceMean", ["x"], ["m"], axes=[2, 3], keepdims=0),
            helper.make_node("Slice", ["m", "zero", "two", "one"], ["scores"]),
        ],
        "redness",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, size, size])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, 2])],
        [
            helper.make_tensor("zero", TensorProto.INT64, [1], [0]),
            helper.make_tensor("two", TensorProto.INT64, [1], [2]),
            helper.make_tensor("one", TensorProto.INT64, [1], [1]),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])
    model.ir_version = 8
    onnx.save(model, str(path))
    told = {"size": size, "classes": "[red, green]", "unsafe": "[red]", **description}
    path.with_suffix(".yaml").write_text("".join(f"{k}: {v}\n" for k, v in told.items()), "utf-8")
    return f"onnx:{path}"


def test_an_onnx_classifier_reads_red_green_blue(tmp_path: Path) -> None:
    spec = redness(tmp_path / "m.onnx")
    red, blue = jpeg(Image.new("RGB", (200, 200), (255, 0, 0))), jpeg(Image.new("RGB", (200, 200), (0, 0, 255)))
    out = judged(red, blue, detector=spec)
    assert out["nsfw"].to_list() == pytest.approx([1.0, 0.0], abs=0.02)
    assert out["reason"].to_list() == ["image_unsafe", None]
    assert out["unsafe_class"][0] == "red"
    stage = ImageSafety(detector=spec)
    assert stage.notices() == ()
    assert list(stage.resources()) == [spec]
    other = judged(red, blue, detector=redness(tmp_path / "b.onnx", channels="BGR"))
    assert other["nsfw"].to_list() == pytest.approx([0.0, 1.0], abs=0.02)


def test_a_crop_sees_the_middle_and_a_large_input_more_than_the_view(tmp_path: Path) -> None:
    pixels: NDArray[np.uint8] = np.zeros((400, 1000, 3), np.uint8)
    pixels[:, 300:700, 0] = 255
    wide = jpeg(Image.fromarray(pixels), 95)
    assert judged(wide, detector=redness(tmp_path / "c.onnx", crop="true"))["nsfw"][0] > 0.97
    assert judged(wide, detector=redness(tmp_path / "s.onnx"))["nsfw"][0] == pytest.approx(0.4, abs=0.05)
    assert judged(wide, detector=redness(tmp_path / "l.onnx", size=384, crop="true"))["nsfw"][0] > 0.97


def boxed(path: Path, side: int) -> None:
    """A detector of nudenet's signature: of two boxes the second scores class n by the mean of channel n % 3."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    weights = np.zeros((22, 3), np.float32)
    weights[3, :] = 1  # a coordinate, which is no score
    weights[4 + 4, 0] = 0.9  # FEMALE_GENITALIA_EXPOSED: blue, the first channel that is fed
    weights[4 + 1, 2] = 1.0  # FACE_FEMALE, which is safe: red
    nodes = [
        helper.make_node("ReduceMean", ["images"], ["m"], axes=[2, 3], keepdims=0),  # (1, 3)
        helper.make_node("Gemm", ["m", "w"], ["one"], transB=1),  # (1, 22)
        helper.make_node("Mul", ["one", "half"], ["other"]),
        helper.make_node("Unsqueeze", ["one", "last"], ["a"]),
        helper.make_node("Unsqueeze", ["other", "last"], ["b"]),
        helper.make_node("Concat", ["b", "a"], ["output0"], axis=2),
    ]
    graph = helper.make_graph(
        nodes,
        "boxes",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, side, side])],
        [helper.make_tensor_value_info("output0", TensorProto.FLOAT, [1, 22, 2])],
        [
            numpy_helper.from_array(weights, "w"),
            numpy_helper.from_array(np.array(0.5, np.float32), "half"),
            numpy_helper.from_array(np.array([2], np.int64), "last"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])
    model.ir_version = 8
    onnx.save(model, str(path))


def test_an_installed_nudenet_lends_its_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "nudenet"
    package.mkdir()
    (package / "__init__.py").write_text("raise SystemExit('its code is not run')", "utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    load_detector.cache_clear()
    with pytest.raises(RecipeError, match=r"320n\.onnx"):
        load_detector("nudenet")
    boxed(package / "320n.onnx", 320)
    blue, red = Image.new("RGB", (400, 200), (0, 0, 255)), Image.new("RGB", (300, 300), (255, 0, 0))
    out = judged(jpeg(blue, 95), jpeg(red, 95), detector="nudenet", threshold=0.4)
    # The wide picture is laid on a black square: half of it is blue.
    assert out["nsfw"].to_list() == pytest.approx([0.45, 0.0], abs=0.01)
    assert out["unsafe_class"][0] == "FEMALE_GENITALIA_EXPOSED"
    assert out["reason"].to_list() == ["image_unsafe", None]
    stage = ImageSafety(detector="nudenet")
    assert stage.notices() == ()
    before = stage.resources()
    (package / "320n.onnx").write_bytes((package / "320n.onnx").read_bytes() + b"\0")
    assert stage.resources() != before
    load_detector.cache_clear()


def test_without_nudenet_the_way_out_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    load_detector.cache_clear()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(RecipeError, match="pip install nudenet"):
        load_detector("nudenet")
    load_detector.cache_clear()


def test_normalisation_and_logits_are_those_of_the_yaml(tmp_path: Path) -> None:
    picture = jpeg(Image.new("RGB", (200, 200), (204, 102, 0)), 100)
    told = {"mean": "[0.3, 0.2, 0.1]", "std": "[0.5, 0.25, 0.2]"}
    plain = judged(picture, detector=redness(tmp_path / "n.onnx", **told))
    assert plain["nsfw"][0] == pytest.approx((0.8 - 0.3) / 0.5, abs=0.02)
    logits = judged(picture, detector=redness(tmp_path / "s.onnx", softmax="true", **told))
    red, green = (0.8 - 0.3) / 0.5, (0.4 - 0.2) / 0.25
    assert logits["nsfw"][0] == pytest.approx(1 / (1 + np.exp(green - red)), abs=0.01)
    raw = judged(picture, detector=redness(tmp_path / "r.onnx", scale="0.001"))
    assert raw["nsfw"][0] == pytest.approx(0.204, abs=0.002)


def test_a_detector_whose_output_is_no_boxes_is_named(tmp_path: Path) -> None:
    out = judged(jpeg(stripes(0.0)), detector=redness(tmp_path / "x.onnx", boxes="true"))
    assert "boxes of 2 classes" in out["detail"][0]


def test_what_is_wrong_with_a_detector_is_said(tmp_path: Path) -> None:
    for spec, words in (
        ("onnx:/nowhere/m.onnx", "no file"),
        ("magic", "expected one of"),
        (redness(tmp_path / "u.onnx", unsafe="[blue]"), "blue"),
        (redness(tmp_path / "e.onnx", colour="RGB"), "colour"),
    ):
        with pytest.raises(RecipeError, match=words):
            load_detector(spec)
    bare = tmp_path / "bare.onnx"
    bare.write_bytes(b"no model")
    with pytest.raises(RecipeError, match=r"bare\.yaml"):
        load_detector(f"onnx:{bare}")


def test_a_blocklist_matches_near_hashes(tmp_path: Path) -> None:
    image = jpeg(stripes(0.0).resize((300, 300)).rotate(0))
    grain = Image.fromarray(np.random.default_rng(0).integers(0, 255, (12, 12, 3), dtype=np.uint8)).resize((300, 300))
    rows = pl.DataFrame({"key": ["a", "b"], "image": [jpeg(grain), image]})
    known = apply_stage(Decode(), rows, Tally())["phash"][0]
    listed = tmp_path / "block.txt"
    listed.write_text(f"# our list\n{known ^ 0b101:016x}  # two bits away\n", "utf-8")
    out = judged(jpeg(grain, 50), image, detector="none", blocklist=str(listed))
    assert out["reason"].to_list() == ["image_blocklisted", None]
    assert out["blocklisted"][0] <= 4
    strict = judged(jpeg(grain), detector="none", blocklist=str(listed), blocklist_bits=1)
    assert strict["status"].to_list() == [None]
    listed.write_text("# nothing yet\n", "utf-8")
    empty = tmp_path / "empty.txt"
    empty.write_text("# nothing yet\n", "utf-8")
    assert judged(image, detector="none", blocklist=str(empty))["blocklisted"].to_list() == [None]
    wrong = tmp_path / "wrong.txt"
    wrong.write_text("zebra\n", "utf-8")
    out = judged(image, detector="none", blocklist=str(wrong))
    assert "zebra" in out["detail"][0]


def test_a_damaged_image_fails_alone() -> None:
    rows = pl.DataFrame({"key": ["a", "b"], "image": [jpeg(stripes(0.0)), b"\xff\xd8\xff"], "image_sha256": ["x", "y"]})
    out = apply_stage(ImageSafety(), rows, Tally())
    assert out["status"].to_list() == [None, "failed"]
    assert out["reason"].to_list() == [None, "image_corrupt"]
