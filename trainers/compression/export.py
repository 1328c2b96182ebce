"""A network as an ONNX model in memory: layers whose bits are 8 become integer operators, all others stay in fp32."""

from __future__ import annotations

import contextlib
import io
import logging
import re
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ...pipeline.errors import RecipeError, RunError
from ...scoring.export_scorer import OPSET
from .instructions import WEIGHT_LIMIT

OPERATORS = ("Conv", "MatMul", "Gemm")
CALIBRATE = 32
"""Inputs that the ranges of activations are taken from at most."""


def export(network: nn.Module, calibrate: Tensor, output: str = "features") -> bytes:
    """``network`` (cut, in eval mode) as an ONNX model with a free batch dimension.

    ``calibrate`` (n, ...) are inputs for the scales of the int8 layers.
    """
    int8 = {
        # Names of nodes leave the dictionary of branches out.
        re.sub(r"(^|\.)branches\.", r"\1", name)
        for name, layer in network.named_modules()
        if getattr(layer, "int8", False)
    }
    with in_fp32(network):
        model = _traced(network, calibrate[:2], output)
    return _quantised(model, int8, calibrate[:CALIBRATE].numpy()) if int8 else model


def _traced(network: nn.Module, example: Tensor, output: str) -> bytes:
    buffer = io.BytesIO()
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network,
            (example,),
            buffer,  # type: ignore[arg-type]
            dynamo=False,
            opset_version=OPSET,
            input_names=["input"],
            output_names=[output],
            dynamic_axes={"input": {0: "n"}, output: {0: "n"}},
        )
    return buffer.getvalue()


@contextlib.contextmanager
def in_fp32(network: nn.Module) -> Iterator[None]:
    """All layers in fp32: the integer operators are put in by onnxruntime."""
    layers: list[Any] = [m for m in network.modules() if getattr(m, "int8", False)]
    for layer in layers:
        layer.int8 = False
    try:
        yield
    finally:
        for layer in layers:
            layer.int8 = True


def _quantised(model: bytes, layers: set[str], inputs: np.ndarray[Any, Any]) -> bytes:
    """The nodes of ``layers`` in int8, with fixed scales, by onnxruntime's static quantisation."""
    try:
        import onnx
        from onnxruntime import quantization
    except ImportError as error:
        raise RecipeError(f"int8 layers need the package onnx ({error}): pip install 'tuwen[compression]'") from None
    graph = onnx.load_from_string(model)
    nodes = [n.name for n in graph.graph.node if n.op_type in OPERATORS and _layer(n.name) in layers]
    missing = layers - {_layer(n) for n in nodes}
    if missing:
        raise RunError(f"no operator of the exported model comes from {', '.join(sorted(missing))}")

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.rows = iter(np.array_split(inputs, max(1, len(inputs) // 8)))

        def get_next(self) -> dict[str, np.ndarray[Any, Any]] | None:
            rows = next(self.rows, None)
            return None if rows is None else {"input": rows}

    with tempfile.TemporaryDirectory(prefix="tuwen-") as held, _silent():
        out = Path(held) / "int8.onnx"
        quantization.quantize_static(
            onnx.shape_inference.infer_shapes(graph),
            out,
            Reader(),
            op_types_to_quantize=[*OPERATORS],
            nodes_to_quantize=nodes,
            per_channel=True,
            reduce_range=WEIGHT_LIMIT < 127,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            calibrate_method=quantization.CalibrationMethod.MinMax,
        )
        return out.read_bytes()


def _layer(node: str) -> str:
    """The module that a node was traced in: ``/units.1/plain/first/Conv`` is units.1.plain.first."""
    return re.sub(r"^/|/[^/]*$", "", node).replace("/", ".")


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """onnxruntime's quantiser prints, and warns that a model was not prepared as it would have it."""
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(logging.NOTSET)


def weight_bytes(network: nn.Module) -> int:
    """Bytes of the weights as they are stored: one for each of an int8 layer, four for all others."""
    one: set[int] = {id(m.weight) for m in network.modules() if getattr(m, "int8", False)}
    return sum(p.numel() * (1 if id(p) in one else 4) for p in network.parameters())


def outputs(model: bytes, inputs: Tensor, batch: int = 64) -> Tensor:
    """What an ONNX model gives for (n, ...) inputs."""
    from .profiler import session

    made = session(model)
    name = made.get_inputs()[0].name
    parts: Sequence[Any] = [made.run(None, {name: part.numpy()})[0] for part in inputs.split(batch)]
    return torch.from_numpy(np.concatenate(parts))
