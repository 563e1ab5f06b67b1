# SPDX-License-Identifier: Apache-2.0
"""A model server with faults on demand: `python server.py PORT`.

It offers OpenAI's chat completions, and answers every question with the same depth. POST the name
of a fault, or "well", to /mode.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from vlm3_ros.language.prompts import load_prompt_set
from vlm3_ros.language.wordings.depth import DepthWording, depth_answer

PROMPTS = "vlm3-short"
SLOW = 30.0
"""Duration of a slow answer, seconds."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    mode = "well"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_GET(self) -> None:
        self.say(b'{"data": [{"id": "soak"}]}')

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/mode":
            self.server.mode = body.decode()
            self.say(b"{}")
        else:
            _MODES[self.server.mode](self)

    def say(self, body: bytes, status: int = 200, length: int | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def _completion(text: object) -> bytes:
    return json.dumps({"choices": [{"message": {"content": text}}]}).encode()


_GOOD = _completion(depth_answer(load_prompt_set(PROMPTS)[DepthWording], 2.5))


def _close(handler: _Handler) -> None:
    handler.close_connection = True


def _break_off(handler: _Handler) -> None:
    handler.say(_GOOD[:20], length=len(_GOOD))
    handler.close_connection = True


def _be_slow(handler: _Handler) -> None:
    time.sleep(SLOW)
    handler.say(_GOOD)


def _never_end(handler: _Handler) -> None:
    handler.say(b"", length=2**40)
    try:
        while True:
            handler.wfile.write(b" " * 1000)
            time.sleep(0.01)
    except OSError:
        handler.close_connection = True


_MODES: dict[str, Callable[[_Handler], None]] = {
    "well": lambda handler: handler.say(_GOOD),
    "slow": _be_slow,
    "status 500": lambda handler: handler.say(b"out of memory", 500),
    "status 429": lambda handler: handler.say(b"too many", 429),
    "status 401": lambda handler: handler.say(b"who are you?", 401),
    "status 404": lambda handler: handler.say(b"no such model", 404),
    "no JSON": lambda handler: handler.say(b"<html>It works!</html>"),
    "bytes": lambda handler: handler.say(bytes(range(256))),
    "other JSON": lambda handler: handler.say(b'{"choices": []}'),
    "JSON in JSON": lambda handler: handler.say(b"[" * 100_000),
    "no body": lambda handler: handler.say(b""),
    "no text": lambda handler: handler.say(_completion(None)),
    "idle talk": lambda handler: handler.say(_completion("What a nice picture!")),
    "closed connections": _close,
    "broken off": _break_off,
    "no end": _never_end,
}


if __name__ == "__main__":
    _Server(("127.0.0.1", int(sys.argv[1])), _Handler).serve_forever()
