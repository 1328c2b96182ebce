from __future__ import annotations

import io
import json
import pickle
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from tuwen.filters.length import Length
from tuwen.filters.normalise import Normalise
from tuwen.pipeline.errors import RecipeError
from tuwen.pipeline.recipe import parse
from tuwen.pipeline.stage import Tally, apply_stage
from tuwen.sample_data.draw import render
from tuwen.sample_data.faults import encode
from tuwen.sample_data.world import caption, random_scene
from tuwen.scoring.caption_coca import CocaCaptioner
from tuwen.scoring.captioner import SyntheticCaptions
from tuwen.scoring.captioners import load_model
from tuwen.scoring.score import Score
from tuwen.scoring.scorer import EMBEDDED, embedded_folder, import_open_clip, model_and_tokenizer
from tuwen.trainers.embedded import save_tokenizer


def pictures(n: int) -> tuple[list[bytes], list[str]]:
    rng = np.random.default_rng(50)
    scenes = [random_scene(rng) for _ in range(n)]
    return [encode(render(s, 256), quality=85) for s in scenes], [caption(s, rng) for s in scenes]


def scored(n: int) -> pl.DataFrame:
    images, captions = pictures(n)
    frame = pl.DataFrame({"key": [f"{i:02}" for i in range(n)], "image": images, "caption": captions})
    return apply_stage(Score(), frame, Tally())


def test_a_caption_ships_only_where_it_scores_no_worse_less_the_margin() -> None:
    frame = scored(16)
    easy = frame.with_columns(score=pl.lit(-1.0, dtype=pl.Float32))
    low = apply_stage(SyntheticCaptions(scorer=EMBEDDED), easy, Tally())
    assert low["caption_synthetic"].null_count() == 0
    assert low["synthetic_reason"].null_count() == 16
    assert low["caption_synthetic"].str.contains(r"^\p{Han}[\p{Han},，。]+$").all()
    out = apply_stage(SyntheticCaptions(scorer=EMBEDDED), frame, Tally())
    better = out["synthetic_score"].round(4) >= out["score"].round(4)
    assert out["caption_synthetic"].is_not_null().equals(better)
    assert out["synthetic_reason"].to_list() == [None if b else "low_score" for b in better]
    assert 0 < better.sum() < 16
    wide = apply_stage(SyntheticCaptions(scorer=EMBEDDED, margin=1.0), frame, Tally())
    assert wide["caption_synthetic"].null_count() == 0
    strict = apply_stage(SyntheticCaptions(scorer=EMBEDDED, margin=-1.0), frame, Tally())
    assert strict["caption_synthetic"].null_count() == 16
    assert strict["synthetic_score"].null_count() == 0
    assert strict["status"].null_count() == 16


def test_another_scorer_than_the_ledgers_scores_the_original_too() -> None:
    frame = scored(4)
    other = frame.with_columns(score=pl.lit(5.0, dtype=pl.Float32), scorer=pl.lit("another@0"))
    both = [apply_stage(SyntheticCaptions(scorer=EMBEDDED), f, Tally())["synthetic_reason"] for f in (frame, other)]
    assert both[0].equals(both[1])


def test_the_text_rules_of_the_recipe_hold_for_what_the_captioner_wrote() -> None:
    frame = scored(4)
    stage = SyntheticCaptions()
    strict = stage.among([Normalise(), Length(shortest=100)])
    out = apply_stage(strict, frame, Tally())
    assert out["synthetic_reason"].unique().to_list() == ["length:caption_too_short"]
    assert out["synthetic_detail"].null_count() == 0
    assert out["caption"].equals(frame["caption"])
    assert out["status"].null_count() == 4
    # Without a score stage nothing compares; the rules alone decide.
    free = apply_stage(stage.among([Normalise(), Length()]), frame, Tally())
    assert free["caption_synthetic"].null_count() == 0
    assert free["synthetic_score"].null_count() == 4


def test_a_recipe_hands_its_rules_and_scorer_to_the_stage_and_pickling_keeps_them() -> None:
    recipe = parse("name: x\nstages: [normalise, length: {shortest: 100}, decode, score, synthetic_captions]", "x.yaml")
    (stage,) = recipe.phase("emit")
    out = apply_stage(pickle.loads(pickle.dumps(stage)), scored(2), Tally())
    assert out["synthetic_reason"].to_list() == ["length:caption_too_short"] * 2
    assert "_rules" not in json.dumps(recipe.describe())


def test_an_image_that_breaks_the_captioner_costs_its_caption_and_nothing_else() -> None:
    frame = scored(3)
    frame = frame.with_columns(image=pl.Series([frame["image"][0], b"no image", frame["image"][2]]))
    out = apply_stage(SyntheticCaptions(), frame, Tally())
    assert out["synthetic_reason"].to_list() == [None, "captioner_error", None]
    assert "UnidentifiedImageError" in out["synthetic_detail"][1]
    assert out["status"].null_count() == 3


def test_captions_do_not_depend_on_the_batch() -> None:
    images, _ = pictures(5)
    captioner = CocaCaptioner(*model_and_tokenizer(embedded_folder(), "cpu"), 4)
    whole = captioner.captions(images)
    assert whole == [captioner.captions([image])[0] for image in images]
    assert len(set(whole)) > 1


def test_greedy_captions_are_those_of_open_clips_own_forward_pass() -> None:
    images, _ = pictures(2)
    folder = embedded_folder()
    captioner = CocaCaptioner(*model_and_tokenizer(folder, "cpu"), 2)
    model, prepare, tokenizer = model_and_tokenizer(folder, "cpu")
    core = tokenizer.tokenizer
    pixels = torch.stack([prepare(Image.open(io.BytesIO(b)).convert("RGB")) for b in images])
    with torch.inference_mode():
        ids = torch.full((2, 36), core.pad_token_id)
        ids[:, 0] = core.cls_token_id
        for at in range(1, 36):
            ids[:, at] = model(pixels, ids)["logits"][:, at - 1].argmax(-1)
    theirs = [row[: row.index(core.sep_token_id)] for row in ids.tolist()]
    written = [w.text for w in captioner.captions(images)]
    assert written == [core.decode(row, skip_special_tokens=True) for row in theirs]


def test_a_coca_folder_is_a_captioner_and_a_scorer_alone_is_none(tmp_path: Path) -> None:
    images, _ = pictures(1)
    told = load_model(str(embedded_folder()), "", 8, "cpu", 2).captions(images)
    assert told == load_model(EMBEDDED, "", 8, "cpu", 2).captions(images)
    text = {"context_length": 8, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
    vision = {"image_size": 32, "layers": 1, "width": 16, "head_width": 8, "patch_size": 16}
    config = {"embed_dim": 8, "vision_cfg": vision, "text_cfg": text}
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": {"size": 32}}))
    model = import_open_clip().CLIP(**config)
    save_file(model.state_dict(), tmp_path / "open_clip_model.safetensors", metadata={"format": "pt"})
    with pytest.raises(RecipeError, match="cannot write"):
        load_model(str(tmp_path), "", 8, "cpu", 2)


def test_open_clips_own_tokenizer_is_read() -> None:
    open_clip = import_open_clip()
    tower = {"context_length": 12, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
    vision = {"image_size": 32, "layers": 1, "width": 16, "head_width": 8, "patch_size": 16}
    pooled = {"attentional_pool": True, "attn_pooler_heads": 2, "output_tokens": True}
    text = {**tower, "embed_cls": True, "output_tokens": True}
    torch.manual_seed(0)
    model = open_clip.CoCa(embed_dim=16, multimodal_cfg=tower, text_cfg=text, vision_cfg={**vision, **pooled}).eval()
    prepare = open_clip.image_transform(32, is_train=False)
    tokenizer = open_clip.SimpleTokenizer(context_length=12)
    # What random weights say differs from one processor to the next; these always say the same word.
    decoder = model.text_decoder
    with torch.no_grad():
        decoder.ln_final.weight.zero_()
        decoder.ln_final.bias.fill_(1)
        decoder.text_projection.zero_()
        decoder.text_projection[:, tokenizer.encode("photo")[0]] = 1
    captioner = CocaCaptioner(model, prepare, tokenizer, 2)
    images, _ = pictures(1)
    (told,) = captioner.captions(images)
    assert set(str(told.text).split()) == {"photo"}


def blip_folder(folder: Path) -> Path:
    """A BLIP of a few thousand weights in transformers' format."""
    from transformers import (
        AutoTokenizer,
        BlipConfig,
        BlipForConditionalGeneration,
        BlipImageProcessor,
        BlipProcessor,
    )

    folder.mkdir()
    vocabulary = save_tokenizer(folder, "草地上有一只红色的猫两辆蓝汽车")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.model_input_names = ["input_ids", "attention_mask"]
    text = {
        "vocab_size": vocabulary, "hidden_size": 32, "encoder_hidden_size": 32, "intermediate_size": 64,
        "num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": 64,
        "bos_token_id": tokenizer.cls_token_id, "eos_token_id": tokenizer.sep_token_id,
        "sep_token_id": tokenizer.sep_token_id, "pad_token_id": tokenizer.pad_token_id,
    }  # fmt: skip
    vision = {
        "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2,
        "image_size": 32, "patch_size": 16,
    }  # fmt: skip
    torch.manual_seed(0)
    BlipForConditionalGeneration(BlipConfig(text_config=text, vision_config=vision)).save_pretrained(folder)
    BlipProcessor(BlipImageProcessor(size={"height": 32, "width": 32}), tokenizer).save_pretrained(folder)
    return folder


def test_a_transformers_captioner_writes_what_transformers_writes(tmp_path: Path) -> None:
    from transformers import AutoModelForImageTextToText, AutoProcessor

    folder = blip_folder(tmp_path / "blip")
    images, _ = pictures(3)
    ours = load_model(str(folder), "", 6, "cpu", 2)
    written = [w.text for w in ours.captions(images)]
    model, processor = AutoModelForImageTextToText.from_pretrained(folder).eval(), AutoProcessor.from_pretrained(folder)
    theirs = []
    for image in images:
        ready = processor(images=[Image.open(io.BytesIO(image)).convert("RGB")], return_tensors="pt")
        with torch.inference_mode():
            ids = model.generate(**ready, max_new_tokens=6, do_sample=False, num_beams=1)
        theirs += processor.batch_decode(ids, skip_special_tokens=True)
    assert written == theirs
    assert all(written)
    assert written[1:2] == [w.text for w in ours.captions(images[1:2])]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"captioner": "no/such/folder"}, "is no folder"),
        ({"captioner": "http://127.0.0.1:1/v1"}, "needs the name of a model"),
        ({"captioner": "http://user:geheim@host/v1", "model": "m"}, "user or password"),
        ({"captioner": "http://", "model": "m"}, "expected one such as"),
        ({"captioner": "http://h/v1", "model": "m", "api_key_env": "TUWEN_NO_SUCH_KEY"}, "TUWEN_NO_SUCH_KEY"),
    ],
)
def test_a_captioner_that_cannot_be_is_told_before_the_run(fields: dict[str, str], said: str) -> None:
    with pytest.raises(RecipeError, match=said) as told:
        SyntheticCaptions.model_validate(fields).resources()
    assert "geheim" not in str(told.value)


def test_a_folder_of_something_else_is_told(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="holds neither"):
        SyntheticCaptions(captioner=str(tmp_path)).resources()
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(RecipeError, match="cannot be read"):
        load_model(str(tmp_path), "", 8, "cpu", 2)
