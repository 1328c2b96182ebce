"""Starting Beam pipelines: the runner is always named, and what it counted is read back."""

from __future__ import annotations

import logging
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import apache_beam as beam
from apache_beam.options.pipeline_options import DirectOptions, GoogleCloudOptions, PipelineOptions, StandardOptions

LOCAL = "FnApiRunner"


def pipeline_options(beam_args: Sequence[str] = (), workers: int = 1, apart: bool = False) -> PipelineOptions:
    """Options for a run: the user's Beam options, or the local runner on ``workers`` processes.

    One worker is this process itself, unless the work is to run ``apart`` from it.

    ``DirectRunner`` is replaced by the runner it stands for: left alone it picks one of three by
    what the pipeline uses, and one of those is fetched from the network.
    """
    options = PipelineOptions(list(beam_args))
    standard = options.view_as(StandardOptions)
    if standard.runner in (None, "DirectRunner"):
        standard.runner = LOCAL
    if is_local(options) and (workers > 1 or apart):
        local = ["--direct_running_mode=multi_processing", f"--direct_num_workers={workers}"]
        options = PipelineOptions([*beam_args, f"--runner={LOCAL}", *local])
    return options


def processes(wanted: int, elements: int) -> int:
    """Worker processes for so many elements: as many as are wanted, by default one per core that may be used."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(wanted or cores, elements))


def is_local(options: PipelineOptions) -> bool:
    """Whether the pipeline runs on this machine's own runner."""
    return runner_name(options) == LOCAL


def runner_name(options: PipelineOptions) -> str:
    """The runner as the user named it."""
    return str(options.view_as(StandardOptions).runner)


def run(name: str, build: Callable[[beam.Pipeline], object], options: PipelineOptions) -> dict[str, dict[str, int]]:
    """Build and run one pipeline; the counters it committed, by namespace and name.

    ``name`` is what the pipeline does (letters, digits, hyphens): clusters list it as the job ``tuwen-<name>``.
    """
    options.view_as(GoogleCloudOptions).job_name = f"tuwen-{name}".replace("_", "-")
    logging.getLogger("apache_beam").setLevel(logging.ERROR)
    pipeline = beam.Pipeline(runner=_runner(options), options=options)
    build(pipeline)
    processes = is_local(options) and options.view_as(DirectOptions).direct_running_mode == "multi_processing"
    if processes:
        from .local_workers import watch_workers

        watch_workers()
    with _worker_output() if processes else nullcontext():
        result = pipeline.run()
        result.wait_until_finish()
    counted: dict[str, dict[str, int]] = {}
    for metric in result.metrics().query()["counters"]:
        key = metric.key.metric
        counted.setdefault(key.namespace, {})[key.name] = int(metric.result)
    return counted


@contextmanager
def _worker_output() -> Iterator[None]:
    """Keeps what local worker processes write to standard error (Beam's own log lines), and shows it where a run fails.

    They inherit the file descriptor and take no log level, so the descriptor is what has to be turned.
    """
    sys.stderr.flush()
    before = os.dup(2)
    with tempfile.TemporaryFile() as log:
        os.dup2(log.fileno(), 2)
        try:
            yield
        except BaseException:
            log.seek(0)
            os.write(before, log.read()[-20000:])
            raise
        finally:
            os.dup2(before, 2)
            os.close(before)


def _runner(options: PipelineOptions) -> Any:
    if is_local(options):
        from apache_beam.runners.portability.fn_api_runner import FnApiRunner

        return FnApiRunner()
    return options.view_as(StandardOptions).runner
