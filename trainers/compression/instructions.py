"""What this processor can do with 8-bit integers."""

from __future__ import annotations

from pathlib import Path


def dot_product() -> bool:
    """Whether there are instructions that multiply 8-bit integers without saturating between (VNNI and its kin)."""
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return any(f" {name}" in flags for name in ("avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm"))


WEIGHT_LIMIT = 127 if dot_product() else 64
"""Greatest weight of an int8 layer. Without those instructions a product of two would leave 16 bits, so that
onnxruntime's manual has weights keep 7 bits (``reduce_range``)."""
