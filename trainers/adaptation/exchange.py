"""What goes over the wire between a device and the cloud.

A request is ``POST /v1/adapt`` with k anchor frames' features, f signed bytes each, in the body; the answer's body is
p half floats, little-endian. Both carry ``Content-Digest`` (RFC 9530) over the body and the model that they are for, so
that a broken body, or parameters of another model, are never taken.
"""

from __future__ import annotations

import base64
import hashlib

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
PATH = "/v1/adapt"
MODEL = "Tuwen-Model"
DIGEST = "Content-Digest"
LEVELS = 127
MOST_UPLOAD = 4096
"""Bytes of a request's body at most, whatever the model."""


def digest(body: bytes) -> str:
    """The value of ``Content-Digest``."""
    return f"sha-256=:{base64.b64encode(hashlib.sha256(body).digest()).decode()}:"


def pack_features(anchors: F32) -> bytes:
    """(k, f) features of -1 to 1 as bytes."""
    levels: NDArray[np.int8] = np.rint(anchors.clip(-1, 1) * LEVELS).astype(np.int8)
    return levels.tobytes()


def unpack_features(body: bytes, features: int) -> F32:
    """The (k, f) of ``pack_features``; ``ValueError`` where the body is no whole number of anchors."""
    if not body or len(body) % features:
        raise ValueError(f"{len(body)} bytes are no anchors of {features} bytes each")
    levels = np.frombuffer(body, np.int8).reshape(-1, features)
    return levels.astype(np.float32) / np.float32(LEVELS)


def pack_parameters(parameters: F32) -> bytes:
    """(p,) as half floats."""
    return parameters.astype("<f2").tobytes()


def unpack_parameters(body: bytes, count: int, largest: float) -> F32:
    """(count,); ``ValueError`` for another size, for what is no number, and for more than ``largest`` either way."""
    if len(body) != 2 * count:
        raise ValueError(f"{len(body)} bytes came, and {count} parameters are {2 * count}")
    found = np.frombuffer(body, "<f2").astype(np.float32)
    if not np.isfinite(found).all():
        raise ValueError("some parameters are no numbers")
    if np.abs(found).max() > largest:
        raise ValueError(f"a parameter of {np.abs(found).max():.3g}; the cloud never made one over {largest:.3g}")
    return found
