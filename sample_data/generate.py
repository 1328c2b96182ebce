"""Writes the sample crawl: a small web of pages and images with faults planted and labelled.

    DIR/sample.json       what this is, which hosts it serves, which file to run on
    DIR/sample.warc.gz    the pages as responses
    DIR/web/HOST/…        pages and images as a server gives them
    DIR/behaviours.json   answers other than a file: statuses, headers
    DIR/urls.tsv, pairs.jsonl   the same pairs as a list and as a table
    DIR/labels.jsonl      the truth: fault, expected verdict and reasons, per pair

The same seed gives the same bytes.
"""

from __future__ import annotations

import html
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .faults import Planted, plant

NEWS, WIKI, SHOP, IMAGES = "news.sample.invalid", "baike.sample.invalid", "tuku.sample.invalid", "img.sample.invalid"
PER_PAGE = 6
DATE = "2026-01-01T00:00:00Z"


def write_sample(directory: Path, seed: int = 0, plan: Mapping[str, int] | None = None) -> dict[str, Any]:
    """Write the crawl to ``directory`` and return what sample.json holds; ``plan`` as for ``faults.plant``."""
    rng = np.random.default_rng(seed)
    planted = plant(rng, plan)
    order = [int(i) for i in rng.permutation(len(planted))]
    urls = _urls(planted)
    behaviours: dict[str, Any] = {}
    for pair, url in zip(planted, urls, strict=True):
        _write_image(directory, pair, url, behaviours)
    pages: list[tuple[str, bytes]] = []
    for number, start in enumerate(range(0, len(order), PER_PAGE)):
        chosen = order[start : start + PER_PAGE]
        pages.append(_page(number, [(planted[i], urls[i]) for i in chosen]))
    for url, body in pages:
        _write(directory, url, body)
    (directory / "sample.warc.gz").write_bytes(_warc(pages))
    rows = [(planted[i], urls[i]) for i in order]
    _lines(directory / "urls.tsv", (f"{u}\t{p.caption}" for p, u in rows))
    _lines(directory / "pairs.jsonl", (_json({"url": u, "caption": p.caption}) for p, u in rows))
    _lines(directory / "labels.jsonl", (_json(_label(p, u)) for p, u in rows))
    (directory / "behaviours.json").write_text(_json(behaviours) + "\n", "utf-8")
    told = {
        "tuwen_sample": 1,
        "seed": seed,
        "input": "sample.warc.gz",
        "served": [NEWS, WIKI, SHOP, IMAGES],
        "pages": len(pages),
        "pairs": len(planted),
    }
    (directory / "sample.json").write_text(_json(told) + "\n", "utf-8")
    return told


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True)


def _lines(path: Path, lines: Any) -> None:
    path.write_text("".join(f"{line}\n" for line in lines), "utf-8")


def _label(pair: Planted, url: str) -> dict[str, Any]:
    return {
        "image_url": url,
        "caption_raw": pair.caption,
        "fault": pair.fault,
        "status": pair.status,
        "reasons": list(pair.reasons),
        "shipped": pair.shipped,
        "group": pair.group,
    }


def _urls(planted: list[Planted]) -> list[str]:
    """An address for each pair; the second of an exact duplicate has the first one's."""
    urls: list[str] = []
    for i, pair in enumerate(planted):
        if pair.fault == "exact_duplicate" and pair.image is None:
            urls.append(urls[-1])
            continue
        host = pair.host or IMAGES
        urls.append(f"http://{host}/2026/{i % 12 + 1:02d}/{i:04d}.{pair.suffix}")
    return urls


def _write_image(directory: Path, pair: Planted, url: str, behaviours: dict[str, Any]) -> None:
    if pair.serve:
        behaviours[url.removeprefix("http://")] = pair.serve
    if pair.image is not None:
        _write(directory, url, pair.image)


def _write(directory: Path, url: str, body: bytes) -> None:
    path = directory / "web" / url.removeprefix("http://")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(body)


def _page(number: int, pairs: list[tuple[Planted, str]]) -> tuple[str, bytes]:
    """(address, bytes) of a page that shows ``pairs``; templates and character sets take turns."""
    host, template, charset = (
        (NEWS, _figure, "utf-8"),
        (WIKI, _plain, "gb18030"),
        (SHOP, _lazy, "utf-8"),
        (NEWS, _responsive, "gbk"),
    )[number % 4]
    if charset == "gbk" and any(not _fits(p.caption, "gbk") for p, _ in pairs):
        charset = "utf-8"
    shown = "gb2312" if charset == "gb18030" else charset
    items = "\n".join(template(html.escape(p.caption), u) for p, u in pairs)
    text = (
        f'<!DOCTYPE html><html lang="zh-CN"><head><meta charset="{shown}"><title>第{number}页</title></head>\n'
        f'<body><h1>样例网页{number}</h1><img src="/static/blank.gif" width="1" height="1">\n{items}\n'
        "<p>本页由程序生成，用于演示。</p></body></html>\n"
    )
    return f"http://{host}/page/{number:03d}.html", text.encode(charset)


def _fits(text: str, charset: str) -> bool:
    try:
        text.encode(charset)
    except UnicodeEncodeError:
        return False
    return True


def _figure(words: str, url: str) -> str:
    return f'<figure><img src="{url}" alt=""><figcaption>{words}</figcaption></figure>'


def _plain(words: str, url: str) -> str:
    return f'<div class="para"><img src="{url.removeprefix("http:")}" alt="{words}" title="{words}" width="288"></div>'


def _lazy(words: str, url: str) -> str:
    return f'<li><a href="#"><img class="lazy" src="/static/loading.gif" data-original="{url}" alt="{words}"></a></li>'


def _responsive(words: str, url: str) -> str:
    return f'<picture><source srcset="{url} 2x"><img src="/static/blank.gif" alt="{words}"></picture>'


def _warc(pages: list[tuple[str, bytes]]) -> bytes:
    """The pages as WARC 1.1 responses with fixed dates and ids, one gzip member each."""
    from warcio.statusandheaders import StatusAndHeaders
    from warcio.warcwriter import BufferWARCWriter

    writer = BufferWARCWriter(gzip=True, warc_version="1.1")
    for number, (url, body) in enumerate(pages):
        http = StatusAndHeaders(
            "200 OK", [("Content-Type", "text/html"), ("Content-Length", str(len(body)))], "HTTP/1.1"
        )
        headers = {"WARC-Date": DATE, "WARC-Record-ID": f"<urn:uuid:00000000-0000-4000-8000-{number:012d}>"}
        record = writer.create_warc_record(
            url, "response", payload=io.BytesIO(body), http_headers=http, warc_headers_dict=headers
        )
        writer.write_record(record)
    data: bytes = writer.get_contents()
    return data
