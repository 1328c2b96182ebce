from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import onnx
import polars as pl
import pytest
from onnx import TensorProto, helper

from tuwen.filters.decode import Decode
from tuwen.filters.detectors import load_detector
from tuwen.filters.image_safety import ImageSafety
from tuwen.pipeline.errors import RecipeError
from tuwen.pipeline.stage import Tally, apply_stage
from tuwen.sample_data.draw import render
from tuwen.sample_data.faults import encode, hazard
from tuwen.sample_data.world import random_scene


def batch(*images: bytes) -> pl.DataFrame:
    frame = pl.DataFrame({"key": [hashlib.md5(i).hexdigest() for i in images], "image": list(images)})
    return apply_stage(Decode(), frame, Tally())


def scene(seed: int) -> np.ndarray[tuple[int, int, int], np.dtype[np.uint8]]:
    pixels: np.ndarray[tuple[int, int, int], np.dtype[np.uint8]] = render(
        random_scene(np.random.default_rng(seed)), 256
    )
    return pixels


def red_is_unsafe(folder: Path) -> Path:
    """A classifier whose one unsafe class is the mean of the red channel."""
    nodes = [
        helper.make_node("GlobalAveragePool", ["x"], ["m"]),
        helper.make_node("Flatten", ["m"], ["f"]),
        helper.make_node("MatMul", ["f", "w"], ["y"]),
    ]
    weights = np.array([[0, 1], [1, 0], [0, 0]], np.float32)
    graph = helper.make_graph(
        nodes,
        "red",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 32, 32])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 2])],
        [helper.make_tensor("w", TensorProto.FLOAT, [3, 2], weights.ravel())],
    )
    path = folder / "red.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), str(path))
    (folder / "red.yaml").write_text("size: 32\nclasses: [green, red]\nunsafe: [red]\n")
    return path


def test_the_sample_detector_finds_stripes_and_nothing_else() -> None:
    marked = scene(1).copy()
    marked[:180, :180] = hazard(180)
    images = [encode(marked, quality=80), *(encode(scene(i)) for i in range(12))]
    out = apply_stage(ImageSafety(), batch(*images), Tally())
    assert out["reason"].to_list() == ["image_unsafe", *[None] * 12]
    assert out["unsafe_class"][0] == "hazard"
    assert "No real detector" in ImageSafety().notices()[0]


def test_an_onnx_classifier_by_path(tmp_path: Path) -> None:
    path = red_is_unsafe(tmp_path)
    red = np.zeros((200, 200, 3), np.uint8) + np.array((250, 5, 5), np.uint8)
    red[::7] = 0
    stage = ImageSafety(detector=f"onnx:{path}")
    out = apply_stage(stage, batch(encode(red), encode(255 - red)), Tally())
    assert out["reason"].to_list() == ["image_unsafe", None]
    assert stage.notices() == ()
    assert len(next(iter(stage.resources().values()))) == 16


def test_wrong_detectors_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="expected one of: sample, none, nudenet, onnx:PATH"):
        load_detector("nsfw")
    with pytest.raises(RecipeError, match="no file"):
        load_detector("onnx:nowhere.onnx")
    path = red_is_unsafe(tmp_path)
    path.with_suffix(".yaml").write_text("size: 32\nclasses: [green, red]\nunsafe: [blue]\n")
    with pytest.raises(RecipeError, match=r"unsafe names \['blue'\]"):
        load_detector(f"onnx:{path}")
    (tmp_path / "bad.onnx").write_bytes(b"no model")
    (tmp_path / "bad.yaml").write_text("classes: [a]\nunsafe: [a]\n")
    with pytest.raises(RecipeError, match="no ONNX model"):
        load_detector(f"onnx:{tmp_path / 'bad.onnx'}")


def test_a_blocklist_of_hashes_matches_nearly(tmp_path: Path) -> None:
    frame = batch(encode(scene(1)), encode(scene(2)), encode(scene(1), quality=60))
    held = tmp_path / "hashes.txt"
    held.write_text(f"# mine\n{frame['phash'][0]:016x}\n")
    out = apply_stage(ImageSafety(detector="none", blocklist=str(held)), frame, Tally())
    assert out["reason"].to_list() == ["image_blocklisted", None, "image_blocklisted"]
    (tmp_path / "bad.txt").write_text("xyz\n")
    with pytest.raises(RecipeError, match=r"bad\.txt:1.*'xyz'"):
        ImageSafety(detector="none", blocklist=str(tmp_path / "bad.txt")).measure(frame)
