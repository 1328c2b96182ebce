"""The folders, the wheel's mapping and the links must name the same packages."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import tuwen

ROOT = Path(__file__).parents[1]
FOLDERS = {"pipeline", "filters", "scoring", "export", "trainers", "sample_data"}


def test_links_mapping_and_packages_agree() -> None:
    setup = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    links = {p.name for p in (ROOT / "tuwen").iterdir() if p.is_symlink()}
    assert links == FOLDERS
    for name in links:
        assert (ROOT / "tuwen" / name).readlink() == Path("..") / name
    assert setup["package-dir"] == {f"tuwen.{name}": name for name in FOLDERS}
    packages = {
        "tuwen." + str(p.parent.relative_to(ROOT)).replace("/", ".")
        for name in FOLDERS
        for p in (ROOT / name).rglob("__init__.py")
    }
    assert set(setup["packages"]) == packages | {"tuwen"}


def test_every_module_is_reached_from_the_package() -> None:
    assert (ROOT / "__init__.py").read_text() == ""
    assert Path(tuwen.__file__ or "").parent.name == "tuwen"


def test_importing_tuwen_loads_nothing_heavy() -> None:
    heavy = "torch", "apache_beam", "scrapy", "cv2", "open_clip", "transformers", "polars"
    code = f"import sys, tuwen; print([m for m in {heavy!r} if m in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


def test_the_command_line_starts_without_models() -> None:
    heavy = "torch", "apache_beam", "cv2", "open_clip", "transformers"
    code = f"import sys, tuwen.pipeline.cli; print([m for m in {heavy!r} if m in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


def test_relative_links_only() -> None:
    files = subprocess.check_output(["git", "ls-files", "-s"], cwd=ROOT, text=True) if (ROOT / ".git").exists() else ""
    for line in files.splitlines():
        if line.startswith("120000"):
            path = ROOT / line.split("\t")[1]
            assert not path.readlink().is_absolute(), path
