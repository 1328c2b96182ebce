from __future__ import annotations

import json
import tarfile
from pathlib import Path

import cv2
import numpy as np
import polars as pl

from tests.conftest import Finished, here


def photograph(seed: int = 0, side: int = 200) -> bytes:
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 255, (8, 8, 3), dtype=np.uint8)
    return cv2.imencode(".jpg", cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC))[1].tobytes()


def test_stages_lists_every_stage_and_describes_one() -> None:
    told = json.loads(here("stages", "--json").stdout)
    assert {"normalise", "score", "pair_duplicates", "hard_negatives"} <= {s["name"] for s in told}
    for stage in told:
        assert stage["about"]
        assert all(field["about"] for field in stage["fields"]), stage["name"]
    one = here("stages", "decode").stdout
    assert "shorter_side = 100 [threshold]" in one
    assert "image_bomb" in one
    wrong = here("stages", "decod", check=False)
    assert wrong.returncode == 2
    assert "Did you mean 'decode'" in wrong.stderr


def test_report_is_rewritten_and_the_funnel_printed(finished: Finished) -> None:
    page = finished.run / "report.html"
    page.unlink()
    printed = here("report", finished.run).stdout
    assert page.stat().st_size > 50_000
    assert "low_score" in printed
    assert f"{finished.told['counts']['inputs']} pairs" in printed
    assert "No real detector" in printed


def test_wrong_usage_has_its_exit_codes(tmp_path: Path) -> None:
    missing = here("run", tmp_path / "nowhere", "-o", tmp_path / "o", check=False)
    assert missing.returncode == 3
    assert "nowhere" in missing.stderr
    (tmp_path / "empty").mkdir()
    empty = here("run", tmp_path / "empty", "-o", tmp_path / "o", check=False)
    assert empty.returncode == 3
    assert "empty" in empty.stderr
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("keep me")
    (tmp_path / "in.jsonl").write_text('{"url": "http://a.invalid/x.jpg", "caption": "红色的车"}\n')
    taken = here("run", tmp_path / "in.jsonl", "-o", tmp_path / "full", check=False)
    assert taken.returncode == 2
    assert "not empty" in taken.stderr
    assert (tmp_path / "full" / "mine.txt").read_text() == "keep me"
    recipe = here("run", tmp_path / "in.jsonl", "-o", tmp_path / "o", "-r", "nope", check=False)
    assert recipe.returncode == 2
    assert "Traceback" not in missing.stderr + empty.stderr + taken.stderr + recipe.stderr


def test_bad_input_is_counted_and_the_rest_goes_on(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for i in range(3):
        (folder / f"good{i}.jpg").write_bytes(photograph(i))
        (folder / f"good{i}.txt").write_text(f"第{i}张照片里有一片彩色的云")
    (folder / "huge.jpg").write_bytes(photograph(9))
    (folder / "huge.txt").write_text("红色的车" * 300_000)
    (folder / "nul.jpg").write_bytes(photograph(10))
    (folder / "nul.txt").write_bytes("红色\0的车停在路边\ud800".encode("utf-8", "surrogatepass"))
    (folder / "bomb.png").write_bytes(bomb())
    (folder / "bomb.txt").write_text("一张很大很大的照片")
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "empty.txt").write_text("什么也没有的照片")
    table = tmp_path / "pairs.jsonl"
    lines = [
        '{"url": "http:///nohost.jpg", "caption": "没有主机的地址"}',
        "{not json",
        '{"url": "http://x.invalid/a.jpg"}',
    ]
    table.write_text("\n".join(lines) + "\n")
    climbing = tmp_path / "climb.tar"
    with tarfile.open(climbing, "w") as tar:
        tar.add(folder / "good0.jpg", "../../etc/passwd.jpg")
    out = tmp_path / "out"
    told = json.loads(
        here(
            "run", folder, table, climbing, "-o", out, "-r", "photos", "--set", "fetch.retries=0", "-j", "1", "--json"
        ).stdout
    )
    counts = told["counts"]
    assert counts["inputs"] == counts["kept"] + counts["dropped"] + counts["failed"] == 11
    rows = pl.read_parquet(out / "ledger" / "*.parquet")
    reasons = dict(rows.select(pl.col("origin").str.split("#").list.first(), "reason").rows())
    assert reasons["huge.jpg"] == "caption_too_long"
    assert reasons["bomb.png"] == "image_bomb"
    assert reasons["empty.jpg"] == "image_empty"
    assert {"bad_url", "bad_line", "caption_missing", "bad_member"} <= set(rows["reason"])
    assert rows.filter(pl.col("origin").str.starts_with("nul.jpg"))["caption_raw"].str.contains("\ufffd").all()
    assert rows.filter(pl.col("status") == "failed")["detail"].null_count() == 0


def bomb() -> bytes:
    """A PNG of a few hundred bytes that claims 30,000 x 30,000 pixels."""
    import zlib

    def chunk(name: bytes, body: bytes) -> bytes:
        return len(body).to_bytes(4, "big") + name + body + zlib.crc32(name + body).to_bytes(4, "big")

    head = (30000).to_bytes(4, "big") * 2 + b"\x08\x02\0\0\0"
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")
