"""What the image stages make of hostile files: verdicts, seconds, and the most memory that any process took.

    python benchmarks/hostile_images.py [--data FOLDER] [--check]

The files are made on the spot: bombs of every format, files cut at every tenth, huge metadata, extreme shapes,
animations, files that are two things at once, drawings that ask for other files. One process makes them, another
sends them through decode, overlays, image safety and JPEG in batches; every file has to end kept, dropped or failed,
with one of the reasons that are right for it. ``--data`` adds a folder of any files, for which every verdict is right.
``--check`` exits with 1 where a verdict is wrong, a file is lost or memory passes its limit.
"""

from __future__ import annotations

import argparse
import gzip
import io
import multiprocessing
import platform
import resource
import struct
import tempfile
import time
import zlib
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, features

KINDS = {
    "jpeg": "JPEG",
    "png": "PNG",
    "gif": "GIF",
    "webp": "WEBP",
    "bmp": "BMP",
    "tiff": "TIFF",
    "avif": "AVIF",
    "jp2": "JPEG2000",
    "ico": "ICO",
    "heif": "HEIF",
}
KEPT = "kept"
BAD = frozenset(("image_corrupt", "image_unsupported", "image_bomb"))
WORKER_LIMIT = 600 << 20
"""Bytes: a batch of 64 views is 50 MB, decoding in the worker may take 256 MB, libraries and files the rest."""


class Hostile(NamedTuple):
    """A file and the verdicts (a reason, or kept) that are right for it."""

    group: str
    name: str
    right: frozenset[str]
    data: bytes


def picture(width: int = 320, height: int = 240) -> Image.Image:
    """Smooth patches with grain."""
    rng = np.random.default_rng(5)
    small = Image.fromarray(rng.integers(0, 255, (6, 8, 3), dtype=np.uint8))
    big = np.asarray(small.resize((width, height), Image.Resampling.BICUBIC), np.int16)
    return Image.fromarray(np.clip(big + rng.integers(-8, 8, big.shape), 0, 255).astype(np.uint8))


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    """The file in a format of ``KINDS``."""
    out = io.BytesIO()
    image.save(out, KINDS[kind], **options)
    return out.getvalue()


@cache
def kinds() -> tuple[str, ...]:
    """Those that can be written here."""
    try:
        import pillow_heif
    except ImportError:
        heif = False
    else:
        heif = True
        pillow_heif.register_heif_opener()
    return tuple(k for k in KINDS if {"avif": features.check("avif"), "heif": heif}.get(k, True))


def chunk(kind: bytes, body: bytes) -> bytes:
    """A PNG chunk with its checksum."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width: int, height: int, rows: bytes, *between: bytes) -> bytes:
    """A grey PNG of any claim; ``rows`` is its packed data."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(between) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def zeros(size: int) -> bytes:
    """``size`` zero bytes as a zlib stream, made in pieces."""
    packer = zlib.compressobj(9)
    return b"".join(packer.compress(bytes(1 << 20)) for _ in range(size >> 20)) + packer.flush()


def patched(data: bytes, mark: bytes, offset: int, value: bytes) -> bytes:
    """``data`` with ``value`` at ``offset`` behind the first ``mark``."""
    at = data.index(mark) + offset
    return data[:at] + value + data[at + len(value) :]


def bombs() -> Iterator[Hostile]:
    """Small files that claim or hold very much."""
    bomb, plain, wide = frozenset(("image_bomb",)), picture(), struct.pack("<HH", 60_000, 60_000)

    def one(name: str, data: bytes, *right: str) -> Hostile:
        return Hostile("bombs", name, frozenset(right) or bomb, data)

    yield one("png that claims 900 megapixels", png(30_000, 30_000, zeros(1 << 20)))
    yield one("jpeg that claims 3,600 megapixels", patched(saved(plain, "jpeg"), b"\xff\xc0", 5, wide[::-1]))
    yield one("jpeg of 5,000 scans", scans(saved(plain, "jpeg", progressive=True), 5_000))
    yield one("gif that claims 3,600 megapixels", patched(saved(plain, "gif"), b"GIF8", 6, wide), *BAD)
    yield one("webp of 268 megapixels", patched(saved(plain, "webp"), b"\x9d\x01\x2a", 3, b"\xff\x3f\xff\x3f"))
    yield one(
        "bmp that claims 3,600 megapixels", patched(saved(plain, "bmp"), b"BM", 18, struct.pack("<ii", 60_000, 60_000))
    )
    tiff, long = saved(plain, "tiff"), struct.pack("<I", 60_000)
    wide_tiff = patched(tiff, b"\x00\x01\x04\x00\x01\x00", 8, long)
    huge = patched(wide_tiff, b"\x01\x01\x04\x00\x01\x00", 8, long)
    yield one("tiff that claims 3,600 megapixels", huge)
    start = struct.unpack_from("<I", tiff, 4)[0]
    end = start + 2 + 12 * struct.unpack_from("<H", tiff, start)[0]
    yield one(
        "tiff whose directory follows itself",
        tiff[:end] + struct.pack("<I", start) + tiff[end + 4 :],
        KEPT,
        "image_animated",
        *BAD,
    )
    yield one(
        "jp2 that claims 3,600 megapixels",
        patched(saved(plain, "jp2"), b"ihdr", 4, struct.pack(">II", 60_000, 60_000)),
        *BAD,
    )
    for kind in [k for k in ("avif", "heif") if k in kinds()]:
        yield one(
            f"{kind} that claims 3,600 megapixels",
            patched(saved(plain, kind), b"ispe", 8, struct.pack(">II", 60_000, 60_000)),
            *BAD,
        )
    inside = png(30_000, 30_000, zeros(1 << 20))
    icon = struct.pack("<HHHBBBBHHII", 0, 1, 1, 0, 0, 0, 0, 1, 32, len(inside), 22) + inside
    yield one("ico around a png bomb", icon, *BAD)
    laughs = b'<!DOCTYPE s [<!ENTITY a "ha"><!ENTITY b "' + b"&a;" * 1000 + b'">]><svg>' + b"&b;" * 1000 + b"</svg>"
    yield one("svg of a billion laughs", laughs, "image_unsupported")


def heavy() -> Iterator[Hostile]:
    """Small files that really hold what they claim."""
    may, no = frozenset((KEPT,)) | BAD, frozenset(("image_unsupported",))
    big = png(65_000, 62_000, zeros(1 << 30))
    yield Hostile("heavy bombs", "png of 4,000 megapixels in 1 MB", frozenset(("image_bomb",)), big)
    yield Hostile("heavy bombs", "png of 62 megapixels of nothing", may, png(7_900, 7_900, zeros(63 << 20)))
    grey, fax = Image.new("L", (8_000, 7_900), 128), Image.new("1", (8_000, 7_900))
    yield Hostile("heavy bombs", "progressive jpeg of 63 megapixels", may, saved(grey, "jpeg", progressive=True))
    yield Hostile("heavy bombs", "tiff of 63 megapixels", may, saved(fax, "tiff", compression="group4"))
    yield Hostile("heavy bombs", "gif of 63 megapixels", may, saved(grey, "gif"))
    yield Hostile("heavy bombs", "webp of 63 megapixels", may, saved(grey.convert("RGB"), "webp", method=0))
    yield Hostile("heavy bombs", "gzip of zeros", no, gzip.compress(bytes(64 << 20)))


def scans(data: bytes, count: int) -> bytes:
    """A progressive JPEG whose last scan is there ``count`` times more."""
    last = data.rindex(b"\xff\xda")
    return data[:-2] + data[last:-2] * count + data[-2:]


def cut() -> Iterator[Hostile]:
    """Every format cut at every tenth; a JPEG 2000 is a coarser picture when cut, by design."""
    for kind in kinds():
        whole = saved(picture(), kind, **({"sizes": [(128, 128)]} if kind == "ico" else {}))
        for tenth in range(1, 10):
            right = BAD - {"image_bomb"} | ({KEPT} if kind == "jp2" and tenth > 2 else set())
            yield Hostile("cut at tenths", f"{kind} at {tenth}0 %", right, whole[: len(whole) * tenth // 10])


def metadata(unpacked: int = 512 << 20) -> Iterator[Hostile]:
    """Much that is no picture around one that is fine; chunks that inflate to ``unpacked`` bytes."""
    kept, jpeg, plain = frozenset((KEPT,)), saved(picture(), "jpeg"), saved(picture(), "png")
    segment = b"\xff\xe1\xff\xff" + b"http://ns.adobe.com/xap/1.0/\0" + b"x" * (65_533 - 29)
    yield Hostile("huge metadata", "jpeg with 13 MB of XMP", kept, jpeg[:2] + segment * 200 + jpeg[2:])
    yield Hostile(
        "huge metadata", "jpeg with 100,000 comments", kept, jpeg[:2] + b"\xff\xfe\0\4hi" * 100_000 + jpeg[2:]
    )
    yield Hostile("huge metadata", "jpeg with 20 MB behind its end", kept, jpeg + bytes(20 << 20))
    yield Hostile("huge metadata", "jpeg of a million fill bytes", kept, jpeg[:2] + b"\xff" * 1_000_000 + jpeg[2:])
    packed = zeros(unpacked)
    for name, body in {
        "zTXt": chunk(b"zTXt", b"k\0\0" + packed),
        "iTXt": chunk(b"iTXt", b"k\0\1\0\0\0" + packed),
        "iCCP": chunk(b"iCCP", b"k\0\0" + packed),
        "nested zTXt": chunk(b"zTXt", b"k\0\0" + zlib.compress(packed)),
        "20,000 tEXt": chunk(b"tEXt", b"k\0v") * 20_000,
        "eXIf of 5 MB": chunk(b"eXIf", b"II*\0" + bytes(5 << 20)),
    }.items():
        yield Hostile("huge metadata", f"png with {name}", kept, plain[:33] + body + plain[33:])
    webp = saved(picture(), "webp", exif=b"Exif\0\0II*\0" + bytes(5 << 20))
    yield Hostile("huge metadata", "webp with 5 MB of EXIF", kept, webp)


def shapes() -> Iterator[Hostile]:
    """One pixel wide, or none."""
    small = frozenset(("image_too_small",))
    for kind in kinds():
        if kind in ("ico", "heif"):  # their encoders take no such size
            continue
        side = {"webp": 16_000, "avif": 16_000}.get(kind, 65_000)
        for size in ((1, side), (side, 1)):
            yield Hostile(
                "1 x 65,000",
                f"{kind} of {size[0]} x {size[1]}",
                small | BAD,
                saved(Image.new("L" if kind != "webp" else "RGB", size), kind),
            )
    yield Hostile("1 x 65,000", "png of 0 x 10", BAD, png(0, 10, zlib.compress(b"")))


def motion() -> Iterator[Hostile]:
    """Moving pictures, some of very many frames."""
    moves = frozenset(("image_animated",))
    frames = [picture(200 + i, 200).crop((i, 0, 200 + i, 200)) for i in range(5)]
    for kind in ("gif", "png", "webp", *(["avif"] if "avif" in kinds() else [])):
        data = saved(frames[0], kind, save_all=True, append_images=frames[1:], duration=50)
        yield Hostile("animations", f"{kind} of 5 frames", moves, data)
    tiny = [Image.new("L", (120, 120), n * 37 % 251) for n in range(500)]
    yield Hostile(
        "animations",
        "gif of 500 frames",
        moves,
        saved(tiny[0], "gif", save_all=True, append_images=tiny[1:], duration=10),
    )
    still = saved(frames[0], "png")
    many = still[:33] + chunk(b"acTL", struct.pack(">II", 2**31 - 1, 0)) + still[33:]
    yield Hostile("animations", "png that claims 2**31 frames", moves, many)


def doubles() -> Iterator[Hostile]:
    """Two things at once, or nothing at all."""
    kept, no = frozenset((KEPT,)), BAD - {"image_bomb"}
    jpeg, page = saved(picture(), "jpeg"), b"<html><script>alert(1)</script></html>"
    archive = b"PK\x03\x04" + bytes(26) + b"PK\x05\x06" + bytes(18)
    for name, right, data in (
        ("nothing", no, b""),
        ("one byte", no, b"\xff"),
        ("jpeg signature alone", no, b"\xff\xd8\xff"),
        ("png signature alone", no, b"\x89PNG\r\n\x1a\n"),
        ("jpeg and zip", kept, jpeg + archive),
        ("zip and jpeg", no, archive + jpeg),
        (
            "jpeg with a script in a comment",
            kept,
            jpeg[:2] + b"\xff\xfe" + struct.pack(">H", len(page) + 2) + page + jpeg[2:],
        ),
        ("png and page", kept, saved(picture(), "png") + page),
        ("page and png", no, page + saved(picture(), "png")),
        ("gif that is a script", no | {"image_too_small"}, b"GIF89a/*" + bytes(20) + b"*/=1;alert(1)"),
        ("pdf and jpeg", no, b"%PDF-1.4\n" + jpeg),
        ("two jpegs", kept, jpeg + jpeg),
        ("webp in a riff of wrong size", no, patched(saved(picture(), "webp"), b"RIFF", 4, struct.pack("<I", 2**31))),
        (
            "svg that asks for a file",
            no,
            b'<svg xmlns:x="http://www.w3.org/1999/xlink"><image x:href="file:///etc/passwd"/></svg>',
        ),
        ("svg with an outside entity", no, b'<!DOCTYPE s [<!ENTITY x SYSTEM "http://127.0.0.1/x">]><svg>&x;</svg>'),
        ("postscript", no, b"%!PS-Adobe-3.0 EPSF-3.0\n(%pipe%id) (w) file"),
        (
            "bmp of a negative size",
            BAD | {KEPT},
            patched(saved(picture(), "bmp"), b"BM", 18, struct.pack("<ii", -320, -240)),
        ),
        ("text", no, "图片不存在".encode()),
    ):
        yield Hostile("doubles and nothings", name, frozenset(right), data)


GROUPS = (bombs, heavy, cut, metadata, shapes, motion, doubles)


def write(folder: str, data: str | None) -> None:
    """Every hostile file into ``folder``, with an index; runs in a process of its own."""
    rows = [(h.group, h.name, sorted(h.right), h.data) for group in GROUPS for h in group()]
    if data:
        found = sorted(p for p in Path(data).rglob("*") if p.is_file())
        rows += [("given files", str(p.relative_to(data)), ["*"], p.read_bytes()) for p in found]
    with Path(folder, "index.tsv").open("w", encoding="utf-8") as index:
        for number, (group, name, right, content) in enumerate(rows):
            Path(folder, f"{number:05d}.jpg").write_bytes(content)
            index.write(f"{group}\t{name}\t{','.join(right)}\n")


def work(folder: str, out: Any) -> None:
    """All files through the image stages, one batch each so that their seconds are known; runs in its own process."""
    import polars as pl

    from tuwen.filters import isolated
    from tuwen.filters.decode import Decode
    from tuwen.filters.image_safety import ImageSafety
    from tuwen.filters.jpeg import Jpeg
    from tuwen.filters.overlays import Overlays
    from tuwen.pipeline.stage import Tally, apply_stage

    stages = (Decode(max_aspect=100), Overlays(), ImageSafety(), Jpeg())
    for number, line in enumerate(Path(folder, "index.tsv").read_text("utf-8").splitlines()):
        group, name, right = line.split("\t")
        rows = pl.DataFrame({"key": [str(number)], "image": [Path(folder, f"{number:05d}.jpg").read_bytes()]})
        started = time.perf_counter()
        for stage in stages:
            rows = apply_stage(stage, rows, Tally())
        verdict = rows["reason"][0] or KEPT
        shipped = rows["image"][0] if verdict == KEPT and rows.height == 1 else None
        out.put(
            (group, name, right.split(","), verdict, rows.height, len(shipped or b""), time.perf_counter() - started)
        )
    isolated.shared().close()
    own, child = (resource.getrusage(who).ru_maxrss << 10 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    out.put((own, child))


def run(folder: str, data: str | None) -> tuple[list[tuple[Any, ...]], int, int]:
    """Rows of (group, name, right, verdict, rows, bytes shipped, seconds), and the peaks of worker and child."""
    context = multiprocessing.get_context("spawn")
    maker = context.Process(target=write, args=(folder, data))
    maker.start()
    maker.join()
    if maker.exitcode:
        raise SystemExit("the hostile files could not be made")
    out = context.SimpleQueue()
    worker = context.Process(target=work, args=(folder, out))
    worker.start()
    rows: list[tuple[Any, ...]] = []
    while True:
        found = out.get() if worker.is_alive() or not out.empty() else None
        if found is None:
            raise SystemExit(f"the worker died (exit status {worker.exitcode}) after {rows[-1] if rows else 'nothing'}")
        if len(found) == 2:
            worker.join()
            return rows, *found
        rows.append(found)


def main() -> None:
    """Make, run, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="folder of further files")
    parser.add_argument("--check", action="store_true", help="exit with 1 where something is wrong")
    chosen = parser.parse_args()
    from tuwen.filters.isolated import MEMORY

    with tempfile.TemporaryDirectory() as folder:
        rows, own, child = run(folder, chosen.data)
    print(f"{platform.machine()}, Python {platform.python_version()}, Pillow {Image.__version__}")
    print(f"{'group':22}{'files':>6}{'wrong':>7}{'slowest':>9}  verdicts")
    wrong = 0
    for group in dict.fromkeys(row[0] for row in rows):
        mine = [row for row in rows if row[0] == group]
        bad = [r for r in mine if r[4] != 1 or (r[2] != ["*"] and r[3] not in r[2]) or (r[3] == KEPT and not r[5])]
        counts = ", ".join(f"{word} {n}" for word, n in Counter(r[3] for r in mine).most_common())
        slowest = max(mine, key=lambda r: r[6])
        print(f"{group:22}{len(mine):6}{len(bad):7}{slowest[6]:8.2f}s  {counts}; slowest: {slowest[1]}")
        for row in bad:
            print(f"  wrong: {row[1]}: {row[3]}, expected {' or '.join(row[2])}")
        wrong += len(bad)
    over = own > WORKER_LIMIT or child > MEMORY
    for name, peak, limit in (("worker", own, WORKER_LIMIT), ("isolated decoder", child, MEMORY)):
        print(f"most memory of the {name}: {peak >> 20} MiB (limit {limit >> 20})")
    if chosen.check and (wrong or over):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
