"""The run over HTTP on this machine, for the page beside this file.

Nothing leaves the machine: the page may load nothing from elsewhere (Content-Security-Policy), a request that names
another host than this one is refused (DNS rebinding), one that another site's page sends is refused too, and an
address that others reach needs a token. Paths are looked up in tables of what there is, never on the disk.
"""

from __future__ import annotations

import hmac
import ipaddress
import secrets
import socket
import traceback
from collections.abc import Iterable
from http import HTTPStatus
from http.cookies import SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files as package_files
from threading import Lock
from typing import Any, ClassVar
from urllib.parse import parse_qsl, urlsplit

from ...pipeline.errors import InputError, TuwenError, UsageError
from .service import Browser, NotThere, Selection, as_json, stamp

LARGEST_UPLOAD = 32 * 2**20
"""Bytes of a picture to search with."""
PAGES = {
    "/": ("page.html", "text/html"),
    "/page.js": ("page.js", "text/javascript"),
    "/page.css": ("page.css", "text/css"),
    "/page.svg": ("page.svg", "image/svg+xml"),
}
POLICY = (
    "default-src 'self'; img-src 'self' blob:; object-src 'none'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}
NO_PICTURE = (
    b'<svg xmlns="http://www.w3.org/2000/svg" width="120" height="80"><rect x="1" y="1" width="118" height="78" rx="6" '
    b'fill="none" stroke="#8a949c" stroke-dasharray="5 4"/><path d="M48 28l24 24m0-24l-24 24" stroke="#8a949c"/></svg>'
)
_COOKIE = "tuwen_browse"


def loopback(host: str) -> bool:
    """Whether only this machine reaches ``host`` (an address, or localhost)."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class PortTaken(UsageError):
    """The address cannot be served at."""


class Server(ThreadingHTTPServer):
    """Serves one run; ``token`` is what every request must show, empty for none."""

    daemon_threads = True

    def __init__(self, run: str, host: str, port: int, token: str = "") -> None:
        self.run, self.host, self.token = run, host, token
        if not loopback(host) and not token:
            raise UsageError(
                f"--host {host}: others than you reach that address and could see the run. Leave it out to serve this "
                "machine alone, or add --with-token so that only who has the address with its token gets in"
            )
        self._lock = Lock()
        self._browser, self._stamp = Browser(run), stamp(run)
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            super().__init__((host, port), Handler)
        except (OSError, OverflowError) as error:
            raise PortTaken(
                f"{host}:{port} cannot be served at: {error}. Give another --port, or --port 0 for any that is free"
            ) from None

    @property
    def browser(self) -> Browser:
        """The run as it is now: read again where a command has changed it, so that what was removed is gone here."""
        with self._lock:
            if (now := stamp(self.run)) != self._stamp:
                self._browser, self._stamp = Browser(self.run), now
            return self._browser

    @property
    def url(self) -> str:
        """Where to point a browser."""
        name = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{name}:{self.server_port}/" + (f"?token={self.token}" if self.token else "")

    def is_own(self, host: str) -> bool:
        """Whether a Host header names this server: its own name, or an address, which no foreign name server forges."""
        name = urlsplit(f"//{host}")
        try:
            right_port = (name.port or 80) == self.server_port
        except ValueError:
            return False
        called = name.hostname or ""
        if called in (self.host, "localhost"):
            return right_port
        try:
            address = ipaddress.ip_address(called)
        except ValueError:
            return False
        return right_port and (address.is_loopback or not loopback(self.host))

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away in the middle is no error of ours."""


class Handler(BaseHTTPRequestHandler):
    """One request."""

    server: Server
    protocol_version = "HTTP/1.1"
    server_version = "tuwen"
    sys_version = ""
    timeout = 30
    """Seconds that a client may take over sending a request."""
    _FIELDS: ClassVar[frozenset[str]] = frozenset(Selection.__dataclass_fields__)

    def do_GET(self) -> None:
        """Pages, JSON, pictures and lists."""
        self._answer(self._get)

    def do_POST(self) -> None:
        """A picture to search with."""
        self._answer(self._post)

    def _answer(self, call: Any) -> None:
        try:
            if not self._let_in():
                return
            call()
        except (ConnectionError, TimeoutError):
            self.close_connection = True
        except NotThere as error:
            self._fail(HTTPStatus.NOT_FOUND, str(error))
        except InputError as error:
            self._fail(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, str(error))
        except TuwenError as error:
            self._fail(HTTPStatus.BAD_REQUEST, str(error))
        except Exception as error:
            traceback.print_exc()
            self._fail(HTTPStatus.INTERNAL_SERVER_ERROR, f"{type(error).__name__}: {error}")

    def _let_in(self) -> bool:
        """Whether the request is for this server, from its own page or typed in, and has the token."""
        if not self.server.is_own(self.headers.get("Host", "")):
            self._fail(HTTPStatus.MISDIRECTED_REQUEST, "this request names another host than this server")
            return False
        # A link from elsewhere may open the page; nothing but the page itself may ask for data.
        opened = urlsplit(self.path).path == "/" and self.headers.get("Sec-Fetch-Mode") == "navigate"
        if self.headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin") and not opened:
            self._fail(HTTPStatus.FORBIDDEN, "another site's page asked for this")
            return False
        origin = self.headers.get("Origin")
        if origin and urlsplit(origin).netloc != self.headers.get("Host"):
            self._fail(HTTPStatus.FORBIDDEN, "another site's page asked for this")
            return False
        return not self.server.token or self._has_token()

    def _has_token(self) -> bool:
        given = dict(parse_qsl(urlsplit(self.path).query)).get("token", "")
        cookies = SimpleCookie(self.headers.get("Cookie", ""))
        held = cookies[_COOKIE].value if _COOKIE in cookies else ""
        if hmac.compare_digest(held.encode(), self.server.token.encode()):
            return True
        if hmac.compare_digest(given.encode(), self.server.token.encode()):
            # The token moves from the address, which histories keep, into a cookie that no script reads.
            cookie = f"{_COOKIE}={self.server.token}; HttpOnly; SameSite=Strict; Path=/"
            self._send(b"", "text/plain", HTTPStatus.SEE_OTHER, {"Location": "/", "Set-Cookie": cookie})
            return False
        self._fail(
            HTTPStatus.UNAUTHORIZED, "the token is missing or wrong; open the address that curate browse printed"
        )
        return False

    def _get(self) -> None:
        asked = urlsplit(self.path)
        given = dict(parse_qsl(asked.query, max_num_fields=40))
        path = asked.path
        if path in PAGES:
            name, kind = PAGES[path]
            self._send((package_files(__package__) / name).read_bytes(), f"{kind}; charset=utf-8")
            return
        browser = self.server.browser
        if path == "/api/run":
            self._json(browser.about())
        elif path == "/api/pairs":
            start, count = _whole(given, "from", 0), _whole(given, "count", 48)
            self._json(browser.page(Selection.of(given), start, count))
        elif path == "/api/pair":
            self._json(browser.pair(given.get("row", "")))
        elif path == "/api/find":
            self._json(browser.find(given.get("key", "")))
        elif path == "/image":
            # A pair without a picture is no error, and browsers would report a 404 as one.
            made = browser.picture(given.get("row", ""), given.get("size", "small"))
            self._send(made or NO_PICTURE, "image/jpeg" if made else "image/svg+xml")
        elif path == "/export":
            form = given.pop("format", "txt")
            kind = "text/plain" if form == "txt" else "application/x-ndjson"
            self._stream(browser.listed(Selection.of(given), form), kind, f"selection.{form}")
        else:
            raise NotThere(f"there is nothing at {path[:80]}")

    def _post(self) -> None:
        if urlsplit(self.path).path != "/api/image":
            self.close_connection = True
            raise NotThere(f"there is nothing to send to at {self.path[:80]}")
        told = self.headers.get("Content-Length", "")
        if not told.isdigit():
            self.close_connection = True
            self._fail(HTTPStatus.LENGTH_REQUIRED, "the request does not say how long it is")
            return
        if int(told) > LARGEST_UPLOAD:
            self.close_connection = True  # what follows is not read
            self._fail(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                f"the picture has {int(told):,} bytes; at most {LARGEST_UPLOAD:,} are taken",
            )
            return
        data = self.rfile.read(int(told))
        self._json({"upload": self.server.browser.keep_image(data)})

    def _json(self, value: Any) -> None:
        self._send(as_json(value), "application/json; charset=utf-8")

    def _fail(self, status: HTTPStatus, message: str) -> None:
        if self.command == "POST":
            self.close_connection = True  # its body may be unread
        self._send(as_json({"error": message}), "application/json; charset=utf-8", status)

    def _send(
        self, body: bytes, kind: str, status: HTTPStatus = HTTPStatus.OK, more: dict[str, str] | None = None
    ) -> None:
        self._head(status, {"Content-Type": kind, "Content-Length": str(len(body)), **(more or {})})
        self.wfile.write(body)

    def _stream(self, pieces: Iterable[bytes], kind: str, name: str) -> None:
        """A body whose length is not known beforehand; one that breaks off is seen as broken by the client."""
        disposition = f'attachment; filename="{name}"'
        told = {"Content-Type": f"{kind}; charset=utf-8", "Content-Disposition": disposition}
        self._head(HTTPStatus.OK, {**told, "Transfer-Encoding": "chunked"})
        try:
            for piece in pieces:
                if piece:
                    self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            self.wfile.write(b"0\r\n\r\n")
        except ConnectionError:
            raise
        except Exception:
            self.close_connection = True
            traceback.print_exc()

    def _head(self, status: HTTPStatus, told: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**HEADERS, **told}.items():
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: a log of every picture helps nobody."""


def _whole(given: dict[str, str], name: str, default: int) -> int:
    value = given.pop(name, "") or str(default)
    if not (value.isascii() and value.isdigit() and len(value) <= 12):
        raise UsageError(f"{name} {value[:40]!r}: expected a whole number from 0 up")
    return int(value)


def new_token() -> str:
    """A token that nobody guesses."""
    return secrets.token_urlsafe(24)
