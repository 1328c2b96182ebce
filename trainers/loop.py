"""The training loop: one step is right for a contrastive loss however the batch is cut into parts and ranks.

A batch that does not fit is encoded in parts: first all parts without gradients, then the loss over all their rows,
then each part again, whose rows receive the gradients that the loss gave them (GradCache, Gao et al. 2021, arXiv
2101.06983). The sum is the gradient of the large batch; averaging the losses of small ones is not.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from ..pipeline.errors import UsageError
from .distributed import ALONE, World, gather, total
from .dual_stream import DualStream, MaskedWords, Rows, TwoViews, generator
from .losses import Keys, contrastive, threshold_loss, two_views
from .momentum import Momentum
from .stream import Pairs

if TYPE_CHECKING:
    from .retrieval import RetrievalConfig

Tokenize = Callable[[Sequence[str]], Tensor]
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
TASKS = ("mlm", "simclr")


class Loop:
    """A model in training: ``step`` takes a batch of this rank and moves the weights once."""

    def __init__(self, model: nn.Module, tokenize: Tokenize, config: RetrievalConfig, world: World = ALONE) -> None:
        if unknown := set(config.tasks) - set(TASKS):
            raise UsageError(f"tasks {sorted(unknown)} are not known; expected some of {', '.join(TASKS)}")
        if config.precision not in DTYPES:
            raise UsageError(f"precision {config.precision!r} is not known; expected one of {', '.join(DTYPES)}")
        self.config, self.world, self.tokenize = config, world, tokenize
        self.done = 0
        torch.manual_seed(config.seed)  # of the heads
        model.to(world.device)
        dimension = int(_dimension(model, tokenize, world.device)) if config.tasks or config.momentum else 0
        heads: list[nn.Module] = []
        if "mlm" in config.tasks:
            heads.append(MaskedWords(model, tokenize, config.mlm_share))
        if "simclr" in config.tasks:
            heads.append(TwoViews(dimension))
        self.stream = DualStream(model, heads, bool(config.caption_weight)).to(world.device)
        if config.checkpointing:
            model.set_grad_checkpointing(True)  # type: ignore[operator]
        self.teacher = None
        if config.momentum:
            self.teacher = Momentum(model, dimension, config.momentum_decay, config.queue).to(world.device)
        trained = [(name, p) for name, p in self.stream.named_parameters() if p.requires_grad]
        self.names = [name for name, _ in trained]
        groups = [
            {"params": [p for _, p in trained if p.ndim >= 2], "weight_decay": config.weight_decay},
            {"params": [p for _, p in trained if p.ndim < 2], "weight_decay": 0.0},
        ]
        self.optimiser = torch.optim.AdamW(groups, config.learning_rate, betas=(0.9, 0.98))
        self.scaler = torch.amp.GradScaler(world.device.type, enabled=config.precision == "fp16")
        self.wrapped: nn.Module = self.stream
        if world.ranks > 1:
            ids = [world.device.index] if world.device.type == "cuda" else None
            self.wrapped = nn.parallel.DistributedDataParallel(self.stream, device_ids=ids, broadcast_buffers=False)
        self.stream.train()

    def step(self, batch: Pairs) -> dict[str, Tensor]:
        """One batch; its losses by name, detached. ``loss`` is their weighted sum."""
        for group in self.optimiser.param_groups:
            group["lr"] = self.config.learning_rate * rate(self.done, self.config)
        losses = self.backward(batch)
        self.scaler.unscale_(self.optimiser)
        parameters = [p for group in self.optimiser.param_groups for p in group["params"]]
        losses["gradient"] = nn.utils.clip_grad_norm_(parameters, self.config.clip).detach()
        self.scaler.step(self.optimiser)
        self.scaler.update()
        with torch.no_grad():
            self.stream.model.logit_scale.clamp_(0, math.log(100))  # type: ignore[operator]
        self.done += 1
        return losses

    def backward(self, batch: Pairs) -> dict[str, Tensor]:
        """Gradients of one batch in the parameters' ``grad``; the losses by name, detached."""
        given, groups = self.inputs(batch)
        if self.teacher is not None:
            self.teacher.follow(self.stream.model)
        self.optimiser.zero_grad(set_to_none=True)
        n = len(batch.captions)
        size = self.config.micro_batch or n
        parts = [slice(at, min(at + size, n)) for at in range(0, n, size)]
        if len(parts) == 1:
            slow = [self._slow(given)]
            rows = self._encode(self.wrapped, given, 0)
            losses = self.objective(rows | slow[0], groups)
            self.scaler.scale(losses["loss"]).backward()
            return {name: loss.detach() for name, loss in losses.items()}
        with torch.no_grad():
            encoded = [self._encode(self.stream, _part(given, p), i) for i, p in enumerate(parts)]
            slow = [self._slow(_part(given, p)) for p in parts]
        leaves = _joined(encoded)
        for rows_ in leaves.values():
            rows_.requires_grad_()
        losses = self.objective(leaves | _joined(slow), groups)
        self.scaler.scale(losses["loss"]).backward()
        for i, part in enumerate(parts):
            last = i == len(parts) - 1
            with nullcontext() if last else self._unsynchronised():
                rows = self._encode(self.wrapped, _part(given, part), i)
                self._surrogate(rows, leaves, part, last).backward()
        return {name: loss.detach() for name, loss in losses.items()}

    def inputs(self, batch: Pairs) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """What the model takes, and groups of captions and negatives, on the device."""
        from .retrieval import caption_group, normalise

        device = self.world.device
        tokens = self.tokenize(batch.captions)
        draw = generator(self.config.seed, self.done, self.world.rank)
        images = batch.images.to(device, non_blocking=True)
        given = {"tokens": tokens}
        for head in self.stream.heads.values():
            given |= head.inputs(images, tokens, draw)  # type: ignore[operator]
        groups = {"captions": torch.tensor([caption_group(c) for c in batch.captions])}
        if batch.negatives is not None:
            most = max(1, self.config.negatives)
            padded = [(some + [""] * most)[:most] for some in batch.negatives]
            flat = [caption for some in padded for caption in some]
            given["negatives"] = self.tokenize(flat).view(len(padded), most, -1)
            groups["negatives"] = torch.tensor([caption_group(c) if c else -1 for c in flat]).view(-1, most)
        moved = {name: value.to(device, non_blocking=True) for name, value in given.items()}
        moved["pixels"] = normalise(images, self.config)
        return moved, {name: value.to(device) for name, value in groups.items()}

    def objective(self, rows: Rows, groups: dict[str, Tensor]) -> dict[str, Tensor]:
        """All losses over the rows of this rank, held against those of all ranks; ``loss`` is their weighted sum."""
        config = self.config
        image, text, scale = rows["image"], rows["text"], rows["scale"]
        own = groups["captions"]
        wrong: dict[str, Any] = {}
        if "negatives" in rows:
            wrong = {
                "negatives": gather(rows["negatives"]).flatten(0, 1),
                "negative_groups": gather(groups["negatives"]).flatten(),
            }
        together = Keys(gather(image), gather(text), gather(own), **wrong)
        if self.teacher is None:
            losses = {"contrastive": contrastive(image, text, scale, own, together)}
        else:
            alpha = config.momentum_alpha * min(1.0, self.done / max(1.0, config.momentum_ramp * config.steps))
            keys, everyone = self.teacher.keys(rows["slow_image"], rows["slow_text"], own, scale.detach(), alpha)
            if config.queue:
                self.teacher.push(keys, len(everyone))
            else:
                keys = keys._replace(image=together.image, text=together.text)
            losses = {"contrastive": contrastive(image, text, scale, own, keys._replace(**wrong))}
        weighted = losses["contrastive"]
        if config.threshold_weight:
            at = (config.threshold, config.threshold_sharpness)
            losses["threshold"] = threshold_loss(image, text, own, *at, together)
            weighted = weighted + config.threshold_weight * losses["threshold"]
        for name, weight in (("caption", config.caption_weight), ("mlm", config.mlm_weight)):
            if f"{name}_sum" in rows:
                counted = total(rows[f"{name}_count"].sum()) / self.world.ranks
                losses[name] = rows[f"{name}_sum"].sum() / counted.clamp(min=1)
                weighted = weighted + weight * losses[name]
        if "simclr_first" in rows:
            first, second = rows["simclr_first"], rows["simclr_second"]
            offset = self.world.rank * len(first)
            losses["simclr"] = two_views(
                first, second, gather(first), gather(second), offset, config.simclr_temperature
            )
            weighted = weighted + config.simclr_weight * losses["simclr"]
        return {"loss": weighted, **losses}

    def _encode(self, module: nn.Module, given: dict[str, Tensor], part: int) -> Rows:
        """Both passes over a part meet the same random numbers (dropout)."""
        seed = int(generator(self.config.seed, self.done, self.world.rank, part).initial_seed())
        torch.manual_seed(seed)
        with self._autocast():
            rows: Rows = module(given)
        return rows

    @torch.no_grad()
    def _slow(self, given: dict[str, Tensor]) -> Rows:
        if self.teacher is None:
            return {}
        model: Any = self.teacher.model
        with self._autocast():
            image = model.encode_image(given["pixels"], normalize=True)
            text = model.encode_text(given["tokens"], normalize=True)
        return {"slow_image": image.float(), "slow_text": text.float()}

    def _autocast(self) -> AbstractContextManager[Any]:
        half = self.config.precision != "fp32"
        return torch.autocast(self.world.device.type, DTYPES[self.config.precision], enabled=half)

    def _unsynchronised(self) -> AbstractContextManager[Any]:
        return self.wrapped.no_sync() if self.world.ranks > 1 else nullcontext()  # type: ignore[operator]

    @staticmethod
    def _surrogate(rows: Rows, leaves: Rows, part: slice, last: bool) -> Tensor:
        """A number whose gradient is that of the loss with respect to this part."""
        terms = []
        for name, value in rows.items():
            gradient = leaves[name].grad
            if gradient is not None and (name != "scale" or last):
                terms.append((value * (gradient if name == "scale" else gradient[part])).sum())
        return torch.stack(terms).sum()


def _part(given: dict[str, Tensor], part: slice) -> dict[str, Tensor]:
    return {name: value[part] for name, value in given.items()}


def _joined(parts: list[Rows]) -> Rows:
    """Rows of all parts under one name; the scale is the same in all."""
    if not parts[0]:
        return {}
    return {
        name: parts[0][name].clone() if name == "scale" else torch.cat([p[name] for p in parts]) for name in parts[0]
    }


@torch.no_grad()
def _dimension(model: nn.Module, tokenize: Tokenize, device: torch.device) -> int:
    """The size of the embedding."""
    tokens = tokenize(["图"]).to(device)
    return int(model.encode_text(tokens).shape[-1])  # type: ignore[operator]


class Schedule(Protocol):
    """How long a training warms up and lasts, in steps."""

    @property
    def warmup(self) -> int: ...
    @property
    def steps(self) -> int: ...


def rate(step: int, config: Schedule) -> float:
    """The learning rate's share at ``step``: linear warm-up, then a cosine to zero."""
    if step < config.warmup:
        return (step + 1) / config.warmup
    done = (step - config.warmup) / max(1, config.steps - config.warmup)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
