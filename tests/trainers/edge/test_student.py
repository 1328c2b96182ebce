from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from tests.conftest import here
from tuwen.pipeline.errors import RunError, UsageError
from tuwen.sample_data.shards import write_shards
from tuwen.scoring.export_scorer import export_scorer
from tuwen.scoring.scorer import embedded_folder, import_open_clip, load_scorer, model_and_tokenizer
from tuwen.trainers.distributed import World
from tuwen.trainers.edge import export as export_student
from tuwen.trainers.edge.export import quantise
from tuwen.trainers.edge.fusion import FusedTeacher, FusionConfig, Towers, closest, encode, hard_negatives
from tuwen.trainers.edge.make import (
    build,
    save,
    shrink,
    teacher_config,
    towers,
)
from tuwen.trainers.edge.search import check_sums, search
from tuwen.trainers.edge.student import (
    DistilConfig,
    Kept,
    Prepare,
    Targets,
    Teacher,
    distillation,
    fit_fusion,
    fit_student,
    minimise,
    parameters,
)
from tuwen.trainers.embedded import scenes
from tuwen.trainers.stream import Pairs

CONFIG = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 16, "patch_size": 8, "width": 32, "layers": 1, "head_width": 8},
    "text_cfg": {"context_length": 8, "vocab_size": 20, "width": 16, "heads": 4, "layers": 1, "pool_type": "first"}
    | {"no_causal_mask": True},
}


TOLD = {"rate": 1, "distil": {"checkpoint_every": 3}}


def rows(n: int, d: int, seed: int) -> torch.Tensor:
    return F.normalize(torch.randn(n, d, generator=torch.Generator().manual_seed(seed)), dim=-1)


def batch(n: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    """Pixels and ids, the last captions padded."""
    draw = torch.Generator().manual_seed(3)
    ids = torch.randint(1, 20, (n, 8), generator=draw)
    ids[n // 2 :, 5:] = 0
    return torch.randn(n, 3, 16, 16, generator=draw), ids


def fused(train_towers: bool = False) -> FusedTeacher:
    torch.manual_seed(0)
    return FusedTeacher(build(CONFIG), FusionConfig(width=16, layers=1, candidates=2, train_towers=train_towers))


def test_hard_negatives_are_wrong_and_mostly_the_closest() -> None:
    groups = torch.tensor([7, 7, 3, 4, 5, 3])
    logits = torch.zeros(6, 6)
    logits[0, 1] = logits[0, 4] = 20.0  # a wrong caption that is close, and one of the same group that must not count
    draw = torch.Generator().manual_seed(0)
    for _ in range(50):
        by_image, by_caption = hard_negatives(logits, groups, draw)
        assert by_image[0].tolist() == [0, 1, 2, 3, 4, 5] and by_caption[1].tolist() == [0, 1, 2, 3, 4, 5]
        for images, captions in (by_image, by_caption):
            assert (groups[images] != groups[captions]).all()
        assert by_image[1][0] == 4
    alike = hard_negatives(torch.zeros(3, 3), torch.tensor([1, 1, 1]), draw)
    assert all(len(side) == 0 for pair in alike for side in pair), "where all say the same there is no negative"


def test_the_closest_pairs_of_rows_and_columns_are_fused() -> None:
    cosines = torch.tensor([[0.1, 0.9, 0.2], [0.3, 0.4, 0.8], [0.7, 0.6, 0.5]])
    found = set(zip(*(side.tolist() for side in closest(cosines, 1)), strict=True))
    assert found == {(0, 0), (1, 1), (2, 2)} | {(0, 1), (1, 2), (2, 0)}


def test_similarities_begin_as_the_towers_and_change_where_pairs_are_fused() -> None:
    teacher, (pixels, ids) = fused(), batch()
    seen = teacher.towers(pixels, ids)
    cosines = seen.image @ seen.text.T
    pairs = closest(cosines, 1)
    assert torch.allclose(teacher.similarities(seen, *pairs), cosines, atol=1e-6)
    torch.nn.init.normal_(teacher.to_image.weight)
    moved = (teacher.similarities(seen, *pairs) - cosines).abs() > 1e-4
    expected = torch.zeros_like(moved)
    expected[pairs] = True
    assert torch.equal(moved, expected)


def test_a_fused_pair_depends_on_its_own_words_and_picture_alone() -> None:
    teacher, (pixels, ids) = fused().eval(), batch()
    seen = teacher.towers(pixels, ids)
    one = teacher.fuse(seen, torch.tensor([4]), torch.tensor([5]))
    among = teacher.fuse(seen, torch.tensor([0, 4]), torch.tensor([1, 5]))[1:]
    assert torch.allclose(one, among, atol=1e-5)
    other = teacher.fuse(seen, torch.tensor([3]), torch.tensor([5]))
    assert (one - other).abs().max() > 1e-3, "the picture must matter"


def test_frozen_towers_get_no_gradient_and_trained_ones_none_through_the_split() -> None:
    groups = torch.arange(6)
    for train_towers in (False, True):
        teacher = fused(train_towers)
        torch.nn.init.normal_(teacher.to_image.weight)
        seen = teacher.towers(*batch())
        teacher.losses(seen, groups, torch.Generator().manual_seed(0))["loss"].backward()
        touched = any(p.grad is not None for p in teacher.model.parameters())
        assert touched == train_towers
        assert teacher.to_image.weight.grad is not None and teacher.matches.weight.grad is not None
    teacher = fused(True)
    seen = Towers(*(t.detach().requires_grad_(t.is_floating_point()) for t in encode(teacher.model, *batch())))
    teacher.similarities(seen, *closest(seen.image @ seen.text.T, 2)).sum().backward()
    assert seen.image.grad is None and seen.text.grad is None


def test_fusion_learns_to_match_pairs_that_the_towers_cannot_tell_apart() -> None:
    """Every caption has the same pooled row, so the cosines say nothing; its tokens say which picture is meant."""
    torch.manual_seed(0)
    n = 8
    teacher = FusedTeacher(build(CONFIG), FusionConfig(width=16, layers=1, candidates=n))
    code = torch.randn(n, 16)
    seen = Towers(
        torch.eye(16)[:1].repeat(n, 1),
        torch.eye(16)[1:2].repeat(n, 1),
        torch.cat([code, code], 1)[:, None, :].repeat(1, 2, 1),
        code[:, None, :].repeat(1, 3, 1),
        torch.ones(n, 3, dtype=torch.bool),
    )
    groups, draw = torch.arange(n), torch.Generator().manual_seed(0)
    config = DistilConfig(steps=150, learning_rate=5e-3, warmup=5, log_every=50)
    records = minimise(teacher.own_parameters(), lambda _: teacher.losses(seen, groups, draw), range(150), config)
    assert records[0]["matching"] > 0.6 > 0.3 > records[-1]["matching"]
    split = teacher.targets(seen)
    assert (split.argmax(1) == groups).all(), "and the split similarities say it too"


def test_distillation_is_that_of_open_clip() -> None:
    import_open_clip()
    from open_clip.loss import DistillClipLoss

    image, text, theirs, words = (rows(5, 8, seed) for seed in range(4))
    scale, teacher = torch.tensor(12.0), torch.tensor(30.0)
    _, wanted = DistillClipLoss()(image, text, scale, theirs, words, teacher)
    targets = Targets.of(theirs, words, teacher)
    assert torch.isclose(distillation(image, text, scale, targets.to_text, targets.to_image), wanted, atol=1e-6)


def test_a_student_that_sees_as_its_teacher_is_left_alone() -> None:
    image = rows(5, 8, 0).requires_grad_()
    text, scale = rows(5, 8, 1), torch.tensor(10.0)
    targets = Targets.of(image.detach(), text, scale)
    distillation(image, text, scale, targets.to_text, targets.to_image).backward()
    assert image.grad is not None and image.grad.abs().max() < 1e-6


def test_a_student_comes_closer_to_a_fused_teacher_and_holds_nothing_of_it() -> None:
    teacher = Teacher(fused())
    pixels, ids = batch(12)
    torch.manual_seed(1)
    student = build(CONFIG)
    names = set(student.state_dict())

    def gap() -> float:
        with torch.no_grad():
            image, text = student.encode_image(pixels, normalize=True), student.encode_text(ids, normalize=True)
            wanted = teacher(pixels, ids)
            return float(2 - (image * wanted.image).sum(1).mean() - (text * wanted.text).sum(1).mean())

    prepare = Prepare((0.0,) * 3, (1 / 255,) * 3, lambda captions: ids)
    before = gap()
    captions = [str(i) for i in range(12)]
    config = DistilConfig(steps=60, warmup=5, learning_rate=3e-3)
    records = fit_student(student, prepare, iter([(pixels, captions)] * 60), config, teacher)
    assert gap() < before / 3 and records[-1]["loss"] < records[0]["loss"]
    assert set(student.state_dict()) == names


def test_an_interrupted_training_of_fusion_and_student_ends_in_the_same_weights(tmp_path: Path) -> None:
    seen = [batch(6)[0] + i for i in range(8)]

    def stream(done: int, most: int = 8) -> Iterator[Pairs]:
        for i in range(done, most):
            yield Pairs(seen[i], [f"{i} {j}" for j in range(6)], position=(0, 6 * i + 6))

    def trained(folder: Path, most: int = 8) -> tuple[list[torch.Tensor], list[dict[str, Any]]]:
        teacher = fused()
        prepare = Prepare((0.0,) * 3, (1 / 255,) * 3, lambda captions: batch(6)[1])
        config = DistilConfig(steps=8, warmup=2, log_every=2, checkpoint_every=3)
        kept = Kept(folder / "fusion", TOLD)
        told = fit_fusion(teacher, prepare, stream(kept.left()[1]), config, folder / "fusion.jsonl", kept)
        torch.manual_seed(1)
        student = build(CONFIG)
        kept = Kept(folder / "student", TOLD)
        learned = Teacher(teacher)
        batches = stream(kept.left()[1], most)
        told += fit_student(student, prepare, batches, config, learned, folder / "student.jsonl", kept=kept)
        return [*teacher.own_parameters(), *student.parameters()], told

    for name in ("whole", "broken"):
        (tmp_path / name).mkdir()
    whole, records = trained(tmp_path / "whole")
    trained(tmp_path / "broken", most=5)  # its last checkpoint is after three steps
    kept = Kept(tmp_path / "broken" / "student", TOLD)
    assert kept.left() == ([18], 3)
    oftener = kept._replace(settings=TOLD | {"distil": {"checkpoint_every": 2}})
    assert oftener.left() == ([18], 3)
    again, told = trained(tmp_path / "broken")
    assert all(torch.equal(a, b) for a, b in zip(whole, again, strict=True))
    assert [{**r, "seconds": 0} for r in told] == [{**r, "seconds": 0} for r in records]
    with pytest.raises(UsageError, match=r"other settings \(rate: 1, 2.*--fresh"):
        kept._replace(settings=TOLD | {"rate": 2}).left()
    with pytest.raises(UsageError, match="made by 1 ranks and 2 are here"):
        kept._replace(world=World(0, 2, torch.device("cpu"))).left()


@pytest.mark.parametrize("share", [0.1, 0.25, 0.9])
@pytest.mark.parametrize("side", [0, 32])
def test_a_shrunk_model_has_at_most_its_share(share: float, side: int) -> None:
    config = teacher_config("embedded")[1]["model_cfg"]
    teacher, _, _ = model_and_tokenizer(embedded_folder(), "cpu")
    student = build(shrink(teacher, config, share, side))
    assert 0.6 * share * towers(teacher) < parameters(student) <= share * towers(teacher)
    side = side or 64
    assert student.encode_image(torch.zeros(1, 3, side, side)).shape == (1, config["embed_dim"])
    with pytest.raises(UsageError, match="vocabulary alone"):
        shrink(teacher, config, 0.001)
    with pytest.raises(UsageError, match="multiple of 8"):
        shrink(teacher, config, 0.25, 20)


def pairs(n: int) -> tuple[torch.Tensor, list[str], list[Image.Image]]:
    from tuwen.sample_data.world import caption

    world, pictures = scenes(n, 5)
    rng = np.random.default_rng(0)
    captions = [caption(s, rng) for s in world]
    return torch.from_numpy(pictures).permute(0, 3, 1, 2), captions, [Image.fromarray(p) for p in pictures]


def test_a_student_is_trained_exported_quantised_and_searched_with(tmp_path: Path) -> None:
    _, captions, pictures = pairs(8)
    write_shards(tmp_path / "shards", 24, 3)
    out = tmp_path / "student"
    sets = (
        *("student.share=0.05", "student.side=32", "student.fusion_steps=2", "distil.steps=4", "data.batch=8"),
        *("fusion.width=16", "fusion.layers=1", "fusion.candidates=2"),
    )
    words = ("train", "retrieval", tmp_path / "shards", "-o", out, "--student", "embedded", "--json")
    # What a training leaves that was killed before its first checkpoint.
    (out / "checkpoints").mkdir(parents=True)
    (out / "fusion.jsonl").write_text('{"step": 0}\n')
    told = json.loads(here(*words, *(w for s in sets for w in ("--set", s))).stdout)
    assert told["share"] <= 0.05 and told == json.loads((out / "student.json").read_text())
    assert [told["last"][k]["step"] for k in ("fusion", "student")] == [1, 3]
    for name in ("onnx", "int8"):
        check_sums(out / name)
    vectors = []
    for spec in (out, out / "onnx", out / "int8"):
        scorer = load_scorer(str(spec), "cpu", 4)
        vectors.append(np.concatenate([scorer.embed_images(_encoded(pictures[:8])), scorer.embed_texts(captions[:8])]))
    assert np.abs(vectors[0] - vectors[1]).max() < 1e-5
    # Weights that have seen four steps have no room to spare for rounding, and how much it costs differs by processor.
    cosines = (vectors[1] * vectors[2]).sum(1)
    assert 0.75 < cosines.min() < 1 - 1e-6
    for i, data in enumerate(_encoded(pictures[:3])):
        (tmp_path / f"{i}.png").write_bytes(data)
    assert len(search(tmp_path, "猫", str(out / "int8"))["results"]) == 3
    assert "student.share: 0.05, 0.06" in here(*words, "--set", "student.share=0.06", check=False).stderr
    assert "holds no student" in here(*words[:3], "-o", tmp_path, *words[5:], check=False).stderr
    assert "holds no open_clip_config" in here(*words[:5], "--student", tmp_path, check=False).stderr


def _encoded(pictures: list[Image.Image]) -> list[bytes]:
    import io

    made = []
    for picture in pictures:
        buffer = io.BytesIO()
        picture.save(buffer, "PNG")
        made.append(buffer.getvalue())
    return made


def test_quantising_says_what_it_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, captions, pictures = pairs(20)
    told = teacher_config("embedded")[1]
    model, source = tmp_path / "model", tmp_path / "onnx"
    model.mkdir()
    torch.manual_seed(0)
    small = shrink(model_and_tokenizer(embedded_folder(), "cpu")[0], told["model_cfg"], 0.05, 32)
    save(build(small).eval(), small, {**told["preprocess_cfg"], "size": 32}, embedded_folder(), model)
    export_scorer(str(model), source)
    with pytest.raises(UsageError, match="at least 16 of each"):
        quantise(source, tmp_path / "out", pictures[:3], captions)
    with pytest.raises(UsageError, match="no int8 model"):
        quantise(source, model, pictures, captions)
    (tmp_path / "photos").mkdir()
    for i, data in enumerate(_encoded(pictures)):
        (tmp_path / "photos" / f"{i}.png").write_bytes(data)
    (tmp_path / "photos" / "bad.png").write_bytes(b"")
    (tmp_path / "captions.txt").write_text("\n".join(captions))
    words = ("--photos", tmp_path / "photos", "--captions", tmp_path / "captions.txt")
    assert "mean cosine with the original 0.9" in here("quantise", source, "-o", tmp_path / "int8", *words).stdout
    sizes = [(folder / "image.onnx").stat().st_size for folder in (source, tmp_path / "int8")]
    assert sizes[1] < 0.7 * sizes[0]
    monkeypatch.setattr(export_student, "LEAST_COSINE", 1.1)
    with pytest.raises(RunError, match="nothing was kept"):
        quantise(source, tmp_path / "never", pictures, captions)
    assert not (tmp_path / "never").exists()
