"""All figures of the text rules on real captions: names, languages, sensitive words, boilerplate, speed.

    python benchmarks/text_rules.py [names languages japanese sensitive boilerplate speed] --data ../shared/data

- Languages: sentences of Tatoeba by language; the share that is kept, and the share of Cantonese and Wu that is
  named so. Japanese without kana is hardly in it: those are made from word lists (japanese.py).
- Boilerplate: alts of Chinese news pages that stand on two or more of them against those that stand on one,
  found by the phrases alone, by counting pages (``templates``), and by both. The truth is a count of pages too, so
  the figures of ``templates`` say what its threshold leaves out and not how well it judges; the pages count as
  one host.
- Speed: captions and megabytes a CPU-second for each rule and for the chain, beside the same work by
  jieba.posseg and plain loops (language by share of Han, phrases by ``re``, words by ``in``, names by tags).
- Names and sensitive words: what names.py and sensitive_words.py print by themselves; they say how it is measured.

Needs: uv pip install jieba wordfreq babel holidays
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import statistics
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import polars as pl

from tuwen import __version__
from tuwen.filters.boilerplate import PATTERNS, python_regex
from tuwen.filters.language import Language
from tuwen.filters.templates import Templates
from tuwen.pipeline.columns import with_missing
from tuwen.pipeline.recipe import load
from tuwen.pipeline.stage import StageModel, Tally, apply_stage, apply_stages, judge
from tuwen.pipeline.text import records

STEPS = ("names", "languages", "japanese", "sensitive", "boilerplate", "speed")
KANA = re.compile("[\u3041-\u30ff]")


def languages(data: Path) -> None:
    """The share kept of each language, and named right of the Chinese ones."""
    folder = data / "lid_tatoeba"
    if not folder.is_dir():
        print("languages: no lid_tatoeba here")
        return
    print(f"{'language':10} {'texts':>7} {'kept':>7}  named")
    for path in sorted(folder.glob("*.jsonl")) or sorted(folder.glob("*.txt")):
        for name, texts in sorted(_by_language(path).items()):
            rows = _through([*_stages(("normalise", "language"))], texts)
            kept = rows["status"].null_count() / rows.height
            named = rows["lang"].value_counts(sort=True).head(3)
            shares = ", ".join(f"{lang} {n / rows.height:.3f}" for lang, n in named.rows())
            print(f"{name:10} {rows.height:7} {kept:7.4f}  {shares}")


def names(data: Path) -> None:
    """Exact spans on news, false names on photo captions."""
    from names import report

    report(data)


def sensitive(data: Path) -> None:
    """Recall by disguise, false hits, speed by the size of the lexicon."""
    from sensitive_words import report

    report(data)


def japanese() -> None:
    """Japanese without kana, from word lists; nothing where they are not installed."""
    try:
        from japanese import show

        show("report")
    except ImportError as error:
        print(f"Japanese without kana: {error}; uv pip install wordfreq babel holidays")


def _by_language(path: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in path.read_text("utf-8").splitlines():
        told = json.loads(line) if line.startswith("{") else {"text": line}
        name = str(told.get("lang") or told.get("language") or path.stem)
        text = str(told.get("text") or told.get("sentence") or "")
        found.setdefault(name, []).append(text)
        if name == "ja" and not KANA.search(text):
            found.setdefault("ja, no kana", []).append(text)
    return found


def boilerplate(data: Path) -> None:
    """Precision and recall against alts that stand on several pages."""
    path = data / "html_zh" / "alts.jsonl"
    if not path.is_file():
        print("boilerplate: no html_zh here")
        return
    told = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    rows = pl.DataFrame(
        {"caption_raw": [t["alt"] for t in told], "page_url": [f"http://a.cn/{t['page']}" for t in told]}
    )
    rows = rows.filter(pl.col("caption_raw").str.contains(r"\p{Han}"))
    rows = with_missing(rows.with_columns(caption="caption_raw"), ("caption_offsets", "status", "stage", "reason"))
    for stage in _stages(("normalise", "boilerplate")):
        rows = apply_stage(stage, rows, Tally())
    by_phrase = rows["reason"].fill_null("") == "boilerplate"
    counted = judge(Templates(), Templates().relate(rows.with_columns(pl.lit(None, pl.String).alias("status"))))
    by_count = counted["reason"].fill_null("") == "template_caption"
    repeats = rows.select(pl.col("page_url").n_unique().over("caption_raw") >= 2).to_series()
    print(f"{rows.height} Chinese alts, {repeats.sum()} of them on two or more pages (distinct texts in brackets)")
    for name, found in (("phrases", by_phrase), ("pages", by_count), ("both", by_phrase | by_count)):
        unique = rows.select("caption_raw", found=found, repeats=repeats).unique("caption_raw")
        figures = [_figures(found, repeats), _figures(unique["found"], unique["repeats"])]
        print(
            f"  {name:8} precision {figures[0][0]:.3f} recall {figures[0][1]:.3f}  "
            f"[precision {figures[1][0]:.3f} recall {figures[1][1]:.3f}]"
        )


def _figures(found: pl.Series, true: pl.Series) -> tuple[float, float]:
    both = (found & true).sum()
    return both / max(1, found.sum()), both / max(1, true.sum())


def speed(data: Path, most: int, rounds: int) -> None:
    """Captions a CPU-second, rule by rule and as a chain, beside jieba.posseg and plain loops."""
    texts = _captions(data, most)
    size = sum(len(t.encode()) for t in texts)
    stages = [s for s in load("oppovl").phase("measure") if not s.on_images]
    _through(stages, texts[:2000])
    spent: dict[str, list[float]] = {}
    for _ in range(rounds):
        rows = _rows(texts)
        for stage in stages:
            started = time.process_time()
            rows = pl.concat([apply_stage(stage, p, Tally()) for p in rows.iter_slices(2048)], how="diagonal_relaxed")
            spent.setdefault(stage.name, []).append(time.process_time() - started)
        started = time.process_time()
        for piece in _rows(texts).iter_slices(2048):
            apply_stages(stages, piece, {s.name: Tally() for s in stages})
        spent.setdefault("chain", []).append(time.process_time() - started)
        started = time.process_time()
        sum(1 for _ in records(((t, None) for t in texts), stages))
        spent.setdefault("chain, as curate text", []).append(time.process_time() - started)
        # The peer runs in every round, between the others: a busy machine then slows both alike.
        if (peer := _peer(texts)) is not None:
            spent.setdefault("jieba.posseg and loops", []).append(peer[0])
            spent.setdefault("jieba.posseg alone", []).append(peer[1])
    print(f"{len(texts)} captions, {size / 2**20:.2f} MB, one core")
    for name, seconds in spent.items():
        middle = statistics.median(seconds)
        print(f"  {name:24} {len(texts) / middle:12,.0f} captions/s {size / 2**20 / middle:8.2f} MB/s")
    for peer_name in ("jieba.posseg and loops", "jieba.posseg alone"):
        ratios = [a / b for a, b in zip(spent.get(peer_name, ()), spent["chain"], strict=False)]
        if ratios:
            middle = statistics.median(ratios)
            print(f"  the chain is {middle:.1f} times as fast as {peer_name} ({min(ratios):.1f} to {max(ratios):.1f})")


def _captions(data: Path, most: int) -> list[str]:
    path = data / "flickr8k_cn" / "captions.jsonl"
    if path.is_file():
        told = (json.loads(line) for line in path.read_text("utf-8").splitlines())
        return [caption for t in told for caption in t["zh"]][:most]
    import numpy as np

    from tuwen.sample_data.world import caption, random_scene

    drawn = np.random.default_rng(5)
    print("no flickr8k_cn here: captions of the sample world")
    return [caption(random_scene(drawn), drawn) for _ in range(most)]


def _peer(texts: list[str]) -> tuple[float, float] | None:
    """CPU seconds of the same work with jieba.posseg and loops, and of its tags alone; None without jieba."""
    try:
        import jieba.posseg as posseg
    except ImportError:
        return None
    phrases = [re.compile(python_regex(p)) for p in PATTERNS.values()]
    words = _entries()
    list(posseg.cut("先装入词典"))
    tagging = 0.0
    started = time.process_time()
    for text in texts:
        han = sum("\u4e00" <= c <= "\u9fff" for c in text)
        if han * 2 < len(text):
            continue
        for phrase in phrases:
            text = phrase.sub("", text)
        if any(word in text for word in words) or len(set(text)) < 2:
            continue
        before = time.process_time()
        names = [word for word, tag in posseg.cut(text) if tag in ("nr", "nrt", "nrfg")]
        tagging += time.process_time() - before
        for name in names:
            text = text.replace(name, "【人名】")
    return time.process_time() - started, tagging


def _entries() -> list[str]:
    folder = Path(__file__).parents[1] / "filters" / "lexicons" / "sensitive"
    lines = (
        line.split("#")[0].strip() for p in sorted(folder.glob("*.txt")) for line in p.read_text("utf-8").splitlines()
    )
    return sorted({word for line in lines for word in line.split() if word and ":" not in word})


def _stages(names: tuple[str, ...]) -> list[StageModel]:
    held = {s.name: s for s in load("oppovl").stages}
    return [held.get(name) or Language() for name in names]


def _rows(texts: list[str]) -> pl.DataFrame:
    rows = pl.DataFrame({"caption_raw": texts}).with_columns(caption="caption_raw")
    return with_missing(rows, ("caption_offsets", "status", "stage", "reason"))


def _through(stages: list[StageModel], texts: list[str]) -> pl.DataFrame:
    rows = _rows(texts)
    for stage in stages:
        rows = apply_stage(stage, rows, Tally())
    return rows


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", help=f"which figures: {', '.join(STEPS)}; all where none is named")
    parser.add_argument("--data", default="../shared/data", help="folder with ner, lid_tatoeba, html_zh, flickr8k_cn")
    parser.add_argument("--captions", type=int, default=30_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, tuwen {__version__}, "
        f"polars {version('polars')}, data {options.data}"
    )
    if unknown := set(options.what) - set(STEPS):
        parser.error(f"{', '.join(sorted(unknown))}: expected any of {', '.join(STEPS)}")
    data = Path(options.data)
    steps: dict[str, Callable[[], None]] = {
        "names": lambda: names(data),
        "languages": lambda: languages(data),
        "japanese": japanese,
        "sensitive": lambda: sensitive(data),
        "boilerplate": lambda: boilerplate(data),
        "speed": lambda: speed(data, options.captions, options.rounds),
    }
    for name in options.what or STEPS:
        print(f"\n== {name}", flush=True)
        steps[name]()


if __name__ == "__main__":
    main()
