"""Hardware in the loop: latency, memory and energy of ONNX models through onnxruntime, on this CPU.

One thread runs a model, and that thread's CPU time is what counts: other work on the machine then costs cache and
clock, but no waiting. Both drift, so a model runs in turns with the reference (the uncompressed model) and its time is
told as a share of the reference's; milliseconds are that share of what the reference took when the device was first
asked. Of both times a low quantile counts, since noise only adds.
"""

from __future__ import annotations

import hashlib
import json
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from ...pipeline.errors import RunError

SLICE_MS = 3.0
"""A model runs at least so long before the other has its turn."""
ROUNDS, SESSIONS = 5, 5
"""A model is measured in several sessions, because where its memory happens to lie matters; each has so many rounds."""
LOW = 0.1
"""The quantile of all rounds that counts. What else runs on the machine slows small models by more than large ones, so
that the median of ratios moves with it; the least time is what luck makes of it."""
PAUSE = 0.1
"""Seconds between sessions of whole models: disturbances last for about a second. Blocks, for which fewer than SESSIONS
are asked for, are many and do not wait."""
RESAMPLES = 200
HELD_BYTES = 1 << 28
"""Models whose sessions are held at the same time, so that they lie in different places; one at least."""
RAPL = Path("/sys/class/powercap/intel-rapl:0/energy_uj")
ENERGY_SECONDS = 1.0


MEMORY = """
import re, sys
from pathlib import Path
from tuwen.trainers.compression.profiler import identity, runner
model = sys.stdin.buffer.read()
runner(identity())()  # what onnxruntime takes by itself
told = lambda key: int(re.search(key + r":\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
before = told("VmRSS")
run = runner(model, int(sys.argv[1]), arena=False)
for _ in range(3):
    run()
print(told("VmHWM") - before)
"""
"""Kilobytes that a process grows by; the model's file is in it before."""


class Measured(NamedTuple):
    """A figure with its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.4g} ({self.low:.4g} to {self.high:.4g})"

    def times(self, factor: float) -> Measured:
        """All three multiplied."""
        return Measured(*(factor * v for v in self))


class Device(Protocol):
    """Where models are measured. ``name`` tells tables of one device from those of another."""

    name: str

    def latency(self, model: bytes, sessions: int = SESSIONS) -> Measured:
        """Milliseconds of one run."""
        ...

    def refer(self, model: bytes) -> Measured:
        """Set the reference; its milliseconds."""
        ...

    def memory(self, model: bytes) -> float:
        """Megabytes by which the process grows at most while the model is loaded and run."""
        ...

    def energy(self, model: bytes) -> Measured | None:
        """Millijoules of one run; None where the machine does not tell."""
        ...


class LocalDevice:
    """This machine's CPU, one thread; ``batch`` inputs a run."""

    def __init__(self, batch: int = 1) -> None:
        import onnxruntime

        self.batch = batch
        self.name = f"{_processor()}, onnxruntime {onnxruntime.__version__}, batch {batch}, one thread"
        self._reference: Callable[[], Any] | None = None
        self._reference_ms = 0.0

    def refer(self, model: bytes) -> Measured:
        run = runner(model, self.batch)
        times, found = _repeats(run), list[float]()
        for _ in range(4 * SESSIONS):
            found += [_slice(run, times) for _ in range(ROUNDS)]
            time.sleep(PAUSE)
        self._reference, self._reference_ms = run, float(np.quantile(found, LOW))
        return Measured(self._reference_ms, min(found), float(np.median(found)))

    def latency(self, model: bytes, sessions: int = SESSIONS) -> Measured:
        if self._reference is None:
            raise RunError("the device has no reference yet: refer() comes first")
        runs = [runner(model, self.batch) for _ in range(max(1, min(sessions, HELD_BYTES // max(1, len(model)))))]
        found = []
        for i in range(sessions):
            found.append(interleaved(runs[i % len(runs)], self._reference, ROUNDS))
            if sessions >= SESSIONS:
                time.sleep(PAUSE)
        own, other = np.array(found).transpose(1, 0, 2)
        return share(own, other).times(self._reference_ms)

    def memory(self, model: bytes) -> float:
        done = subprocess.run(
            [sys.executable, "-c", MEMORY, str(self.batch)], input=model, capture_output=True, check=False, timeout=120
        )
        if done.returncode:
            raise RunError(f"the model did not run in a process of its own: {done.stderr.decode()[-300:]}")
        return max(0.0, int(done.stdout) / 1024)

    def energy(self, model: bytes) -> Measured | None:
        if energy_counter() is None:
            return None
        run = runner(model, self.batch)
        found = []
        for _ in range(3):
            before, started, runs = energy_counter(), time.perf_counter(), 0
            while time.perf_counter() - started < ENERGY_SECONDS:
                run()
                runs += 1
            after = energy_counter()
            if before is not None and after is not None and after > before:  # it wraps around
                found.append((after - before) / 1e3 / runs)
        return median(np.array(found)) if found else None


def energy_counter() -> float | None:
    """Microjoules of the processor package so far (RAPL); None where there is no counter or it may not be read."""
    try:
        return float(RAPL.read_text())
    except (OSError, ValueError):
        return None


def runner(model: bytes, batch: int = 1, arena: bool = True) -> Callable[[], Any]:
    """A call that runs ``model`` once, on one thread, on inputs of ``batch`` rows drawn from a fixed seed."""
    made = session(model, arena)
    feed = feeds(made, batch)
    return lambda: made.run(None, feed)


def session(model: bytes, arena: bool = True) -> Any:
    """An onnxruntime session of one thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.enable_cpu_mem_arena = arena
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises its own C++ exceptions
        raise RunError(f"onnxruntime cannot load the model: {str(error)[:200]}") from None


def feeds(made: Any, batch: int) -> dict[str, NDArray[Any]]:
    """Inputs for a session: free dimensions are ``batch``; numbers are normal, ids are ones."""
    rng = np.random.default_rng(0)
    found: dict[str, NDArray[Any]] = {}
    for one in made.get_inputs():
        shape = [n if isinstance(n, int) else batch for n in one.shape]
        found[one.name] = (
            rng.standard_normal(shape).astype(np.float32) if "float" in one.type else np.ones(shape, np.int64)
        )
    return found


def interleaved(
    run: Callable[[], Any], reference: Callable[[], Any], rounds: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(rounds,) milliseconds of ``run`` and of ``reference``, which take turns, each in CPU time of this thread."""
    times, other = _repeats(run), _repeats(reference)
    found = np.empty((2, rounds))
    for i in range(rounds):
        for which in (0, 1) if i % 2 else (1, 0):
            found[which, i] = _slice(run, times) if which == 0 else _slice(reference, other)
    return found[0], found[1]


def share(own: NDArray[np.float64], other: NDArray[np.float64]) -> Measured:
    """What ``own`` takes of ``other``, both (sessions, rounds): the ratio of their ``LOW`` quantiles. The interval is
    of a bootstrap over sessions: rounds of one session are alike."""
    drawn = np.random.default_rng(0).integers(0, len(own), (RESAMPLES, len(own)))
    each = np.quantile(own[drawn], LOW, (1, 2)) / np.quantile(other[drawn], LOW, (1, 2))
    value = float(np.quantile(own, LOW) / np.quantile(other, LOW))
    low, high = np.percentile(each, [2.5, 97.5])
    return Measured(value, min(value, float(low)), max(value, float(high)))


def median(values: Sequence[float] | NDArray[np.float64]) -> Measured:
    """The median and the 95 % interval that two order statistics give it, whatever the distribution."""
    found = np.sort(np.asarray(values, dtype=np.float64))
    n = len(found)
    reach = 0.98 * n**0.5  # 1.96 standard deviations of a binomial of one half
    low, high = int(max(0, np.floor(n / 2 - reach))), int(min(n - 1, np.ceil(n / 2 + reach)))
    return Measured(float(np.median(found)), float(found[low]), float(found[high]))


def _repeats(run: Callable[[], Any]) -> int:
    run()
    return max(1, int(np.ceil(SLICE_MS / max(1e-4, min(_slice(run, 1) for _ in range(3))))))


def _slice(run: Callable[[], Any], times: int) -> float:
    """Milliseconds of one of ``times`` runs, in CPU time of this thread; one before them fills the caches again."""
    run()
    started = time.thread_time_ns()
    for _ in range(times):
        run()
    return (time.thread_time_ns() - started) / 1e6 / times


def identity() -> bytes:
    """A model that does nothing: what a session costs by itself."""
    from onnx import TensorProto, helper

    shapes = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", 8]) for n in ("input", "output")]
    graph = helper.make_graph([helper.make_node("Relu", ["input"], ["output"])], "idle", shapes[:1], shapes[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return bytes(model.SerializeToString())


def digest(told: Any) -> str:
    """A short name for anything that JSON can say."""
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16]


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    named = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return named or platform.processor() or platform.machine()
