"""One forward pass for all that is trained at once: both towers, a decoder if there is one, tasks of one modality.

It gives rows, one per pair, from which the losses are computed over the whole batch afterwards. So a batch may be
encoded in parts, and several processes share one loss.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..pipeline.errors import UsageError
from .losses import token_sums

Rows = dict[str, Tensor]
"""Named results with one row per pair, and ``scale``, which has none."""
SEED_STEP = 1_000_003
"""A prime, so that seeds of neighbouring runs and steps do not meet."""


def outputs(model: nn.Module, images: Tensor, tokens: Tensor) -> dict[str, Any]:
    """What open_clip's models give, as a dictionary: plain CLIPs give a tuple."""
    out = model(images, tokens)
    if isinstance(out, Mapping):
        return dict(out)
    return dict(zip(("image_features", "text_features", "logit_scale", "logit_bias"), out, strict=False))


def generator(*numbers: int) -> torch.Generator:
    """Random numbers that depend on ``numbers`` alone, so that nothing about them needs to be kept in a checkpoint."""
    seed = 0
    for number in numbers:
        seed = (seed * SEED_STEP + number + 1) % (1 << 62)
    return torch.Generator().manual_seed(seed)


class MaskedWords(nn.Module):
    """Masked language modelling on the text tower alone (Devlin et al. 2019, arXiv 1810.04805, section 3.1)."""

    name = "mlm"

    def __init__(self, model: nn.Module, tokenize: Callable[[Sequence[str]], Tensor], share: float) -> None:
        super().__init__()
        text: Any = getattr(model, "text", None)
        if text is None or getattr(text, "attn_mask", None) is not None:
            raise UsageError(
                "task mlm needs a text tower that sees both directions (text_cfg with no_causal_mask, or a BERT); this "
                "model's reads from left to right. Take the task out, or another model"
            )
        inner: Any = getattr(tokenize, "tokenizer", None)
        if getattr(inner, "mask_token_id", None) is None:
            raise UsageError("task mlm needs a tokenizer with a mask token, e.g. BERT's [MASK]; this model's has none")
        self.mask: int = inner.mask_token_id
        self.special = torch.tensor(sorted(set(inner.all_special_ids)))
        embedding = (
            text.token_embedding if hasattr(text, "token_embedding") else text.transformer.get_input_embeddings()
        )
        self.vocabulary, width = embedding.weight.shape
        self.share = share
        self.turn = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.LayerNorm(width))
        self.bias = nn.Parameter(torch.zeros(self.vocabulary))

    def inputs(self, images: Tensor, tokens: Tensor, draw: torch.Generator) -> dict[str, Tensor]:
        """Of the words a share is to be guessed: 8 in 10 masked, 1 another word, 1 as it was."""
        del images
        word = ~torch.isin(tokens, self.special)
        chosen = word & (torch.rand(tokens.shape, generator=draw) < self.share)
        way = torch.rand(tokens.shape, generator=draw)
        other = torch.randint(self.vocabulary, tokens.shape, generator=draw)
        seen = torch.where(chosen & (way < 0.8), self.mask, tokens)
        seen = torch.where(chosen & (way >= 0.9), other, seen)
        return {"mlm_seen": seen, "mlm_wanted": torch.where(chosen, tokens, -100)}

    def forward(self, model: nn.Module, given: Mapping[str, Tensor]) -> Rows:
        """Sums and counts of the masked words' cross entropy."""
        text: Any = model.text
        before, text.output_tokens = text.output_tokens, True
        try:
            _, states = text(given["mlm_seen"])
        finally:
            text.output_tokens = before
        wanted = given["mlm_wanted"]
        wanted = wanted[:, wanted.shape[1] - states.shape[1] :]  # a BERT pooled by [CLS] gives its words only
        embedding = (
            text.token_embedding if hasattr(text, "token_embedding") else text.transformer.get_input_embeddings()
        )
        logits = self.turn(states) @ embedding.weight.T + self.bias  # (n, l, v)
        sums, counts = token_sums(logits, wanted, -100)
        return {"mlm_sum": sums, "mlm_count": counts}


class TwoViews(nn.Module):
    """SimCLR on the image tower alone (Chen et al. 2020, arXiv 2002.05709), beside CLIP as in SLIP (arXiv 2112.12750).

    The head sits on the tower's embedding. Views are crops with another light and now and then without colour; never
    mirrored, because captions say left and right.
    """

    name = "simclr"

    def __init__(self, dimension: int, hidden: int = 512, out: int = 128) -> None:
        super().__init__()
        self.head = nn.Sequential(nn.Linear(dimension, hidden), nn.GELU(), nn.Linear(hidden, out))

    def inputs(self, images: Tensor, tokens: Tensor, draw: torch.Generator) -> dict[str, Tensor]:
        """Where each of two crops lies (n, 2, 3) and how its light changes (n, 2, 3), all in [0, 1)."""
        del tokens
        return {
            "simclr_crop": torch.rand(len(images), 2, 3, generator=draw),
            "simclr_light": torch.rand(len(images), 2, 3, generator=draw),
        }

    def forward(self, model: nn.Module, given: Mapping[str, Tensor]) -> Rows:
        """Unit rows of both views."""
        rows = {}
        for i, name in enumerate(("simclr_first", "simclr_second")):
            seen = view(given["pixels"], given["simclr_crop"][:, i], given["simclr_light"][:, i])
            rows[name] = F.normalize(self.head(model.encode_image(seen)).float(), dim=-1)  # type: ignore[operator]
        return rows


def view(pixels: Tensor, place: Tensor, light: Tensor) -> Tensor:
    """A crop of 30 to 100 % of each image (n, 3, s, s), contrast and brightness changed by up to 0.4, 1 in 5 grey."""
    side = (0.3 + 0.7 * place[:, 0]).sqrt()
    shift = (1 - side)[:, None] * (2 * place[:, 1:] - 1)  # (n, 2), in grid_sample's [-1, 1]
    matrix = pixels.new_zeros(len(pixels), 2, 3)
    matrix[:, 0, 0] = matrix[:, 1, 1] = side
    matrix[:, :, 2] = shift
    grid = F.affine_grid(matrix, list(pixels.shape), align_corners=False)
    seen = F.grid_sample(pixels, grid, align_corners=False, padding_mode="border")
    grey = seen.mean(1, keepdim=True)
    seen = torch.where((light[:, 0] < 0.2)[:, None, None, None], grey, seen)
    contrast, brightness = (0.8 * light[:, 1:] - 0.4).unbind(1)
    return seen * (1 + contrast)[:, None, None, None] + brightness[:, None, None, None]


class DualStream(nn.Module):
    """A model with the heads of its tasks; ``forward`` encodes a part of a batch, on the device, in any precision."""

    def __init__(self, model: nn.Module, heads: Sequence[nn.Module], caption: bool, pad: int = 0) -> None:
        super().__init__()
        self.model, self.pad = model, pad
        self.heads = nn.ModuleDict({str(h.name): h for h in heads})
        decoder = getattr(model, "text_decoder", None)
        self.caption = caption and decoder is not None
        if decoder is not None:
            decoder.requires_grad_(self.caption)

    def forward(self, given: Mapping[str, Tensor]) -> Rows:
        """Rows named image, text, negatives, caption_*, mlm_*, simclr_*, and the scale, all in single precision."""
        out = outputs(self.model, given["pixels"], given["tokens"])
        rows = {
            "image": out["image_features"].float(),
            "text": out["text_features"].float(),
            "scale": out["logit_scale"].float(),
        }
        if "negatives" in given:
            n, k, length = given["negatives"].shape
            made = self.model.encode_text(given["negatives"].view(n * k, length), normalize=True)  # type: ignore[operator]
            rows["negatives"] = made.float().view(n, k, -1)
        if self.caption and "logits" in out:
            rows["caption_sum"], rows["caption_count"] = token_sums(out["logits"], out["labels"], self.pad)
        for head in self.heads.values():
            rows |= head(self.model, given)
        return rows
