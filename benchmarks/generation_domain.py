"""New colours gained and old ones lost; attribute negatives: ``python benchmarks/generation.py domain negatives``."""

from __future__ import annotations

from typing import Any

from generation_common import Bench, share

from tuwen.sample_data import placed
from tuwen.trainers import bootstrap, lora
from tuwen.trainers.generation import base, domain, model
from tuwen.trainers.generation.model import TextToImage

ARMS: dict[str, dict[str, Any]] = {
    "fine-tuning": {"lora": None, "replay": 0.0, "keep": 0.0},
    "LoRA": {"replay": 0.0, "keep": 0.0},
    "LoRA + LwF": {"replay": 0.0},
    "LoRA + replay": {"replay": 0.5, "keep": 0.0},
    "LoRA + replay + LwF (default)": {},
}


def part_domain(bench: Bench) -> dict[str, float]:
    """3: new colours, gained and lost."""
    start = bench.chinese()
    few = bench.plan.few
    before = {
        name: bench.right(bench.draw(start, asked, few), asked)
        for name, asked in (("new", bench.new), ("old", bench.asked))
    }
    print(
        f"domain, seed {bench.seed}: {' and '.join(placed.NEW_COLOURS)} are new; "
        f"{bench.plan.domain} steps, 16 new pairs in each, and 16 old ones where there is replay; "
        f"adapters at {bench.plan.lora_rate:g}, weight of LwF {bench.plan.keep:g}"
    )
    print(
        f"  before                         new {share(before['new']['all'])}  old {share(before['old']['all'])}",
        flush=True,
    )
    told: dict[str, float] = {}
    found = {}
    for name, fields in ARMS.items():
        fields = {"keep": bench.plan.keep, **fields}
        label = f"domain-{name.split(' (')[0].replace(' ', '')}"
        label += "" if "lora" in fields else f"-{bench.plan.lora_rate:g}"
        label += f"-keep-{fields['keep']:g}" if fields["keep"] else ""
        made = bench.kept(label, lambda f=fields: tuned(bench, start, **f))
        now = {n: bench.right(bench.draw(made, a, few), a) for n, a in (("new", bench.new), ("old", bench.asked))}
        gain = bootstrap.mean(now["new"]["all"] - before["new"]["all"])
        lost = bootstrap.mean(before["old"]["all"] - now["old"]["all"])
        found[name] = (gain.value, lost.value)
        told |= {f"{name}: gain": gain.value, f"{name}: lost": lost.value}
        print(f"  {name:<30} new {share(now['new']['all'])}  gained {gain}  lost on the old {lost}", flush=True)
    tuning, default = found["fine-tuning"], found["LoRA + replay + LwF (default)"]
    valid = tuning[0] > 0.2 and tuning[1] > 0.1
    bench.verdict(f"the default loses {100 * default[1]:.1f} points (at most 5 asked)", default[1] <= 0.05, valid)
    part = default[0] / max(1e-9, tuning[0])
    bench.verdict(f"and has {part:.0%} of fine-tuning's gain (75 % asked)", part >= 0.75, valid)
    return told


def tuned(bench: Bench, start: TextToImage, wrong: float = 0.0, on: str = "new", **fields: Any) -> TextToImage:
    """``start`` tuned on a set of shards."""
    settings = domain.DomainConfig(old=("old",), wrong=wrong, **{"lora": lora.LoraConfig(), **fields})
    made = model.copied(start)
    objective = domain.Domain(made, settings, base.DiffusionConfig(), bench.seed)
    streams = [bench.stream(on, 16, negatives=1 if wrong else 0)]
    if settings.replay or settings.keep:
        streams.append(bench.stream("train", 16))
    bench.fit(objective, streams, bench.plan.domain, 5e-4 if settings.lora is None else bench.plan.lora_rate)
    objective.finish()
    return made


def part_negatives(bench: Bench) -> dict[str, float]:
    """3b: attribute negatives of the shards as hard negatives in tuning, at equal steps."""
    start = bench.chinese()
    arms = {"before": start}
    for name, wrong in (("tuned on", 0.0), ("with negatives", 0.5)):
        fields = {"lora": lora.LoraConfig(), "replay": 0.0, "keep": 0.0}
        arms[name] = bench.kept(f"negatives-{wrong}", lambda w=wrong, f=fields: tuned(bench, start, w, "train", **f))
    print(
        f"negatives, seed {bench.seed}: {bench.plan.domain} more steps on the same pairs; "
        f"drawn without guidance in {bench.plan.few} steps"
    )
    hits = {}
    asked = [*bench.asked, *bench.unseen]
    for name, made in arms.items():
        hits[name] = bench.right(bench.draw(made, asked, bench.plan.few, 0.0), asked)
        print(f"  {name:<16} " + "  ".join(f"{k} {share(v)}" for k, v in hits[name].items()), flush=True)
    gain = bootstrap.mean(hits["with negatives"]["all"] - hits["tuned on"]["all"])
    room = float(bench.ceiling["all"].mean()) - float(hits["tuned on"]["all"].mean())
    bench.verdict(f"negatives change accuracy by {gain}", gain.low > 0, room > 0.02)
    return {"gain": gain.value}
