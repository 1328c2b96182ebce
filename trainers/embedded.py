"""Makes the embedded checkpoint: a small CoCa, trained on the sample world, in open_clip's format.

    python -m tuwen.trainers.embedded -o scoring/embedded

One model serves as scorer (its two towers) and as captioner (its decoder). It knows the sample world
and nothing else; on other data it only shows that the machinery works.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from ..sample_data.draw import render
from ..sample_data.world import Scene, caption, random_scene
from .retrieval import Batch, RetrievalConfig, fit, settings
from .towers import save_tokenizer as save_tokenizer

SIZE = 64
CONTEXT = 36
CONFIG: dict[str, Any] = {
    "embed_dim": 128,
    "vision_cfg": {
        "image_size": SIZE,
        "layers": 4,
        "width": 128,
        "head_width": 32,
        "patch_size": 8,
        "attentional_pool": True,
        "attn_pooler_queries": 16,
        "attn_pooler_heads": 4,
        "output_tokens": True,
    },
    "text_cfg": {
        "context_length": CONTEXT,
        "vocab_size": 0,
        "hf_tokenizer_name": "local",
        "width": 128,
        "heads": 4,
        "layers": 2,
        "embed_cls": True,
        "output_tokens": True,
        "pad_id": 0,
        "eos_id": 3,
    },
    "multimodal_cfg": {"context_length": CONTEXT, "vocab_size": 0, "width": 128, "heads": 4, "layers": 2},
    "custom_text": True,
}
PREPROCESS = {
    "size": SIZE,
    "mode": "RGB",
    "mean": [0.5, 0.5, 0.5],
    "std": [0.5, 0.5, 0.5],
    "interpolation": "bicubic",
    "resize_mode": "squash",
}


def scenes(n: int, seed: int) -> tuple[list[Scene], NDArray[np.uint8]]:
    """``n`` scenes and their pictures (n, SIZE, SIZE, 3), drawn at twice the size and scaled down."""
    rng = np.random.default_rng(seed)
    pictures = np.empty((n, SIZE, SIZE, 3), np.uint8)
    made = []
    for i in range(n):
        scene = random_scene(rng)
        pictures[i] = cv2.resize(render(scene, 2 * SIZE), (SIZE, SIZE), interpolation=cv2.INTER_AREA)
        made.append(scene)
    return made, pictures


def batches(n: int, size: int, seed: int) -> Iterator[Batch]:
    """Endless batches of ``size`` over ``n`` scenes: new captions, small shifts and light at every turn."""
    world, pictures = scenes(n, seed)
    rng = np.random.default_rng(seed + 1)
    while True:
        order = rng.permutation(n)
        for start in range(0, n - size + 1, size):
            chosen = order[start : start + size]
            padded = np.pad(pictures[chosen], ((0, 0), (3, 3), (3, 3), (0, 0)), mode="edge")
            dx, dy = rng.integers(0, 7, 2)
            images = padded[:, dy : dy + SIZE, dx : dx + SIZE].astype(np.float32) * rng.uniform(
                0.85, 1.15, (size, 1, 1, 1)
            )
            tensor = torch.from_numpy(np.clip(images, 0, 255).astype(np.uint8)).permute(0, 3, 1, 2)
            yield tensor, [caption(world[i], rng) for i in chosen]


def train(folder: Path, phases: Sequence[RetrievalConfig], size: int, n: int, start: Path | None = None) -> None:
    """Train and write the checkpoint to ``folder``: weights in half precision, configuration, tokenizer, record.

    The phases follow one another on the same model; ``start`` is a folder whose weights it begins with.
    """
    import open_clip
    from safetensors.torch import load_file, save_file

    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    text = "".join(caption(random_scene(rng), rng) for _ in range(20000))
    described = json.loads(json.dumps(CONFIG))
    vocabulary = save_tokenizer(folder, text)
    described["text_cfg"]["vocab_size"] = described["multimodal_cfg"]["vocab_size"] = vocabulary
    told = {"model_cfg": described, "preprocess_cfg": PREPROCESS}
    (folder / "open_clip_config.json").write_text(json.dumps(told, indent=1) + "\n")
    torch.manual_seed(phases[0].seed)
    model = open_clip.CoCa(**{k: v for k, v in described.items() if k != "custom_text"})
    # open_clip leaves this one matrix as it finds the memory: its published models are always loaded over it.
    torch.nn.init.normal_(model.text_decoder.text_projection, std=CONFIG["multimodal_cfg"]["width"] ** -0.5)
    tokenizer = open_clip.get_tokenizer(f"local-dir:{folder.absolute()}")
    if start is not None:
        model.load_state_dict({k: v.float() for k, v in load_file(start / "open_clip_model.safetensors").items()})
    stream = batches(n, size, seed=10 + phases[0].seed)
    logs = [fit(model, tokenizer, stream, phase, folder / f"training-{i}.jsonl") for i, phase in enumerate(phases)]
    weights = {k: v.detach().half().contiguous() for k, v in model.state_dict().items()}
    save_file(weights, folder / "open_clip_model.safetensors", metadata={"format": "pt"})
    record = {"phases": [settings(p) for p in phases], "batch": size, "scenes": n, "last": [r[-1] for r in logs]}
    (folder / "training.json").write_text(json.dumps({**record, "torch": torch.__version__}, indent=1) + "\n")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=2000, help="both objectives with equal weight")
    parser.add_argument("--caption-steps", type=int, default=1500, help="then with captioning before all")
    parser.add_argument("--start", type=Path, help="begin with the weights of this folder")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--scenes", type=int, default=40000)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    phases = [
        RetrievalConfig(steps=given.steps),
        RetrievalConfig(steps=given.caption_steps, caption_weight=4.0, seed=1),
    ]
    train(given.out, [p for p in phases if p.steps], given.batch, given.scenes, given.start)


if __name__ == "__main__":
    main()
