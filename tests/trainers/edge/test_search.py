from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.conftest import here
from tuwen.pipeline.errors import InputError, UsageError
from tuwen.scoring.export_scorer import export_scorer
from tuwen.scoring.onnx_scorer import OnnxScorer
from tuwen.scoring.scorer import embedded_folder, load_scorer
from tuwen.trainers.edge.index import NAME, Entry, Photo, read_index, write_index
from tuwen.trainers.edge.make import build, save, teacher_config
from tuwen.trainers.edge.search import Matrix, check_sums, photo_vector, search, write_sums


def tiny_model(folder: Path, seed: int, out: Path) -> Path:
    """A small dual stream of random weights as ONNX files."""
    _, told = teacher_config("embedded")
    config = {
        "embed_dim": 16,
        "vision_cfg": {"image_size": 32, "patch_size": 8, "width": 32, "layers": 1, "head_width": 8},
        "text_cfg": {k: told["model_cfg"]["text_cfg"][k] for k in ("context_length", "vocab_size", "hf_tokenizer_name")}
        | {"width": 32, "heads": 4, "layers": 1, "no_causal_mask": True, "pool_type": "first"},
        "custom_text": True,
    }
    torch.manual_seed(seed)
    folder.mkdir()
    model = build(config).eval()
    with torch.no_grad():  # random towers give nearly one vector for all images
        model.visual.conv1.weight.mul_(20)
    save(model, config, {**told["preprocess_cfg"], "size": 32}, embedded_folder(), folder)
    export_scorer(str(folder), out)
    write_sums(out)
    return out


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("models")
    return tiny_model(root / "a", 0, root / "a-onnx"), tiny_model(root / "b", 1, root / "b-onnx")


def picture(seed: int, **save_options: Any) -> bytes:
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(coarse).resize((120, 80), Image.Resampling.NEAREST).save(buffer, "JPEG", **save_options)
    return buffer.getvalue()


def album(folder: Path, count: int = 6) -> Path:
    for i in range(count):
        path = folder / ("旅行" if i % 2 else ".") / f"{i}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(i))
        os.utime(path, (1_600_000_000, 1_600_000_000 + i))
    return folder


def found(model: Path, photos: Path, **options: Any) -> dict[str, Any]:
    return search(photos, "红色的花", str(model), **options)


def test_the_index_follows_photos_that_come_go_move_and_change(tmp_path: Path, models: tuple[Path, Path]) -> None:
    photos = album(tmp_path / "photos")
    first = found(models[0], photos)
    assert (first["photos"], first["changes"]["added"], first["changes"]["embedded"]) == (6, 6, 6)
    again = found(models[0], photos)
    assert (again["changes"]["unchanged"], again["changes"]["embedded"]) == (6, 0)
    assert again["results"] == first["results"]

    (photos / "0.jpg").unlink()
    (photos / "2.jpg").rename(photos / "旅行" / "renamed.jpg")
    (photos / "1-copy.jpg").write_bytes(picture(1))
    (photos / "4.jpg").write_bytes(picture(40))
    os.utime(photos / "旅行" / "5.jpg")
    (photos / "new.png").write_bytes(picture(7))
    (photos / "notes.txt").write_text("no photo")
    (photos / ".hidden.jpg").write_bytes(picture(8))
    told = found(models[0], photos)
    changes = told["changes"]
    counts = {k: changes[k] for k in ("added", "changed", "moved", "removed", "unchanged", "embedded")}
    assert counts == {"added": 2, "changed": 1, "moved": 1, "removed": 1, "unchanged": 3, "embedded": 2}
    (photos / NAME).unlink()
    assert found(models[0], photos)["results"] == told["results"], "an updated index must equal a fresh one"


def test_photos_that_cannot_be_read_are_told_and_not_fatal(tmp_path: Path, models: tuple[Path, Path]) -> None:
    photos = album(tmp_path / "photos", 2)
    (photos / "cut.jpg").write_bytes(picture(3)[:200])
    (photos / "empty.jpg").write_bytes(b"")
    (photos / "letter.jpg").write_text("dear reader")
    for _ in range(2):
        told = found(models[0], photos)
        problems = {p["path"]: p["problem"] for p in told["changes"]["problems"]}
        assert {k: v.split(":")[0] for k, v in problems.items()} == {
            "cut.jpg": "corrupt",
            "empty.jpg": "corrupt",
            "letter.jpg": "unsupported",
        }
        assert len(told["results"]) == 2
    (photos / "cut.jpg").write_bytes(picture(3))
    assert len(found(models[0], photos)["results"]) == 3


def test_a_change_under_the_same_size_and_time_is_seen_by_check(tmp_path: Path, models: tuple[Path, Path]) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    path = photos / "a.bmp"  # all of one size
    for seed, options, changed in ((0, {}, 0), (1, {}, 0), (1, {"trust_stamps": False}, 1)):
        Image.open(io.BytesIO(picture(seed))).save(path)
        os.utime(path, (1_600_000_000, 1_600_000_000))
        assert found(models[0], photos, **options)["changes"]["changed"] == changed


def test_a_photo_written_just_now_is_read_again(tmp_path: Path, models: tuple[Path, Path]) -> None:
    photos = album(tmp_path / "photos", 1)
    Image.open(io.BytesIO(picture(1))).save(photos / "b.bmp")
    found(models[0], photos)
    stamp = (photos / "b.bmp").stat().st_mtime_ns
    Image.open(io.BytesIO(picture(2))).save(photos / "b.bmp")
    os.utime(photos / "b.bmp", ns=(stamp, stamp))
    assert found(models[0], photos)["changes"]["changed"] == 1


def test_another_model_or_a_damaged_index_means_a_new_one(tmp_path: Path, models: tuple[Path, Path]) -> None:
    photos = album(tmp_path / "photos", 3)
    one = found(models[0], photos)
    other = found(models[1], photos)
    assert other["changes"]["embedded"] == 3 and "another model" in " ".join(other["notes"])
    assert one["results"] != other["results"]
    index = photos / NAME
    for damage in (index.read_bytes()[:100], b"", b"\0" * 64):
        index.write_bytes(damage)
        told = found(models[0], photos)
        assert "damaged" in " ".join(told["notes"]) and told["results"] == one["results"]
    assert [p.name for p in photos.iterdir() if p.name.startswith(".")] == [NAME], "nothing temporary may stay"


def test_a_cache_keeps_the_folder_clean_and_holds_several_models(tmp_path: Path, models: tuple[Path, Path]) -> None:
    photos = album(tmp_path / "photos", 2)
    before = sorted(photos.rglob("*"))
    for embedded in (2, 0):
        for model in models:
            assert found(model, photos, cache=tmp_path / "cache")["changes"]["embedded"] == embedded
    assert sorted(photos.rglob("*")) == before
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(InputError, match="--cache"):
        found(models[0], photos, cache=tmp_path / "file" / "cache")


def test_a_turned_photo_is_seen_upright(models: tuple[Path, Path]) -> None:
    scorer = load_scorer(str(models[0]), "cpu", 1, 1)
    assert isinstance(scorer, OnnxScorer)
    upright = Image.open(io.BytesIO(picture(5)))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned clockwise
    made = {}
    for name, image, options in (
        ("upright", upright, {}),
        ("turned", upright.transpose(Image.Transpose.ROTATE_90), {"exif": exif}),
        ("lying", upright.transpose(Image.Transpose.ROTATE_90), {}),
    ):
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=95, **options)
        made[name] = photo_vector(scorer, buffer.getvalue())
    assert made["upright"] @ made["turned"] > 0.995 > made["upright"] @ made["lying"]


def test_the_best_are_all_that_sorting_finds(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((300, 8)).astype(np.float16)
    rows[10:20] = rows[0]  # equal scores
    entries = [Entry(Photo(f"{i:03d}.jpg", 1, 1), bytes(16), rows[i]) for i in rng.permutation(300)]
    entries.append(Entry(Photo("bad.jpg", 1, 1), bytes(16), None, "corrupt: no photo"))
    write_index(tmp_path / "index", entries, "m")
    read, why = read_index(tmp_path / "index", "m")
    assert why == "" and [e.photo for e in read] == [e.photo for e in entries]
    query = rows[0].astype(np.float32)
    scores = {f"{i:03d}.jpg": float(r) for i, r in enumerate(rows.astype(np.float32) @ query)}
    wanted = sorted(scores, key=lambda path: (-round(scores[path], 4), path))
    for top in (1, 5, 15, 300, 1000):
        assert [path for path, _ in Matrix(read).best(query, top)] == wanted[:top]
    assert Matrix([]).best(query, 3) == []


def test_search_loads_no_torch(tmp_path: Path, models: tuple[Path, Path]) -> None:
    photos = album(tmp_path / "photos", 2)
    code = (
        "import sys; from tuwen.pipeline.cli import app\n"
        "try: app(sys.argv[1:], standalone_mode=False)\n"
        "finally: print(sorted({'torch', 'transformers', 'open_clip', 'onnx', 'apache_beam'} & set(sys.modules)))"
    )
    root = str(Path(__file__).parents[3])
    words = [sys.executable, "-c", code, "search", str(photos), "花", "--model", str(models[0]), "--json"]
    done = subprocess.run(words, capture_output=True, text=True, cwd=root, env={**os.environ, "PYTHONPATH": root})
    told, _, loaded = done.stdout.rpartition("}\n")
    assert loaded.strip() == "[]", done.stderr[-500:]
    assert len(json.loads(told + "}")["results"]) == 2


def test_the_command_prints_paths_and_what_was_not_searched(tmp_path: Path, models: tuple[Path, Path]) -> None:
    photos = album(tmp_path / "photos", 3)
    (photos / "bad.jpg").write_bytes(b"no photo")
    done = here("search", photos, "红色的花 🦖", "--model", models[0], "--top", "2")
    lines = done.stdout.splitlines()
    assert len(lines) == 2 and all(Path(line.split("  ", 1)[1]).is_file() for line in lines)
    assert "not searched: bad.jpg" in done.stderr and "does not know 🦖" in done.stderr
    assert here("search", tmp_path / "none", "花", "--model", models[0], check=False).returncode == 3
    with pytest.raises(UsageError, match="query is empty"):
        search(photos, "  ", str(models[0]))


def test_a_damaged_model_is_refused(tmp_path: Path, models: tuple[Path, Path]) -> None:
    for path in models[0].iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    check_sums(tmp_path)
    with (tmp_path / "image.onnx").open("r+b") as handle:
        handle.seek(1000)
        handle.write(b"\xff\x00\xff")
    with pytest.raises(InputError, match=r"image\.onnx: SHA256SUMS says"):
        search(tmp_path, "花", str(tmp_path))
