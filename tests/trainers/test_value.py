from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from tests.conftest import Finished, here
from tuwen.pipeline.errors import UsageError
from tuwen.sample_data.draw import render
from tuwen.sample_data.faults import encode
from tuwen.sample_data.world import caption, random_scene
from tuwen.trainers.subsets import Verdicts
from tuwen.trainers.value_arms import Arms, Truth
from tuwen.trainers.value_judge import difference, pairs_to_match, student
from tuwen.trainers.value_model import LENGTH, PAD, UNKNOWN, Characters, Yardstick
from tuwen.trainers.value_page import page
from tuwen.trainers.value_pixels import check, gather
from tuwen.trainers.value_points import Budget, Questions, batches, ranks, train
from tuwen.trainers.value_questions import External, external
from tuwen.trainers.value_split import TIES, clusters, hold_out


def frame(*rows: tuple[str, str, str, int]) -> pl.DataFrame:
    """caption, caption as found, page, image hash."""
    schema = {"caption": pl.String, "caption_raw": pl.String, "page_url": pl.String, "phash": pl.UInt64}
    return pl.DataFrame(list(rows), schema=schema, orient="row")


ROWS = frame(
    ("红色的车", "红色的车", "a", 0xFFFF_0000_FFFF_0000),  # 0 to be evaluated on
    ("蓝色的船", "蓝色的船", "b", 0xFFFF_0000_FFFF_0003),  # 1 near copy of 0's image
    ("红色 的车！", "红色 的车！", "c", 0x0F0F_0F0F_0F0F_0F0F),  # 2 its caption
    ("白猫", "白猫", "a", 0x3333_3333_3333_3333),  # 3 its page
    ("一朵花", "红色的车", "d", 0x00FF_00FF_00FF_00FF),  # 4 its caption before it was mended
    ("蓝色的船", "蓝色的船", "e", 0x5555_5555_5555_5555),  # 5 the caption of 1: in two steps
    ("黑狗", "黑狗", "f", 0x1111_2222_4444_8888),  # 6 nothing
    ("大树", "大树", "f", 0x9999_0000_9999_FFFF),  # 7 nothing
    ("小鸟", "小鸟", None, 0x0000_FFFF_1234_4321),  # type: ignore[arg-type]  # 8 nothing, and no page
    ("鱼", "鱼", None, 0x7777_1111_2222_0000),  # type: ignore[arg-type]  # 9 nothing, and no page
)


def test_what_is_tied_to_an_evaluation_pair_is_not_trained_on() -> None:
    seeds = np.arange(10) == 0
    held = hold_out(ROWS, seeds, most=1.0)
    assert np.flatnonzero(held.train).tolist() == [6, 7, 8, 9]
    assert held.evaluable[0]


def test_ties_can_be_chosen() -> None:
    seeds = np.arange(10) == 0
    assert np.flatnonzero(~hold_out(ROWS, seeds, ("image",)).train).tolist() == [0, 1]
    assert np.flatnonzero(~hold_out(ROWS, seeds, ("page",)).train).tolist() == [0, 3]
    assert np.flatnonzero(~hold_out(ROWS, seeds, ("caption",)).train).tolist() == [0, 2, 4]
    with pytest.raises(UsageError, match="--tie pages: expected some of image, caption, page"):
        hold_out(ROWS, seeds, ("pages",))


def test_too_much_held_out_is_an_error_that_says_what_to_do() -> None:
    with pytest.raises(UsageError, match=r"6 of 10 pairs are tied to 1 val and test pairs .* --tie image"):
        hold_out(ROWS, np.arange(10) == 0)
    with pytest.raises(UsageError, match="no val and no test pairs"):
        hold_out(ROWS, np.zeros(10, np.bool_))


def test_a_large_cluster_is_trained_on_and_not_asked_about() -> None:
    many = frame(
        *((f"词{i}" if i > 30 else "点击查看大图", "x", f"p{i}", i * 0x0123_4567_89AB_CDEF % 2**64) for i in range(200))
    )
    many = many.with_columns(caption_raw="caption")
    seeds = np.isin(np.arange(200), [3, 150])
    held = hold_out(many, seeds, ("caption", "page"))
    assert held.train[3] and not held.evaluable[3]
    assert np.flatnonzero(~held.train).tolist() == [150]


def test_evaluation_never_comes_from_clusters_or_pages_that_are_trained_on() -> None:
    """On random pairs with many ties: no cluster, no page and no image on both sides."""
    for seed in range(5):
        rng = np.random.default_rng(seed)
        n = 400
        rows = frame(
            *(
                (f"图{rng.integers(2000)}", f"图{rng.integers(2000)}", f"p{i // 3}", int(rng.integers(2**62)) << 1)
                for i in range(n)
            )
        )
        copies = rng.integers(0, n, 40)
        hashes = rows["phash"].to_numpy().copy()
        hashes[rng.integers(0, n, 40)] = hashes[copies] ^ np.uint64(1 << 5)
        rows = rows.with_columns(phash=pl.Series(hashes))
        held = hold_out(rows, rng.random(n) < 0.04, most=1.0)
        assert held.train.any() and held.evaluable.any()
        assert not (held.train & held.evaluable).any()
        cluster = clusters(rows)
        assert not set(cluster[held.train]) & set(cluster[held.evaluable])
        page_of = rows["page_url"].to_numpy()
        assert not set(page_of[held.train]) & set(page_of[held.evaluable])
        trained, asked = (rows.filter(pl.Series(m)) for m in (held.train, held.evaluable))
        spelled = set(trained["caption"]) | set(trained["caption_raw"])
        assert not spelled & (set(asked["caption"]) | set(asked["caption_raw"]))
        apart = np.bitwise_count(trained["phash"].to_numpy()[:, None] ^ asked["phash"].to_numpy()[None, :])
        assert apart.min() > 4


@pytest.fixture(scope="module")
def verdicts(finished: Finished) -> Verdicts:
    return Verdicts.of(str(finished.run))


def test_the_whole_recipe_gives_the_runs_own_verdicts(verdicts: Verdicts) -> None:
    again = verdicts.under(verdicts.recipe.stages)
    assert (again.kept == verdicts.as_kept).all()
    shipped = verdicts.rows["caption"].filter(pl.Series(verdicts.as_kept))
    assert again.captions.filter(pl.Series(again.kept)).equals(shipped, null_equal=True)


def test_leaving_a_stage_out_is_what_a_replay_without_it_keeps(
    verdicts: Verdicts, finished: Finished, tmp_path: Path
) -> None:
    recipe = tmp_path / "r.yaml"
    names = [s.name for s in verdicts.recipe.stages if s.name not in ("score", "synthetic_captions", "hard_negatives")]
    recipe.write_text("name: less\nstages:\n" + "".join(f"  - {n}\n" for n in names))
    here("replay", finished.run, "-o", tmp_path / "out", "-r", recipe)
    ledger = pl.read_parquet(tmp_path / "out" / "ledger" / "*.parquet").sort("unit", "ordinal")
    ours = verdicts.without("score")
    assert (ours.kept == (ledger["status"] == "kept").to_numpy()).all()
    assert ours.kept.sum() > verdicts.as_kept.sum()


def test_a_stage_alone_drops_what_its_own_reasons_say(verdicts: Verdicts) -> None:
    kept = verdicts.alone("score").kept
    score = next(s for s in verdicts.recipe.stages if s.name == "score")
    low = verdicts.rows.select(pl.any_horizontal(*score.reasons().values()).fill_null(False)).to_series().to_numpy()
    seen = verdicts.rows["score"].is_not_null().to_numpy()
    assert (kept[seen] == ~low[seen]).all()
    assert 0 < low.sum() < len(low)


def test_a_run_that_measured_no_further_cannot_answer(finished: Finished) -> None:
    made = Verdicts.of(str(finished.run))
    short = Verdicts(made.rows, made.recipe, {**made.told, "dropped_too": False})
    with pytest.raises(UsageError, match="--measure-all"):
        short.without("score")


def test_pictures_of_dropped_pairs_come_from_the_parts(finished: Finished, verdicts: Verdicts) -> None:
    pixels, found = gather(str(finished.run), verdicts.rows, verdicts.told, 32)
    assert found[verdicts.as_kept].all()
    dropped = (verdicts.rows["reason"] == "low_score").fill_null(False).to_numpy()
    assert found[dropped].all()
    assert pixels[dropped].std() > 10
    assert not found[(verdicts.rows["status"] == "failed").to_numpy()].any()
    assert check(verdicts.rows, found) == 0


def test_pictures_that_are_gone_are_an_error_that_says_what_keeps_them(finished: Finished, tmp_path: Path) -> None:
    for name in ("ledger", "shards"):
        shutil.copytree(finished.run / name, tmp_path / name)
    made = Verdicts.of(str(finished.run))
    _, found = gather(str(tmp_path), made.rows, made.told, 32)
    assert found.sum() == made.as_kept.sum()  # the shards still have those
    with pytest.raises(UsageError, match=r"are gone: .*--measure-all"):
        check(made.rows, found)


def test_pictures_come_from_the_input_again_where_it_holds_them(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    folder = tmp_path / "in"
    folder.mkdir()
    for i in range(8):
        scene = random_scene(rng)
        (folder / f"{i}.jpg").write_bytes(encode(render(scene, 128 if i % 2 else 64)))  # every other one too small
        (folder / f"{i}.txt").write_text(caption(scene, rng), "utf-8")
    here("run", folder, "-o", tmp_path / "run", "-r", "images", "--json", "-j", "1")
    made = Verdicts.of(str(tmp_path / "run"))
    assert 0 < made.as_kept.sum() < 8 and not made.all_measured
    _, found = gather(str(tmp_path / "run"), made.rows, made.told, 32)
    assert found.all()
    assert check(made.rows, found) == 0


def test_controls_have_the_size_of_what_they_stand_beside(finished: Finished, verdicts: Verdicts) -> None:
    truth = Truth.read(str(finished.sample / "labels.jsonl"), verdicts.rows)
    _, found = gather(str(finished.run), verdicts.rows, verdicts.told, 32)
    arms = Arms(verdicts, found, truth)
    assert arms.oracle is not None
    assert arms.curated.pairs == arms.small.pairs < arms.raw.pairs
    stage = arms.stage("score")
    assert stage.without and stage.without_control and stage.only and stage.only_control
    assert stage.without.pairs == arms.curated.pairs + stage.lone.sum()
    assert stage.without_control.pairs == arms.curated.pairs
    assert stage.only.pairs == stage.only_control.pairs == arms.raw.pairs - stage.dropped
    assert (~truth.right)[stage.lone].mean() > 0.8  # what only the score drops is mostly planted
    one, two = stage.only_control.drawn(0), stage.only_control.drawn(1)
    assert len(one[0]) == len(one[1]) == stage.only_control.pairs
    assert one[0].tolist() == stage.only_control.drawn(0)[0].tolist() != two[0].tolist()
    assert set(one[0]) <= set(arms.raw.rows)
    quiet = arms.stage("rank_rule") if "rank_rule" in verdicts.filters() else arms.stage("sensitive")
    assert quiet.lone.sum() >= 0.02 * arms.curated.pairs or quiet.without is None


def test_raw_trains_on_captions_as_found_and_mended_on_those_that_ship(finished: Finished, verdicts: Verdicts) -> None:
    _, found = gather(str(finished.run), verdicts.rows, verdicts.told, 32)
    arms = Arms(verdicts, found)
    assert arms.raw.rows.tolist() == arms.mended.rows.tolist()
    changed = [(a, b) for a, b in zip(arms.raw.captions, arms.mended.captions, strict=True) if a != b]
    assert any("视觉中国" in a and "视觉中国" not in b for a, b in changed)
    styles = {a.name: a for a in arms.styles()}
    assert styles["both"].pairs == 2 * styles["original"].pairs == 2 * styles["synthetic"].pairs
    assert styles["synthetic"].captions != styles["original"].captions


def test_every_pair_is_seen_as_often_as_any_other() -> None:
    images, captions = torch.zeros(5, 3, 2, 2, dtype=torch.uint8), [f"{i}" for i in range(5)]
    stream = batches(images, captions, 4, 0)
    seen = [c for _ in range(5) for c in next(stream)[1]]
    assert sorted(seen) == sorted(captions * 4)


def test_a_right_answer_that_ties_is_not_found_and_shared_captions_are_all_right() -> None:
    flat = np.zeros((3, 3), np.float32)
    assert ranks(flat, np.arange(3)).tolist() == [2] * 6  # says the same of everything: last
    assert ranks(np.eye(3, dtype=np.float32), np.arange(3)).tolist() == [0] * 6
    swapped = np.eye(3, dtype=np.float32)[[1, 0, 2]]  # each finds the other, which shows the same caption
    assert ranks(swapped, np.array([7, 7, 8])).tolist() == [0] * 6
    assert ranks(swapped, np.arange(3)).tolist() == [2, 2, 0, 2, 2, 0]


def test_characters_are_padded_and_cut() -> None:
    words = Characters(["红车", "红猫"])
    tokens = words(["红车", "马", "红" * 99, ""])
    assert tokens.shape == (4, LENGTH)
    assert tokens[0, 2:].eq(PAD).all() and tokens[1, 0] == UNKNOWN == tokens[3, 0]
    model = Yardstick(len(words)).eval()
    # Padding changes nothing.
    assert torch.allclose(model.encode_text(words(["红车"])), model.encode_text(tokens[:1]), atol=1e-5)


def test_a_training_is_the_same_again_and_learns() -> None:
    rng = np.random.default_rng(0)
    images = torch.from_numpy(rng.integers(0, 256, (24, 3, 1, 1), np.uint8)).expand(24, 3, 32, 32).contiguous()
    captions = [chr(0x4E00 + i) for i in range(24)]
    asked = Questions(images, {"original": captions})
    budget = Budget(steps=40, batch=24)
    one, two = (train(images, captions, Characters(captions), asked, budget, seed=1) for _ in range(2))
    assert one.answers["original"].ranks.tolist() == two.answers["original"].ranks.tolist()
    assert one.answers["original"].recall(5) > 0.8
    other = train(images, captions, Characters(captions), asked, budget, seed=2)
    assert one.loss != other.loss


def test_a_difference_is_proven_from_twice_its_spread_on() -> None:
    rng = np.random.default_rng(0)

    def asked(share: float) -> np.ndarray[tuple[int], np.dtype[np.int32]]:
        return (rng.random(400) > share).astype(np.int32)

    clear = difference([asked(0.7) for _ in range(3)], [asked(0.3) for _ in range(3)])
    assert clear.proven and clear.low > 0.2 and clear.high < 0.6 and clear.describe()["verdict"] == "gain"
    same = difference([asked(0.5) for _ in range(3)], [asked(0.5) for _ in range(3)])
    assert not same.proven and same.describe()["verdict"] == "unproven"
    assert difference([asked(0.1)] * 3, [asked(0.9)] * 3).describe()["verdict"] == "loss"


def test_one_seed_proves_nothing() -> None:
    alone = difference([np.zeros(50, np.int32)], [np.ones(50, np.int32)])
    assert alone.mean == 1 and not alone.proven
    assert alone.describe()["low"] is None
    with pytest.raises(ValueError, match="1 and 0 trainings"):
        difference([np.zeros(2, np.int32)], [])


def test_seeds_that_disagree_widen_the_spread() -> None:
    better, worse = np.zeros(1000, np.int32), np.ones(1000, np.int32)
    wild = difference([better, worse, better], [worse, better, worse])
    assert wild.mean == pytest.approx(1 / 3)
    assert wild.spread > 1 and not wild.proven


def test_students_quantiles() -> None:
    for freedom, known in ((1, 12.706), (2, 4.303), (11, 2.201), (20, 2.086), (100, 1.984)):  # from the tables
        assert student(freedom) == pytest.approx(known, rel=2e-3)
    assert student(0) == float("inf")


def test_pairs_to_match_lie_between_measured_sizes() -> None:
    sizes, recalls = [100, 200, 400], [0.1, 0.2, 0.4]
    assert pairs_to_match(sizes, recalls, 0.05) == 100
    assert pairs_to_match(sizes, recalls, 0.4) == pytest.approx(400)
    assert pairs_to_match(sizes, recalls, 0.3) == pytest.approx(200 * 2**0.5)
    assert pairs_to_match(sizes, recalls, 0.5) is None


@pytest.fixture
def copied(finished: Finished, tmp_path: Path) -> Path:
    """The finished run, to write into."""
    return Path(shutil.copytree(finished.run, tmp_path / "run", ignore=shutil.ignore_patterns("shards")))


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pairs to evaluate on, as a folder of images with captions."""
    folder = tmp_path_factory.mktemp("elsewhere")
    rng = np.random.default_rng(77)
    for i in range(80):
        scene = random_scene(rng)
        (folder / f"{i}.jpg").write_bytes(encode(render(scene, 96)))
        (folder / f"{i}.txt").write_text(caption(scene, rng), "utf-8")
    return folder


def test_the_command_tells_what_the_data_is_worth(finished: Finished, copied: Path, elsewhere: Path) -> None:
    given = ("value", copied, "--truth", finished.sample / "labels.jsonl", "--eval", elsewhere, "--steps", "2")
    words = (*given, "--batch", "16", "--seeds", "2", "--part", "main", "--part", "stages")
    told = json.loads(here(*words, "--json").stdout)
    assert [a["arm"] for a in told["main"]["arms"]] == ["raw", "raw, as few", "mended", "curated", "oracle"]
    assert told["main"]["verdict"].startswith("INVALID")  # two steps teach nothing, and it says so
    score = next(s for s in told["stages"] if s["stage"] == "score")
    assert score["leave_out"]["random"]["pairs"] == told["main"]["arms"][3]["pairs"]
    assert score["planted_share"] > 0.8 and score["seconds"] > 0
    written = (copied / "value.html").read_text("utf-8")
    assert not re.search(r'(src|href)="http', written) and "prefers-color-scheme:dark" in written
    assert json.loads((copied / "value.json").read_text("utf-8")) == told
    assert '"worth":{"samples":32,' in (copied / "report.html").read_text("utf-8")  # the report was written anew
    before = {p.name: p.stat().st_mtime_ns for p in (copied / "value-points").iterdir()}
    printed = here(*words).stdout  # nothing is trained again
    assert {p.name: p.stat().st_mtime_ns for p in (copied / "value-points").iterdir()} == before
    assert "curated better by" in printed and "INVALID" in printed
    refused = here(*words, "--part", "stage", check=False)
    assert refused.returncode == 2 and "--part stage: expected some of main, sizes, stages, style" in refused.stderr


def test_too_few_questions_are_an_error_that_says_what_to_do(copied: Path) -> None:
    refused = here("value", copied, check=False)
    assert refused.returncode == 2
    assert re.search(r"\d+ held-out pairs to evaluate on; at least 50 are needed.*split.test", refused.stderr, re.S)


def test_pairs_from_elsewhere_that_are_trained_on_are_not_asked(verdicts: Verdicts, elsewhere: Path) -> None:
    outside = external(str(elsewhere), 32)
    trainable = verdicts.as_kept
    assert len(outside.apart_from(verdicts.rows, trainable, TIES, 999).images) > 50
    one = verdicts.rows.filter(pl.Series(trainable))["caption"][0]
    known = outside.rows.with_columns(
        caption_raw=pl.when(pl.int_range(pl.len()) < 9).then(pl.lit(one)).otherwise("caption_raw")
    )
    asked = External("x", known, outside.pixels).apart_from(verdicts.rows, trainable, TIES, 999)
    assert one not in asked.captions["original"]
    same = outside.rows.with_columns(phash=pl.lit(verdicts.rows.filter(pl.Series(trainable))["phash"][0], pl.UInt64))
    with pytest.raises(UsageError, match="0 of its 80 pairs"):
        External("x", same, outside.pixels).apart_from(verdicts.rows, trainable, TIES, 999)


def test_the_page_escapes_what_came_from_elsewhere() -> None:
    gain = {"mean": 0.1, "spread": 0.01, "low": 0.05, "high": 0.15, "verdict": "gain"}
    evil = "<script>alert(1)</script>"
    arm = {"arm": evil, "pairs": 10, "r1": 0.1, "r1_by_seed": [0.1], "r5": 0.2, "median_rank": 3.0}
    told = {
        "settings": {"steps": 1, "batch": 2, "seeds": 1},
        "samples_seen": 2,
        "questions": 50,
        "chance": 0.02,
        "ties": ["image"],
        "held_out": 5,
        "notes": [evil],
        "main": {
            "arms": [arm],
            "curated_less": {evil: gain},
            "ceiling_less_raw": gain,
            "ratio": 2.0,
            "pairs_share": 0.4,
            "verdict": "gain",
        },
        "stages": [
            {
                "stage": evil,
                "dropped_alone": 3,
                "only_it_drops": 2,
                "seconds": None,
                "leave_out": {"gain": gain, "over_random": gain},
            }
        ],
        "sizes": {
            "curves": {evil: [arm, {**arm, "pairs": 20}]},
            "pairs_to_match_raw": 5,
            "at_most": True,
            "raw_pairs": 9,
        },
        "diversity": {"sets": [{"arm": evil, "pairs": 3}], "concepts_of": evil, "scores": {}},
    }
    made = page(told)
    assert "<script" not in made
    assert made.count("&lt;script&gt;") >= 6
