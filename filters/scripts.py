"""Which characters which standard can write: the ground for telling Han-only texts apart.

A text that JIS X 0208 can write and neither GB 2312 nor Big5 can is Japanese: it mixes forms that
no Chinese script mixes (東京大学 has the traditional 東 with the simplified 学; 広 and 込 are Japan's own).
The repertoires are those of Python's codecs, so no list needs upkeep.
"""

from __future__ import annotations

from functools import cache

_HAN = range(0x4E00, 0x9FA6)


@cache
def repertoire(name: str) -> frozenset[str]:
    """The Han characters of ``gb2312``, ``big5`` or ``jis`` (JIS X 0208, levels 1 and 2).

    Big5 comes with the variants that Hong Kong's supplement adds (裏, 羣, 綫), less the forms that Japan
    simplified, which the supplement lists as well.
    """
    if name != "big5":
        codec = {"gb2312": "gb2312", "jis": "shift_jis"}[name]
        return frozenset(c for c in map(chr, _HAN) if _writes(c, codec))
    import opencc

    unreformed = opencc.OpenCC("jp2t")
    wide = (c for c in map(chr, _HAN) if _writes(c, "big5hkscs"))
    return frozenset(c for c in wide if _writes(c, "big5") or unreformed.convert(c) == c) | frozenset("着銹溫")


def _writes(character: str, codec: str) -> bool:
    try:
        character.encode(codec)
    except UnicodeEncodeError:
        return False
    return True


def outside(name: str) -> list[str]:
    """The Han characters that a repertoire lacks."""
    inside = repertoire(name)
    return [c for c in map(chr, _HAN) if c not in inside]
