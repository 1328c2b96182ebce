"""The commonest Chinese words, against which lexicons are checked: jieba's dictionary (MIT licence), by its counts.

python -m tuwen.filters.common_words .../jieba/dict.txt > filters/lexicons/common/words.txt
"""

from __future__ import annotations

import sys
from functools import cache
from importlib.resources import files
from pathlib import Path

WORDS = 15_000
"""Words kept; the last of them stands some 280 times in the texts that jieba's counts are from."""


@cache
def common_words() -> dict[str, int]:
    """Words of two to four characters and their rank, from 0."""
    text = (files(__package__) / "lexicons" / "common" / "words.txt").read_text("utf-8")
    listed = (w for line in text.splitlines() if not line.startswith("#") for w in line.split())
    return {word: rank for rank, word in enumerate(listed)}


def commonest(dictionary: str) -> list[str]:
    """The commonest words of a dictionary with a word, its count and its tag in each line."""
    rows = (line.split(" ") for line in dictionary.splitlines())
    counted = [(-int(n), word) for word, n, _ in rows if 2 <= len(word) <= 4 and all("一" <= c <= "鿿" for c in word)]
    return [word for _, word in sorted(counted)[:WORDS]]


def main() -> None:
    """Print the list for the dictionary that is named."""
    words = commonest(Path(sys.argv[1]).read_text("utf-8"))
    print(
        f"# The {len(words)} commonest words of two to four characters in the dictionary of jieba 0.42.1, the commonest"
    )
    print("# first (MIT licence, Copyright (c) 2013 Sun Junyi; its text is in models/NOTICE). Made by common_words.py.")
    for i in range(0, len(words), 30):
        print(" ".join(words[i : i + 30]))


if __name__ == "__main__":
    main()
