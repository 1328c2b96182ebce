"""Captions from an endpoint that speaks OpenAI's chat completions (vLLM, SGLang, llama.cpp, hosted services).

Each image goes as a data URL with the prompt, several requests at once; a server that batches (vLLM does) batches
those. What can go wrong becomes a reason of that image:

    http_<status>   the server's answer; 429 and 5xx are asked again
    timeout         no answer in time; asked again
    unreachable     no connection, or it broke
    bad_answer      200 with something that is no chat completion
    empty           a completion without text
    cut_short       the completion ran into max_tokens
    refusal         the server says that the model declined
    cost_limit      the run's requests or tokens were used up
"""

from __future__ import annotations

import base64
import json
import os
import random
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pycurl

from ..filters import image_kind
from ..filters.fetch_queue import seconds_asked
from .caption_meter import Meter
from .caption_written import Written

LONGEST_WAIT = 60.0
"""Seconds: a server that asks for a longer pause is taken at its word, and that image goes without."""

ANSWER_BYTES = 4 * 2**20
HOPELESS = frozenset((401, 403, 404))
"""Statuses that say the key, the address or the model is wrong: asking for further images would give the same."""


@dataclass(frozen=True)
class Endpoint:
    """Where to ask and how; see the fields of the same names in ``captioner.py``."""

    url: str
    model: str
    prompt: str
    max_tokens: int = 128
    api_key_env: str = ""
    concurrency: int = 8
    connect_seconds: float = 10.0
    read_seconds: float = 60.0
    retries: int = 3
    backoff_seconds: float = 1.0
    proxy: str = ""

    @property
    def completions(self) -> str:
        return f"{self.url.rstrip('/')}/chat/completions"


@dataclass
class _Answer:
    """Status and body, or libcurl's error."""

    status: int = 0
    body: bytes = b""
    retry_after: str | None = None
    error: str | None = None
    detail: str | None = None


class HttpCaptioner:
    """Asks ``endpoint`` for one caption per image; never raises for what a server does."""

    def __init__(self, endpoint: Endpoint, meter: Meter) -> None:
        self.endpoint, self.meter = endpoint, meter
        self._key = os.environ.get(endpoint.api_key_env, "") if endpoint.api_key_env else ""
        self._hopeless: Written | None = None
        self._held = threading.local()

    def captions(self, images: Sequence[bytes]) -> list[Written]:
        # A pool of its own for each slice: threads and connections do not survive a fork.
        with ThreadPoolExecutor(max(1, min(self.endpoint.concurrency, len(images)))) as pool:
            return list(pool.map(self._caption, images))

    def _caption(self, image: bytes) -> Written:
        asked = json.dumps(_request(self.endpoint, image)).encode()
        for tries in range(self.endpoint.retries + 1):
            if self._hopeless:
                return self._hopeless
            wait = self.meter.take()
            if wait is None:
                requests, tokens = self.meter.totals()
                return Written(None, "cost_limit", f"the run has made {requests} requests and used {tokens} tokens")
            time.sleep(wait)
            answer = self._ask(asked)
            told = self._told(answer)
            pause = self._pause(answer, tries)
            if pause is None:
                return told
            time.sleep(pause)
        raise AssertionError("the last try gives no pause")

    def _pause(self, answer: _Answer, tries: int) -> float | None:
        """Seconds until the next try: after 429, 5xx and timeouts alone, as the server asked or with back-off."""
        passing = answer.error == "timeout" or answer.status == 429 or answer.status >= 500
        if not passing or tries >= self.endpoint.retries:
            return None
        asked = seconds_asked(answer.retry_after)
        if asked is not None:
            return asked + random.uniform(0, 0.1) if asked <= LONGEST_WAIT else None
        # Jitter spreads the retries of many workers; what is written does not depend on it.
        return float(min(self.endpoint.backoff_seconds * 2**tries * random.uniform(0.5, 1.5), LONGEST_WAIT))

    def _told(self, answer: _Answer) -> Written:
        if answer.error:
            return Written(None, answer.error, self._hide(answer.detail or ""))
        text = answer.body.decode("utf-8", "replace")
        if answer.status != 200:
            told = Written(None, f"http_{answer.status}", self._hide(text[:300]))
            if answer.status in HOPELESS:
                self._hopeless = told
            return told
        told = read_completion(text)
        if told.tokens:
            self.meter.spent(told.tokens)
        return Written(told.text, told.reason, self._hide(told.detail) if told.detail else None, told.tokens)

    def _hide(self, text: str) -> str:
        """``text`` without the key, which servers like to quote in their errors."""
        return text.replace(self._key, "***") if self._key else text

    def _ask(self, body: bytes) -> _Answer:
        curl: pycurl.Curl | None = getattr(self._held, "curl", None)
        if curl is None:
            curl = self._held.curl = pycurl.Curl()
        endpoint, answer, chunks = self.endpoint, _Answer(), bytearray()

        def on_body(data: bytes) -> int | None:
            chunks.extend(data)
            return -1 if len(chunks) > ANSWER_BYTES else None

        def on_header(line: bytes) -> None:
            name, _, value = line.decode("latin-1").partition(":")
            if name.strip().lower() == "retry-after":
                answer.retry_after = value.strip()

        curl.reset()
        curl.setopt(pycurl.URL, endpoint.completions)
        curl.setopt(pycurl.PROTOCOLS, pycurl.PROTO_HTTP | pycurl.PROTO_HTTPS)
        curl.setopt(pycurl.NOSIGNAL, 1)
        curl.setopt(pycurl.CONNECTTIMEOUT_MS, int(endpoint.connect_seconds * 1000))
        curl.setopt(pycurl.TIMEOUT_MS, int((endpoint.connect_seconds + endpoint.read_seconds) * 1000))
        curl.setopt(pycurl.PROXY, endpoint.proxy)
        headers = ["Content-Type: application/json", "Accept: application/json", "Expect:"]
        curl.setopt(pycurl.HTTPHEADER, [*headers, *([f"Authorization: Bearer {self._key}"] if self._key else [])])
        curl.setopt(pycurl.POSTFIELDS, body)
        curl.setopt(pycurl.WRITEFUNCTION, on_body)
        curl.setopt(pycurl.HEADERFUNCTION, on_header)
        try:
            curl.perform()
        except pycurl.error as error:
            code, message = error.args[0], curl.errstr()
            answer.error = "timeout" if code == pycurl.E_OPERATION_TIMEDOUT else "unreachable"
            answer.detail = f"{message} (curl {code})"
            if len(chunks) > ANSWER_BYTES:
                answer.error, answer.detail = "bad_answer", f"more than {ANSWER_BYTES:,} bytes"
        answer.status = 0 if answer.error else int(curl.getinfo(pycurl.RESPONSE_CODE))
        answer.body = bytes(chunks)
        return answer


def _request(endpoint: Endpoint, image: bytes) -> dict[str, Any]:
    """The body of a chat completion with one image; temperature 0 asks for the likeliest words."""
    url = f"data:image/{image_kind.sniff(image) or 'jpeg'};base64,{base64.b64encode(image).decode()}"
    content = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": endpoint.prompt}]
    return {
        "model": endpoint.model,
        "messages": [{"role": "user", "content": content}],
        "max_tokens": endpoint.max_tokens,
        "temperature": 0,
    }


def read_completion(text: str) -> Written:
    """What a chat completion says, or why it is none."""
    try:
        told = json.loads(text)
        choice = told["choices"][0]
        message = choice["message"]
        content = message.get("content")
        if isinstance(content, list):
            content = "".join(part.get("text") or "" for part in content)
        if not isinstance(content, str | None):
            raise TypeError(f"content is a {type(content).__name__}")
        usage = told.get("usage") or {}
        tokens = usage.get("total_tokens")
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError) as error:
        return Written(None, "bad_answer", f"no chat completion: {type(error).__name__}: {error}; {text[:200]!r}")
    tokens = tokens if isinstance(tokens, int) and 0 <= tokens < 2**32 else None
    finish = choice.get("finish_reason")
    if message.get("refusal") or finish == "content_filter":
        return Written(None, "refusal", str(message.get("refusal") or finish)[:300], tokens)
    if not (content or "").strip():
        return Written(None, "empty", f"finish_reason {finish!r}", tokens)
    if finish == "length":
        return Written(None, "cut_short", str(content)[-100:], tokens)
    return Written(content, tokens=tokens)
