"""Milliseconds of a query and of a new photo with an exported student (``student``)."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tuwen.scoring.scorer import load_scorer
from tuwen.trainers.edge.index import Entry, Photo
from tuwen.trainers.edge.search import Matrix, photo_vector


def median(call: Callable[[], Any], times: int = 30) -> float:
    """Milliseconds, median."""
    call()
    taken = []
    for _ in range(times):
        started = time.perf_counter()
        call()
        taken.append(time.perf_counter() - started)
    return 1000 * float(np.median(taken))


def speed(int8: Path, picture: NDArray[np.uint8], photos: int) -> None:
    """What a query and a new photo cost: ``int8`` is the folder beside that of the float form, ``onnx``."""
    rng = np.random.default_rng(0)
    scorers = {"float": int8.parent / "onnx", "int8": int8}
    loaded: dict[str, Any] = {k: load_scorer(str(v), "cpu", 1, 1) for k, v in scorers.items()}
    rows = rng.standard_normal((photos, 128), np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    half = rows.astype(np.float16)
    matrix = Matrix([Entry(Photo(f"{i:06d}.jpg", 1, 1), b"", row) for i, row in enumerate(half)])
    query = rows[0]
    print(f"\nmilliseconds on one thread, median; {photos:,} photos of 128 numbers")
    print(f"{'matrix times vector, numpy float32 (the floor)':56} {median(lambda: matrix.rows @ query):8.2f}")
    print(f"{'best 20 of all photos':56} {median(lambda: matrix.best(query, 20)):8.2f}")
    for name, scorer in loaded.items():
        encoded = median(lambda scorer=scorer: scorer.embed_texts(["草地上有三朵红色的花"]))
        print(f"{f'query to vector, {name} student':56} {encoded:8.2f}")
    whole = median(lambda: matrix.best(loaded["int8"].embed_texts(["草地上有三朵红色的花"])[0], 20))
    print(f"{'query, words to the best 20 photos, int8 student':56} {whole:8.2f}")
    for width, height in ((1024, 768), (4000, 3000)):
        scene = cv2.resize(picture, (width, height), interpolation=cv2.INTER_CUBIC)
        noisy = np.clip(scene + rng.normal(0, 8, scene.shape), 0, 255).astype(np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(noisy).save(buffer, "JPEG", quality=85)
        data = buffer.getvalue()
        for name, scorer in loaded.items():
            taken = median(lambda scorer=scorer, data=data: photo_vector(scorer, data), 10)
            print(f"{f'new photo, {width} x {height} JPEG, {name} student':56} {taken:8.2f}")
    small = Image.fromarray(picture)
    for name, scorer in loaded.items():
        taken = median(lambda scorer=scorer: scorer.embed_pictures([small]))
        print(f"{f'  of which the model, {name}':56} {taken:8.2f}")
