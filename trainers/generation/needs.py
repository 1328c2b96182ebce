"""The packages of the extra ``generation``, or a clear word about them."""

from __future__ import annotations

import importlib
from typing import Any

from ...pipeline.errors import UsageError


def diffusers() -> Any:
    """The package diffusers."""
    return _found("diffusers")


def _found(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UsageError(
            f"the generation trainer needs the package {name} ({error}): pip install 'tuwen[generation]'"
        ) from None
