"""How well the embedded checkpoint separates and describes scenes of the sample world that it was not trained on.

python benchmarks/embedded_model.py [--scenes 600] [--seed 777]
"""

from __future__ import annotations

import argparse
import platform
import time

import numpy as np
import torch

from tuwen.sample_data.draw import render
from tuwen.sample_data.faults import encode
from tuwen.sample_data.world import KINDS, Scene, caption, random_scene
from tuwen.scoring.caption_coca import CocaCaptioner
from tuwen.scoring.scorer import embedded_folder, load_scorer, model_and_tokenizer


def content(scene: Scene) -> set[str]:
    """Kinds, colours and place of a scene."""
    return {t.kind for t in scene.things} | {t.colour for t in scene.things} | {scene.background}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--scenes", type=int, default=600)
    parser.add_argument("--seed", type=int, default=777)
    given = parser.parse_args()
    rng = np.random.default_rng(given.seed)
    scenes = [random_scene(rng) for _ in range(given.scenes)]
    captions = [caption(s, rng) for s in scenes]
    images = [encode(render(s, 288), quality=85) for s in scenes]
    scorer = load_scorer()
    started = time.process_time()
    cosine = scorer.embed_images(images) @ scorer.embed_texts(captions).T
    seconds = time.process_time() - started
    true = np.diag(cosine)
    shared = np.array([[bool(content(a) & content(b)) for b in scenes] for a in scenes])
    apart, partly = cosine[~shared], cosine[shared & ~np.eye(len(scenes), dtype=bool)]
    ranks = (apart[:, None] < np.percentile(true, np.arange(0.5, 100))[None]).mean()
    print(
        f"{platform.machine()}, Python {platform.python_version()}, torch {torch.__version__}, checkpoint {scorer.hash}"
    )
    print(f"{given.scenes} scenes of seed {given.seed}, 288 pixels, JPEG quality 85; threshold {scorer.threshold}")
    print(f"matching pairs at or over it      {np.mean(true >= scorer.threshold):.3f}  (median {np.median(true):.2f})")
    print(
        f"captions of unrelated scenes under {np.mean(apart < scorer.threshold):.3f}  (median {np.median(apart):.2f})"
    )
    print(f"captions that share something under {np.mean(partly < scorer.threshold):.3f}")
    print(f"AUC against unrelated captions    {ranks:.4f}")
    print(f"image to text R@1                 {np.mean(cosine.argmax(1) == np.arange(len(scenes))):.3f}")
    print(f"pairs per CPU-second              {len(scenes) / seconds:.0f}")
    captioner = CocaCaptioner(*model_and_tokenizer(embedded_folder(), "cpu"), 32)
    written = [w.text or "" for w in captioner.captions(images[:256])]
    told = [(t, w) for s, w in zip(scenes, written, strict=False) for t in s.things]
    print(
        f"captions naming the kind          {np.mean([any(n in w for n in KINDS[t.kind].names) for t, w in told]):.3f}"
    )
    print(f"captions naming the colour        {np.mean([t.colour[0] in w for t, w in told]):.3f}")


if __name__ == "__main__":
    main()
