"""What the generation trainer promises, measured on small placed pictures (``tuwen.sample_data.placed``).

    python benchmarks/generation.py base       attribute accuracy between chance and the probe's ceiling
    python benchmarks/generation.py align      Chinese from a frozen English foundation, against pairs alone
    python benchmarks/generation.py towers     the same for retrieval: an English text tower to a Chinese one, no images
    python benchmarks/generation.py domain     new colours: fine-tuning, LoRA, learning without forgetting, replay
    python benchmarks/generation.py negatives  attribute negatives in tuning, at equal steps
    python benchmarks/generation.py fast       guidance, steps, pruning, alone and together, in one table
    python benchmarks/generation.py curated    curated shards against raw ones at equal compute

``--work DIR`` keeps what was trained, so that parts share the base and a run that was broken off goes on; ``--seeds N``
runs N fresh seeds; ``--quick`` only shows that everything runs (its figures mean nothing). The judge is a probe trained
on real pictures; accuracy is the share of images in which an attribute (or all four: kind, colour, number, place) is
what the prompt asks for. Fréchet distances are in the probe's feature space, over as many images each. Intervals (95 %)
are bootstraps over prompts for one seed and Student's t over seeds for several. A line is INVALID where baseline and
ceiling do not separate. Seconds are of one thread, arms interleaved, medians. The parts are in ``generation_*.py``.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from generation_common import QUICK, Bench, Plan, machine
from generation_curated import part_curated
from generation_domain import part_domain, part_negatives
from generation_fast import part_fast
from generation_foundation import part_align, part_base
from generation_towers import part_towers

from tuwen.trainers import bootstrap

PARTS: dict[str, Callable[[Bench], dict[str, float]]] = {
    "base": part_base,
    "align": part_align,
    "towers": part_towers,
    "domain": part_domain,
    "negatives": part_negatives,
    "fast": part_fast,
    "curated": part_curated,
}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("parts", nargs="+", choices=PARTS)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--base-seed", type=int, help="all seeds begin with the base and the alignment of this one")
    parser.add_argument("--work", type=Path, help="folder that keeps what was trained")
    parser.add_argument("--lora-rate", type=float, default=Plan.lora_rate, help="learning rate of adapters in domain")
    parser.add_argument("--keep", type=float, default=Plan.keep, help="weight of learning without forgetting in domain")
    parser.add_argument("--quick", action="store_true", help="only that it runs")
    parser.add_argument("--check", action="store_true", help="exit 1 where something that is promised does not hold")
    given = parser.parse_args()
    torch.set_num_threads(1)
    print(machine())
    failed: list[str] = []
    with tempfile.TemporaryDirectory() as scratch:
        work = given.work or Path(scratch)
        work.mkdir(parents=True, exist_ok=True)
        for name in given.parts:
            told = []
            for seed in range(given.first, given.first + given.seeds):
                plan = replace(QUICK if given.quick else Plan(), lora_rate=given.lora_rate, keep=given.keep)
                bench = Bench(work, plan, seed, given.quick, given.base_seed)
                told.append(PARTS[name](bench))
                failed += bench.failed
            if len(told) > 1:
                print(f"{name}, mean over {len(told)} seeds with 95 % t intervals:")
                for key in told[0]:
                    print(f"  {key:<44} {bootstrap.over_seeds([t[key] for t in told])}")
    if given.check and failed:
        sys.exit(f"does not hold: {'; '.join(failed)}")


if __name__ == "__main__":
    main()
