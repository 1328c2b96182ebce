"""From a reference as written in a page or a table to an absolute http(s) URL, or the reason why not."""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import quote, urljoin, urlsplit, urlunsplit

from .rows import Reason, clean

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")
_PLAIN = re.compile(r"https?://[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?/[A-Za-z0-9\-._~!$&'()*+,;=:@%/?]*")
_HOST = re.compile(r"[^\s/?#@\\<>\"^`{|}%\[\]]+|\[[0-9A-Fa-f:.]+\]")
_SAFE_PATH = "!$&'()*+,;=:@%/~-._"
_SAFE_QUERY = _SAFE_PATH + "?[]|"


class Resolved(NamedTuple):
    """``url`` is absolute, or ``reason`` and ``detail`` say why there is none."""

    url: str | None
    reason: Reason | None = None
    detail: str | None = None


def tidy(reference: str) -> str:
    """A reference as a browser reads it: no spaces around it, no tabs or line breaks within."""
    return re.sub(r"[\t\n\r]", "", reference.strip(" \t\n\r\f\0\u3000"))


def is_absolute(reference: str) -> bool:
    """Whether a tidied reference names its host (``http:…``, ``//host/…``) or is of another scheme."""
    return reference.startswith(("//", "\\\\")) or bool(_SCHEME.match(reference))


def resolve(reference: str, base: str | None = None) -> Resolved:
    """The absolute URL of ``reference``, against ``base`` (a page's URL or its ``<base>``) where it is relative.

    Protocol-relative references take the base's scheme, or https. Characters beyond ASCII are
    percent-encoded as UTF-8 (in the host: IDNA), the fragment is dropped.

    >>> resolve("//img.example.cn/红.jpg").url
    'https://img.example.cn/%E7%BA%A2.jpg'
    >>> resolve("a.jpg", "http://example.cn/news/1.html").url
    'http://example.cn/news/a.jpg'
    >>> resolve("data:image/gif;base64,R0").reason
    'data_url'
    """
    if _PLAIN.fullmatch(reference):
        return Resolved(reference)
    text = tidy(reference)
    if not text:
        return Resolved(None, "bad_url", "the image has an empty URL; expected http:// or https://")
    scheme = _SCHEME.match(text)
    if scheme:
        name = scheme[1].lower()
        if name == "data":
            return Resolved(None, "data_url", f"the image stands in the page itself ({text[:40]}…); no URL to fetch")
        if name not in ("http", "https"):
            return Resolved(None, "bad_url", f"{text[:200]!r} is a {name}: URL; expected http:// or https://")
    elif text.startswith(("//", "\\\\")):
        over_http = (base or "").startswith("http:")
        text = ("http:" if over_http else "https:") + text
    elif base is None:
        return Resolved(None, "relative_url", f"{text[:200]!r} is relative and the page's own URL is not known")
    try:
        return _whole(urljoin(base or "", text.replace("\\", "/")))
    except ValueError as error:
        return Resolved(None, "bad_url", f"{text[:200]!r}: {error}")


def _whole(url: str) -> Resolved:
    """``url`` percent-encoded, if it has a host that can be one; ValueError where it does not parse."""
    scheme, netloc, path, query, _ = urlsplit(clean(url))
    user, at, where = netloc.rpartition("@")
    host, port = where, ""
    if (found := re.fullmatch(r"(.*?):(\d*)", where)) and not where.endswith("]"):
        host, port = found[1], found[2]
    if not host.strip(".") or not _HOST.fullmatch(host) or (port and int(port) > 65535):
        return Resolved(None, "bad_url", f"{url[:200]!r} has no usable host; expected http(s)://host/path")
    if not host.isascii():
        host = host.encode("idna").decode("ascii")
    netloc = user + at + host.lower() + (f":{port}" if port else "")
    parts = (scheme.lower(), netloc, quote(path or "/", _SAFE_PATH), quote(query, _SAFE_QUERY), "")
    return Resolved(urlunsplit(parts))
