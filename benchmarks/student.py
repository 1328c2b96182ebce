"""What distillation buys a small dual-stream student on the sample world, and what searching with it costs.

    python benchmarks/student.py [--seeds 3] [--work DIR] [--quick] [--check]

The teacher is the embedded model (two towers, images of 64 pixels); students see 32 pixels. Per seed a fusion encoder
is trained over the teacher's towers, and students from the same first weights and the same batches: a tenth of the
teacher's parameters for few steps, from the pairs alone (scratch), from the plain teacher, from the fused one, on clean
pairs and on pairs of which 30 % are mismatched; a quarter of the parameters for more steps, from the pairs and from the
plain teacher, also as int8. Teacher parameters are those of its two towers alone. Scenes have one kind of thing each;
``--world whole`` has the sample world's pairs of things, for which students this small need more steps.

Scores are R@1 in percent on scenes that neither has seen, mean of both ways; every image of an equal caption is right.
Intervals (95 %) are bootstraps over scenes and seeds together, paired where models are compared. The teacher is one
model: its own spread is not in them. A line is INVALID where the teacher is less than 5 points over the scratch
student: there is no gap to close. ``--work`` keeps what was trained, so that a run that was broken off goes on;
``--train SEED`` trains one seed's share of it, so that several processes may. Some 35 CPU minutes for three seeds,
most of them for the fused teacher's students and those of a quarter. Times are of one thread.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from student_speed import speed
from student_table import Score, Table
from torch import Tensor

from tuwen.sample_data.draw import render
from tuwen.sample_data.shards import drawn_scene
from tuwen.sample_data.world import caption
from tuwen.scoring.export_scorer import export_scorer
from tuwen.scoring.onnx_scorer import OnnxScorer
from tuwen.scoring.scorer import embedded_folder, fingerprint, load_scorer, model_and_tokenizer
from tuwen.trainers.edge.export import quantise
from tuwen.trainers.edge.fusion import FusedTeacher, FusionConfig, Towers, closest, encode
from tuwen.trainers.edge.make import build, save, shrink, teacher_config, towers
from tuwen.trainers.edge.student import DistilConfig, Targets, Teacher, minimise, parameters, student_losses
from tuwen.trainers.retrieval import caption_group

TEACHER_SIDE, SIDE = 64, 32
NOISE = 0.3


class World(NamedTuple):
    """n scenes: what students see, captions as ids, groups of equal captions, and what the teacher's towers say."""

    images: Tensor
    ids: Tensor
    groups: Tensor
    seen: Towers
    pictures: NDArray[np.uint8]
    captions: list[str]

    def pixels(self, rows: Tensor | slice) -> Tensor:
        """Pixels for the student."""
        return self.images[rows].float() / 127.5 - 1

    def mismatched(self, share: float, seed: int) -> World:
        """``share`` of the captions moved to another picture."""
        chosen = np.random.default_rng(seed).choice(len(self.ids), round(share * len(self.ids)), replace=False)
        moved = np.arange(len(self.ids))
        moved[chosen] = np.roll(chosen, 1)
        order = torch.from_numpy(moved)
        seen = self.seen._replace(
            text=self.seen.text[order], text_tokens=self.seen.text_tokens[order], words=self.seen.words[order]
        )
        return self._replace(ids=self.ids[order], groups=self.groups[order], seen=seen)


def draw(n: int, seed: int, model: Any, tokenize: Callable[[list[str]], Tensor], alone: bool) -> World:
    """``n`` scenes, with one kind of thing each where ``alone``, and what the teacher says of them."""
    rng = np.random.default_rng(seed)
    pictures, captions = np.empty((n, TEACHER_SIDE, TEACHER_SIDE, 3), np.uint8), []
    for i in range(n):
        scene = drawn_scene(rng, alone)
        large = render(scene, 2 * TEACHER_SIDE)
        pictures[i] = cv2.resize(large, (TEACHER_SIDE, TEACHER_SIDE), interpolation=cv2.INTER_AREA)
        captions.append(caption(scene, rng))
    large = torch.from_numpy(pictures).permute(0, 3, 1, 2)
    ids = tokenize(captions)
    with torch.no_grad():
        parts = [encode(model, large[i : i + 100].float() / 127.5 - 1, ids[i : i + 100]) for i in range(0, n, 100)]
    seen = Towers(*(torch.cat(part) for part in zip(*parts, strict=True)))
    small = F.avg_pool2d(large.float(), TEACHER_SIDE // SIDE).round().to(torch.uint8)
    return World(small, ids, torch.tensor([caption_group(c) for c in captions]), seen, pictures, captions)


def order(n: int, batch: int, seed: int) -> Iterator[Tensor]:
    """Endless batches of row numbers."""
    made = torch.Generator().manual_seed(seed)
    while True:
        rows = torch.randperm(n, generator=made)
        yield from rows[: n - n % batch].view(-1, batch)


def ranked(cosines: Tensor, groups: Tensor) -> Score:
    """The score of every scene from the (images, captions) cosines."""
    right = groups[:, None] == groups[None, :]
    both = [right.gather(1, c.argmax(1)[:, None])[:, 0] for c in (cosines, cosines.T)]
    return torch.stack(both).double().mean(0).numpy()


@torch.no_grad()
def score(model: Any, world: World) -> Score:
    """The score of a dual stream."""
    model.eval()
    image = model.encode_image(world.pixels(slice(None)), normalize=True)
    return ranked(image @ model.encode_text(world.ids, normalize=True).T, world.groups)


class Bench:
    """What is trained, kept in a folder so that it is trained once."""

    def __init__(self, work: Path, given: argparse.Namespace) -> None:
        self.work, self.given = work, given
        self.model, _, tokenize = model_and_tokenizer(embedded_folder(), "cpu")
        self.scale = self.model.logit_scale.exp().detach()
        self.train, self.test = (
            self._kept(name, lambda n=n, seed=seed: draw(n, seed, self.model, tokenize, given.world == "alone"))
            for name, n, seed in (("train", given.pairs, 901), ("test", given.scenes, 902))
        )
        self.config = teacher_config("embedded")[1]

    def _kept(self, name: str, make: Callable[[], Any]) -> Any:
        path = self.work / f"{name}.pt"
        if not path.is_file():
            with torch.enable_grad():
                value = make()
            with tempfile.NamedTemporaryFile(dir=self.work, delete=False) as file:
                torch.save(value, file)
            Path(file.name).replace(path)
        return torch.load(path, weights_only=False)

    def student_config(self, share: float) -> dict[str, Any]:
        return shrink(self.model, self.config["model_cfg"], share, SIDE)

    def fusion(self, seed: int) -> FusedTeacher:
        """The teacher with a fusion encoder over its towers, trained on clean pairs."""
        torch.manual_seed(seed)
        config = FusionConfig(width=64, layers=1, candidates=2)
        fused = FusedTeacher(self.model, config)
        own = {k for k in fused.state_dict() if not k.startswith("model.")}

        def made() -> dict[str, Tensor]:
            config = DistilConfig(steps=self.given.fusion_steps, warmup=20, seed=seed)
            noise = torch.Generator().manual_seed(seed)

            def losses(rows: Tensor) -> dict[str, Tensor]:
                return fused.losses(self.train.seen.take(rows), self.train.groups[rows], noise)

            minimise(fused.own_parameters(), losses, order(len(self.train.ids), 64, seed), config)
            return {k: v for k, v in fused.state_dict().items() if k in own}

        fused.load_state_dict(self._kept(f"fusion-{seed}", made), strict=False)
        return fused.eval()

    def student(self, share: float, source: str, noisy: bool, seed: int) -> Any:
        """A student of the source ``scratch``, ``plain`` or ``fused``."""
        model = build(self.student_config(share))
        world = self.train.mismatched(NOISE, seed) if noisy else self.train
        steps = self.given.steps if share < 0.2 else self.given.long_steps
        config = DistilConfig(steps=steps, learning_rate=2e-3, seed=seed)

        def made() -> dict[str, Tensor]:
            torch.manual_seed(seed)
            fresh = build(self.student_config(share))
            teacher = Teacher(self.fusion(seed)) if source == "fused" else None

            def losses(rows: Tensor) -> dict[str, Tensor]:
                seen, targets = world.seen.take(rows), None
                if teacher:
                    targets = teacher.of(seen)
                elif source == "plain":
                    targets = Targets.of(seen.image, seen.text, self.scale)
                return student_losses(fresh, world.pixels(rows), world.ids[rows], world.groups[rows], targets, config)

            started = time.process_time()
            minimise(list(fresh.parameters()), losses, order(len(world.ids), self.given.batch, seed), config)
            self.tell(f"{share:.2f} {source}{' noisy' * noisy} seed {seed}: {time.process_time() - started:.0f} CPU s")
            return dict(fresh.state_dict())

        model.load_state_dict(self._kept(f"student-{share}-{source}-{'noisy' if noisy else 'clean'}-{seed}", made))
        return model.eval()

    def train_all(self, seed: int, quarter: bool) -> None:
        """Everything that the tables need of one seed; several processes may share the work."""
        for source in ("scratch", "plain", "fused"):
            for noisy in (False, True):
                self.student(0.1, source, noisy, seed)
        for source in ("scratch", "plain") if quarter else ():
            self.student(0.25, source, False, seed)

    def tell(self, line: str) -> None:
        """Progress, for whoever waits."""
        print(line, file=sys.stderr, flush=True)

    @torch.no_grad()
    def fused_score(self, seed: int) -> Score:
        """The fused teacher's own score: the eight closest of each row and column are fused."""
        fused, seen = self.fusion(seed), self.test.seen
        cosines = seen.image @ seen.text.T
        rows, columns = closest(cosines, 8)
        for at in range(0, len(rows), 512):
            part = slice(at, at + 512)
            made = fused.similarities(seen, rows[part], columns[part])
            cosines[rows[part], columns[part]] = made[rows[part], columns[part]]
        return ranked(cosines, self.test.groups)

    def exported(self, model: Any, share: float, folder: Path) -> tuple[Path, dict[str, Any]]:
        """A student as ONNX and as int8, calibrated on training pairs: the int8 folder and its record."""
        made = folder / "model"
        made.mkdir(parents=True)
        preprocess = {**self.config["preprocess_cfg"], "size": SIDE}
        save(model, self.student_config(share), preprocess, embedded_folder(), made)
        export_scorer(str(made), folder / "onnx")
        pictures = [Image.fromarray(p) for p in self.train.pictures[:128]]
        return folder / "int8", quantise(folder / "onnx", folder / "int8", pictures, self.train.captions[:128])

    def int8(self, models: list[Any], share: float, table: Table, name: str) -> str:
        """Scores of exported students and of their int8 forms; the name of the latter."""
        scores: dict[str, list[Score]] = {"float": [], "int8": []}
        with tempfile.TemporaryDirectory() as held:
            for i, model in enumerate(models):
                int8, told = self.exported(model, share, Path(held) / str(i))
                scores["float"].append(self.onnx_score(int8.parent / "onnx"))
                scores["int8"].append(self.onnx_score(int8))
        for kind, found in scores.items():
            table.put(f"{name}, ONNX {kind}", found)
        for file, tower in told["towers"].items():
            sizes = f"{tower['bytes_before'] / 1e3:.0f} to {tower['bytes'] / 1e3:.0f} kB"
            print(f"  {file}: {sizes}, mean cosine {tower['cosine']}, least {tower['least_cosine']}")
        return f"{name}, ONNX int8"

    def onnx_score(self, folder: Path) -> Score:
        """The score of an exported student, which scales the pictures itself."""
        scorer = load_scorer(str(folder), "cpu", 1, 1)
        assert isinstance(scorer, OnnxScorer)
        image = scorer.embed_pictures([Image.fromarray(p) for p in self.test.pictures])
        text = scorer.embed_texts(self.test.captions)
        return ranked(torch.from_numpy(image @ text.T), self.test.groups)


@torch.no_grad()
def seen_before(bench: Bench, models: list[Any], name: str) -> None:
    """Where a student falls short: its score on scenes that it was trained on, and how near each tower comes."""
    held = bench.test
    rows = torch.arange(min(len(held.ids), len(bench.train.ids)))
    train = bench.train
    own = train._replace(
        images=train.images[rows], ids=train.ids[rows], groups=train.groups[rows], seen=train.seen.take(rows)
    )
    teacher = ranked(own.seen.image @ own.seen.text.T, own.groups).mean()
    student = np.mean([score(model, own).mean() for model in models])
    cosines = {
        tower: np.mean([float((encoded * wanted).sum(1).mean()) for encoded in each])
        for tower, wanted, each in (
            ("image", held.seen.image, [m.encode_image(held.pixels(slice(None)), normalize=True) for m in models]),
            ("text", held.seen.text, [m.encode_text(held.ids, normalize=True) for m in models]),
        )
    }
    print(
        f"  {name}, plain, on {len(rows)} scenes of its training: {100 * student:.1f}, teacher {100 * teacher:.1f}; on "
        f"held-out scenes cosine with the teacher's image tower {cosines['image']:.3f}, text {cosines['text']:.3f}"
    )


def quality(bench: Bench, seeds: int, quarter: bool) -> Table:
    """The tables of scores and goals."""
    test = bench.test
    table, all_seeds = Table(seeds, len(test.ids)), range(seeds)
    print(f"\n{'R@1 in %, 95 % interval':44}")
    table.put("teacher", [ranked(test.seen.image @ test.seen.text.T, test.groups)] * seeds)
    table.put("teacher, closest 8 fused", [bench.fused_score(s) for s in all_seeds])
    for noisy in (False, True):
        pairs = "noisy" if noisy else "clean"
        for source in ("scratch", "plain", "fused"):
            made = [score(bench.student(0.1, source, noisy, s), test) for s in all_seeds]
            table.put(f"tenth, {source}, {pairs}", made)
    for source in ("scratch", "plain") if quarter else ():
        made = [score(bench.student(0.25, source, False, s), test) for s in all_seeds]
        table.put(f"quarter, {source}, clean", made)
    name, share = ("quarter", 0.25) if quarter else ("tenth", 0.1)
    seen_before(bench, [bench.student(share, "plain", False, s) for s in all_seeds], name)
    small = [bench.student(share, "plain", False, s) for s in all_seeds]
    int8 = bench.int8(small, share, table, f"{name}, plain, clean")
    print()
    for pairs, goal in (("clean", 25), ("noisy", 50)):
        for source in ("plain", "fused"):
            table.closed(f"tenth, {source}, {pairs}", f"tenth, scratch, {pairs}", goal)
        table.behind(f"tenth, plain, {pairs}", f"tenth, fused, {pairs}", np.inf, table.gap(f"tenth, scratch, {pairs}"))
    if quarter:
        table.behind("quarter, plain, clean", "teacher", 1, table.gap("quarter, scratch, clean"))
    table.behind(int8, int8.replace("int8", "float"), 1, True)
    return table


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument(
        "--world", choices=("alone", "whole"), default="alone", help="scenes: one kind of thing, or two"
    )
    parser.add_argument("--pairs", type=int, default=16000, help="training scenes")
    parser.add_argument("--scenes", type=int, default=600, help="held-out scenes")
    parser.add_argument("--steps", type=int, default=400, help="of students of a tenth")
    parser.add_argument("--long-steps", type=int, default=1500, help="of students of a quarter")
    parser.add_argument("--fusion-steps", type=int, default=200)
    parser.add_argument("--batch", type=int, default=96)
    parser.add_argument("--photos", type=int, default=100_000)
    parser.add_argument("--train", type=int, metavar="SEED", help="only train what this seed needs, into --work")
    parser.add_argument("--no-quarter", action="store_true", help="leave the students of a quarter out")
    parser.add_argument("--work", type=Path, help="keep what was trained here, and go on from it")
    parser.add_argument("--quick", action="store_true", help="a minute: shows that it runs, proves nothing")
    parser.add_argument("--check", action="store_true", help="exit with 1 where a goal is missed or INVALID")
    given = parser.parse_args()
    if given.quick:
        small = {"seeds": 2, "pairs": 300, "scenes": 100, "steps": 10, "long_steps": 10, "fusion_steps": 5}
        vars(given).update({**small, "batch": 32, "photos": 5000})
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as held:
        work = given.work or Path(held)
        work.mkdir(parents=True, exist_ok=True)
        settings = {
            k: v
            for k, v in vars(given).items()
            if k in ("world", "pairs", "scenes", "steps", "long_steps", "fusion_steps", "batch")
        }
        settings["teacher"] = fingerprint("embedded")
        told = work / "settings.json"
        if told.is_file() and json.loads(told.read_text()) != settings:
            parser.error(f"{work} holds a run of other settings: {told.read_text()}")
        told.write_text(json.dumps(settings))
        bench = Bench(work, given)
        if given.train is not None:
            bench.train_all(given.train, not given.no_quarter)
            return
        print(f"{platform.platform()}, {platform.machine()}, Python {platform.python_version()}, one thread")
        print(", ".join(f"{name} {version(name)}" for name in ("torch", "open_clip_torch", "onnxruntime", "numpy")))
        print(
            f"sample world ({given.world}): {given.pairs} training and {given.scenes} held-out scenes, "
            f"{given.seeds} seeds"
        )
        whole = towers(bench.model)
        for share, steps in ((0.1, given.steps), (0.25, given.long_steps)):
            own = parameters(build(bench.student_config(share)))
            part = f"{own / whole:.3f} of the teacher's {whole:,}"
            print(f"student of {own:,} parameters, {part}; {steps} steps of {given.batch}")
        table = quality(bench, given.seeds, not given.no_quarter)
        share = 0.1 if given.no_quarter else 0.25
        with tempfile.TemporaryDirectory() as made:
            int8, _ = bench.exported(bench.student(share, "plain", False, 0), share, Path(made) / "student")
            speed(int8, bench.test.pictures[0], given.photos)
    if given.check and table.missed:
        sys.exit(f"missed or invalid: {'; '.join(table.missed)}")


if __name__ == "__main__":
    main()
