from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from transformers import (
    ChineseCLIPConfig,
    ChineseCLIPImageProcessor,
    ChineseCLIPModel,
    ChineseCLIPTextConfig,
    ChineseCLIPVisionConfig,
)

from tuwen.pipeline.errors import RecipeError
from tuwen.pipeline.stage import Tally, apply_stage
from tuwen.sample_data.draw import render
from tuwen.sample_data.faults import encode
from tuwen.sample_data.world import caption, random_scene
from tuwen.scoring.score import Score
from tuwen.scoring.scorer import embedded_folder, import_open_clip, load_scorer, model_and_tokenizer
from tuwen.trainers.embedded import save_tokenizer

CAPTIONS = ["草地上有一只红色的猫", "两辆蓝色的汽车", "雪地上的白色房子"]


def pictures(n: int, seed: int = 50) -> tuple[list[bytes], list[str]]:
    rng = np.random.default_rng(seed)
    scenes = [random_scene(rng) for _ in range(n)]
    return [encode(render(s, 256), quality=85) for s in scenes], [caption(s, rng) for s in scenes]


def open_clip_folder(folder: Path) -> Path:
    """A two-tower model of a few thousand weights in open_clip's format."""
    folder.mkdir()
    vocabulary = save_tokenizer(folder, "".join(CAPTIONS))
    text = {
        "context_length": 16,
        "vocab_size": vocabulary,
        "width": 32,
        "heads": 2,
        "layers": 1,
        "hf_tokenizer_name": "local",
    }
    vision = {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16}
    config = {"embed_dim": 16, "vision_cfg": vision, "text_cfg": {**text, "pool_type": "eos", "eos_id": 3, "pad_id": 0}}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": {"size": 32}}))
    torch.manual_seed(0)
    model = import_open_clip().CLIP(**config)
    save_file(model.state_dict(), folder / "open_clip_model.safetensors", metadata={"format": "pt"})
    return folder


def chinese_clip_folder(folder: Path, **processor: Any) -> Path:
    """A Chinese-CLIP of a few thousand weights in transformers' format."""
    folder.mkdir()
    vocabulary = save_tokenizer(folder, "".join(CAPTIONS))
    text = ChineseCLIPTextConfig(
        vocab_size=vocabulary, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=64,
    )  # fmt: skip
    vision = ChineseCLIPVisionConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2, image_size=32, patch_size=16
    )
    torch.manual_seed(0)
    config = ChineseCLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=16)
    ChineseCLIPModel(config).save_pretrained(folder)
    size = {"height": 32, "width": 32}
    ChineseCLIPImageProcessor(**{"size": size, "crop_size": size, **processor}).save_pretrained(folder)
    return folder


def test_the_embedded_scorer_separates_matching_from_shuffled_captions_at_the_threshold() -> None:
    images, captions = pictures(48)
    scorer = load_scorer()
    cosine = scorer.embed_images(images) @ scorer.embed_texts(captions).T
    matching = np.diag(cosine)
    others = cosine[~np.eye(len(images), dtype=bool)]
    assert (matching >= scorer.threshold).mean() >= 0.95
    assert (others < scorer.threshold).mean() >= 0.85
    assert matching.mean() - others.mean() > 0.4


def test_the_embedded_checkpoint_opens_with_plain_open_clip() -> None:
    open_clip = import_open_clip()
    model, _, prepare = open_clip.create_model_and_transforms(f"local-dir:{embedded_folder()}")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{embedded_folder()}")
    images, captions = pictures(4)
    with torch.inference_mode():
        pixels = torch.stack([prepare(Image.open(io.BytesIO(b)).convert("RGB")) for b in images])
        ours = load_scorer()
        assert np.allclose(ours.embed_images(images), model.eval().encode_image(pixels).numpy(), atol=1e-5)
        assert np.allclose(ours.embed_texts(captions), model.encode_text(tokenizer(captions)).numpy(), atol=1e-5)


def test_scores_do_not_depend_on_the_rest_of_the_batch() -> None:
    images, captions = pictures(5)
    frame = pl.DataFrame({"key": list("abcde"), "image": images, "caption": captions})
    whole = apply_stage(Score(), frame, Tally())["score"].to_list()
    alone = [apply_stage(Score(), frame[i], Tally())["score"].item() for i in range(5)]
    assert whole == alone
    assert all(round(s, 4) == pytest.approx(s, abs=1e-7) for s in whole)


def test_the_threshold_decides_and_the_notice_is_plain() -> None:
    images, captions = pictures(3)
    frame = pl.DataFrame({"key": list("abc"), "image": images, "caption": captions})
    assert apply_stage(Score(threshold=0.99), frame, Tally())["reason"].to_list() == ["low_score"] * 3
    assert apply_stage(Score(threshold=-1, ceiling=-0.9), frame, Tally())["reason"].to_list() == ["high_score"] * 3
    assert "knows the sample world only" in Score().notices()[0]
    assert Score(scorer="somewhere").notices() == ()


def test_an_open_clip_folder_gives_what_open_clip_gives(tmp_path: Path) -> None:
    folder = open_clip_folder(tmp_path / "model")
    scorer = load_scorer(str(folder), batch=4)
    model, prepare, tokenizer = model_and_tokenizer(folder, "cpu")
    images, _ = pictures(6)
    with torch.inference_mode():
        pixels = torch.stack([prepare(Image.open(io.BytesIO(b)).convert("RGB")) for b in images])
        expected = torch.nn.functional.normalize(model.encode_image(pixels), dim=-1).numpy()
        texts = torch.nn.functional.normalize(model.encode_text(tokenizer(CAPTIONS)), dim=-1).numpy()
    assert np.abs(scorer.embed_images(images) - expected).max() < 1e-5
    assert np.abs(scorer.embed_texts(CAPTIONS) - texts).max() < 1e-5
    assert not scorer.embedded


def test_a_chinese_clip_folder_gives_what_transformers_gives(tmp_path: Path) -> None:
    folder = chinese_clip_folder(tmp_path / "model")
    scorer = load_scorer(str(folder), batch=4)
    model = ChineseCLIPModel.from_pretrained(folder).eval()
    images, _ = pictures(3)
    processor = ChineseCLIPImageProcessor.from_pretrained(folder)
    opened = [Image.open(io.BytesIO(b)).convert("RGB") for b in images]
    tokenizer = __import__("transformers").AutoTokenizer.from_pretrained(folder)
    with torch.inference_mode():
        pixels = processor(images=opened, return_tensors="pt")["pixel_values"]
        ids = tokenizer(CAPTIONS, padding=True, return_tensors="pt")
        out = model(pixel_values=pixels, input_ids=ids.input_ids, attention_mask=ids.attention_mask)
    # The Pillow and the torchvision image processors differ in the last bits of a resize.
    assert np.abs(scorer.embed_images(images) - out.image_embeds.numpy()).max() < 2e-2
    assert np.abs(scorer.embed_texts(CAPTIONS) - out.text_embeds.numpy()).max() < 1e-5


def test_half_precision_moves_scores_a_little(tmp_path: Path) -> None:
    folder = open_clip_folder(tmp_path / "model")
    images, _ = pictures(6)
    full, half = (load_scorer(str(folder), "cpu", 4, precision=p) for p in ("fp32", "bf16"))
    scores = [s.embed_images(images) @ s.embed_texts(CAPTIONS).T for s in (full, half)]
    assert scores[1].dtype == np.float32
    assert 0 < np.abs(scores[0] - scores[1]).max() < 0.03


def test_unknown_scorers_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"did you mean .*ViT-B-32"):
        load_scorer("ViT-B-31/openai")
    with pytest.raises(RecipeError, match="needs its weights named"):
        load_scorer("ViT-B-32")
    (tmp_path / "x").mkdir()
    with pytest.raises(RecipeError, match=r"none of open_clip_config\.json"):
        load_scorer(str(tmp_path / "x"))
    (tmp_path / "x" / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(RecipeError, match="'bert' model"):
        load_scorer(str(tmp_path / "x"))
