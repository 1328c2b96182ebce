"""What learned compression is worth beside a uniform width and beside pruning, quantising and distilling in turn.

    python benchmarks/compression.py tower|cnn|sr|flops [--seeds 3] [--first 0] [--work DIR] [--quick] [--check]

tower   the image tower of a dual stream, to half and to a quarter of its measured latency; R@1 of held-out scenes
cnn     a residual CNN that names what is in the picture, likewise; accuracy
sr      super-resolution of sample pictures to twice the side, at a tenth of the FLOPs; PSNR
flops   random compressions of the CNN: FLOPs against measured latency

For each seed a network is trained, then compressed three ways from the same weights, for the same number of steps,
to the same
measured cost: ``ours`` (widths, blocks, depth and bits under one Lagrangian), ``uniform`` (one width factor, the
channels that matter most, distillation all along) and ``sequential`` (prune by magnitude and train; int8 everywhere;
distil). ``untrained`` is the uniform network as it was cut: what compression costs before any training. The ceiling
is the uncompressed network. A line is INVALID where ceiling and untrained are less than 5 points (sr: 3.4 % of PSNR)
apart, since there is then nothing to win. Latency is onnxruntime's, one thread, eight inputs, in turns with the
uncompressed network, in CPU time of the thread. Intervals (95 %) are Student's t over seeds, of paired differences
where arms are compared. ``--work`` keeps what was made, so that a run that was broken off goes on.
"""

from __future__ import annotations

import argparse
import copy
import json
import platform
import sys
import tempfile
import time
from collections.abc import Generator
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from tuwen.sample_data.shards import write_shards
from tuwen.trainers import shards
from tuwen.trainers.bootstrap import over_seeds
from tuwen.trainers.compression import designs
from tuwen.trainers.compression import network as networks
from tuwen.trainers.compression.controls import sequential, uniform
from tuwen.trainers.compression.costs import Decisions
from tuwen.trainers.compression.export import outputs
from tuwen.trainers.compression.gates import cut
from tuwen.trainers.compression.measure import Measuring
from tuwen.trainers.compression.models import Model, of_network, open_model
from tuwen.trainers.compression.network import Network
from tuwen.trainers.compression.profiler import LocalDevice
from tuwen.trainers.compression.search import CompressConfig, Search, compress, finetune
from tuwen.trainers.compression.table import Table, default_path
from tuwen.trainers.compression.targets import timed
from tuwen.trainers.compression.tasks import Batch, labels_of, stream
from tuwen.trainers.compression.train import held_batches, split
from tuwen.trainers.edge.student import DistilConfig
from tuwen.trainers.stream import DataConfig, PairStream, loader
from tuwen.trainers.train_retrieval import train as train_retrieval

ARMS = ("ours", "uniform", "sequential")
WITHIN = 0.05
PSNR_LOSS = 0.034
CANDIDATES = 60
BATCH = 8
"""Inputs of a run: at one, models so small are over in a tenth of a millisecond, and the machine's moods are in it."""
TOWER = {
    "vision_cfg": {"image_size": 32, "layers": 4, "width": 96, "head_width": 24, "patch_size": 8, "pool_type": "avg"}
}


class Subject(NamedTuple):
    """What is compressed: what it is measured by, and to which shares."""

    metric: str
    shares: tuple[float, ...]
    side: int
    alone: bool
    batch: int
    steps: int
    """Of each compression; a step of the smallest net is cheap."""


SUBJECTS = {
    "tower": Subject("latency_ms", (0.5, 0.25), 32, True, 64, 160),
    "cnn": Subject("latency_ms", (0.5, 0.25), 32, True, 64, 160),
    "sr": Subject("mflops", (0.1,), 32, False, 16, 480),
}


class Bench:
    """One subject over its seeds; what is trained and measured is kept in a folder."""

    def __init__(self, name: str, given: argparse.Namespace, work: Path) -> None:
        self.name, self.given, self.work = name, given, work
        self.subject = SUBJECTS[name]
        self.steps = given.steps or self.subject.steps
        self.data = work / f"data-{self.subject.side}{'-alone' * self.subject.alone}-{given.scenes}"
        if not (self.data / "index.json").is_file():
            made = [self.subject.side, 0.0, self.subject.alone]
            write_shards(self.data, given.scenes, 71, "train", given.scenes, *made)  # type: ignore[arg-type]
            write_shards(self.data, given.held, 72, "test", given.held, *made)  # type: ignore[arg-type]
        self.train, self.test, _ = split(shards.find([str(self.data)]), [str(self.data)])
        self.device = LocalDevice(BATCH)

    def teacher(self, seed: int) -> Model:
        """The network of a seed, trained from scratch."""
        folder = self.work / f"{self.name}-{seed}"
        if self.name == "tower":
            if not (folder / "training.json").is_file():
                sets = [f"train.steps={self.given.teacher_steps}", f"train.seed={seed}", f"data.seed={seed}"]
                sets += ["data.batch=96", "train.warmup=20", "train.learning_rate=0.002", "model.vocabulary=captions"]
                changes = [f"model.vision_cfg={json.dumps(TOWER['vision_cfg'])}"]
                train_retrieval([str(self.data)], folder, sets=[*sets, *changes], device="cpu", fresh=True)
            return open_model(str(folder), "image", (self.train, self.test))
        if not (folder / networks.DESCRIPTION).is_file():
            network, task = self._new(seed)
            model = of_network(network, {"task": task}, (self.train, self.test))
            pairs = self.pairs(model, seed, teach=False)
            config = DistilConfig(steps=self.given.teacher_steps, learning_rate=3e-3, warmup=20, seed=seed)
            finetune(network, model.task, pairs, config)
            pairs.close()
            networks.save(network, folder, {"task": task})
        network, told = networks.load(folder)
        return of_network(network, told, (self.train, self.test))

    def _new(self, seed: int) -> tuple[Network, dict[str, Any]]:
        torch.manual_seed(seed)
        if self.name == "sr":
            return Network(designs.super_resolution(24, 5)), {"kind": "restore", "factor": 2, "side": self.subject.side}
        labels = sorted(set(labels_of(self.train, "concept").values()))
        task = {"kind": "classify", "field": "concept", "labels": labels, "side": self.subject.side, "std": 0.25}
        return Network(designs.residual_cnn(len(labels), (16, 32, 64))), task

    def pairs(self, model: Model, seed: int, teach: bool = True) -> Generator[Batch, None, None]:
        """Training batches of a seed."""
        config = DataConfig(batch=self.subject.batch, seed=seed, crop=0.8 if self.name == "cnn" else 1.0)
        made = loader(PairStream(self.train, config, model.side))
        return stream(model.task, made, model.teacher if teach else None)

    def search(self, model: Model, share: float, seed: int) -> tuple[Search, dict[str, Any]]:
        """A search over the model with its target, and what it takes besides."""
        tests = held_batches(model, self.train, 64, 32)
        calibrate = torch.cat([b.inputs for b in tests])
        measuring = Measuring(self.device, model.whole, calibrate)
        metric = self.subject.metric
        path = default_path(self.device) if self.given.cache else self.work / "blocks.json"
        table = Table(self.device, path, timed=timed([metric]))
        targets = {metric: share * measuring.reference[metric]}
        config = CompressConfig(steps=self.steps, seed=seed, refreshes=self.given.refreshes)
        return Search(model.network, model.task, measuring, table, targets, calibrate, config), {
            "measuring": measuring,
            "table": table,
            "targets": targets,
            "config": config,
        }

    def arm(self, arm: str, share: float, seed: int) -> dict[str, Any]:
        """One arm of one seed: its quality and what it costs, as shares of the uncompressed network."""
        path = self.work / f"{self.name}-{seed}-{share}-{arm}.json"
        if path.is_file():
            found: dict[str, Any] = json.loads(path.read_text())
            return found
        model = self.teacher(seed)
        model.network = copy.deepcopy(model.network)
        torch.manual_seed(1000 + seed)
        tests = held_batches(model, self.test, 64)
        batches = self.pairs(model, 1000 + seed)
        started = time.process_time()
        told: dict[str, Any] = {}
        search, others = self.search(model, share, seed)
        started = time.process_time() if not search.costs.table.measured_now else started
        if arm == "ours":
            made = compress(model.network, model.task, batches, **others)
            network = made.network
            told = {"masked_difference": made.masked_difference, "removed": made.removed, "fits": made.fits}
            told |= {"predictions": made.predictions, "history": made.history}
        else:
            if arm == "uniform":
                network, before = uniform(search, batches, self.subject.metric)
                raw, _ = others["measuring"].final(before)
                told["untrained"] = model.task.quality(lambda x: outputs(raw, x), tests)
            else:
                network = sequential(search, batches, self.subject.metric)
        seconds = time.process_time() - started
        batches.close()
        shipped, measured = others["measuring"].final(network)
        reference = others["measuring"].reference
        quality = model.task.quality(lambda x: outputs(shipped, x), tests)
        told |= {
            "quality": quality,
            "ceiling": model.task.quality(model.teacher, tests),
            "shares": {k: measured[k] / reference[k] for k in reference},
            "reference": reference,
            "cpu_seconds": seconds,
        }
        path.write_text(json.dumps(told))
        print(
            f"{self.name} seed {seed} {share} {arm}: {quality:.4f}, {told['shares'][self.subject.metric]:.3f} of "
            f"{self.subject.metric}, {seconds:.0f} CPU s",
            file=sys.stderr,
            flush=True,
        )
        return told


class Table_:
    """Lines of the tables, and what was missed."""

    def __init__(self) -> None:
        self.missed: list[str] = []

    def verdict(self, name: str, told: str, goal: str, held: bool, valid: bool = True) -> None:
        """One line with its goal."""
        word = "INVALID" if not valid else "PASS" if held else "MISS"
        if word != "PASS":
            self.missed.append(name)
        print(f"{name:58} {told:34} goal {goal:24} {word}", flush=True)


def compare(bench: Bench, given: argparse.Namespace) -> list[str]:
    """All arms of a subject, and its goals."""
    subject, table = bench.subject, Table_()
    seeds = range(given.first, given.first + given.seeds)
    points = 1.0 if bench.name == "sr" else 100.0
    for seed in seeds:  # seed by seed, so that a run that is broken off has whole seeds
        for share in subject.shares:
            for arm in ARMS:
                bench.arm(arm, share, seed)
    for share in subject.shares:
        rows = {arm: [bench.arm(arm, share, s) for s in seeds] for arm in ARMS}
        ceiling = [points * r["ceiling"] for r in rows["ours"]]
        print(
            f"\n{bench.name}: {subject.metric} to {share} of the uncompressed network's, "
            f"{np.mean([r['reference']['latency_ms'] for r in rows['ours']]):.3f} ms, "
            f"{rows['ours'][0]['reference']['mflops']:.1f} MFLOPs"
        )
        print(f"{'':14} {bench.teacher(given.first).task.metric:30} {'latency':9} {'MFLOPs':9} {'size':9} CPU s")
        print(f"{'uncompressed':14} {over_seeds(ceiling)!s:30} {1:9.3f} {1:9.3f} {1:9.3f}")
        for arm, found in rows.items():
            costs = [np.mean([r["shares"][m] for r in found]) for m in ("latency_ms", "mflops", "size_mb")]
            print(
                f"{arm:14} {over_seeds([points * r['quality'] for r in found])!s:30} "
                f"{costs[0]:9.3f} {costs[1]:9.3f} {costs[2]:9.3f} {np.mean([r['cpu_seconds'] for r in found]):5.0f}"
            )
        untrained = over_seeds([points * r["untrained"] for r in rows["uniform"]])
        print(f"{'untrained':14} {untrained!s:30}")
        of = f"{bench.name} {share}"
        off = [r["shares"][subject.metric] / share - 1 for r in rows["ours"]]
        table.verdict(
            f"{of}: measured off target, worst seed",
            f"{max(off, key=abs):+.1%}",
            "within 5 %",
            max(map(abs, off)) <= WITHIN,
        )
        gap = float(np.mean(ceiling)) - points * float(np.mean([r["untrained"] for r in rows["uniform"]]))
        valid = gap >= (PSNR_LOSS * float(np.mean(ceiling)) if bench.name == "sr" else 5.0)
        for arm in ARMS[1:]:
            less = over_seeds(
                [points * (a["quality"] - b["quality"]) for a, b in zip(rows["ours"], rows[arm], strict=True)]
            )
            table.verdict(f"{of}: ours less {arm}", str(less), ">= 0", less.value >= 0, valid)
        if bench.name == "sr":
            lost = over_seeds([1 - r["quality"] / r["ceiling"] for r in rows["ours"]])
            table.verdict(f"{of}: PSNR lost, share", str(lost), f"<= {PSNR_LOSS}", lost.value <= PSNR_LOSS, valid)
        apart = max(r["masked_difference"] for r in rows["ours"])
        table.verdict(f"{of}: masked against cut network, greatest", f"{apart:.1e}", "<= 1e-3", apart <= 1e-3)
        for seed, row in zip(seeds, rows["ours"], strict=True):
            print(f"  seed {seed}: {decided(row['removed'])}")
        wrong = [
            abs(p["predicted"] / p["measured"] - 1)
            for r in rows["ours"]
            for p in r["predictions"]
            if p["metric"] == subject.metric and p["step"] >= 0
        ]
        print(f"  table's prediction of whole models off by {np.median(wrong):.1%} (median of {len(wrong)})")
    return table.missed


def decided(removed: list[dict[str, Any]]) -> str:
    """Counts of what the objective decided besides widths."""
    kinds = [f"{r['was']} to {r['is']}" for r in removed if r["is"] != r["was"]]
    bits = [b for r in removed for b in r["bits"].values()]
    narrow = [left / all_ for r in removed for left, all_ in r["widths"].values()]
    blocks = ", ".join(f"{kinds.count(k)} {k}" for k in sorted(set(kinds))) or "all blocks as they were"
    return f"{blocks}; {bits.count(8)} of {len(bits)} layers in int8; widths {min(narrow):.2f} to {max(narrow):.2f}"


def flops(bench: Bench, given: argparse.Namespace) -> list[str]:
    """Random compressions: how FLOPs order them, and where a FLOPs budget would have landed."""
    model = bench.teacher(given.first)
    search, others = bench.search(model, 0.5, given.first)
    rng = np.random.default_rng(given.first)
    reference = others["measuring"].reference
    found = []
    for i in range(given.candidates):
        drawn = random_decisions(search, rng, int8=i % 2 == 1)
        search.costs.apply(drawn, search.saliency.order)
        made = cut(search.network, search.gates, search.calibrate[:1])
        measured = others["measuring"].of(made, f"{i}", ("latency_ms",))
        found.append(
            (measured["mflops"] / reference["mflops"], measured["latency_ms"] / reference["latency_ms"], i % 2)
        )
    work, latency, int8 = np.array(found).T
    print(f"\n{len(found)} random compressions of the CNN, half of them with int8 layers drawn at random")
    for name, rows in (("all", work > 0), ("fp32 only", int8 == 0), ("with int8", int8 == 1)):
        rho = rank_correlation(work[rows], latency[rows])
        drawn_ = [
            rank_correlation(work[rows][j], latency[rows][j])
            for j in (rng.integers(0, rows.sum(), rows.sum()) for _ in range(1000))
        ]
        low, high = np.percentile(drawn_, [2.5, 97.5])
        print(f"{name:12} rank correlation of FLOPs and measured latency {rho:.3f} ({low:.3f} to {high:.3f})")
    for share in (0.5, 0.25):
        near = np.argsort(np.abs(np.log(work / share)))[:10]
        off = latency[near] / share - 1
        print(
            f"FLOPs budget of {share}: the ten candidates nearest to it have {work[near].min():.2f} to "
            f"{work[near].max():.2f} of the FLOPs and miss that share of the latency by {np.median(off):+.0%} "
            f"(median; {off.min():+.0%} to {off.max():+.0%})"
        )
    return []


def random_decisions(search: Search, rng: np.random.Generator, int8: bool) -> Decisions:
    """Widths, branches and, where wanted, bits at random."""
    made = search.costs.whole()
    for name, allowed in search.costs.allowed.items():
        made.widths[name] = int(rng.integers(len(allowed)))
    for unit in search.network.every():
        made.chosen[unit.name] = str(rng.choice(unit.options))
    if int8:
        made.bits = {key: tuple(bool(b) for b in rng.integers(0, 2, len(bits))) for key, bits in made.bits.items()}
    return made


def rank_correlation(a: Any, b: Any) -> float:
    """Spearman's."""
    first, second = (np.argsort(np.argsort(v)).astype(np.float64) for v in (a, b))
    return float(np.corrcoef(first, second)[0, 1])


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("tower", "cnn", "sr", "flops"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--scenes", type=int, default=2000, help="training scenes")
    parser.add_argument("--held", type=int, default=500, help="held-out scenes")
    parser.add_argument("--teacher-steps", type=int, default=300)
    parser.add_argument("--steps", type=int, default=0, help="of each compression; 0: 160, sr 480")
    parser.add_argument("--refreshes", type=int, default=6)
    parser.add_argument("--candidates", type=int, default=CANDIDATES)
    parser.add_argument("--train", metavar="ARM", help="only make this arm, or teacher, of all seeds, into --work")
    parser.add_argument("--cache", action="store_true", help="measured blocks from the user's cache, not --work")
    parser.add_argument("--work", type=Path, help="keep what is made here, and go on from it")
    parser.add_argument("--quick", action="store_true", help="a minute or two: shows that it runs, proves nothing")
    parser.add_argument("--check", action="store_true", help="exit with 1 where a goal is missed or INVALID")
    given = parser.parse_args()
    if given.quick:
        small = {
            "seeds": 2,
            "scenes": 200,
            "held": 64,
            "teacher_steps": 10,
            "steps": 12,
            "refreshes": 2,
            "candidates": 8,
        }
        vars(given).update(small)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as held:
        work = given.work or Path(held)
        work.mkdir(parents=True, exist_ok=True)
        bench = Bench("cnn" if given.what == "flops" else given.what, given, work)
        if given.train:
            for seed in range(given.first, given.first + given.seeds):
                for share in bench.subject.shares:
                    bench.teacher(seed) if given.train == "teacher" else bench.arm(given.train, share, seed)
            return
        print(f"{platform.platform()}, Python {platform.python_version()}; {bench.device.name}")
        print(
            ", ".join(f"{n} {version(n)}" for n in ("torch", "onnxruntime", "onnx", "torch-pruning", "open_clip_torch"))
        )
        print(
            f"sample world: {given.scenes} training and {given.held} held-out scenes of {bench.subject.side} pixels; "
            f"seeds {given.first} to {given.first + given.seeds - 1}; {given.teacher_steps} steps of training, "
            f"{bench.steps} of compression, batches of {bench.subject.batch}"
        )
        missed = flops(bench, given) if given.what == "flops" else compare(bench, given)
    if given.check and missed:
        sys.exit(f"missed or invalid: {'; '.join(missed)}")


if __name__ == "__main__":
    main()
