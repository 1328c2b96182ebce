from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import torch

from tests.trainers.toy import gradient, student_gradient
from tuwen.trainers import distributed


def test_two_processes_have_the_gradient_of_one(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {
        **os.environ,
        **{"PYTHONPATH": str(Path(__file__).parents[2]), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"},
        **{"MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"},
    }
    command = [sys.executable, "-m", "tests.trainers.toy", str(tmp_path / "found.pt")]
    started = [subprocess.Popen(command, env={**shared, "RANK": str(r), "LOCAL_RANK": str(r)}) for r in (0, 1)]
    assert [p.wait(timeout=280) for p in started] == [0, 0]
    two, counts = torch.load(tmp_path / "found.pt", weights_only=True)
    assert counts == [[0], [1, 1]]
    alone = [gradient(distributed.ALONE, False), gradient(distributed.ALONE, True), student_gradient(distributed.ALONE)]
    for shared_, one in zip(two, alone, strict=True):
        assert torch.allclose(shared_, one, atol=1e-6 * float(one.abs().max()) + 1e-7)
        assert one.abs().min() >= 0 and float(one.abs().max()) > 1e-3


def test_one_process_gathers_itself() -> None:
    rows = torch.ones(2, 3, requires_grad=True)
    assert distributed.gather(rows) is rows
    assert distributed.gather_objects("a") == ["a"]
    assert distributed.start("cpu") == distributed.ALONE
