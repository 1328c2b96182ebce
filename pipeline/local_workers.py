"""Local worker processes that are watched: where one dies, the pipeline fails with the cause and does not wait.

Beam's local runner hands a bundle to a worker process and waits for its answer without a time limit; that the
process was killed (out of memory, a crash in a decoder) it only logs. Its handler of Docker containers aborts what
is under way when a container ends; this does the same for processes.
"""

from __future__ import annotations

import logging
import threading

from apache_beam.portability import python_urns
from apache_beam.portability.api import beam_fn_api_pb2
from apache_beam.runners.portability.fn_api_runner.worker_handlers import SubprocessSdkWorkerHandler, WorkerHandler

log = logging.getLogger(__name__)
DIED = "a worker process ended before its work was done: it was killed (out of memory?) or crashed"
_EVERY = 0.2


class WatchedWorker(SubprocessSdkWorkerHandler):
    """Beam's handler of one worker process, which answers for the process when that is gone."""

    def start_worker(self) -> None:
        self._closing = threading.Event()
        super().start_worker()
        threading.Thread(target=self._watch, name="watch_worker", daemon=True).start()

    def close(self) -> None:
        self._closing.set()
        super().close()

    def _watch(self) -> None:
        self.worker_thread.join()
        while not self._closing.wait(_EVERY):
            for asked, future in list(self.control_conn._futures_by_id.items()):
                if not future.is_done():
                    log.error("%s", DIED)
                    future.set(beam_fn_api_pb2.InstructionResponse(instruction_id=asked, error=DIED))


def watch_workers() -> None:
    """Make the local runner use watched workers, in this process."""
    WorkerHandler.register_environment(python_urns.SUBPROCESS_SDK, bytes)(WatchedWorker)
