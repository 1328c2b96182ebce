"""Int8 models for the edge from a folder of ONNX files: ``quantise``. The result is a folder of the same form.

Weights and activations of the matrix products and convolutions become 8-bit integers with fixed scales, from
onnxruntime's static quantisation: a scale for each output channel of a weight, and for each activation one that is
calibrated on given pictures and captions. Scales that follow the values of each call (dynamic quantisation) would
let a photo's vector depend on the photos beside it. Tables of token embeddings become integers too; what lies
between (norms, softmax, products of two activations) stays as it is. See docs/edge.md.
"""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import tempfile
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ...pipeline.errors import RecipeError, RunError, UsageError
from ...scoring.onnx_scorer import OnnxScorer, read_description
from ...scoring.scorer import ONNX, load_scorer
from .search import SUMS, write_sums

TOLD = "edge.json"
"""What the folder was made of, and how close it came."""
LEAST = 16
"""Pictures, and captions, without which no scale can be had."""
WEIGHTS = {"MatMul": 1, "Gemm": 1, "Conv": 1, "Gather": 0}
"""Operators that have integer forms here, and which of their inputs may be a weight."""
SMALL = 1024
"""Weights of fewer numbers are left alone."""
LEAST_COSINE = 0.9
"""Mean cosine with the features of the model it was made of, under which an int8 model is not kept."""


def quantise(source: Path, out: Path, pictures: Sequence[Image.Image], captions: Sequence[str]) -> dict[str, Any]:
    """Write the int8 form of the ONNX folder ``source`` to ``out``; what ``edge.json`` there says.

    The first three quarters of pictures and captions calibrate; on the rest, features are held against those
    of ``source``. Of two ways to take the range of an activation (all of it, or but for one value in ten thousand) the
    closer one is kept for each tower. Raises ``RunError`` where the features have gone astray.
    """
    if out.exists() and any(out.iterdir()) and not (out / TOLD).is_file():
        raise UsageError(f"{out} is not empty and holds no int8 model; give an empty or new folder")
    if not (source / ONNX).is_file():
        raise RecipeError(f"{source} holds no {ONNX}; `curate export-scorer MODEL -o DIR` makes such a folder")
    if min(len(pictures), len(captions)) < LEAST:
        raise UsageError(
            f"{len(pictures)} pictures and {len(captions)} captions to calibrate on; at least {LEAST} of each"
        )
    scorer = load_scorer(str(source), "cpu", 1, 1)
    assert isinstance(scorer, OnnxScorer)
    told = read_description(source)
    with tempfile.TemporaryDirectory(prefix=".tuwen-", dir=_parent(out)) as held:
        work = Path(held)
        towers = {}
        for name, inputs in ((told.image, scorer.pixels(pictures)), (told.text, scorer.ids(captions))):
            towers[name] = _best(source / name, work, inputs)
        made = work / "made"
        made.mkdir()
        for path in source.iterdir():
            if path.is_file() and path.name not in (*towers, SUMS):
                shutil.copy(path, made)
        for name, tower in towers.items():
            if tower["cosine"] < LEAST_COSINE:
                raise RunError(
                    f"{name}: int8 features have a mean cosine of {tower['cosine']} with its own; nothing was kept. "
                    "Use the model as it is, or calibrate on pictures and captions like those it is for"
                )
            shutil.move(work / tower.pop("file"), made / name)
        record = {
            "source": scorer.hash,
            "precision": "int8",
            "towers": towers,
            "pictures": len(pictures),
            "captions": len(captions),
            "onnxruntime": version("onnxruntime"),
        }
        (made / TOLD).write_text(json.dumps(record, indent=1) + "\n", "utf-8")
        write_sums(made)
        if out.exists():
            shutil.rmtree(out)
        made.replace(out)
    return record


def _parent(out: Path) -> Path:
    out.parent.mkdir(parents=True, exist_ok=True)
    return out.parent


def _best(path: Path, work: Path, inputs: NDArray[Any]) -> dict[str, Any]:
    """The closest of the int8 forms of one tower: its file's name in ``work``, its cosine, sizes in bytes."""
    quantisation = _quantisation()
    seen, held = np.split(inputs, [3 * len(inputs) // 4])
    ready = work / f"ready-{path.name}"
    quantisation.shape_inference.quant_pre_process(path, ready, skip_symbolic_shape=True)
    wanted = _features(path, held)
    found = []
    for method in ("MinMax", "Percentile"):
        file = f"{method}-{path.name}"
        with contextlib.redirect_stdout(io.StringIO()):  # its calibrators print
            quantisation.quantize_static(
                ready,
                work / file,
                _reader(quantisation, seen),
                op_types_to_quantize=[*WEIGHTS],
                per_channel=True,
                nodes_to_quantize=_weighted(ready),
                calibrate_method=quantisation.CalibrationMethod[method],
                extra_options={"CalibPercentile": 99.99},
            )
        cosine = (wanted * _features(work / file, held)).sum(1)
        told = {"cosine": round(float(cosine.mean()), 5), "least_cosine": round(float(cosine.min()), 5)}
        found.append({"file": file, "range": method.lower(), **told})
    best: dict[str, Any] = max(found, key=lambda one: one["cosine"])
    return {**best, "bytes": (work / best["file"]).stat().st_size, "bytes_before": path.stat().st_size}


def _quantisation() -> Any:
    try:
        from onnxruntime import quantization
    except ImportError as error:
        raise RecipeError(f"quantisation needs the package onnx ({error}): pip install 'tuwen[edge]'") from None
    return quantization


def _reader(quantisation: Any, inputs: NDArray[Any]) -> Any:
    """The calibration inputs, one row at a time."""

    class Reader(quantisation.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.rows = iter(inputs)

        def get_next(self) -> dict[str, NDArray[Any]] | None:
            row = next(self.rows, None)
            return None if row is None else {"input": row[None]}

    return Reader()


def _weighted(path: Path) -> list[str]:
    """Names of the nodes that multiply by, or look up in, a weight of the model's own."""
    import onnx

    graph = onnx.load(str(path)).graph
    sizes = {w.name: int(np.prod(w.dims)) for w in graph.initializer}
    known = (n for n in graph.node if n.op_type in WEIGHTS)
    return [n.name for n in known if sizes.get(n.input[WEIGHTS[n.op_type]], 0) >= SMALL]


def _features(path: Path, inputs: NDArray[Any]) -> NDArray[np.float32]:
    """Unit rows of a model's features."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    rows = np.concatenate([session.run(None, {"input": row[None]})[0] for row in inputs]).astype(np.float32)
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype=np.float32)
