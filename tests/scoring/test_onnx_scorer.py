from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.conftest import here
from tests.scoring.test_scorer import CAPTIONS, chinese_clip_folder, open_clip_folder, pictures
from tuwen.pipeline.errors import RecipeError, UsageError
from tuwen.scoring.export_scorer import _clip_tokenizer, export_scorer
from tuwen.scoring.onnx_scorer import OnnxDescription, cleaned, prepare
from tuwen.scoring.scorer import Scorer, fingerprint, import_open_clip, load_scorer

KINDS = {"open_clip": open_clip_folder, "chinese_clip": chinese_clip_folder}


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Path]]:
    """A small model of each kind and its export."""
    root = tmp_path_factory.mktemp("scorers")
    made = {kind: (make(root / kind), root / f"{kind}-onnx") for kind, make in KINDS.items()}
    for source, out in made.values():
        export_scorer(str(source), out)
    return made


def odd_pictures() -> list[bytes]:
    """JPEGs and PNGs of the sample world, cut to odd shapes."""
    drawn = [Image.open(io.BytesIO(data)).convert("RGB") for data in pictures(6)[0]]
    out = []
    for i, image in enumerate(drawn):
        buffer = io.BytesIO()
        image.crop((0, 0, 256 - 37 * i, 91 + 29 * i)).save(buffer, "PNG" if i % 2 else "JPEG")
        out.append(buffer.getvalue())
    return out


TEXTS = [*CAPTIONS, "猫", "红色" * 60, "两辆 BLUE\u3000汽车 &amp; 房子", "从来没见过的字：龘"]


@pytest.mark.parametrize("kind", KINDS)
def test_an_export_scores_as_the_model_it_was_made_of(exported: dict[str, tuple[Path, Path]], kind: str) -> None:
    source, out = exported[kind]
    torch_, onnx = load_scorer(str(source), batch=4), load_scorer(str(out), batch=4)
    images = odd_pictures()
    scores = [s.embed_images(images) @ s.embed_texts(TEXTS).T for s in (torch_, onnx)]
    assert np.abs(scores[0] - scores[1]).max() < 1e-5
    assert np.ptp(scores[0]) > 0.05, "scores that are all alike would show nothing"
    assert onnx.name == torch_.name and onnx.hash != torch_.hash


def test_a_chinese_clip_that_cuts_the_middle_out_exports_too(tmp_path: Path) -> None:
    source = chinese_clip_folder(tmp_path / "model", size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    assert export_scorer(str(source), tmp_path / "out")["resize"] == "shortest"
    scorers = (load_scorer(str(source), batch=4), load_scorer(str(tmp_path / "out"), batch=4))
    images = odd_pictures()
    scores = [s.embed_images(images) @ s.embed_texts(TEXTS).T for s in scorers]
    assert np.abs(scores[0] - scores[1]).max() < 1e-5
    odd = chinese_clip_folder(tmp_path / "odd", size={"shortest_edge": 40}, crop_size={"height": 32, "width": 32})
    with pytest.raises(RecipeError, match="cannot be exported"):
        export_scorer(str(odd), tmp_path / "never")
    assert not (tmp_path / "never").exists()


def test_an_export_runs_without_torch(exported: dict[str, tuple[Path, Path]]) -> None:
    code = (
        "import sys; from tuwen.scoring.scorer import load_scorer; s = load_scorer(sys.argv[1], batch=2)\n"
        "print(s.embed_texts(['红色的猫']).shape); sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    )
    root = str(Path(__file__).parents[2])
    words = [sys.executable, "-c", code, str(exported["open_clip"][1])]
    done = subprocess.run(words, capture_output=True, text=True, cwd=root, env={"PYTHONPATH": root, "PATH": ""})
    assert (done.returncode, done.stdout.strip()) == (0, "(1, 16)"), done.stderr[-500:]


def test_a_row_does_not_depend_on_the_others(exported: dict[str, tuple[Path, Path]]) -> None:
    scorer: Scorer = load_scorer(str(exported["open_clip"][1]), batch=4)
    images = odd_pictures()
    alone = np.concatenate([scorer.embed_images([i]) for i in images])
    assert np.array_equal(scorer.embed_images(images), alone)


@pytest.mark.parametrize("mode", ["squash", "shortest", "longest"])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_pictures_are_prepared_as_open_clip_does(mode: str, interpolation: str) -> None:
    import_open_clip()
    from open_clip.transform import image_transform

    mean, std = (0.48, 0.45, 0.40), (0.26, 0.27, 0.28)
    told = OnnxDescription(
        name="x", size=(48, 48), resize=mode, interpolation=interpolation, fill=7, mean=mean, std=std, context=8
    )
    theirs = image_transform(48, False, mean, std, mode, interpolation, fill_color=7)
    for data in odd_pictures():
        image = Image.open(io.BytesIO(data)).convert("RGB")
        assert np.abs(prepare(image, told) - theirs(image).numpy()).max() < 1e-6


def test_clips_own_tokenizer_is_written_as_one_file() -> None:
    simple = import_open_clip().SimpleTokenizer(context_length=20)
    core = _clip_tokenizer(simple, 20)
    texts = ["a photo of a cat", "It's 2 RED houses, isn't it?", "红色的车", "x" * 300, "don’t  &lt;b&gt;", "été №5"]
    ids = [e.ids for e in core.encode_batch([cleaned(t, "lower") for t in texts])]
    assert torch.equal(torch.tensor(ids), simple(texts))


def test_the_command_exports_and_says_how_close_it_is(tmp_path: Path) -> None:
    source = open_clip_folder(tmp_path / "model")
    done = here("export-scorer", source, "-o", tmp_path / "out")
    assert "scores differ by at most" in done.stdout
    assert {"image.onnx", "text.onnx", "tokenizer.json", "scorer.yaml"} == {
        p.name for p in (tmp_path / "out").iterdir()
    }


def test_what_cannot_be_exported_or_read_says_so(tmp_path: Path, exported: dict[str, tuple[Path, Path]]) -> None:
    source, made = exported["open_clip"]
    with pytest.raises(RecipeError, match="ONNX files already"):
        export_scorer(str(made), tmp_path / "x")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("keep me")
    with pytest.raises(UsageError, match="not empty and holds no scorer"):
        export_scorer(str(source), tmp_path / "mine")
    with pytest.raises(RecipeError, match="needs torch"):
        load_scorer(str(made), precision="bf16")
    changes: tuple[tuple[Callable[[Path], object], str], ...] = (
        (lambda f: (f / "text.onnx").unlink(), r"text\.onnx is missing"),
        (lambda f: (f / "image.onnx").write_bytes(b"no model"), "no ONNX model that can be loaded"),
        (lambda f: (f / "scorer.yaml").write_text("name: x\nsize: [3]\n"), r"scorer\.yaml: size"),
        (lambda f: (f / "scorer.yaml").write_text("- a\n"), "no mapping"),
        (lambda f: (f / "tokenizer.json").unlink(), r"tokenizer\.json is missing"),
    )
    for change, words in changes:
        broken = tmp_path / words.replace("\\", "")[:9]
        broken.mkdir()
        for path in made.iterdir():
            (broken / path.name).write_bytes(path.read_bytes())
        change(broken)
        with pytest.raises(RecipeError, match=words):
            load_scorer(str(broken))


def test_the_hash_covers_all_that_scores_depend_on(tmp_path: Path, exported: dict[str, tuple[Path, Path]]) -> None:
    for path in exported["open_clip"][1].iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    before = fingerprint(str(tmp_path))
    (tmp_path / "calibration.json").write_text('{"threshold": 0.2}')
    assert fingerprint(str(tmp_path)) == before
    told = (tmp_path / "scorer.yaml").read_text()
    (tmp_path / "scorer.yaml").write_text(told.replace("bicubic", "bilinear"))
    assert fingerprint(str(tmp_path)) != before
