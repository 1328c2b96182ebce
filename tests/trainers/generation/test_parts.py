"""Parts that are given, not made: a VAE of diffusers and a text tower of the retrieval trainer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL

from tuwen.pipeline.errors import InputError
from tuwen.sample_data import placed
from tuwen.trainers import towers
from tuwen.trainers.generation import model, train
from tuwen.trainers.generation.onnx_model import OnnxModel
from tuwen.trainers.generation.sampling import sample

UNET = "model.unet={sample_size: 4, block_out_channels: [8, 16], norm_num_groups: 4, cross_attention_dim: 16}"
COMMON = [UNET, "data.batch=4", "data.shuffle=8", "train.steps=2", "train.warmup=1"]
FULL = "左边有一辆红色的汽车，右边有一辆蓝色的汽车"
"""Longer than the tower's context, so that nothing of it is padding."""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """shards/, vae/ (random weights; halves each side), tower/ (a retrieval model)."""
    root = tmp_path_factory.mktemp("parts")
    placed.write_shards(root / "shards", 24, 0, side=32)
    torch.manual_seed(3)
    vae = AutoencoderKL(
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=4,
        latent_channels=4,
        sample_size=8,
        scaling_factor=0.4,
    )
    vae.save_pretrained(root / "vae")
    config = towers.ModelConfig(
        vocabulary="captions",
        embed_dim=16,
        vision_cfg={"image_size": 8, "layers": 1, "width": 16, "head_width": 8, "patch_size": 8},
        text_cfg={"layers": 1, "width": 24, "heads": 2, "context_length": 12},
    )
    towers.prepare(config, root / "tower", [placed.caption(p) for p in placed.every()] + [FULL])
    towers.save_weights(towers.build(root / "tower", 3)[0], root / "tower")
    return root


def made(root: Path, out: Path, *sets: str) -> model.TextToImage:
    """A base of two steps."""
    train.train([str(root / "shards")], out, "base", "", None, [*COMMON, *sets], "cpu")
    return model.load(out)


def test_the_network_learns_in_the_latents_of_a_vae(root: Path, tmp_path: Path) -> None:
    latent = made(root, tmp_path / "latent", f"model.vae={root}/vae", "model.text={width: 16, heads: 2}")
    given = AutoencoderKL.from_pretrained(root / "vae")
    assert all(torch.equal(v, given.state_dict()[k]) for k, v in latent.vae.state_dict().items())
    assert (latent.side, latent.patch, latent.unet.config.in_channels) == (8, 1, 4)

    images = torch.randint(256, (64, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        told = given.encode(images.float() / 127.5 - 1).latent_dist
        drawn = torch.stack([latent.latents(images, torch.Generator().manual_seed(i)) for i in range(64)])
        torch.testing.assert_close(drawn.mean(0), told.mean * 0.4, rtol=0, atol=4 * 0.4 * float(told.std.max()) / 8)
        assert float(drawn.std(0).mean() / (0.4 * told.std).mean()) == pytest.approx(1, abs=0.02)
        decoded = (given.decode(told.mean).sample / 2 + 0.5).clamp(0, 1)
        torch.testing.assert_close(latent.decoded(told.mean * 0.4), decoded)

    pictures = sample(latent, ["左边有一辆红色的汽车"], 2)
    assert pictures.shape == (1, 3, 8, 8)
    told_ = train.train(
        [str(root / "shards")], tmp_path / "onnx", "export", str(tmp_path / "latent"), None,
        ["export.steps=2", "export.int8=never"], "cpu",
    )  # fmt: skip
    assert told_["difference"] < 1e-4
    assert OnnxModel(tmp_path / "onnx", threads=1).generate(["左边有一辆红色的汽车"]).shape == (1, 3, 8, 8)


def test_the_text_tower_of_the_retrieval_trainer_is_taken(root: Path, tmp_path: Path) -> None:
    kept = made(root, tmp_path / "kept", f"model.tower={root}/tower", "model.train_text=false")
    clip: Any
    clip, tokenize, _ = towers.build(root / "tower", 0, str(root / "tower"))
    assert torch.equal(kept.ids([FULL]), tokenize([FULL]))
    with torch.no_grad():
        states = kept.text_encoder(kept.ids([FULL]))
        tower = kept.text_encoder.tower
        pooled = states[:, 0] @ tower.text_projection
        torch.testing.assert_close(pooled, clip.eval().encode_text(tokenize([FULL])))
    told = json.loads((tmp_path / "kept" / "training.json").read_text())
    assert "adapter" in kept.modules_named()  # 24 wide there, 16 in the network
    assert told["trained"] == model.parameters(kept, "unet", "adapter")

    learned = made(root, tmp_path / "learned", f"model.tower={root}/tower")
    before, after = kept.text_encoder.state_dict(), learned.text_encoder.state_dict()
    assert not torch.equal(before["tower.token_embedding.weight"], after["tower.token_embedding.weight"])
    with pytest.raises(InputError, match="no trained model"):
        made(root, tmp_path / "none", f"model.tower={root}/vae")
