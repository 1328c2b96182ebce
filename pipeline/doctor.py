"""Is this machine fit for a run? Versions, accelerators, models, disk, and a small run of the main job."""

from __future__ import annotations

import importlib
import os
import platform
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

from .. import __version__
from .errors import TuwenError

NEEDED = (
    *("apache-beam", "polars", "pyarrow", "torch", "open_clip_torch", "onnxruntime", "opencv-python-headless"),
    *("transformers", "pycurl", "selectolax", "fastwarc", "rjieba", "opencc", "pydantic"),
)
IMPORTED = ("apache_beam", "polars", "torch", "open_clip", "onnxruntime", "cv2", "pycurl", "selectolax", "rjieba")
"""What is really imported: a library may be installed and yet not load (a shared library that is missing)."""
OPTIONAL = {
    "scrapy": "curate crawl needs it: pip install 'tuwen[crawl]'",
    "img2dataset": "curate run --fetch-with img2dataset needs it: pip install 'tuwen[img2dataset]'",
    "pillow-heif": "HEIC pictures need it: pip install 'tuwen[heif]'",
    "nudenet": "a detector of unsafe pictures: --set image_safety.detector=nudenet",
}
LITTLE_DISK = 5 * 2**30
LITTLE_MEMORY = 4 * 2**30
PAIRS = 10


@dataclass(frozen=True)
class Check:
    """One thing looked at: ``ok``, worth a ``note``, or ``broken``; ``todo`` says what to do."""

    name: str
    state: Literal["ok", "note", "broken"]
    said: str
    todo: str = ""

    def describe(self) -> dict[str, str]:
        """The same as plain values."""
        return asdict(self)


def checks(folder: str = ".", self_test: bool = True) -> Iterator[Check]:
    """Everything, the quick things first; ``folder`` is where a run would be written."""
    yield Check("tuwen", "ok", f"{__version__}, Python {platform.python_version()}, {platform.platform()}")
    yield libraries()
    yield from extras()
    yield java()
    yield accelerator()
    yield from models()
    yield disk(folder)
    yield memory()
    if self_test:
        yield small_run()


def libraries() -> Check:
    """Versions of what tuwen needs, each loaded."""
    held, wrong = [], []
    for name in NEEDED:
        try:
            held.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            wrong.append(f"{name} is not installed")
    for module in IMPORTED:
        try:
            importlib.import_module(module)
        except Exception as error:  # a broken shared library may raise anything
            wrong.append(f"{module} does not load: {type(error).__name__}: {error}")
    if wrong:
        return Check("libraries", "broken", "; ".join(wrong), "install tuwen anew in a fresh environment")
    return Check("libraries", "ok", ", ".join(held))


def extras() -> Iterator[Check]:
    """Optional libraries."""
    for name, use in OPTIONAL.items():
        try:
            yield Check(name, "ok", version(name))
        except PackageNotFoundError:
            yield Check(name, "note", "not installed", use)


def java() -> Check:
    """Java, which the Flink and Spark runners need and nothing else."""
    path = shutil.which("java")
    if not path:
        return Check("java", "note", "not found", "only --runner FlinkRunner and SparkRunner need it (Java 11 or 17)")
    done = subprocess.run([path, "-version"], capture_output=True, text=True, timeout=30, check=False)
    said = (done.stderr or done.stdout).splitlines()
    if done.returncode or not said:
        return Check("java", "note", f"{path} does not answer", "only the Flink and Spark runners need it")
    return Check("java", "ok", said[0])


def accelerator() -> Check:
    """A GPU that torch can use."""
    try:
        import torch
    except Exception as error:
        return Check("gpu", "broken", f"torch does not load: {error}", "install tuwen anew in a fresh environment")
    if not torch.cuda.is_available():
        return Check(
            "gpu", "note", "none that torch can use; the score runs on the CPU", "an ONNX scorer is faster there"
        )
    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return Check("gpu", "ok", ", ".join(names))


def models() -> Iterator[Check]:
    """The models that ship with tuwen, by loading them, and those in the local caches."""
    try:
        from ..scoring.scorer import load_scorer

        scorer = load_scorer("embedded", "cpu", 1, 1, "fp32")
        yield Check("embedded scorer", "ok", f"{scorer.name}@{scorer.hash}: for the sample only")
    except Exception as error:
        yield Check("embedded scorer", "broken", f"{type(error).__name__}: {error}", "install tuwen anew")
    home = Path(os.environ.get("HF_HUB_CACHE") or Path(os.environ.get("HF_HOME", "~/.cache/huggingface")) / "hub")
    home = home.expanduser()
    held = sorted(p.name.removeprefix("models--").replace("--", "/") for p in home.glob("models--*"))
    if held:
        more = f" and {len(held) - 12} more" if len(held) > 12 else ""
        yield Check("model cache", "ok", ", ".join(held[:12]) + more)
    else:
        yield Check("model cache", "note", f"no models in {home}", "real data needs a real one: curate run --scorer")


def disk(folder: str) -> Check:
    """Room where the run would be written."""
    place = Path(folder).absolute()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    said = f"{free / 2**30:.0f} GiB free at {place}"
    if not os.access(place, os.W_OK):
        return Check("disk", "broken", f"{place} cannot be written to", "give another folder with -o")
    if free < LITTLE_DISK:
        return Check("disk", "note", said, "a million pairs need about 100 GB while the run goes on")
    return Check("disk", "ok", said)


def memory() -> Check:
    """Memory and cores."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    said = f"{total / 2**30:.0f} GiB, {os.cpu_count()} cores"
    if total < LITTLE_MEMORY:
        return Check("memory", "note", said, "give --workers 1: each worker holds its own models")
    return Check("memory", "ok", said)


def small_run() -> Check:
    """The main job on a few pairs drawn here: every stage, shards, ledger, report."""
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="tuwen-doctor-") as folder:
        try:
            told = run_small(Path(folder))
        except TuwenError as error:
            return Check("self-test", "broken", str(error), "please report it with this text")
        except Exception as error:
            return Check("self-test", "broken", f"{type(error).__name__}: {error}", "please report it with this text")
    counts, seconds = told["counts"], time.perf_counter() - started
    said = f"{counts['inputs']} pairs = {counts['kept']} kept + {counts['dropped']} dropped in {seconds:.1f} s"
    if counts["inputs"] != PAIRS + 2 or counts["kept"] < PAIRS // 2 or counts["dropped"] < 2 or counts["failed"]:
        return Check(
            "self-test", "broken", f"{said}, {counts['failed']} failed: not what was drawn", "please report it"
        )
    return Check("self-test", "ok", said)


def run_small(folder: Path) -> dict[str, Any]:
    """Draws ten good pairs, one too small and one with another scene's caption, and runs ``oppovl`` on them."""
    import numpy as np

    from ..sample_data.faults import picture
    from ..sample_data.world import caption, random_scene
    from . import engine
    from .recipe import load

    rng = np.random.default_rng(11)
    source = folder / "in"
    source.mkdir()
    for i in range(PAIRS + 1):
        scene = random_scene(rng)
        (source / f"{i:02}.jpg").write_bytes(picture(scene, rng))
        (source / f"{i:02}.txt").write_text(caption(scene, rng) if i < PAIRS else "点击查看大图", "utf-8")
    _small_picture(source / "small.jpg")
    (source / "small.txt").write_text("雪地上有一辆红色的汽车", "utf-8")
    config = engine.RunConfig(inputs=(str(source),), out=str(folder / "out"), workers=1)
    told = engine.run(config, load("oppovl", ["split.test=0", "split.val=0"]))
    for name in ("report.html", "README.md", "croissant.json", "shards/index.json"):
        if not (folder / "out" / name).stat().st_size:
            raise TuwenError(f"the run wrote no {name}")
    return told


def _small_picture(path: Path) -> None:
    import cv2
    import numpy as np

    pixels = np.random.default_rng(0).integers(0, 255, (40, 40, 3), dtype=np.uint8)
    path.write_bytes(cv2.imencode(".jpg", pixels)[1].tobytes())


def broken(found: list[Check]) -> bool:
    """Whether anything among ``found`` keeps tuwen from working."""
    return any(check.state == "broken" for check in found)
