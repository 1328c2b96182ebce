from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tuwen.filters.name_model import NameModel
from tuwen.trainers.names import HIDDEN, build
from tuwen.trainers.paddle import read_variable

Array = NDArray[np.float32]
TAGS = ["n-B", "n-I", "PER-B", "PER-I", "O"]


def varint(n: int) -> bytes:
    out = b""
    while n > 127:
        out, n = out + bytes([n & 127 | 128]), n >> 7
    return out + bytes([n])


def write(path: Path, values: Array) -> Array:
    """A file as Paddle writes it."""
    description = b"\x08\x05" + b"".join(b"\x10" + varint(n) for n in values.shape)
    head = struct.pack("<IQIi", 0, 0, 0, len(description))
    path.write_bytes(head + description + values.astype("<f4").tobytes())
    return values


def test_a_variable_is_read_in_its_shape(tmp_path: Path) -> None:
    values = np.arange(600, dtype=np.float32).reshape(3, 200)
    write(tmp_path / "w", values)
    assert np.array_equal(read_variable(tmp_path / "w"), values)


@pytest.mark.parametrize(("cut", "said"), [(10, "no Paddle variable"), (100, "copy the file again")])
def test_a_damaged_variable_is_named(tmp_path: Path, cut: int, said: str) -> None:
    write(tmp_path / "w", np.ones((4, 30), np.float32))
    (tmp_path / "w").write_bytes((tmp_path / "w").read_bytes()[:cut])
    with pytest.raises(ValueError, match=said):
        read_variable(tmp_path / "w")


def gru(x: Array, weights: Array, bias: Array) -> Array:
    """One direction in Paddle's formula (dynamic_gru): x (T, 3H) to h (T, H)."""
    flat = weights.ravel()
    both, candidate = flat[: 2 * HIDDEN**2].reshape(HIDDEN, -1), flat[2 * HIDDEN**2 :].reshape(HIDDEN, HIDDEN)
    h, out = np.zeros(HIDDEN, np.float32), []
    for row in x + bias.ravel():
        u, r = np.split(1 / (1 + np.exp(-(row[: 2 * HIDDEN] + h @ both))), 2)
        h = (1 - u) * h + u * np.tanh(row[2 * HIDDEN :] + (r * h) @ candidate)
        out.append(h)
    return np.stack(out)


def test_the_graph_computes_what_paddle_computes(tmp_path: Path) -> None:
    folder = tmp_path / "lac_small"
    (folder / "model_baseline").mkdir(parents=True)
    characters = [*"abc红狗", "OOV"]
    (folder / "word.dic").write_text("".join(f"{i}\t{c}\n" for i, c in enumerate(characters)), "utf-8")
    (folder / "tag.dic").write_text("".join(f"{i}\t{t}\n" for i, t in enumerate(TAGS)), "utf-8")
    rng = np.random.default_rng(0)

    def saved(name: str, *shape: int) -> Array:
        values = rng.normal(size=shape).astype(np.float16).astype(np.float32) / 8
        return write(folder / "model_baseline" / name, values.astype(np.float32))

    embedding = saved("word_emb", len(characters), HIDDEN)
    embedding[3] *= np.float32(1e-3)  # 红: as good as never trained
    write(folder / "model_baseline" / "word_emb", embedding)
    crf = saved("crfw", len(TAGS) + 2, len(TAGS))
    layers = []
    for i in range(4):
        inputs = HIDDEN if i < 2 else 2 * HIDDEN
        fc = saved(f"fc_{i}.w_0", inputs, 3 * HIDDEN), saved(f"fc_{i}.b_0", 3 * HIDDEN)
        layers.append((*fc, saved(f"gru_{i}.w_0", HIDDEN, 3 * HIDDEN), saved(f"gru_{i}.b_0", 1, 3 * HIDDEN)))
    out, bias = saved("fc_4.w_0", 2 * HIDDEN, len(TAGS)), saved("fc_4.b_0", len(TAGS))

    (tmp_path / "names.onnx").write_bytes(build(tmp_path))
    model = NameModel(tmp_path / "names.onnx")
    assert model.tags == TAGS
    assert np.array_equal(model.step, crf[2:])
    assert model.rows[ord("红")] == 0 == model.rows[ord("猫")] != model.rows[ord("狗")]

    text = "a狗红cＢ"
    x = embedding[[0, 4, 5, 2, 1]]
    for at in (0, 2):
        ahead, back = (
            gru(v @ w + b, g, gb) for v, (w, b, g, gb) in zip((x, x[::-1]), layers[at : at + 2], strict=True)
        )
        x = np.concatenate([ahead, back[::-1]], axis=1)
    found = model._emissions([text], np.array([5], np.int32))
    assert found.shape == (5, 1, len(TAGS))
    assert np.allclose(found[:, 0], x @ out + bias, atol=1e-2)  # bytes in the embedding
