"""Measures on another machine: a small HTTP agent there, and the device that asks it.

    python -m tuwen.trainers.compression.agent --port 8571 --token SECRET      on the machine to measure

It needs onnx, onnxruntime and numpy. It runs the models that it is sent, so it listens on 127.0.0.1 unless told
otherwise and, where a token is set, answers only those who know it. One measurement runs at a time.
"""

from __future__ import annotations

import argparse
import base64
import hmac
import json
import threading
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from ...pipeline.errors import RunError, TuwenError, UsageError
from .profiler import SESSIONS, Device, LocalDevice, Measured

MOST_BYTES = 1 << 29
"""Of one request."""
SECONDS = 300.0
"""Patience of the asking side."""
MOST_SESSIONS = 1000


class RemoteDevice:
    """A ``Device`` behind an agent's address, as in http://host:8571."""

    def __init__(self, address: str, token: str = "") -> None:
        if not address.startswith(("http://", "https://")):
            raise UsageError(f"device {address!r} is no address; expected local, or http://HOST:PORT of an agent")
        self.address, self.token = address.rstrip("/"), token
        self.name = str(self._ask("name", b"")["name"])

    def latency(self, model: bytes, sessions: int = SESSIONS) -> Measured:
        return Measured(*self._ask("latency", model, sessions)["measured"])

    def refer(self, model: bytes) -> Measured:
        return Measured(*self._ask("refer", model)["measured"])

    def memory(self, model: bytes) -> float:
        return float(self._ask("memory", model)["measured"])

    def energy(self, model: bytes) -> Measured | None:
        found = self._ask("energy", model)["measured"]
        return Measured(*found) if found else None

    def _ask(self, what: str, model: bytes, sessions: int = SESSIONS) -> dict[str, Any]:
        body = json.dumps({"model": base64.b64encode(model).decode(), "sessions": sessions}).encode()
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {self.token}"}
        request = urllib.request.Request(f"{self.address}/{what}", body, headers)
        try:
            with urllib.request.urlopen(request, timeout=SECONDS) as answer:
                told: dict[str, Any] = json.loads(answer.read(MOST_BYTES))
        except urllib.error.HTTPError as error:
            raise RunError(f"the agent at {self.address} refused {what}: {_words(error)}") from None
        except (OSError, ValueError) as error:
            raise RunError(
                f"no agent answers at {self.address} ({error}); start one there: "
                "python -m tuwen.trainers.compression.agent"
            ) from None
        return told


def _words(error: urllib.error.HTTPError) -> str:
    try:
        return str(json.loads(error.read(10_000))["error"])
    except (ValueError, KeyError, TypeError, OSError):
        return f"HTTP {error.code}"


def server(port: int, host: str = "127.0.0.1", token: str = "", device: Device | None = None) -> ThreadingHTTPServer:
    """An agent, not yet serving; ``serve_forever`` starts it."""
    own = device or LocalDevice()
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        timeout = 60  # a client that sends nothing is let go

        def do_POST(self) -> None:
            try:
                length = int(self.headers.get("Content-Length") or 0)
            except ValueError:
                length = -1
            given = self.headers.get("Authorization", "")
            if token and not hmac.compare_digest(given.encode(), f"Bearer {token}".encode()):
                self._answer(403, {"error": "the token is missing or wrong"})
            elif not 0 < length <= MOST_BYTES:
                self._answer(413, {"error": f"a body of 1 to {MOST_BYTES} bytes is expected"})
            else:
                try:
                    told = json.loads(self.rfile.read(length))
                    model = base64.b64decode(told["model"], validate=True)
                    sessions = min(MOST_SESSIONS, max(1, int(told.get("sessions", SESSIONS))))
                except (ValueError, KeyError, TypeError, AttributeError):
                    self._answer(400, {"error": "expected JSON with model (base64) and sessions"})
                    return
                with lock:
                    self._measure(self.path.strip("/"), model, sessions)

        def _measure(self, what: str, model: bytes, sessions: int) -> None:
            try:
                if what == "name":
                    self._answer(200, {"name": own.name})
                elif what == "latency":
                    self._answer(200, {"measured": own.latency(model, sessions)})
                elif what in ("refer", "memory", "energy"):
                    self._answer(200, {"measured": getattr(own, what)(model)})
                else:
                    self._answer(404, {"error": f"nothing is measured at /{what}"})
            except TuwenError as error:
                self._answer(400, {"error": str(error)})
            except Exception as error:  # what onnxruntime raises while it runs a model
                self._answer(400, {"error": f"{type(error).__name__}: {str(error)[:200]}"})

        def _answer(self, status: int, told: dict[str, Any]) -> None:
            body = json.dumps(told).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *given: Any) -> None:
            """Quiet."""

    return ThreadingHTTPServer((host, port), Handler)


def main() -> None:
    """Command line of the agent."""
    parser = argparse.ArgumentParser(description="Measures ONNX models for curate train compression on this machine.")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=8571)
    parser.add_argument("--token", default="", help="what askers must know; set it where others can reach the port")
    parser.add_argument("--batch", type=int, default=1, help="inputs of one run")
    given = parser.parse_args()
    made = server(given.port, given.host, given.token, LocalDevice(given.batch))
    print(f"measuring at http://{given.host}:{made.server_port}", flush=True)
    try:
        made.serve_forever()
    except KeyboardInterrupt:
        made.server_close()


if __name__ == "__main__":
    main()
