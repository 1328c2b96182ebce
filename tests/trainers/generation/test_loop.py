from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.trainers.generation.toy import Mean, gradient, sets, tuned
from tuwen.pipeline.errors import InputError, UsageError
from tuwen.sample_data import placed
from tuwen.trainers import checkpoints, distributed
from tuwen.trainers.generation import model, train
from tuwen.trainers.generation.loop import Loop, TrainConfig, fit
from tuwen.trainers.stream import Pairs


@pytest.mark.parametrize("streams", [1, 2])
def test_a_batch_in_parts_has_the_gradient_of_the_whole(streams: int) -> None:
    whole = gradient(distributed.ALONE, 0, streams)
    torch.testing.assert_close(gradient(distributed.ALONE, 3, streams), whole)
    assert float(whole.abs().max()) > 1e-3


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which two processes of ``toy`` have run under torchrun's variables."""
    root = tmp_path_factory.mktemp("ranks")
    placed.write_shards(root / "old", 24, 0, side=32)
    placed.write_shards(root / "new", 24, 1, side=32, colours=placed.NEW_COLOURS)
    train.train([str(root / "old")], root / "base", "base", "", None, sets(root), "cpu")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {
        **os.environ,
        **{"PYTHONPATH": str(Path(__file__).parents[3]), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"},
        **{"MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"},
    }
    command = [sys.executable, "-m", "tests.trainers.generation.toy", str(root)]
    started = [subprocess.Popen(command, env={**shared, "RANK": str(r), "LOCAL_RANK": str(r)}) for r in (0, 1)]
    assert [p.wait(timeout=280) for p in started] == [0, 0]
    return root


def test_two_processes_have_the_gradient_of_one(ranks: Path) -> None:
    two = torch.load(ranks / "found.pt", weights_only=True)
    for found, one in zip(two, (gradient(distributed.ALONE, 0),) * 2, strict=False):
        torch.testing.assert_close(found, one)
    torch.testing.assert_close(two[2], gradient(distributed.ALONE, 0, 2))


def test_a_stage_on_two_ranks_writes_one_model(ranks: Path) -> None:
    told = json.loads((ranks / "tuned" / "training.json").read_text())
    assert (told["ranks"], told["images_seen"]) == (2, 24)
    lines = [json.loads(line) for line in (ranks / "tuned" / "train.jsonl").read_text().splitlines()]
    assert [one["step"] for one in lines] == [0, 2]  # told once, by the first rank
    positions = checkpoints.describe(next((ranks / "tuned" / "checkpoints").iterdir()))["positions"]
    assert positions == [[[6], [6]], [[6], [6]]]  # each rank took two new samples and two old ones a step
    before, after = (model.load(ranks / name).unet.state_dict() for name in ("base", "tuned"))
    assert before.keys() == after.keys()
    assert not torch.equal(before["conv_in.weight"], after["conv_in.weight"])
    with pytest.raises(UsageError, match="made by 2 ranks and 1 are here"):
        tuned(ranks)


def test_the_slow_copy_is_what_is_left() -> None:
    draw = torch.Generator().manual_seed(0)
    batch = Pairs(torch.randint(256, (8, 3, 4, 4), generator=draw).to(torch.uint8), ["图"] * 8)
    plain, slow = Mean(), Mean()
    for objective, ema in ((plain, 0.0), (slow, 0.9)):
        fit(objective, [[batch] * 30], TrainConfig(steps=30, warmup=1, learning_rate=0.1, ema=ema))
    lines = (plain.trained["line"].state_dict(), slow.trained["line"].state_dict())
    assert not torch.equal(lines[0]["weight"], lines[1]["weight"])
    loop = Loop(Mean(), TrainConfig(steps=3, warmup=1, learning_rate=0.1, ema=0.9))
    before = [p.detach().clone() for p in loop.stream.parameters()]
    loop.step([batch])  # the copy follows at first with 1 / 10, not with 0.9
    assert loop.teacher is not None
    for old, new, copy in zip(before, loop.stream.parameters(), loop.teacher.buffers(), strict=True):
        torch.testing.assert_close(copy, 0.1 * old + 0.9 * new.detach())


def test_what_cannot_be_trained_is_told() -> None:
    with pytest.raises(UsageError, match="fp8"):
        Loop(Mean(), TrainConfig(precision="fp8"))
    frozen = Mean()
    frozen.requires_grad_(False)
    with pytest.raises(UsageError, match="frozen"):
        Loop(frozen, TrainConfig())
    with pytest.raises(InputError, match="ended after 0 steps"):
        fit(Mean(), [[]], TrainConfig(steps=1))
