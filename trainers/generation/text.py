"""The text side: a tower of the retrieval trainer's form, an adapter into another network's space, a tokenizer.

Tower and adapter are written as diffusers writes its own modules, so that a pipeline's folder holds all parts alike.
"""

from __future__ import annotations

import dataclasses
import json
import unicodedata
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...pipeline.errors import InputError, UsageError
from ...scoring.scorer import import_open_clip
from ..towers import CONFIG, SPECIAL, WEIGHTS
from .needs import diffusers

diffusers()
from diffusers import ConfigMixin, ModelMixin  # noqa: E402  (told of by name above where it is missing)
from diffusers.configuration_utils import register_to_config  # noqa: E402

SMALL_TEXT: dict[str, Any] = {
    "context_length": 20,
    "vocab_size": 0,
    "width": 64,
    "heads": 4,
    "layers": 1,
    "no_causal_mask": True,
    "pool_type": "first",
    "pad_id": 0,
    "eos_id": 3,
}
"""A tower for the sample world."""


class TextTower(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """A text tower of open_clip, as the retrieval trainer trains it; ids (n, L) to states (n, L, width).

    ``text_cfg`` is open_clip's. Attention skips padding (open_clip's own towers do not).
    """

    config_name = "config.json"

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(self, text_cfg: dict[str, Any], embed_dim: int = 64) -> None:
        super().__init__()
        import_open_clip()
        from open_clip.model import CLIPTextCfg, _build_text_tower

        known = {f.name for f in dataclasses.fields(CLIPTextCfg)}
        self.tower = _build_text_tower(embed_dim, CLIPTextCfg(**{k: v for k, v in text_cfg.items() if k in known}))
        self.width = int(text_cfg.get("width", getattr(self.tower, "output_dim", embed_dim)))
        self.length = int(text_cfg.get("context_length", 77))
        self.pad = int(text_cfg.get("pad_id", 0))

    def forward(self, ids: Tensor) -> Tensor:
        """States after the last norm, before pooling and projection."""
        tower: Any = self.tower
        if not hasattr(tower, "token_embedding"):  # a BERT of transformers
            states: Tensor = tower.transformer(input_ids=ids, attention_mask=ids != self.pad).last_hidden_state
            return states
        x = tower.token_embedding(ids) + tower.positional_embedding[: ids.shape[1]]
        blocked = torch.zeros(ids.shape, dtype=x.dtype, device=ids.device).masked_fill(ids == self.pad, -1e4)
        mask = blocked[:, None, :].expand(-1, ids.shape[1], -1).repeat_interleave(tower.heads, 0)
        if getattr(tower, "attn_mask", None) is not None:
            mask = mask + tower.attn_mask[: ids.shape[1], : ids.shape[1]].clamp(min=-1e4).to(x.dtype)
        return tower.ln_final(tower.transformer(x, attn_mask=mask))  # type: ignore[no-any-return]

    @classmethod
    def of_retrieval(cls, folder: Path) -> TextTower:
        """The text tower of a folder in open_clip's format that ``curate train retrieval`` wrote."""
        from safetensors.torch import load_file

        try:
            told = json.loads((folder / CONFIG).read_text("utf-8"))["model_cfg"]
            weights = load_file(folder / WEIGHTS)
        except (OSError, KeyError, ValueError) as error:
            raise InputError(f"{folder} is no trained model in open_clip's format ({error})") from None
        tower = cls(told["text_cfg"], told["embed_dim"])
        own = {k.removeprefix("text."): v.float() for k, v in weights.items() if k.startswith("text.")}
        if not own:
            raise InputError(
                f"{folder} has no text tower of its own (custom_text); train one with curate train retrieval"
            )
        tower.tower.load_state_dict(own)
        return tower  # type: ignore[no-any-return]


class Adapter(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """States of one text tower in the space of another's: a norm and a perceptron (PEA-Diffusion, 2311.17086)."""

    config_name = "config.json"

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(self, width: int, out: int, hidden: int = 0) -> None:
        super().__init__()
        hidden = hidden or 2 * out
        self.net = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, hidden), nn.GELU(),
            nn.Linear(hidden, out),
        )  # fmt: skip

    def forward(self, states: Tensor) -> Tensor:
        """(n, L, width) to (n, L, out)."""
        return self.net(states)  # type: ignore[no-any-return]


def tokenizer(captions: Iterable[str], length: int, most: int = 8000) -> Any:
    """A tokenizer of single Chinese characters and whole Latin words, of what stands in ``captions``; transformers'."""
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    normal = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    cut = pre_tokenizers.Sequence([
        pre_tokenizers.WhitespaceSplit(),
        pre_tokenizers.Split(Regex("[a-z]+|[0-9]+|."), behavior="isolated"),
    ])  # fmt: skip
    words: Counter[str] = Counter()
    for caption in captions:
        folded = unicodedata.normalize("NFKC", caption).lower()
        words.update(w for w, _ in cut.pre_tokenize_str(folded))
    if not words:
        raise UsageError("the captions are empty, so no vocabulary can be made of them")
    listed = {t: i for i, t in enumerate((*SPECIAL, *sorted(w for w, _ in words.most_common(most))))}
    core = Tokenizer(models.WordLevel(listed, unk_token="[UNK]"))
    core.normalizer, core.pre_tokenizer = normal, cut
    ends = [("[CLS]", listed["[CLS]"]), ("[SEP]", listed["[SEP]"])]
    core.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    return PreTrainedTokenizerFast(tokenizer_object=core, model_max_length=length, **names)
