"""Web addresses as pages write them, made into what goes over the wire."""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import quote, unquote, urlsplit, urlunsplit

_KEEP = "!#$%&'()*+,/:;=?@[]~"


def wire_url(url: str) -> str:
    """``url`` in ASCII: host in IDNA, path and query percent-encoded where they are not yet, no fragment.

    Raises ValueError that says what is wrong: only http and https with a host can be fetched.
    """
    parts = urlsplit(url.strip())
    if parts.scheme.lower() not in ("http", "https"):
        raise ValueError(f"{url[:200]!r} has scheme {parts.scheme!r}; only http and https are fetched")
    host = unquote(parts.hostname or "")
    if not host:
        raise ValueError(f"{url[:200]!r} names no host")
    port = f":{parts.port}" if parts.port is not None else ""
    name = f"[{host}]" if ":" in (parts.hostname or "") else _ascii_host(host)
    path = quote(parts.path or "/", safe=_KEEP)
    return urlunsplit((parts.scheme.lower(), name + port, path, quote(parts.query, safe=_KEEP), ""))


def quote_bytes(url: bytes) -> str:
    """A URL of any bytes as ASCII text, those beyond ASCII percent-encoded."""
    return quote(url, safe=_KEEP)


def host_of(url: str) -> str:
    """The lower-case host of a URL, without brackets."""
    return (urlsplit(url).hostname or "").lower()


def literal_address(host: str) -> str | None:
    """The IP address where ``host`` is one in its usual spelling; None for names."""
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        return None


_NO_HOST = re.compile(r"[\x00-\x20\x7f%/?#@:<>\[\]\\^|]")


def _ascii_host(host: str) -> str:
    if _NO_HOST.search(host):
        raise ValueError(f"host {host!r} holds what no host may")
    if host.isascii():
        return host
    try:
        return host.encode("idna").decode("ascii")
    except UnicodeError as error:
        raise ValueError(f"host {host!r} is no internationalised domain name: {error}") from error
