"""A single-stream encoder over two towers, and what it adds to their similarities: the teacher of the edge student.

The towers see an image and a caption apart, so their cosine can be searched, but neither tower knows what the other
saw. Here caption tokens attend to image tokens (ALBEF, Li et al. 2021, arXiv 2107.07651), which knows more and cannot
be searched: it needs every pair. The way between is MCAD's (arXiv 2310.19654), of which we know the abstract only:
fused features are split back into an image part and a text part, the parts join the towers' own features, and
the similarities made of them are what a dual-stream student learns from; the heads that split stay with the teacher.

Ours, where the abstract is silent: the fused feature is that of the pair (i, j) whose similarity is asked for, not of
the matching pair alone, which would give the answer away; it is made for the closest pairs of a batch, all others
keep their cosine; the heads begin at zero, so that the first similarities are the towers' own; and the towers get no
gradient through them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...pipeline.errors import UsageError
from ..losses import contrastive, multi_positive


@dataclass(frozen=True)
class FusionConfig:
    """The size of the fusion encoder and how it is trained."""

    width: int = 256
    layers: int = 2
    heads: int = 4
    candidates: int = 4
    """Closest captions of each image, and images of each caption, that are fused; the rest keep their cosine."""
    pad: int = 0
    """Token that fills up captions."""
    train_towers: bool = False
    """Train the towers too, by contrast and through matching, as ALBEF does; else they stay as they were given."""


class Towers(NamedTuple):
    """What two towers give for n images and n captions: unit rows, and tokens before they are pooled."""

    image: Tensor
    """(n, d)"""
    text: Tensor
    """(n, d)"""
    image_tokens: Tensor
    """(n, p, w)"""
    text_tokens: Tensor
    """(n, l, v)"""
    words: Tensor
    """(n, l), true where there is a token and no padding."""

    def take(self, rows: Tensor) -> Towers:
        """Some of the pairs."""
        return Towers(*(value[rows] for value in self))


def encode(model: nn.Module, pixels: Tensor, ids: Tensor, pad: int = 0) -> Towers:
    """Both towers of an open_clip model with their tokens.

    Raises ``UsageError`` for towers that give none (timm's, ResNets, the text tower of a plain ``CLIP``).
    """
    visual: Any = getattr(model, "visual", None)
    text: Any = getattr(model, "text", None)
    if not (hasattr(visual, "output_tokens") and hasattr(text, "output_tokens")):
        raise UsageError(
            f"fusion needs the tokens of both towers; {type(visual).__name__} and {type(text).__name__} do not give "
            "them. Take a teacher with a vision transformer and a text tower of its own (custom_text), or fusion 0"
        )
    before = visual.output_tokens, text.output_tokens
    visual.output_tokens = text.output_tokens = True
    try:
        image, image_tokens = visual(pixels)
        caption, text_tokens = text(ids)
    finally:
        visual.output_tokens, text.output_tokens = before
    words = ids[:, ids.shape[1] - text_tokens.shape[1] :] != pad
    return Towers(F.normalize(image, dim=-1), F.normalize(caption, dim=-1), image_tokens, text_tokens, words)


class FusedTeacher(nn.Module):
    """Two towers and a fusion encoder over them."""

    def __init__(self, model: nn.Module, config: FusionConfig) -> None:
        super().__init__()
        self.model, self.config = model, config
        size: Any = model.visual.image_size  # type: ignore[union-attr]
        height, width = size if isinstance(size, tuple) else (size, size)
        device: Any = model.logit_scale.device
        with torch.no_grad():
            ids = torch.ones(1, int(model.context_length), dtype=torch.long, device=device)  # type: ignore[arg-type]
            seen = encode(model, torch.zeros(1, 3, height, width, device=device), ids, config.pad)
        inner, d = config.width, seen.image.shape[-1]
        self.image_in = nn.Linear(seen.image_tokens.shape[-1], inner)
        self.text_in = nn.Linear(seen.text_tokens.shape[-1], inner)
        # Self-attention, attention to the image, feed-forward: ALBEF's block, here before each a norm.
        layer = nn.TransformerDecoderLayer(
            inner, config.heads, 4 * inner, 0.0, "gelu", batch_first=True, norm_first=True
        )
        self.encoder = nn.TransformerDecoder(layer, config.layers, nn.LayerNorm(inner))
        self.matches = nn.Linear(inner, 1)
        self.to_image = nn.Linear(inner, d)
        self.to_text = nn.Linear(inner, d)
        for head in (self.to_image, self.to_text):
            nn.init.zeros_(head.weight)
            nn.init.zeros_(head.bias)

    def towers(self, pixels: Tensor, ids: Tensor) -> Towers:
        """Both towers' rows and tokens; with gradients only where the towers are trained."""
        with torch.set_grad_enabled(self.config.train_towers and torch.is_grad_enabled()):
            return encode(self.model, pixels, ids, self.config.pad)

    def own_parameters(self) -> list[nn.Parameter]:
        """The parameters that ``losses`` trains."""
        towers = set() if self.config.train_towers else set(self.model.parameters())
        return [p for p in self.parameters() if p not in towers]

    def fuse(self, seen: Towers, rows: Tensor, columns: Tensor) -> Tensor:
        """(k, width) fused features of image ``rows[i]`` with caption ``columns[i]``: the mean over the words."""
        words = seen.words[columns]
        last = int(words.any(0).nonzero().max()) + 1  # all captions may be shorter than the context
        words = words[:, :last]
        text = self.text_in(seen.text_tokens)[columns, :last]
        fused: Tensor = self.encoder(text, self.image_in(seen.image_tokens)[rows], tgt_key_padding_mask=~words)
        share = words[..., None].to(fused.dtype)
        pooled: Tensor = (fused * share).sum(1) / share.sum(1)
        return pooled

    def similarities(self, seen: Towers, rows: Tensor, columns: Tensor) -> Tensor:
        """(n, n) cosines of the towers, those of the pairs (``rows``, ``columns``) with their fused parts added."""
        image, text = seen.image.detach(), seen.text.detach()
        fused = self.fuse(seen, rows, columns)
        left = F.normalize(image[rows] + self.to_image(fused), dim=-1)
        right = F.normalize(text[columns] + self.to_text(fused), dim=-1)
        return (image @ text.T).index_put((rows, columns), (left * right).sum(-1))

    def losses(self, seen: Towers, groups: Tensor, draw: torch.Generator | None = None) -> dict[str, Tensor]:
        """Matching with hard negatives, the split similarities' contrast, and the towers' where they are trained.

        ``groups`` (n,): equal for captions that say the same; no such pair is taken for a negative.
        """
        scale = self.model.logit_scale.exp()  # type: ignore[operator]
        n = len(groups)
        every = torch.arange(n, device=groups.device)
        images, captions = hard_negatives(scale.detach() * seen.image.detach() @ seen.text.detach().T, groups, draw)
        rows, columns = torch.cat([every, images[0], captions[0]]), torch.cat([every, images[1], captions[1]])
        logits = self.matches(self.fuse(seen, rows, columns)).squeeze(-1)
        truth = (torch.arange(len(rows), device=groups.device) < n).to(logits.dtype)
        losses = {"matching": F.binary_cross_entropy_with_logits(logits, truth)}
        split = scale.detach() * self.similarities(seen, *closest(seen.image @ seen.text.T, self.config.candidates))
        target = multi_positive(groups)
        losses["split"] = (cross_entropy(split, target) + cross_entropy(split.T, target)) / 2
        if self.config.train_towers:
            losses["contrastive"] = contrastive(seen.image, seen.text, scale, groups)
        return {"loss": torch.stack(list(losses.values())).sum(), **losses}

    @torch.no_grad()
    def targets(self, seen: Towers) -> Tensor:
        """(n, n) logits that a student learns: the split similarities at the teacher's temperature."""
        pairs = closest(seen.image @ seen.text.T, self.config.candidates)
        return self.model.logit_scale.exp() * self.similarities(seen, *pairs)  # type: ignore[operator]


def hard_negatives(
    logits: Tensor, groups: Tensor, draw: torch.Generator | None = None
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """One wrong caption for each image and one wrong image for each caption, as (rows, columns) each.

    Drawn with the probability that the towers give them, as in ALBEF; never from the caption's own group. An image
    all of whose captions are of one group has no negative and is left out.
    """
    same = groups[:, None] == groups[None, :]

    def drawn(scores: Tensor) -> tuple[Tensor, Tensor]:
        some = (~same).any(1).nonzero()[:, 0]
        shares = scores[some].float().masked_fill(same[some], -torch.inf).softmax(1)
        return some, torch.multinomial(shares, 1, generator=draw)[:, 0]

    by_image, by_caption = drawn(logits), drawn(logits.T)
    return by_image, (by_caption[1], by_caption[0])


def closest(cosines: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """(rows, columns) of the pairs that are among the ``k`` closest of their row or column, and of the diagonal."""
    k = min(k, len(cosines))
    chosen = torch.eye(len(cosines), dtype=torch.bool, device=cosines.device)
    chosen.scatter_(1, cosines.topk(k, 1).indices, True)
    chosen.T.scatter_(1, cosines.T.topk(k, 1).indices, True)
    rows, columns = chosen.nonzero(as_tuple=True)
    return rows, columns


def cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Mean over rows of the cross entropy with (n, m) target shares."""
    return -(target * logits.log_softmax(1)).sum(1).mean()
