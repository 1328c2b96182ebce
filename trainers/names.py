"""Makes the model and the word lists of the stage ``names``, from two published sources; nothing is trained here.

    uv pip install jieba==0.42.1 --target /tmp/jieba
    python -m tuwen.trainers.names /tmp/jieba/jieba -o filters

The model is LAC-small by Baidu (Jiao, Sun, Sun: Chinese Lexical Analysis with Deep Bi-GRU-CRF Network, 2018;
Apache-2.0), a character tagger with 57 tags that jieba 0.42.1 (MIT) ships for its Paddle mode. Its parameters become
one ONNX graph: embedding as bytes with a scale per row, recurrent weights as half floats. Rows that training never
touched (two out of seven; their length is that of the initial values) are left out: such a character is unknown.

The word lists are jieba's dictionary as the model judges it: each word is put into a few carrier sentences.
``common.txt`` has the words that the dictionary calls a name and the model never does (小狗, 滑雪, 沙滩);
``known.txt`` those that the dictionary does not call a name and the model always does (周恩来, 梵高).
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..filters.name_model import NameModel
from .paddle import read_variable

Array = NDArray[Any]
HIDDEN = 128
CARRIERS = ("一个{}。", "看到了{}", "{}说")
SOURCE = "Baidu LAC-small (Apache-2.0), from jieba 0.42.1 (MIT), lac_small/model_baseline"
TRAINED_LENGTH = 1.0


def gates(columns: Array) -> Array:
    """Paddle's gates (update, reset, candidate) as ONNX orders and means them, along the last axis.

    Paddle: h' = (1 - u) h + u c; ONNX: h' = z h + (1 - z) c, so z = 1 - u = sigmoid(-x).
    """
    u, r, c = np.split(columns, 3, axis=-1)
    return np.concatenate([-u, r, c], axis=-1)


def recurrent(flat: Array) -> Array:
    """Paddle keeps the weights of update and reset, (H, 2H), and of the candidate, (H, H), one behind the other."""
    split = 2 * HIDDEN * HIDDEN
    both = np.concatenate([flat[:split].reshape(HIDDEN, 2 * HIDDEN), flat[split:].reshape(HIDDEN, HIDDEN)], axis=1)
    return gates(both)  # (H, 3H)


def parameters(folder: Path, layer: int) -> dict[str, Array]:
    """W (2, 3H, inputs), R (2, 3H, H) and B (2, 6H) of ONNX's GRU for one bidirectional layer."""
    found: dict[str, list[Array]] = {"W": [], "R": [], "B": []}
    for i in (2 * layer, 2 * layer + 1):
        bias = read_variable(folder / f"fc_{i}.b_0").ravel() + read_variable(folder / f"gru_{i}.b_0").ravel()
        found["W"].append(gates(read_variable(folder / f"fc_{i}.w_0")).T)
        found["R"].append(recurrent(read_variable(folder / f"gru_{i}.w_0").ravel()).T)
        found["B"].append(np.concatenate([gates(bias), np.zeros(3 * HIDDEN, np.float32)]))
    return {k: np.stack(v) for k, v in found.items()}


def build(source: Path) -> bytes:
    """The ONNX file: ids (T, N) int32 and lengths (N,) int32 to emissions (T, N, tags) float32."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    folder = source / "lac_small"
    rows = _table(folder / "word.dic")
    tags = [t for _, t in sorted((i, t) for t, i in _table(folder / "tag.dic").items())]
    weights = folder / "model_baseline"
    embedding = read_variable(weights / "word_emb")
    lengths = np.linalg.norm(embedding, axis=1)
    used = sorted(c for c, i in rows.items() if len(c) == 1 and lengths[i] > TRAINED_LENGTH)
    embedding = embedding[[rows["OOV"]] + [rows[c] for c in used]]  # row 0: unknown
    scale = np.abs(embedding).max(axis=1, keepdims=True) / 127

    nodes: list[Any] = []
    tensors: list[Any] = []

    def constant(name: str, value: Array) -> str:
        """A constant; half floats are widened when the graph is loaded."""
        if value.dtype == np.float32:
            tensors.append(numpy_helper.from_array(np.ascontiguousarray(value.astype(np.float16)), name + "_half"))
            nodes.append(helper.make_node("Cast", [name + "_half"], [name], to=TensorProto.FLOAT))
        else:
            tensors.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    constant("embedding", np.round(embedding / scale).astype(np.int8))
    tensors.append(numpy_helper.from_array(scale.astype(np.float32), "scale"))
    nodes += [
        helper.make_node("Gather", ["embedding", "ids"], ["bytes"]),
        helper.make_node("Cast", ["bytes"], ["steps"], to=TensorProto.FLOAT),
        helper.make_node("Gather", ["scale", "ids"], ["scales"]),
        helper.make_node("Mul", ["steps", "scales"], ["x0"]),
    ]
    constant("joined", np.array([0, 0, 2 * HIDDEN], np.int64))
    for layer in range(2):
        inputs = [constant(f"{k}{layer}", v) for k, v in parameters(weights, layer).items()]
        nodes += [
            helper.make_node(
                "GRU",
                [f"x{layer}", *inputs, "lengths"],
                [f"y{layer}"],
                hidden_size=HIDDEN,
                direction="bidirectional",
            ),
            helper.make_node("Transpose", [f"y{layer}"], [f"t{layer}"], perm=[0, 2, 1, 3]),
            helper.make_node("Reshape", [f"t{layer}", "joined"], [f"x{layer + 1}"]),
        ]
    constant("out", read_variable(weights / "fc_4.w_0"))
    constant("bias", read_variable(weights / "fc_4.b_0").ravel())
    nodes += [
        helper.make_node("MatMul", ["x2", "out"], ["product"]),
        helper.make_node("Add", ["product", "bias"], ["emissions"]),
    ]
    tensors.append(numpy_helper.from_array(read_variable(weights / "crfw"), "crf"))  # rows: start, end, from each tag
    nodes.append(helper.make_node("Identity", ["crf"], ["transitions"]))
    graph = helper.make_graph(
        nodes,
        "names",
        [
            helper.make_tensor_value_info("ids", TensorProto.INT32, ["T", "N"]),
            helper.make_tensor_value_info("lengths", TensorProto.INT32, ["N"]),
        ],
        [
            helper.make_tensor_value_info("emissions", TensorProto.FLOAT, ["T", "N", len(tags)]),
            helper.make_tensor_value_info("transitions", TensorProto.FLOAT, [len(tags) + 2, len(tags)]),
        ],
        tensors,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, {"characters": "".join(used), "tags": " ".join(tags), "source": SOURCE})
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString(deterministic=True))


def judged(model: NameModel, words: Sequence[str]) -> NDArray[np.int64]:
    """In how many of the carriers the model sees a name inside each word."""
    votes = np.zeros(len(words), np.int64)
    for carrier in CARRIERS:
        at = carrier.index("{")
        for i, spans in enumerate(model.spans([carrier.format(w) for w in words])):
            votes[i] += any(kind == "PER" and start < at + len(words[i]) and end > at for start, end, kind in spans)
    return votes


def word_lists(model: NameModel, dictionary: Path) -> tuple[list[str], list[str]]:
    """``common`` and ``known`` of the module's docstring, sorted."""
    entries = [line.split() for line in dictionary.read_text("utf-8").splitlines()]
    entries = [e for e in entries if 2 <= len(e[0]) <= 4 and all("一" <= c <= "鿿" for c in e[0])]
    names = [w for w, _, tag in entries if tag.startswith("nr")]
    others = [w for w, _, tag in entries if not tag.startswith("nr")]
    common = [w for w, n in zip(names, judged(model, names), strict=True) if n == 0]
    known = [w for w, n in zip(others, judged(model, others), strict=True) if n == len(CARRIERS)]
    return sorted(common), sorted(known)


def _table(path: Path) -> dict[str, int]:
    """Paddle's dictionaries: an index, a tab, an entry."""
    pairs = (line.split("\t") for line in path.read_text("utf-8").split("\n"))
    return {p[1]: int(p[0]) for p in pairs if len(p) == 2}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("source", type=Path, help="the folder jieba/ of an installed jieba 0.42.1")
    parser.add_argument(
        "-o", "--out", type=Path, default=Path("filters"), help="the folder filters/ of the source tree"
    )
    given = parser.parse_args()
    path = given.out / "models" / "names.onnx"
    path.write_bytes(build(given.source))
    common, known = word_lists(NameModel(path), given.source / "dict.txt")
    for name, words, said in (
        ("common", common, "Words that jieba's dictionary calls a name and the model never does"),
        ("known", known, "Words that the model calls a name in every carrier, and jieba's dictionary does not"),
    ):
        header = f"# {said}.\n# Made by trainers/names.py from the dictionary of jieba 0.42.1 (MIT).\n"
        text = header + "\n".join(" ".join(words[i : i + 20]) for i in range(0, len(words), 20)) + "\n"
        (given.out / "lexicons" / "names" / f"{name}.txt").write_text(text, "utf-8")
    print(f"{path}: {path.stat().st_size / 1e6:.2f} MB; {len(common)} common words, {len(known)} known names")


if __name__ == "__main__":
    main()
