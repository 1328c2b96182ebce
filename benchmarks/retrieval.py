"""What the retrieval trainer promises, measured.

    python benchmarks/retrieval.py exact                  gradients, ranks, resuming, determinism, unequal shards
    python benchmarks/retrieval.py claims [--seeds 3]     momentum distillation; all images of a caption against one
    python benchmarks/retrieval.py photos --data FOLDER   Flickr8k-CN: ``curate run``, then train, then evaluate
    python benchmarks/retrieval.py open-clip              open_clip's own training command on our shards

``--check`` makes the exit code tell whether what is promised holds. ``exact`` compares with the wrong ways too
(averaged losses of small batches, ranks that do not share their negatives), so that its tolerances mean something.
``retrieval_claims.py`` and ``retrieval_photos.py`` say what theirs compare.
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from retrieval_claims import claims
from retrieval_common import MODEL, SIDE, machine
from retrieval_photos import photos
from torch import Tensor

from tuwen.export.shards import write_shard
from tuwen.pipeline.errors import RunError
from tuwen.sample_data import shards as world
from tuwen.sample_data.world import caption, random_scene
from tuwen.trainers import distributed, shards, towers, train_retrieval
from tuwen.trainers.loop import Loop
from tuwen.trainers.retrieval import RetrievalConfig
from tuwen.trainers.shards import DataConfig, Pairs, PairStream


class Checks:
    """Collects what held and what did not."""

    def __init__(self) -> None:
        self.failed: list[str] = []

    def __call__(self, what: str, figure: str, held: bool) -> None:
        print(f"  {what:<66}{figure:<24}{'holds' if held else 'FAILS'}", flush=True)
        if not held:
            self.failed.append(what)


def small_model(folder: Path, seed: int = 0) -> tuple[torch.nn.Module, Any]:
    """A two-tower model of random weights, and its tokenizer."""
    parts = train_retrieval.settings.read(train_retrieval.SECTIONS, None, MODEL)
    rng = np.random.default_rng(0)
    towers.prepare(parts["model"], folder, (caption(random_scene(rng), rng) for _ in range(500)))
    model, tokenizer, _ = towers.build(folder, seed)
    return model, tokenizer


def batch_of(folder: Path, size: int) -> Pairs:
    """One batch of the sample world, with hard negatives and a caption that several images share."""
    world.write_shards(folder, size, seed=3, side=SIDE)
    stream = PairStream(shards.find([str(folder)]), DataConfig(batch=size, negatives=1), SIDE)
    batch = next(iter(stream))
    return batch._replace(captions=[batch.captions[0], batch.captions[0], *batch.captions[2:]])


def gradients(loop: Loop, batch: Pairs) -> dict[str, Tensor]:
    """The gradient of one batch, by parameter."""
    loop.backward(batch)
    named = loop.stream.named_parameters()
    return {name: p.grad.detach().clone() for name, p in named if p.grad is not None}


def apart(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    """Largest difference, as a share of the largest value."""
    largest = max(float(v.abs().max()) for v in one.values())
    return max(float((one[k] - other[k]).abs().max()) for k in one) / largest


def accumulated(root: Path, check: Checks) -> None:
    """A batch of 32 at once, in parts of 5, and as averaged losses of 8."""
    model, tokenizer = small_model(root / "model")
    batch = batch_of(root / "batch", 32)
    arms: dict[str, dict[str, Any]] = {
        "contrastive and threshold losses, hard negatives": {},
        "with masked words and two views (mlm, simclr)": {"tasks": ("mlm", "simclr")},
        "with momentum distillation": {"momentum": True, "queue": 64, "momentum_ramp": 0.0},
        "with gradient checkpointing": {"checkpointing": True},
    }
    print("accumulation: 32 pairs in parts of 5 against 32 at once, largest relative difference of a gradient")
    for name, fields in arms.items():
        found = []
        for size in (0, 5):
            loop = Loop(copy.deepcopy(model), tokenizer, RetrievalConfig(micro_batch=size, **fields))
            loop.backward(batch)  # fills the queue
            loop.done = 1
            found.append(gradients(loop, batch))
        difference = apart(*found)
        check(name, f"{difference:.1e}", difference < 1e-4)
    loop = Loop(copy.deepcopy(model), tokenizer, RetrievalConfig())
    whole = gradients(loop, batch)
    parts = [gradients(loop, _rows(batch, slice(i, i + 8))) for i in range(0, 32, 8)]
    averaged = {k: torch.stack([p[k] for p in parts]).mean(0) for k in whole}
    difference = apart(whole, averaged)
    check("control: losses of 8 pairs averaged are another gradient", f"{difference:.1e}", difference > 1e-2)


def _rows(batch: Pairs, part: slice) -> Pairs:
    negatives = batch.negatives[part] if batch.negatives is not None else None
    return Pairs(batch.images[part], batch.captions[part], negatives)


def shared(model: torch.nn.Module, tokenizer: Any, batch: Pairs, place: distributed.World, slow: bool) -> Tensor:
    """The gradient of this rank's part of the batch, in parts of 5, as one vector.

    Gradients, not weights after some steps: AdamW turns the rounding errors of parameters that have no gradient (the
    biases of attention's keys) into steps as large as any other.
    """
    config = RetrievalConfig(micro_batch=5, momentum=slow, queue=64, momentum_ramp=0.0)
    loop = Loop(model, tokenizer, config, place)
    n = len(batch.captions) // place.ranks
    part = _rows(batch, slice(place.rank * n, (place.rank + 1) * n))
    loop.backward(part)  # fills the queue
    loop.done = 1
    return torch.cat([g.flatten() for _, g in sorted(gradients(loop, part).items())])


def rank(root: Path) -> None:
    """One of two processes under torchrun."""
    place = distributed.start("cpu")
    batch = batch_of(root / f"rank-{place.rank}", 32)
    distributed.gather_objects(None)
    for sharing in (False, True):
        model, tokenizer, _ = towers.build(root / "model", 0)
        found = shared(model, tokenizer, batch, place, sharing)
        if place.first:
            torch.save(found, root / f"two-{sharing}.pt")
    distributed.stop()


def two_processes(root: Path, check: Checks) -> None:
    """Three steps by two gloo processes under torchrun against three steps by one."""
    print("two gloo processes under torchrun against one, 32 pairs, largest relative difference of a gradient")
    small_model(root / "model")
    torchrun(2, [str(Path(__file__)), "rank", "--out", str(root)])
    batch = batch_of(root / "one", 32)
    whole = {}
    for sharing, name in ((False, "contrastive and threshold losses"), (True, "with momentum distillation")):
        model, tokenizer, _ = towers.build(root / "model", 0)
        whole[sharing] = shared(model, tokenizer, batch, distributed.ALONE, sharing)
        two = torch.load(root / f"two-{sharing}.pt", weights_only=True)
        difference = float((whole[sharing] - two).abs().max() / whole[sharing].abs().max())
        check(f"{name}, hard negatives", f"{difference:.1e}", difference < 1e-4)
    halves = []
    for half in (slice(0, 16), slice(16, 32)):
        model, tokenizer, _ = towers.build(root / "model", 0)
        halves.append(shared(model, tokenizer, _rows(batch, half), distributed.ALONE, False))
    difference = float((whole[False] - torch.stack(halves).mean(0)).abs().max() / whole[False].abs().max())
    check("control: ranks that do not share their negatives", f"{difference:.1e}", difference > 1e-2)


def torchrun(ranks: int, words: Sequence[str], timeout: float = 600) -> str:
    """Run a Python file or module under torchrun; its output."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(ranks), "--standalone"]
    command += words
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, env=environment)
    if done.returncode:
        raise RunError(f"{' '.join(words)} ended with {done.returncode}:\n{done.stderr[-3000:]}")
    return done.stdout


def resumed(root: Path, check: Checks) -> None:
    """Twelve steps at once, twice; and twelve steps that were interrupted after the seventh, with a checkpoint at 5."""
    print("interrupted after step 7 of 12, last checkpoint at 5; two reading processes, momentum, mlm and simclr")
    world.write_shards(root / "data", 150, seed=1, per_shard=40, side=SIDE)
    sets = [*MODEL, "train.steps=12", "train.warmup=2", "train.log_every=1", "train.checkpoint_every=5"]
    sets += ["data.batch=16", "data.workers=2", "data.shuffle=30", "data.negatives=1"]
    sets += ["train.momentum=true", "train.queue=64", "train.tasks=[mlm, simclr]"]

    def run(name: str, stop_at: int = 0) -> None:
        def tell(record: dict[str, Any]) -> None:
            if stop_at and record["step"] == stop_at:
                raise KeyboardInterrupt

        train_retrieval.train([str(root / "data")], root / name, sets=sets, device="cpu", tell=tell)

    run("whole")
    run("again")
    try:
        run("cut", stop_at=7)
    except KeyboardInterrupt:
        run("cut")
    losses = [[r["loss"] for r in _log(root / name)] for name in ("whole", "cut")]
    difference = max(abs(a - b) for a, b in zip(*losses, strict=True))
    check("the resumed run's losses against the uninterrupted run's", f"{difference:.1e}", difference == 0)
    hashes = {name: _hash(root / name) for name in ("whole", "again", "cut")}
    check("its weights, byte for byte", hashes["cut"][:12], hashes["cut"] == hashes["whole"])
    check("the same seed twice: weights, byte for byte", hashes["again"][:12], hashes["again"] == hashes["whole"])
    sets.append("train.seed=1")
    run("other")
    check("control: another seed", _hash(root / "other")[:12], _hash(root / "other") != hashes["whole"])


def _log(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "train.jsonl").read_text("utf-8").splitlines()]


def _hash(folder: Path) -> str:
    return hashlib.sha256((folder / towers.WEIGHTS).read_bytes()).hexdigest()


def unequal(root: Path, check: Checks) -> None:
    """Shards of 3, 70 and 20 samples over two ranks."""
    print("shards of 3, 70 and 20 samples over two ranks of two workers, 25 steps of 16")
    made = world.samples(93, seed=2, side=SIDE)
    (root / "data").mkdir(parents=True)
    for i, n in enumerate((3, 70, 20)):
        write_shard(str(root / "data" / f"train-{i:06d}.tar"), [next(made) for _ in range(n)])
    sets = [*MODEL, "train.steps=25", "train.warmup=2", "data.batch=16", "data.workers=2", "data.shuffle=30"]
    words = ["-m", "tuwen.pipeline.cli", "train", "retrieval", str(root / "data"), "-o", str(root / "out")]
    started = time.perf_counter()
    torchrun(2, [*words, "--device", "cpu", "--json", *(w for s in sets for w in ("--set", s))])
    told = json.loads((root / "out" / "training.json").read_text())
    seconds = time.perf_counter() - started
    check("ends, at the step that was asked for", f"{seconds:.0f} s", told["last"]["step"] == 24 and told["ranks"] == 2)


def exact(given: argparse.Namespace) -> list[str]:
    """Parts, ranks, resuming and seeds: what must be equal."""
    check = Checks()
    with tempfile.TemporaryDirectory() as scratch:
        for part in (accumulated, two_processes, resumed, unequal):
            part(Path(scratch) / part.__name__, check)
    return check.failed


def open_clip_command(given: argparse.Namespace) -> list[str]:
    """open_clip's own command line on these shards.

    open_clip's extra ``training`` asks for webdataset 0.2.86 at most: later ones put markers between shards that
    its reader does not know, whosever the shards are.
    """
    environment = dict(os.environ)
    if given.webdataset:
        environment["PYTHONPATH"] = os.pathsep.join(
            [str(given.webdataset.absolute()), environment.get("PYTHONPATH", "")]
        )
    told = subprocess.run(
        [sys.executable, "-c", "import webdataset; print(webdataset.__version__)"],
        capture_output=True, text=True, env=environment,
    )  # fmt: skip
    print(f"webdataset {told.stdout.strip()}; open_clip[training] asks for 0.2.86 at most")
    check = Checks()
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        small_model(root / "model")
        written = world.write_shards(root / "shards", 96, seed=4, per_shard=32, side=SIDE)
        pattern = root / "shards" / f"train-{{000000..{len(written) - 1:06d}}}.tar"
        words = ["--train-data", str(pattern), "--train-num-samples", "96", "--dataset-type", "webdataset"]
        words += ["--model", f"local-dir:{root / 'model'}", "--batch-size", "16", "--epochs", "1", "--workers", "1"]
        words += ["--precision", "fp32", "--device", "cpu", "--log-every-n-steps", "1", "--warmup", "2"]
        words += ["--logs", str(root / "logs"), "--name", "tuwen", "--save-frequency", "0"]
        print("python -m open_clip_train.main " + " ".join(words).replace(str(root), "DIR"))
        command = [sys.executable, "-m", "open_clip_train.main", *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=900, cwd=root, env=environment)
        log = root / "logs" / "tuwen" / "out.log"
        said = log.read_text() if log.exists() else ""
        for line in said.splitlines():
            if "Train Epoch" in line:
                print("  " + line.split("| INFO | ")[-1])
        if done.returncode:
            print(done.stderr[-3000:])
        check(
            "open_clip's own command trains on the shards", f"{said.count('Train Epoch')} steps", "Train Epoch" in said
        )
        loop = "webdataset's decode and to_tuple"
        check(loop, "", _by_webdataset(str(pattern)))
    return check.failed


def _by_webdataset(pattern: str) -> bool:
    """A few batches by webdataset alone, as its own documentation does it."""
    import webdataset as wds

    data = wds.WebDataset(pattern, shardshuffle=False).decode("pil").to_tuple("jpg;png", "txt", "json").batched(16)
    images, captions, told = next(iter(data))
    return len(images) == len(captions) == 16 and all("negatives" in t for t in told)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--check", action="store_true", help="exit 1 where something that is promised does not hold")
    common.add_argument("--threads", type=int, default=1)
    parts = parser.add_subparsers(dest="part", required=True)
    parts.add_parser("exact", parents=[common], help="gradients, ranks, resuming, determinism, unequal shards")
    some = parts.add_parser("claims", parents=[common], help="momentum distillation; all images of a caption or one")
    some.add_argument(
        "--only", choices=("clean", "noisy", "shared"), action="append", help="one comparison; repeatable"
    )
    some.add_argument("--seeds", type=int, default=3)
    some.add_argument("--steps", type=int, default=120)
    some.add_argument("--batch", type=int, default=96)
    some.add_argument("--samples", type=int, default=3000)
    some.add_argument("--noise", type=float, default=0.4)
    some.add_argument("--test", type=int, default=200)
    real = parts.add_parser("photos", parents=[common], help="Flickr8k-CN")
    real.add_argument("--data", type=Path, required=True, help="folder with captions.jsonl and images_224/")
    real.add_argument("--steps", type=int, default=250)
    user = parts.add_parser("open-clip", parents=[common], help="open_clip's training command on our shards")
    user.add_argument(
        "--webdataset",
        type=Path,
        help="folder that holds webdataset 0.2.86 (pip install --target FOLDER --no-deps webdataset==0.2.86)",
    )
    inner = parts.add_parser("rank", help="one process of exact's torchrun; not for people")
    inner.add_argument("--out", type=Path)
    given = parser.parse_args()
    if given.part == "rank":
        torch.set_num_threads(1)
        rank(given.out)
        return
    torch.set_num_threads(given.threads)
    print(machine())
    made: dict[str, Callable[[argparse.Namespace], list[str]]] = {
        "exact": exact,
        "claims": claims,
        "photos": photos,
        "open-clip": open_clip_command,
    }
    failed = made[given.part](given)
    if given.check and failed:
        sys.exit(f"does not hold: {'; '.join(failed)}")


if __name__ == "__main__":
    main()
