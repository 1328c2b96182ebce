"""The index of a folder of photos: one file, brought up to date before each search.

    vectors    (n, d) float16, rows of unit length; zeros where a photo cannot be read
    stamps     (n, 2) int64, size in bytes and time of change in nanoseconds
    digests    (n, 16) uint8, BLAKE2b of the content
    paths      uint8, names relative to the folder, joined by NUL bytes
    problems   uint8, joined likewise; why a photo cannot be read, empty where it can

These are the tensors of one safetensors file whose metadata names the format and the model's hash: nothing in it is
executed when it is read, and half floats are enough for cosines (docs/edge.md has the measure). A photo is read
again only where its size or time differ; a content that the index knows keeps its vector under any name.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...filters.images import map_images

FORMAT = "tuwen photo index 1"
NAME = ".tuwen-search.safetensors"
SUFFIXES = frozenset(
    (
        ".jpg",
        ".jpeg",
        ".jpe",
        ".jfif",
        ".png",
        ".webp",
        ".gif",
        ".bmp",
        ".tif",
        ".tiff",
        ".heic",
        ".heif",
        ".avif",
        ".jp2",
    )
)
"""Files that are taken for photos, in any case."""
DIGEST = 16
TENSORS = ("vectors", "stamps", "digests", "paths", "problems")
CHUNK = 64
"""Photos handed to the threads at once."""
SAVE_SECONDS = 60.0
"""A long first run is stored so often, so that one that is broken off goes on from there."""
RACY_NS = 2_000_000_000
"""A file changed so shortly before it was read may change again under the same time stamp; it is read again."""


@dataclass(frozen=True)
class Photo:
    """One file of the folder: ``path`` relative to it, ``size`` in bytes, ``changed`` in nanoseconds."""

    path: str
    size: int
    changed: int


@dataclass(frozen=True)
class Entry:
    """What the index holds of a photo; ``problem`` says why there is no vector."""

    photo: Photo
    digest: bytes
    vector: NDArray[np.float16] | None
    problem: str = ""


@dataclass
class Changes:
    """What an update found; ``embedded`` counts the photos that went through the model."""

    added: int = 0
    changed: int = 0
    moved: int = 0
    removed: int = 0
    unchanged: int = 0
    embedded: int = 0
    problems: list[tuple[str, str]] = field(default_factory=list)


Embed = Callable[[bytes], NDArray[np.floating]]
"""A photo's bytes to its (d,) unit vector; raises ``ValueError`` with the reason where it cannot be decoded."""


def scan(folder: Path) -> Iterator[Photo]:
    """The photos in ``folder`` and below, ordered by path; hidden files and folders and linked folders stay out."""
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if name.startswith(".") or Path(name).suffix.lower() not in SUFFIXES:
                continue
            path = Path(place, name)
            try:
                told = path.stat()
            except OSError:  # gone since, or a link to nowhere
                continue
            yield Photo(path.relative_to(folder).as_posix(), told.st_size, told.st_mtime_ns)


def update(
    old: Sequence[Entry],
    folder: Path,
    embed: Embed,
    threads: int = 1,
    trust_stamps: bool = True,
    store: Callable[[Sequence[Entry]], None] | None = None,
) -> tuple[list[Entry], Changes]:
    """The entries of ``folder`` as it is now, ordered by path, and what changed since ``old``.

    With ``trust_stamps`` a photo of known size and time is not opened. ``store`` is called now and then with what is
    known so far, old entries included. Photos that cannot be read become entries with a problem.
    """
    photos = {p.path: p for p in scan(folder)}
    before = {e.photo.path: e for e in old}
    by_digest = {e.digest: e for e in old if e.vector is not None or e.problem}
    now: dict[str, Entry] = {}
    waiting = []
    for path, photo in photos.items():
        known = before.get(path)
        if known is not None and trust_stamps and known.photo == photo:
            now[path] = known
        else:
            waiting.append(photo)
    told = Changes(unchanged=len(now))
    vanished = {e.digest for p, e in before.items() if p not in photos}
    stored = time.monotonic()
    for start in range(0, len(waiting), CHUNK):
        read = map_images(lambda p: _read(folder, p, by_digest, embed), waiting[start : start + CHUNK], threads)
        for entry, through_model in (r for r in read if r is not None):
            path = entry.photo.path
            known = before.get(path)
            now[path] = entry
            told.embedded += through_model
            if known is not None and known.digest == entry.digest:
                told.unchanged += 1
            elif known is not None:
                told.changed += 1
            elif entry.digest in vanished:
                told.moved += 1
            else:
                told.added += 1
        if store and time.monotonic() - stored > SAVE_SECONDS:
            store(_ordered({**before, **now}))
            stored = time.monotonic()
    told.removed = sum(1 for path in before if path not in now) - told.moved
    entries = _ordered(now)
    told.problems = [(e.photo.path, e.problem) for e in entries if e.problem]
    return entries, told


def _ordered(entries: dict[str, Entry]) -> list[Entry]:
    return [entries[path] for path in sorted(entries)]


def _read(folder: Path, photo: Photo, known: dict[bytes, Entry], embed: Embed) -> tuple[Entry, bool] | None:
    """The entry of one file and whether the model was asked; None where the file is gone by now."""
    try:
        data = (folder / photo.path).read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        return Entry(photo, bytes(DIGEST), None, f"cannot be read: {error.strerror or error}"), False
    digest = hashlib.blake2b(data, digest_size=DIGEST).digest()
    if time.time_ns() - photo.changed < RACY_NS:
        photo = Photo(photo.path, photo.size, -1)
    if same := known.get(digest):
        return Entry(photo, digest, same.vector, same.problem), False
    try:
        return Entry(photo, digest, embed(data).astype(np.float16)), True
    except ValueError as error:
        return Entry(photo, digest, None, str(error)), False


def write_index(path: Path, entries: Sequence[Entry], model: str) -> None:
    """Store ``entries``; the file takes its name only when it is whole."""
    from safetensors.numpy import save

    width = next((len(e.vector) for e in entries if e.vector is not None), 0)
    nothing = np.zeros(width, np.float16)
    tensors: dict[str, NDArray[Any]] = {
        "vectors": np.array([nothing if e.vector is None else e.vector for e in entries], np.float16),
        "stamps": np.array([(e.photo.size, e.photo.changed) for e in entries], np.int64).reshape(-1, 2),
        "digests": np.frombuffer(b"".join(e.digest for e in entries), np.uint8).reshape(-1, DIGEST),
        "paths": _joined([os.fsencode(e.photo.path) for e in entries]),
        "problems": _joined([e.problem.encode() for e in entries]),
    }
    data = save(tensors, {"format": FORMAT, "model": model})
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=".tuwen-", dir=path.parent)
    try:
        os.fchmod(handle, 0o644)
        with os.fdopen(handle, "wb") as out:
            out.write(data)
            out.flush()
            os.fsync(out.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def read_index(path: Path, model: str) -> tuple[list[Entry], str]:
    """The entries that ``path`` holds for ``model``, and why there are none: of another model, damaged.

    The reason is empty where there are entries or no file. An index is made from the photos, so a bad one is no error.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        return [], ""
    try:
        with safe_open(path, "np") as held:
            told = held.metadata() or {}
            if told.get("format") != FORMAT:
                return [], "the index is of another format"
            if told.get("model") != model:
                return [], "the index was made with another model"
            tensors = {name: held.get_tensor(name) for name in TENSORS}
        return _entries(tensors), ""
    except (SafetensorError, KeyError, ValueError, OSError) as error:
        return [], f"the index is damaged ({str(error)[:100]})"


def _entries(tensors: dict[str, NDArray[np.generic]]) -> list[Entry]:
    stamps, vectors = tensors["stamps"], tensors["vectors"]
    digests = tensors["digests"].tobytes()
    paths, problems = (_split(tensors[name], len(stamps)) for name in ("paths", "problems"))
    out = []
    for i, (size, changed) in enumerate(stamps.tolist()):
        problem = problems[i].decode()
        photo = Photo(os.fsdecode(paths[i]), size, changed)
        out.append(Entry(photo, digests[i * DIGEST : (i + 1) * DIGEST], None if problem else vectors[i], problem))
    return out


def _joined(names: Sequence[bytes]) -> NDArray[np.uint8]:
    return np.frombuffer(b"\0".join(names), np.uint8)


def _split(joined: NDArray[np.generic], count: int) -> list[bytes]:
    names = joined.tobytes().split(b"\0") if count else []
    if len(names) != count:
        raise ValueError(f"{len(names)} names for {count} photos")
    return names
