"""Reads parameters that Paddle saved one file per variable, without Paddle."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_FLOAT32 = 5


def read_variable(path: Path) -> NDArray[np.float32]:
    """The tensor of one file in Paddle's LoDTensor format, in its own shape.

    The format (paddle/fluid/framework/lod_tensor.cc, SerializeToStream): a version, the levels of detail, a version,
    a protobuf TensorDesc (field 1: data type, field 2, repeated: dimensions), the raw values. Little endian.
    Raises ValueError where the file is cut off or holds something else than float32.
    """
    data = path.read_bytes()
    try:
        version, levels = struct.unpack_from("<IQ", data)
        at = 12
        for _ in range(levels):
            at += 8 + struct.unpack_from("<Q", data, at)[0]
        inner, length = struct.unpack_from("<Ii", data, at)
    except struct.error as error:
        raise ValueError(f"{path} is no Paddle variable: {error}") from error
    if version or inner:
        raise ValueError(f"{path} has versions {version} and {inner}; expected 0 and 0, as Paddle 1.x writes")
    shape = _shape(data[at + 8 : at + 8 + length], path)
    values = data[at + 8 + length :]
    if len(values) != 4 * np.prod(shape):
        raise ValueError(f"{path} holds {len(values)} bytes of values where its shape is {shape}: copy the file again")
    return np.frombuffer(values, "<f4").reshape(shape).astype(np.float32)


def _shape(description: bytes, path: Path) -> tuple[int, ...]:
    """The dimensions in a TensorDesc."""
    dimensions, at = [], 0
    while at < len(description):
        field, at = description[at], at + 1
        value = shift = 0
        while True:
            byte, at = description[at], at + 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                break
        if field == 0x08 and value != _FLOAT32:
            raise ValueError(f"{path} holds data type {value}; expected {_FLOAT32} (float32)")
        if field == 0x10:
            dimensions.append(value)
    return tuple(dimensions)
