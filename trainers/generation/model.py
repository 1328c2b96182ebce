"""A text-to-image model as a pipeline of diffusers: UNet, scheduler, text tower, tokenizer, adapter, VAE.

``TextToImage.save_pretrained`` writes one folder for each part, in the layout of diffusers, where
``UNet2DConditionModel.from_pretrained(FOLDER, subfolder="unet")`` and the like open them; a folder of Stable Diffusion
is read as well. Without a VAE the network works on pixels.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...pipeline.errors import InputError, UsageError
from .needs import diffusers

diffusers()
from diffusers import DDIMScheduler, DiffusionPipeline, UNet2DConditionModel  # noqa: E402

from . import text as text_side  # noqa: E402

LEVELS = 1024
"""Noise levels of a new model: halves of halves are whole numbers."""
SMALL_UNET: dict[str, Any] = {
    "sample_size": 8,
    "in_channels": 12,
    "out_channels": 12,
    "block_out_channels": (32, 64),
    "layers_per_block": 2,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "mid_block_type": "UNetMidBlock2DCrossAttn",
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    "cross_attention_dim": 64,
    "attention_head_dim": 4,
    "norm_num_groups": 8,
}
"""A network for the sample world: images of 16 pixels as 8 by 8 squares of 2 by 2 (see ``TextToImage.patch``)."""


class Context(NamedTuple):
    """What the network is told: states (n, L, width), and which of the L are words (n, L)."""

    states: Tensor
    mask: Tensor


class TextToImage(DiffusionPipeline):  # type: ignore[misc]
    """All parts of a model; called with prompts it gives images (n, 3, h, w) in [0, 1]."""

    model_cpu_offload_seq = "text_encoder->adapter->unet->vae"
    _optional_components = ["adapter", "vae"]

    def __init__(
        self,
        unet: UNet2DConditionModel,
        scheduler: DDIMScheduler,
        text_encoder: Any,
        tokenizer: Any,
        adapter: text_side.Adapter | None = None,
        vae: Any = None,
    ) -> None:
        super().__init__()
        self.register_modules(
            unet=unet, scheduler=scheduler, text_encoder=text_encoder, tokenizer=tokenizer, adapter=adapter, vae=vae
        )

    @property
    def place(self) -> torch.device:
        """Where the network lies."""
        return next(self.unet.parameters()).device  # type: ignore[no-any-return]

    def modules_named(self) -> dict[str, nn.Module]:
        """The parts that have weights."""
        names = ("unet", "text_encoder", "adapter", "vae")
        return {n: getattr(self, n) for n in names if getattr(self, n) is not None}

    def ids(self, captions: Sequence[str]) -> Tensor:
        """(n, L) token numbers."""
        length = getattr(self.text_encoder, "length", None) or self.tokenizer.model_max_length
        told = self.tokenizer(
            list(captions), padding="max_length", truncation=True, max_length=int(length), return_tensors="pt"
        )
        return told["input_ids"].to(self.place)  # type: ignore[no-any-return]

    def encode(self, captions: Sequence[str]) -> Context:
        """What the network is told of captions; with gradients where the tower has them."""
        return self.encode_ids(self.ids(captions))

    def encode_ids(self, ids: Tensor) -> Context:
        """The same of token numbers. Stable Diffusion's own tower is trained to see its padding; it is left in."""
        if isinstance(self.text_encoder, text_side.TextTower):
            states, mask = self.text_encoder(ids), ids != self.text_encoder.pad
        else:
            states, mask = self.text_encoder(ids)[0], torch.ones_like(ids, dtype=torch.bool)
        return Context(states if self.adapter is None else self.adapter(states), mask)

    def levels(self, steps: Tensor) -> tuple[Tensor, Tensor]:
        """α and σ, (n, 1, 1, 1), at ``steps`` (n,), whole numbers below the scheduler's; −1 is the clean image."""
        table = torch.cat([self.scheduler.alphas_cumprod, torch.ones(1)]).to(steps.device)  # [-1] is the last
        squared = table[steps].view(-1, 1, 1, 1)
        return squared.sqrt(), (1 - squared).clamp(min=1e-8).sqrt()

    @property
    def patch(self) -> int:
        """Side of the squares of pixels that are channels of one place; 1 with a VAE. Lossless, and saves a level."""
        return 1 if self.vae is not None else round((self.unet.config.in_channels / 3) ** 0.5)

    @property
    def side(self) -> int:
        """Pixels of its images."""
        if self.vae is not None:
            return int(self.unet.config.sample_size * 2 ** (len(self.vae.config.block_out_channels) - 1))
        return int(self.unet.config.sample_size * self.patch)

    @property
    def steps(self) -> int:
        """Noise levels."""
        return int(self.scheduler.config.num_train_timesteps)

    def latents(self, images: Tensor, draw: torch.Generator | None = None) -> Tensor:
        """uint8 (n, 3, h, w) to what the network works on: pixels in [−1, 1], or the VAE's latents."""
        pixels = images.to(self.place).float() / 127.5 - 1
        if self.vae is None:
            return F.pixel_unshuffle(pixels, self.patch)
        with torch.no_grad():
            told = self.vae.encode(pixels.to(self.vae.dtype)).latent_dist
            noise = torch.randn(told.mean.shape, generator=draw).to(self.place)
            return ((told.mean + told.std * noise).float() - _shift(self.vae)) * self.vae.config.scaling_factor  # type: ignore[no-any-return]

    @torch.no_grad()
    def decoded(self, latents: Tensor) -> Tensor:
        """Latents or pixels to images in [0, 1]."""
        if self.vae is not None:
            scaled = latents / self.vae.config.scaling_factor + _shift(self.vae)
            latents = self.vae.decode(scaled.to(self.vae.dtype)).sample.float()
        return (F.pixel_shuffle(latents, self.patch) / 2 + 0.5).clamp(0, 1)

    def __call__(
        self, prompts: Sequence[str], steps: int = 32, weight: float = 1.0, seed: int = 0, **more: Any
    ) -> Tensor:
        """Images of prompts, as ``sampling.sample`` makes them."""
        from .sampling import sample

        return sample(self, prompts, steps, weight, seed, **more)

    @property
    def takes_weight(self) -> bool:
        """Whether the network takes the guidance weight as an input (one pass instead of two)."""
        return self.unet.config.time_cond_proj_dim is not None


def velocity(model: TextToImage, z: Tensor, steps: Tensor, context: Context, weight: Tensor | None = None) -> Tensor:
    """The network's v at ``steps`` (n,); ``weight`` (n,) is for networks that take it, which get 0 without."""
    condition = None
    if model.takes_weight:
        wanted = torch.zeros(len(z), device=z.device) if weight is None else weight
        condition = weight_embedding(wanted, int(model.unet.config.time_cond_proj_dim)).to(z.dtype)
    out = model.unet(
        z, steps, context.states, timestep_cond=condition, encoder_attention_mask=context.mask, return_dict=False
    )[0]
    if model.scheduler.config.prediction_type == "v_prediction":
        return out  # type: ignore[no-any-return]
    alpha, sigma = model.levels(steps)  # a foundation that predicts the noise: v = (ε − σ z) / α
    return (out - sigma * z) / alpha.clamp(min=1e-4)  # type: ignore[no-any-return]


def weight_embedding(weight: Tensor, width: int) -> Tensor:
    """(n,) guidance weights to (n, width): the sinusoids that diffusers' latent consistency pipelines use."""
    half = width // 2
    rates = torch.exp(torch.arange(half, device=weight.device) * -(torch.log(torch.tensor(1e4)) / (half - 1)))
    angles = 1000 * weight.float()[:, None] * rates[None]
    return torch.cat([angles.sin(), angles.cos()], 1)


def scheduler() -> DDIMScheduler:
    """A new model's: cosine levels, v-prediction, steps that begin at pure noise (Lin et al., arXiv 2305.08891)."""
    return DDIMScheduler(
        num_train_timesteps=LEVELS,
        beta_schedule="squaredcos_cap_v2",
        prediction_type="v_prediction",
        timestep_spacing="trailing",
        clip_sample=True,
        set_alpha_to_one=True,
    )


def new(
    unet: dict[str, Any], captions: Iterable[str], text: dict[str, Any], tower: str = "", vae: str = "", seed: int = 0
) -> TextToImage:
    """An untrained model; its tower from a folder of the retrieval trainer (``tower``) or made of ``captions``."""
    torch.manual_seed(seed)
    if tower:
        from transformers import AutoTokenizer

        text_encoder = text_side.TextTower.of_retrieval(Path(tower))
        words = AutoTokenizer.from_pretrained(tower, local_files_only=True)
        words.model_max_length = text_encoder.length
    else:
        config = {**text_side.SMALL_TEXT, **text}
        words = text_side.tokenizer(captions, int(config["context_length"]))
        text_encoder = text_side.TextTower({**config, "vocab_size": len(words)}, int(config["width"]))
    settings = {**SMALL_UNET, **unet}
    adapter = None
    if text_encoder.width != settings["cross_attention_dim"]:
        adapter = text_side.Adapter(text_encoder.width, int(settings["cross_attention_dim"]))
    held = None
    if vae:
        from diffusers import AutoencoderKL

        held = _opened(AutoencoderKL, Path(vae))
        channels = int(held.config.latent_channels)
        settings |= {"in_channels": channels, "out_channels": channels}
    try:
        network = UNet2DConditionModel(**settings)
    except (TypeError, ValueError) as error:
        raise UsageError(f"diffusers cannot build this UNet: {error}. Look at model.unet") from None
    return TextToImage(network, scheduler(), text_encoder, words, adapter, held)


def load(folder: str | Path) -> TextToImage:
    """A model of this trainer, or a folder of Stable Diffusion."""
    path = Path(folder)
    if not (path / "model_index.json").is_file():
        raise InputError(f"{folder} holds no model_index.json; give a folder that diffusers or this trainer wrote")
    found = _opened(TextToImage, path)
    found.scheduler = DDIMScheduler.from_config(found.scheduler.config, timestep_spacing="trailing")
    return found  # type: ignore[no-any-return]


def save(model: TextToImage, folder: Path) -> None:
    """Write all parts."""
    model.save_pretrained(folder, safe_serialization=True)


def copied(model: TextToImage, **parts: Any) -> TextToImage:
    """A model with copies of the parts, or with the ones given."""
    own = {n: getattr(model, n) for n in ("unet", "scheduler", "text_encoder", "tokenizer", "adapter", "vae")}
    shared = ("tokenizer", "scheduler", "vae")
    return TextToImage(**{n: parts.get(n, v if n in shared else copy.deepcopy(v)) for n, v in own.items()})


def frozen(model: TextToImage) -> TextToImage:
    """The same object, not to be trained."""
    for part in model.modules_named().values():
        part.requires_grad_(False).eval()
    return model


def rebuilt(unet: Any, **changes: Any) -> Any:
    """A new network of ``unet``'s description with changes, untrained."""
    told = {k: v for k, v in unet.config.items() if not k.startswith("_")}
    return UNet2DConditionModel(**{**told, **changes})


def parameters(model: TextToImage, *names: str) -> int:
    """How many numbers the parts named, or all but the VAE, hold."""
    parts = model.modules_named()
    return sum(
        p.numel() for n in (names or [n for n in parts if n != "vae"]) if n in parts for p in parts[n].parameters()
    )


def _shift(vae: Any) -> float:
    return float(getattr(vae.config, "shift_factor", None) or 0.0)


def _opened(kind: Any, folder: Path) -> Any:
    from diffusers.utils import logging

    logging.disable_progress_bar()
    try:
        return kind.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise InputError(f"{folder} cannot be opened by diffusers: {str(error).splitlines()[0]}") from None
