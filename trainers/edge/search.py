"""Offline photo search: ``curate search PHOTOS "查询"``, through onnxruntime; exported models never load torch.

Every photo is one vector, a query is one more, and all cosines are computed: at 100,000 photos that is 5 ms on one
core (benchmarks/student.py), so there is no approximate index whose misses would have to be explained.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ...filters.image_header import BadImage
from ...filters.images import load
from ...pipeline.errors import InputError, UsageError
from ...scoring.onnx_scorer import OnnxScorer
from ...scoring.scorer import EMBEDDED, ONNX, Scorer, fingerprint, load_scorer
from .index import NAME, Entry, read_index, scan, update, write_index

MAX_PIXELS = 256_000_000
"""Telephones make 200 megapixels; decoders shrink JPEG on the way."""


class Matrix:
    """The vectors of an index, in single precision: NumPy has no fast product of half floats."""

    def __init__(self, entries: Sequence[Entry]) -> None:
        self.paths = [e.photo.path for e in entries if e.vector is not None]
        rows = [e.vector for e in entries if e.vector is not None]
        self.rows = np.stack(rows).astype(np.float32) if rows else np.zeros((0, 1), np.float32)

    def best(self, query: NDArray[np.float32], top: int) -> list[tuple[str, float]]:
        """The ``top`` paths by cosine with ``query`` (d,), best first; equal ones by path."""
        if not self.paths:
            return []
        scores = self.rows @ query  # (n,)
        top = min(top, len(scores))
        least = np.partition(scores, len(scores) - top)[len(scores) - top]
        found = sorted((-float(scores[i]), self.paths[i]) for i in np.flatnonzero(scores >= least))
        return [(path, -score) for score, path in found[:top]]


def search(
    photos: Path,
    query: str,
    model: str = EMBEDDED,
    top: int = 20,
    cache: Path | None = None,
    threads: int = 1,
    trust_stamps: bool = True,
) -> dict[str, Any]:
    """Bring the index of ``photos`` up to date and rank its photos by ``query``.

    ``model`` is a folder of ONNX exports, or a scorer that is exported to the cache when first used. The index lies in
    the folder of the photos, or in ``cache``. Returns the results (path, score), the changes, and notes.
    """
    if not photos.is_dir():
        raise InputError(f"{photos} is no folder; expected a folder of photos")
    if not query.strip():
        raise UsageError("the query is empty; give words to search for, as in 红色的花")
    folder, notes = exported(model, cache)
    scorer = load_scorer(str(folder), "cpu", 1, 1)
    assert isinstance(scorer, OnnxScorer)
    notes += _unknown(scorer, query)
    index = index_path(photos, cache, scorer.hash)
    old, why = read_index(index, scorer.hash)
    if why:
        notes.append(f"{why}: all photos are read anew")

    def store(entries: Sequence[Entry]) -> None:
        try:
            write_index(index, entries, scorer.hash)
        except OSError as error:
            raise InputError(
                f"the index {index} cannot be written ({error.strerror}); name a folder for it with --cache"
            ) from None

    entries, changes = update(old, photos, lambda data: photo_vector(scorer, data), threads, trust_stamps, store)
    if [(e.photo, e.digest) for e in entries] != [(e.photo, e.digest) for e in old] or not index.is_file():
        store(entries)
    found = Matrix(entries).best(scorer.embed_texts([query])[0], top)
    return {
        "query": query,
        "model": {"name": scorer.name, "hash": scorer.hash, "folder": str(folder)},
        "index": str(index),
        "photos": len(entries),
        "changes": asdict(changes) | {"problems": [{"path": _shown(p), "problem": w} for p, w in changes.problems]},
        "notes": notes,
        "results": [{"path": _shown(str(photos / path)), "score": round(score, 4)} for path, score in found],
    }


def photo_vector(scorer: OnnxScorer, data: bytes) -> NDArray[np.float32]:
    """(d,) unit vector of a photo's bytes; ``ValueError`` says why it cannot be decoded."""
    vector: NDArray[np.float32] = scorer.embed_pictures([picture(data, 2 * max(scorer.told.size))])[0]
    return vector


def picture(data: bytes, side: int) -> Image.Image:
    """A photo's bytes as an upright RGB picture whose shorter side is ``side`` at most; ``ValueError`` as above."""
    try:
        _, seen = load(data, side, 8 * side, MAX_PIXELS, ships=True)
    except BadImage as error:
        raise ValueError(f"{error.kind}: {error.message}") from None
    return Image.fromarray(np.ascontiguousarray(seen[..., ::-1]))


def pictures(folder: Path, most: int, side: int = 512) -> list[Image.Image]:
    """At most ``most`` photos of a folder, spread over it evenly; those that cannot be decoded are passed over."""
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder; expected a folder of photos")
    photos = list(scan(folder))
    found = []
    for photo in photos[:: max(1, len(photos) // most)][:most]:
        with contextlib.suppress(ValueError):
            found.append(picture((folder / photo.path).read_bytes(), side))
    return found


def index_path(photos: Path, cache: Path | None, model: str) -> Path:
    """Where the index of ``photos`` lies: beside them, or in ``cache`` under a name of folder and model."""
    if cache is None:
        return photos / NAME
    name = hashlib.blake2b(os.fsencode(photos.resolve()), digest_size=8).hexdigest()
    return cache / f"photos-{name}-{model}.safetensors"


def exported(model: str, cache: Path | None) -> tuple[Path, list[str]]:
    """The folder of ONNX files of ``model``; a scorer in another format is exported to the cache, once."""
    folder = Path(model.removeprefix("local-dir:"))
    if model != EMBEDDED and (folder / ONNX).is_file():
        check_sums(folder)
        return folder, []
    said = []
    if model == EMBEDDED:
        said = ["no model was given; the embedded one knows the sample world only, not photographs"]
    home = (cache or default_cache()) / "models"
    target = home / f"{folder.name}-{fingerprint(model)}"
    if not (target / ONNX).is_file():
        from ...scoring.export_scorer import export_scorer

        home.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=".tuwen-", dir=home))
        try:
            export_scorer(model, work / "made")
            if not target.exists():  # another process may have been faster
                (work / "made").replace(target)
        finally:
            shutil.rmtree(work, ignore_errors=True)
        said.append(f"{model} was exported to {target}")
    return target, said


def default_cache() -> Path:
    """Where exported models lie: ``$XDG_CACHE_HOME/tuwen``, by default in ``~/.cache``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tuwen"


SUMS = "SHA256SUMS"
"""In the format of ``sha256sum``, so that ``sha256sum -c SHA256SUMS`` checks a copy anywhere."""


def write_sums(folder: Path) -> None:
    """Write the SHA-256 of every file of ``folder`` beside them."""
    files = [p for p in sorted(folder.iterdir()) if p.is_file() and p.name != SUMS]
    (folder / SUMS).write_text("".join(f"{_sha256(p)}  {p.name}\n" for p in files), "utf-8")


def check_sums(folder: Path) -> None:
    """``InputError`` where a file of ``folder`` is not what its ``SHA256SUMS`` says; nothing where there is none."""
    if not (folder / SUMS).is_file():
        return
    for line in (folder / SUMS).read_text("utf-8").splitlines():
        wanted, _, name = line.partition("  ")
        path = folder / name
        found = _sha256(path) if path.is_file() else "no file"
        if found != wanted:
            raise InputError(f"{path}: {SUMS} says {wanted[:16]}…, found {found[:16]}; copy the model folder again")


def _sha256(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _unknown(scorer: Scorer, query: str) -> list[str]:
    """A note on the signs of ``query`` that the model's vocabulary does not have."""
    core = scorer.tokenizer  # type: ignore[attr-defined]
    unknown = getattr(core.model, "unk_token", None)
    told = core.encode(query)
    if not unknown:
        return []
    offsets = zip(told.tokens, told.offsets, strict=True)
    signs = [query[a:b] for token, (a, b) in offsets if token == unknown and query[a:b].strip()]
    return [f"the model does not know {' '.join(dict.fromkeys(signs))}"] if signs else []


def _shown(path: str) -> str:
    """``path`` as text that can be printed, whatever bytes its name has."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")
