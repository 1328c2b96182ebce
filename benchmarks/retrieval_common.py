"""What the benchmarks of the retrieval trainer share: the model's size, what it ran on, the command line."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from importlib.metadata import version

import torch

from tuwen import __version__
from tuwen.pipeline.errors import RunError

SIDE = 32
MODEL = [
    "model.vocabulary=captions",
    "model.embed_dim=64",
    "model.vision_cfg={layers: 3, width: 64, head_width: 16, patch_size: 8}",
    "model.text_cfg={layers: 2, width: 64, heads: 4, context_length: 26}",
]
"""0.2 million parameters beside the words' embeddings."""


def machine() -> str:
    """What the figures were measured on."""
    packages = ", ".join(f"{p} {version(p)}" for p in ("torch", "open_clip_torch", "numpy"))
    return (
        f"tuwen {__version__}, {platform.machine()} with {os.cpu_count()} cores, {torch.get_num_threads()} threads; "
        f"Python {platform.python_version()}, {packages}"
    )


def curate(words: list[str], show: bool = False) -> None:
    """Run the command line."""
    done = subprocess.run([sys.executable, "-m", "tuwen.pipeline.cli", *words], capture_output=True, text=True)
    if done.returncode:
        raise RunError(f"curate {' '.join(words)}: {done.stderr[-3000:]}")
    if show:
        print(done.stdout)
