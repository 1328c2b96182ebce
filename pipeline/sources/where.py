"""Opening and listing inputs, on the local disk or through fsspec.

Local paths go straight to the operating system: their names may hold ``#``, ``?``, ``*`` or ``::``,
which fsspec would read as syntax.
"""

from __future__ import annotations

import difflib
import errno
import os
import stat
from pathlib import Path
from typing import IO, Any
from urllib.parse import unquote, urlsplit

import fsspec

from ..errors import InputError


def is_remote(path: str) -> bool:
    """Whether ``path`` is a URL that fsspec opens (``s3://…``, ``zip://…::file.zip``), not a local path."""
    if "://" not in path:
        return False
    scheme = path.partition("://")[0]
    return bool(scheme) and scheme.replace("+", "").replace("-", "").replace(".", "").isalnum()


def normal(path: str) -> str:
    """``path`` as a unit's root: absolute where it is local, without a trailing slash."""
    if path.startswith("file://"):
        path = unquote(urlsplit(path).path)
    return path.rstrip("/") if is_remote(path) else os.path.abspath(path)  # noqa: PTH100, links stay as given


def join(root: str, name: str) -> str:
    """``name`` within ``root``; an empty name is the root itself."""
    return f"{root.rstrip('/')}/{name}" if name else root


def last(path: str) -> str:
    """The last part of a path or URL."""
    return path.rstrip("/").rsplit("/", 1)[-1]


def folder(path: str) -> str:
    """The folder that holds ``path``."""
    return path.rstrip("/").rsplit("/", 1)[0] or "/"


def open_binary(path: str) -> IO[bytes]:
    """``path`` opened for reading bytes, seekable; OSError where it cannot be."""
    if not is_remote(path):
        # A pipe would wait for ever and a device never end.
        mode = Path(path).stat().st_mode
        if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
            raise OSError(errno.EINVAL, "it is a pipe, socket or device, expected a plain file")
        return Path(path).open("rb")
    fs, inner = _remote(path)
    handle: IO[bytes] = fs.open(inner, "rb")
    return handle


def read_at_most(path: str, limit: int) -> bytes | None:
    """The bytes of ``path``, or None where there are more than ``limit``; OSError where it cannot be read."""
    with open_binary(path) as handle:
        data = handle.read(limit + 1)
    return None if len(data) > limit else data


def is_folder(path: str) -> bool:
    """Whether ``path`` is a folder (or, on an object store, a prefix)."""
    if not is_remote(path):
        return Path(path).is_dir()
    fs, inner = _remote(path)
    return bool(fs.isdir(inner))


def size(path: str) -> int:
    """Bytes of a file; -1 where the store does not say."""
    if not is_remote(path):
        return Path(path).stat().st_size
    fs, inner = _remote(path)
    told = fs.size(inner)
    return -1 if told is None else int(told)


def listing(root: str) -> list[str]:
    """All files under ``root``, relative to it, sorted; names that begin with a dot are left out.

    Linked folders are followed, each real folder once.
    """
    if is_remote(root):
        fs, inner = _remote(root)
        base = inner.rstrip("/") + "/"
        found = [str(p).removeprefix(base) for p in fs.find(inner)]
        return sorted(f for f in found if not any(part.startswith(".") for part in f.split("/")))
    names: list[str] = []
    seen: set[str] = set()
    for at, folders, files in os.walk(root, followlinks=True):
        real = os.path.realpath(at)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        relative = os.path.relpath(at, root)
        prefix = "" if relative == "." else f"{relative}/"
        names += [prefix + f for f in files if not f.startswith(".")]
    return sorted(names)


def check_exists(path: str) -> None:
    """Raise ``InputError`` where there is no such file or folder, naming what lies nearest."""
    try:
        if is_remote(path):
            fs, inner = _remote(path)
            there = bool(fs.exists(inner))
        else:
            there = Path(path).exists()
    except InputError:
        raise
    except Exception as error:  # each store's client has errors of its own (no credentials, no network)
        raise InputError(f"{path}: cannot be reached. {explain(error)}") from error
    if not there:
        raise InputError(f"{path}: no such file or folder; expected an input that is there.{_near(path)}")


def _near(path: str) -> str:
    """A hint at a sister of a missing local path with nearly the same name."""
    parent = Path(path).parent
    if is_remote(path) or not parent.is_dir():
        gone = next((p for p in Path(path).parents if p.is_dir()), None)
        return f" {gone} is there, what follows is not." if gone and not is_remote(path) else " Check the spelling."
    close = difflib.get_close_matches(Path(path).name, [p.name for p in parent.iterdir()], n=1, cutoff=0.6)
    return f" Did you mean {parent / close[0]}?" if close else f" {parent} holds no similar name."


def explain(error: BaseException) -> str:
    """An error of opening or reading, with what to do about it."""
    code = error.errno if isinstance(error, OSError) else None
    if isinstance(error, FileNotFoundError):
        return "the file is not there (any more)"
    if isinstance(error, PermissionError) or code == errno.EACCES:
        return "no permission to read it; change the file's mode or run as its owner"
    if isinstance(error, IsADirectoryError):
        return "it is a folder, expected a file"
    # Without the path: a ledger must not depend on where the input lies.
    return f"{type(error).__name__}: {(error.strerror if isinstance(error, OSError) else None) or error}"


def _remote(path: str) -> tuple[Any, str]:
    try:
        fs, inner = fsspec.url_to_fs(path)
    except ImportError as error:
        raise InputError(f"{path}: {error}") from error
    except ValueError as error:
        raise InputError(
            f"{path}: {error}; expected a local path or a URL that fsspec knows (s3://, gs://…)"
        ) from error
    return fs, str(inner)
