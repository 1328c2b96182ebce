from __future__ import annotations

from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from tuwen.pipeline.cli import app
from tuwen.pipeline.errors import UsageError
from tuwen.sample_data import placed
from tuwen.trainers import align_towers, shards, towers
from tuwen.trainers.stream import DataConfig, PairStream
from tuwen.trainers.towers import ModelConfig


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(shards in two languages, an English model)."""
    root = tmp_path_factory.mktemp("towers")
    placed.write_shards(root / "shards", 64, 0, side=32)
    config = ModelConfig(
        vocabulary="captions",
        embed_dim=16,
        vision_cfg={"image_size": 16, "layers": 1, "width": 16, "head_width": 8, "patch_size": 8},
        text_cfg={"layers": 1, "width": 32, "heads": 2, "context_length": 40},
    )
    towers.prepare(config, root / "english", [placed.caption_en(p) for p in placed.every()])
    model, _, _ = towers.build(root / "english", 3)
    towers.save_weights(model, root / "english")
    return root / "shards", root / "english"


def test_stream_gives_both_languages(folders: tuple[Path, Path]) -> None:
    found = shards.find([str(folders[0])])
    plain = next(iter(PairStream(found, DataConfig(batch=8), 16)))
    assert plain.parallel is None
    both = next(iter(PairStream(found, DataConfig(batch=8, parallel="caption_en"), 16)))
    assert both.captions == plain.captions
    assert both.parallel is not None
    english = next(iter(PairStream(found, DataConfig(batch=8, caption="caption_en"), 16)))
    assert english.captions == both.parallel
    assert all(words.isascii() for words in english.captions)


def test_chinese_tower_learns_the_english_embeddings_and_the_image_tower_stays(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    given, source = folders
    sets = ["align.steps=40", "align.warmup=5", "align.learning_rate=3e-3", "data.batch=32", "data.parallel=caption_en"]
    told = align_towers.train_from_shards([str(given)], tmp_path / "chinese", str(source), None, sets, "cpu")
    assert told["last"] < 0.5 * told["first"]
    english, _, _ = towers.build(source, 0, str(source))
    chinese, tokenize, _ = towers.build(tmp_path / "chinese", 0, str(tmp_path / "chinese"))
    for name, value in english.visual.state_dict().items():  # type: ignore[union-attr]
        assert torch.equal(value, chinese.visual.state_dict()[name])  # type: ignore[union-attr]
    assert (tokenize(["左边有一辆红色的汽车"]) == 1).sum() == 0  # no unknown character


def test_alignment_without_parallel_captions_is_refused(folders: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"data\.parallel"):
        align_towers.train_from_shards([str(folders[0])], tmp_path, str(folders[1]), None, [], "cpu")


def test_command(folders: tuple[Path, Path], tmp_path: Path) -> None:
    words = ["train", "retrieval", str(folders[0]), "-o", str(tmp_path / "out"), "--align", str(folders[1])]
    words += ["--set", "align.steps=2", "--set", "data.batch=8", "--set", "data.parallel=caption_en"]
    done = CliRunner().invoke(app, words, catch_exceptions=False)
    assert done.exit_code == 0
    assert (tmp_path / "out" / towers.WEIGHTS).is_file()
