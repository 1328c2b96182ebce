"""Japanese without kana, as labels and headlines show it, and Chinese of the same origin as a control.

    python benchmarks/japanese.py [--part develop]

No corpus that we may use labels such strings, so they are made from word lists:

- words: the commonest words without kana of wordfreq's Japanese list (Speer 2022), two characters and more;
- captions: two of them side by side; headlines: two compounds of two or three, with a space between;
- names: those of territories, languages, scripts and currencies in Unicode's CLDR (through Babel), and holidays.

A string is *ambiguous* where each of its words is written the same in Chinese, simplified or traditional: nothing
but the company it keeps tells it, so such strings stand in a row of their own. The control are Chinese words, captions
and headlines made in the same way, in both scripts, and the CLDR's Chinese names; words that the Japanese list
also has are left out of them.

Every word belongs to one half by a hash: rules are developed on one (``--part develop``), figures are those of
the other. Neither list ships, nor anything made of them. Needs: uv pip install wordfreq babel holidays
"""

from __future__ import annotations

import argparse
import random
import re
import zlib
from collections.abc import Iterator, Sequence
from functools import cache
from importlib.metadata import version

import polars as pl

from tuwen.filters.language import Language
from tuwen.filters.normalise import Normalise

HAN = re.compile("^[\u3400-\u4dbf\u4e00-\u9fff\u3005\u3006\u30f6]{2,}$")
COMMONEST = 8_000
MADE = 5_000
PARTS = ("report", "develop")


def strings(part: str) -> Iterator[tuple[str, str, list[str]]]:
    """(language, kind, strings) of one half."""
    shared = _shared()
    japanese = [w for w in _words("ja") if _half(w) == part]
    yield "ja", "words", [w for w in japanese if w not in shared]
    yield "ja", "words, ambiguous", [w for w in japanese if w in shared]
    for kind in ("captions", "headlines"):
        made = _made(japanese, kind)
        yield "ja", kind, [text for text, words in made if not shared.issuperset(words)]
        yield "ja", f"{kind}, ambiguous", [text for text, words in made if shared.issuperset(words)]
    chinese_names = {n for locale in ("zh", "zh_Hant") for n in _names(locale)}
    names = [n for n in _names("ja") if _half(n) == part]
    yield "ja", "names", [n for n in names if n not in chinese_names and n not in shared]
    for locale in ("zh", "zh_Hant"):
        own = set(_words("ja")) | set(_names("ja"))
        words = [w for w in _words(locale) if _half(w) == part and w not in own]
        yield locale, "words", words
        for kind in ("captions", "headlines"):
            yield locale, kind, [text for text, _ in _made(words, kind)]
        yield locale, "names", [n for n in _names(locale) if _half(n) == part and n not in own]


def languages(texts: Sequence[str]) -> pl.Series:
    """What the stages call each text."""
    return Language().measure(Normalise().measure(pl.DataFrame({"caption_raw": list(texts)})))["lang"]


def show(part: str) -> None:
    """Print the table of one half."""
    print(
        f"Japanese without kana, the {part} half (wordfreq {version('wordfreq')}, CLDR of Babel {version('babel')}); "
        "of ja the share accepted as Chinese, of zh the share kept"
    )
    for language, kind, texts in strings(part):
        if texts:
            kept = languages(texts).is_in(["zh", "yue", "wuu"]).mean()
            print(f"  {language:8} {kind:20} {len(texts):6} {kept:.4f}")


def _half(word: str) -> str:
    return PARTS[zlib.crc32(word.encode()) % 2]


@cache
def _words(language: str) -> list[str]:
    """The commonest words in Han characters of a language, traditional ones by OpenCC's phrases."""
    from opencc import OpenCC
    from wordfreq import top_n_list

    found = [w for w in top_n_list("ja" if language == "ja" else "zh", 200_000) if HAN.match(w)][:COMMONEST]
    return found if language != "zh_Hant" else list(dict.fromkeys(map(OpenCC("s2twp").convert, found)))


@cache
def _shared() -> frozenset[str]:
    """Japanese words that Chinese writes the same, in either script."""
    from opencc import OpenCC
    from wordfreq import top_n_list

    chinese = set(top_n_list("zh", 500_000))
    simplified = OpenCC("t2s").convert
    return frozenset(w for w in _words("ja") if w in chinese or simplified(w) in chinese)


@cache
def _names(locale: str) -> list[str]:
    from babel import Locale
    from holidays import country_holidays

    told = Locale.parse(locale)
    found = [*told.territories.values(), *told.languages.values(), *told.scripts.values(), *told.currencies.values()]
    country, language = {"ja": ("JP", "ja"), "zh": ("CN", "zh_CN"), "zh_Hant": ("TW", "zh_TW")}[locale]
    days = country_holidays(country, years=range(2000, 2026), language=language).values()
    found += [name for day in days for name in day.split("; ")]
    return sorted({n for n in found if HAN.match(n)})


def _made(words: Sequence[str], kind: str) -> list[tuple[str, list[str]]]:
    """Strings put together of words, and the words."""
    drawn = random.Random(kind)
    made = []
    for _ in range(MADE):
        if kind == "captions":
            groups = [drawn.sample(words, 2)]
        else:
            groups = [drawn.sample(words, drawn.choice((2, 3))) for _ in range(2)]
        made.append((" ".join("".join(g) for g in groups), [w for g in groups for w in g]))
    return made


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=PARTS, default="report")
    show(parser.parse_args().part)


if __name__ == "__main__":
    main()
