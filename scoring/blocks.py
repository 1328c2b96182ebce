"""Values through a model in blocks of one shape, the next block prepared while the model works on this one.

A matrix product's last bits depend on its shape, so the last block is filled up by repeating its last value:
what a row is then does not depend on how many others came with it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt

Embeddings = npt.NDArray[np.float32]


def encode_blocks(
    values: Sequence[Any],
    size: int,
    prepare: Callable[[list[Any]], Any],
    encode: Callable[[Any], npt.NDArray[np.floating[Any]]],
    ahead: bool = True,
) -> Embeddings:
    """(values, d) rows of unit length: ``encode(prepare(block))`` of blocks of exactly ``size`` values.

    ``ahead`` prepares in a thread of its own: decoding releases the interpreter's lock, and so does the model.
    """
    starts = range(0, len(values), size)

    def block(start: int) -> Any:
        some = list(values[start : start + size])
        return prepare([*some, *[some[-1]] * (size - len(some))])

    out = []
    if not ahead or len(starts) < 2:
        out = [encode(block(start)) for start in starts]
    else:
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(block, starts[0])
            for start in starts:
                ready = waiting.result()
                if start != starts[-1]:
                    waiting = pool.submit(block, start + size)
                out.append(encode(ready))
    if not out:
        return np.zeros((0, 1), np.float32)
    rows = np.concatenate(out)[: len(values)].astype(np.float32)
    # In single precision as torch's normalize, whose least length this is.
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12), dtype=np.float32)
