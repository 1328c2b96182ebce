"""The edge student: a dual-stream model of a fraction of its teacher's size, trained to see similarities as it does.

The student learns the teacher's rows of similarities within a batch, both ways (``DistillClipLoss`` of open_clip), and
the teacher's image and text features. The teacher is a dual-stream model or one with fusion over it
(``fusion.FusedTeacher``); nothing of either goes into the student. Under torchrun the rows of a rank are held against
those of all ranks.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ...pipeline.errors import UsageError
from .. import checkpoints
from ..distributed import ALONE, World, average_gradients, gather, gather_objects, total
from ..journal import Journal
from ..losses import Keys, contrastive
from ..retrieval import caption_group
from .fusion import FusedTeacher, Towers, cross_entropy

Tokenize = Callable[[Sequence[str]], Tensor]


@dataclass(frozen=True)
class DistilConfig:
    """How a student, or the fusion of its teacher, is trained."""

    steps: int = 1000
    learning_rate: float = 1e-3
    warmup: int = 50
    weight_decay: float = 0.05
    clip: float = 1.0
    seed: int = 0
    pairs: float = 0.0
    """Weight of the pairs' own contrastive loss: what the data says, right or wrong."""
    logits: float = 0.5
    """Weight of the teacher's similarities, both ways together."""
    features: float = 4.0
    """Weight of one minus the cosine with the teacher's features, image and text together."""
    log_every: int = 50
    checkpoint_every: int = 500
    """Steps between checkpoints, where they are kept at all."""
    precision: str = "fp32"
    """fp32, or bf16 for both teacher and student; losses are computed in single precision always."""

    def __post_init__(self) -> None:
        if self.precision not in ("fp32", "bf16"):
            raise UsageError(f"distil.precision {self.precision!r} is not known; expected fp32 or bf16")


class Targets(NamedTuple):
    """What a teacher says of the n pairs of this rank, held against the m of all: logits and unit rows (n, d)."""

    to_text: Tensor
    """(n, m): image rows, caption columns."""
    to_image: Tensor
    """(n, m): caption rows, image columns."""
    image: Tensor
    text: Tensor

    @classmethod
    def of(cls, image: Tensor, text: Tensor, scale: Tensor) -> Targets:
        """Those of two towers: cosines times the ``scale``."""
        return cls(scale * image @ gather(text).T, scale * text @ gather(image).T, image, text)


class Prepare(NamedTuple):
    """What comes before the towers: mean and deviation of each colour, and the tokenizer."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    tokenize: Tokenize
    device: torch.device = torch.device("cpu")

    def __call__(self, images: Tensor, captions: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Pixels (n, 3, h, w) and ids (n, l) of uint8 images and captions, on the device."""
        mean, std = (torch.tensor(v, device=self.device).view(1, 3, 1, 1) for v in (self.mean, self.std))
        return (images.to(self.device).float() / 255 - mean) / std, self.tokenize(captions).to(self.device)


class Teacher:
    """Targets from a frozen teacher, with or without fusion."""

    def __init__(self, model: nn.Module, world: World = ALONE) -> None:
        self.model, self.world = model.eval().requires_grad_(False), world

    @torch.no_grad()
    def __call__(self, pixels: Tensor, ids: Tensor) -> Targets:
        if isinstance(self.model, FusedTeacher):
            return self.of(self.model.towers(pixels, ids))
        model: Any = self.model
        image, text = model.encode_image(pixels, normalize=True), model.encode_text(ids, normalize=True)
        return Targets.of(image.float(), text.float(), model.logit_scale.exp())

    @torch.no_grad()
    def of(self, seen: Towers) -> Targets:
        """Targets from what the towers of a fused teacher gave before; pairs of two ranks keep their cosine."""
        assert isinstance(self.model, FusedTeacher)
        fused, n = self.model.targets(seen).float(), len(seen.image)
        scale: Any = self.model.model.logit_scale
        targets = Targets.of(seen.image.float(), seen.text.float(), scale.exp())
        own = slice(self.world.rank * n, (self.world.rank + 1) * n)
        targets.to_text[:, own], targets.to_image[:, own] = fused, fused.T
        return targets


def distillation(image: Tensor, text: Tensor, scale: Tensor, to_text: Tensor, to_image: Tensor) -> Tensor:
    """Soft cross entropy between the rows of two similarity matrices, mean of both ways.

    ``to_text`` and ``to_image`` (n, m) are the teacher's logits for the rows of this rank. The form of
    ``DistillClipLoss`` in open_clip; TinyCLIP (Wu et al. 2023, arXiv 2309.12314) calls it affinity mimicking.
    """
    rows, columns = scale * image @ gather(text).T, scale * text @ gather(image).T
    return (cross_entropy(rows, to_text.softmax(1)) + cross_entropy(columns, to_image.softmax(1))) / 2


def student_losses(
    model: nn.Module, pixels: Tensor, ids: Tensor, groups: Tensor, targets: Targets | None, config: DistilConfig
) -> dict[str, Tensor]:
    """Losses of one batch by name; ``loss`` is their weighted sum. Without targets the pairs' own loss is all."""
    dual: Any = model
    with half(pixels.device, config):
        image, text = dual.encode_image(pixels, normalize=True), dual.encode_text(ids, normalize=True)
    image, text, scale = image.float(), text.float(), dual.logit_scale.exp()

    def own() -> Tensor:
        return contrastive(image, text, scale, groups, Keys(gather(image), gather(text), gather(groups)))

    if targets is None:
        loss = own()
        return {"loss": loss, "pairs": loss}
    losses = {"logits": distillation(image, text, scale, targets.to_text, targets.to_image)}
    whole = 2 * config.logits * losses["logits"]
    if config.features:
        losses["features"] = 2 - (image * targets.image).sum(1).mean() - (text * targets.text).sum(1).mean()
        whole = whole + config.features * losses["features"]
    if config.pairs:
        losses["pairs"] = own()
        whole = whole + config.pairs * losses["pairs"]
    return {"loss": whole, **losses}


def half(device: torch.device, config: DistilConfig) -> torch.autocast:
    """Encoding in bf16 where the configuration says so."""
    return torch.autocast(device.type, torch.bfloat16, enabled=config.precision == "bf16")


FREE = frozenset({"distil.log_every", "distil.checkpoint_every"})
"""May differ between the two parts of an interrupted training."""


class Kept(NamedTuple):
    """Where a training keeps its checkpoints, and by what a later one knows that it may go on from them."""

    folder: Path
    settings: Mapping[str, Any]
    world: World = ALONE

    def left(self) -> tuple[list[int], int]:
        """The position of each reader, and the steps done; ([], 0) at the beginning."""
        return checkpoints.left(checkpoints.latest(self.folder), self.settings, self.world, FREE)


class _State:
    """What a checkpoint holds: the trained parameters alone, by number (``checkpoints.Loop``)."""

    teacher = None

    def __init__(self, parameters: Sequence[nn.Parameter], optimiser: torch.optim.Optimizer, world: World) -> None:
        self.stream = nn.ParameterList(parameters)
        self.names = [name for name, _ in self.stream.named_parameters()]
        self.optimiser, self.world, self.done = optimiser, world, 0
        self.scaler = torch.amp.GradScaler(world.device.type, enabled=False)


def minimise(
    parameters: Sequence[nn.Parameter],
    losses: Callable[[Any], dict[str, Tensor]],
    batches: Iterable[Any],
    config: DistilConfig,
    log: Path | None = None,
    kept: Kept | None = None,
) -> list[dict[str, Any]]:
    """AdamW with a warm-up and a cosine to zero over ``config.steps`` batches; its records, written to ``log`` too.

    Under torchrun all ranks call this with their own batches; steps are taken by the mean of their gradients. With
    ``kept`` it goes on from the checkpoint there; ``batches`` (``Pairs``) then begin where ``kept.left`` says.
    """
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    optimiser = torch.optim.AdamW(groups, config.learning_rate, betas=(0.9, 0.98))
    state = _State(parameters, optimiser, kept.world if kept else ALONE)
    positions: dict[int, int] = {}
    if kept and (latest := checkpoints.latest(kept.folder)):
        positions = dict(enumerate(kept.left()[0]))
        checkpoints.load(state, latest)
    journal = Journal(log, state.done)
    started = time.perf_counter()
    for step, batch in zip(range(state.done, config.steps), batches, strict=False):
        done = max(0, step - config.warmup) / max(1, config.steps - config.warmup)
        share = (step + 1) / config.warmup if step < config.warmup else 0.5 * (1 + math.cos(math.pi * done))
        for group in optimiser.param_groups:
            group["lr"] = config.learning_rate * share
        found = losses(batch)
        optimiser.zero_grad(set_to_none=True)
        found["loss"].backward()
        average_gradients(parameters)
        nn.utils.clip_grad_norm_(parameters, config.clip)
        optimiser.step()
        state.done = step + 1
        last = state.done == config.steps
        if step % config.log_every == 0 or last:
            record = {"step": step, "seconds": round(time.perf_counter() - started, 1)}
            means = {k: total(v) / total(torch.ones_like(v)) for k, v in found.items()}
            journal.write(record | {k: round(float(v), 5) for k, v in means.items()})
        if kept:
            positions[batch.position[0]] = batch.position[1]
            if last or state.done % config.checkpoint_every == 0:
                everyone = gather_objects([positions[i] for i in sorted(positions)])
                if kept.world.first:
                    checkpoints.save(state, kept.folder, everyone, dict(kept.settings))
    journal.close()
    return journal.records


def fit_fusion(
    teacher: FusedTeacher,
    prepare: Prepare,
    batches: Iterable[Any],
    config: DistilConfig,
    log: Path | None = None,
    kept: Kept | None = None,
) -> list[dict[str, Any]]:
    """Train the fusion encoder of ``teacher`` in place, and its towers where its configuration says so.

    Every rank matches its own pairs: hard negatives are not looked for on others. They are drawn by numbers that depend
    on the batch alone, so that a training that goes on draws them as it would have.
    """
    draw = torch.Generator(prepare.device)
    teacher.train()

    def losses(batch: Any) -> dict[str, Tensor]:
        images, captions, *_ = batch
        draw.manual_seed(config.seed ^ caption_group("\n".join(captions)))
        with half(prepare.device, config):
            seen = teacher.towers(*prepare(images, captions))
        wide = {name: getattr(seen, name).float() for name in ("image", "text", "image_tokens", "text_tokens")}
        seen = seen._replace(**wide)
        return teacher.losses(seen, caption_groups(captions, prepare), draw)

    return minimise(teacher.own_parameters(), losses, batches, config, log, kept)


def fit_student(
    student: nn.Module,
    prepare: Prepare,
    batches: Iterable[Any],
    config: DistilConfig,
    teacher: Callable[[Tensor, Tensor], Targets] | None,
    log: Path | None = None,
    seen: Callable[[Tensor], Tensor] = lambda pixels: pixels,
    kept: Kept | None = None,
) -> list[dict[str, Any]]:
    """Train ``student`` in place on batches of (images, captions, ...); without a teacher on the pairs alone.

    ``seen`` makes what the student sees of the teacher's pixels, where its images are smaller.
    """
    student.train()
    own = [p for p in student.parameters() if p.requires_grad]

    def losses(batch: Any) -> dict[str, Tensor]:
        images, captions, *_ = batch
        pixels, ids = prepare(images, captions)
        with torch.no_grad():
            student.logit_scale.clamp_(0, math.log(100))  # type: ignore[operator]
        with half(prepare.device, config):
            targets = teacher(pixels, ids) if teacher else None
        return student_losses(student, seen(pixels), ids, caption_groups(captions, prepare), targets, config)

    return minimise(own, losses, batches, config, log, kept)


def caption_groups(captions: Sequence[str], prepare: Prepare) -> Tensor:
    """(n,) ids, equal for captions that say the same."""
    return torch.tensor([caption_group(c) for c in captions], device=prepare.device)


def parameters(model: nn.Module) -> int:
    """How many numbers a model has."""
    return sum(p.numel() for p in model.parameters())
