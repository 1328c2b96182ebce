"""A server on this machine that speaks OpenAI's chat completions, with the embedded captioner behind it.

    python -m tuwen.sample_data.chat_server

says its address, for ``synthetic_captions.captioner``. It answers with the embedded captioner's captions and, on
images that ``faults`` names (by SHA-256), with a planted fault:

    slow        the first answer comes after the client has gone; further ones at once
    slow_always no answer in time, ever
    500         once, then the caption; 500_always never anything else
    429         once with Retry-After, then the caption
    malformed   200 with half a JSON; nonsense: JSON that is no completion
    empty       a completion without text
    leak        the prompt comes back; repeat: the caption runs into a loop; refusal: 作为一个AI……
    cut         finish_reason length
    wrapped     这张图片显示了……, which is to be cut away
    drop        the connection is closed without an answer
    401         the key is refused, and quoted in the answer
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Write = Callable[[bytes], str]


class ChatServer(ThreadingHTTPServer):
    """Counts what it was asked: ``asked`` by fault, ``times`` of all requests, ``most`` under way at once."""

    daemon_threads = True

    def __init__(self, write: Write, faults: Mapping[str, str], slow_seconds: float) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.write, self.faults, self.slow_seconds = write, dict(faults), slow_seconds
        self.lock, self.asked, self.under_way, self.most = threading.Lock(), Counter[str](), 0, 0
        self.seen: Counter[str] = Counter()
        self.times: list[float] = []
        self.keys: set[str] = set()
        self.models: set[str] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is part of the test."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: ChatServer

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""

    def do_POST(self) -> None:
        server = self.server
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path != "/v1/chat/completions":
            self._send(404, b'{"error": {"message": "no such path"}}')
            return
        parts = {p["type"]: p for p in asked["messages"][0]["content"]}
        _, _, data = parts["image_url"]["image_url"]["url"].partition(";base64,")
        image = base64.b64decode(data)
        name = hashlib.sha256(image).hexdigest()
        with server.lock:
            server.under_way += 1
            server.most = max(server.most, server.under_way)
            server.times.append(time.monotonic())
            server.keys.add(self.headers.get("Authorization", ""))
            server.models.add(asked["model"])
            fault = server.faults.get(name, "")
            server.asked[fault] += 1
            server.seen[name] += 1
            first = server.seen[name] == 1
        try:
            self._answer(fault, first, image, parts["text"]["text"])
        finally:
            with server.lock:
                server.under_way -= 1

    def _answer(self, fault: str, first: bool, image: bytes, prompt: str) -> None:
        if fault == "slow_always" or (fault == "slow" and first):
            time.sleep(self.server.slow_seconds)
        if fault == "drop":
            self.close_connection = True
            return
        if fault == "500_always" or (fault == "500" and first):
            self._send(500, b'{"error": {"message": "out of memory"}}')
            return
        if fault == "429" and first:
            self._send(429, b'{"error": {"message": "too many"}}', {"Retry-After": "1"})
            return
        if fault == "401":
            said = f"wrong key: {self.headers.get('Authorization', '').removeprefix('Bearer ')}"
            self._send(401, json.dumps({"error": {"message": said}}).encode())
            return
        caption = self.server.write(image)
        text = {
            "empty": "",
            "leak": f"{prompt}{caption}",
            "repeat": caption[:6] * 12,
            "refusal": "作为一个AI语言模型，我无法查看图片。",
            "wrapped": f"这张图片显示了{caption}",
        }.get(fault, caption)
        body = json.dumps(completion(text, "length" if fault == "cut" else "stop"), ensure_ascii=False).encode()
        if fault == "malformed":
            body = body[: len(body) // 2]
        self._send(200, b'{"choices": []}' if fault == "nonsense" else body)

    def _send(self, status: int, body: bytes, headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {
            "Content-Type": "application/json",
            "Content-Length": str(len(body)),
            **(headers or {}),
        }.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


def completion(text: str, finish: str = "stop") -> dict[str, Any]:
    """A chat completion as OpenAI's API reference lays it out."""
    usage = {"prompt_tokens": 90, "completion_tokens": 10, "total_tokens": 100}
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "message": message, "finish_reason": finish}
    return {"id": "x", "object": "chat.completion", "model": "embedded", "choices": [choice], "usage": usage}


@contextmanager
def chat_server(
    write: Write, faults: Mapping[str, str] | None = None, slow_seconds: float = 2.0
) -> Iterator[ChatServer]:
    """A running server on a free port of this machine."""
    server = ChatServer(write, faults or {}, slow_seconds)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


def embedded_write() -> Write:
    """The embedded captioner as a function of one image; requests take turns at it."""
    from ..scoring.captioners import load_model
    from ..scoring.scorer import EMBEDDED

    model, lock = load_model(EMBEDDED, "", 0, "cpu", 1), threading.Lock()

    def write(image: bytes) -> str:
        with lock:
            return model.captions([image])[0].text or ""

    return write


if __name__ == "__main__":
    with chat_server(embedded_write()) as server:
        print(f"{server.url} answers as any model; end it with Ctrl-C", flush=True)
        threading.Event().wait()
