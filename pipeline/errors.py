"""Errors that reach the user, named by what the caller does next.

TuwenError             something the user can mend; the message says what was given, expected, and what to do
+-- UsageError         wrong command line or recipe: exit code 2
|   +-- RecipeError    the recipe does not hold; names file, line and field
+-- InputError         an input cannot be read: exit code 3
+-- RunError           the run itself failed: exit code 1
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class TuwenError(Exception):
    """An error with an exit code; its message is shown without a traceback."""

    exit_code = 1


class UsageError(TuwenError):
    """The command line or the recipe is wrong."""

    exit_code = 2


class RecipeError(UsageError):
    """A recipe does not hold."""


class InputError(TuwenError):
    """An input cannot be read."""

    exit_code = 3


class RunError(TuwenError):
    """The run failed."""


def nearest(given: str, valid: Iterable[str]) -> str:
    """A sentence that names the valid words and the nearest one to what was given."""
    words = sorted(valid)
    close = difflib.get_close_matches(given, words, n=1, cutoff=0.5)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    return f"expected one of: {', '.join(words)}.{hint}"
