"""``latency_ms=2.5,size_mb=0.5x``: what a compressed model may cost, absolute or as a share of the uncompressed one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from ...pipeline.errors import UsageError, nearest
from .costs import METRICS

MET = 0.05
"""By this share a measured cost may pass its target."""


def parse(given: Sequence[str]) -> dict[str, tuple[float, bool]]:
    """{metric: (value, whether it is a share)} of ``--target`` words."""
    found: dict[str, tuple[float, bool]] = {}
    for one in (part.strip() for word in given for part in word.split(",") if part.strip()):
        name, equals, text = one.partition("=")
        share = text.endswith("x")
        try:
            value = float(text.removesuffix("x"))
        except ValueError:
            value = -1.0
        if not equals or not 0 < value < float("inf"):
            raise UsageError(f"--target {one!r}: expected NAME=NUMBER, or NAME=0.5x for half of the uncompressed model")
        if name not in METRICS:
            raise UsageError(f"--target {one!r}: {name!r} is not measured; {nearest(name, METRICS)}")
        if name in found:
            raise UsageError(f"--target names {name} twice")
        found[name] = (value, share)
    if not found:
        raise UsageError(f"no --target: give at least one of {', '.join(METRICS)}, as in --target latency_ms=0.5x")
    return found


def absolute(wanted: Mapping[str, tuple[float, bool]], whole: Mapping[str, float]) -> dict[str, float]:
    """Budgets from targets and the uncompressed model's measured costs."""
    budgets = {}
    for name, (value, share) in wanted.items():
        if name not in whole:
            raise UsageError(
                f"--target {name}: this machine does not tell it"
                + (" (RAPL's energy_uj is missing or may not be read)" if name == "energy_mj" else "")
            )
        budgets[name] = value * whole[name] if share else value
        if budgets[name] >= whole[name]:
            raise UsageError(
                f"--target {name}={budgets[name]:.4g}: the uncompressed model needs {whole[name]:.4g}; give less"
            )
    return budgets


def timed(names: Iterable[str]) -> bool:
    """Whether blocks have to be measured for these targets, or counting will do."""
    return not {*names} <= {"mflops", "size_mb", "memory_mb"}


def missed(budgets: Mapping[str, float], measured: Mapping[str, float]) -> list[str]:
    """A sentence for each target that the measured model passes by more than ``MET``."""
    return [
        f"{name} is {measured[name]:.4g} and not {bound:.4g}"
        for name, bound in budgets.items()
        if measured[name] > bound * (1 + MET)
    ]
