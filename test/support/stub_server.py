# SPDX-License-Identifier: Apache-2.0
"""A server with OpenAI's chat completions that answers and misbehaves as a test says."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Reply = Callable[[dict[str, Any], "StubServer"], "tuple[int, object] | None"]
"""Returns status and content for a chat; None drops the connection."""


def completion(text: str, reason: str = "stop", **message: str) -> tuple[int, object]:
    """Return a reply with an answer."""
    message = {"role": "assistant", "content": text, **message}
    return 200, {"choices": [{"message": message, "finish_reason": reason}]}


@dataclass
class StubServer:
    """An HTTP server on its own port that answers with `reply`, after `delay` seconds.

    `bytes_received` counts requests with their headers. `local.connection` is the number of the
    connection whose request is answered, for use in `reply`.
    """

    reply: Reply
    port: int = 0
    delay: float = 0.0
    model: str = "the-model"
    chats: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    image_urls: dict[str, str] = field(default_factory=dict)
    bytes_received: int = 0
    connections_made: int = 0
    local: threading.local = field(default_factory=threading.local)
    in_flight: int = 0
    most_in_flight: int = 0
    connections: list[socket.socket] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
    http: ThreadingHTTPServer | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def shared_images(self, part: dict[str, Any]) -> dict[str, Any]:
        """Keep one copy of an image that many chats hold: all of them would fill the memory."""
        if isinstance(url := part.get("url"), str):
            part["url"] = self.image_urls.setdefault(url, url)
        return part

    def start(self) -> None:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def setup(self) -> None:
                super().setup()
                with outer.lock:
                    outer.local.connection = outer.connections_made
                    outer.connections_made += 1

            def do_GET(self) -> None:
                self.respond(200, {"data": [{"id": outer.model}]})

            def do_POST(self) -> None:
                length = int(self.headers["Content-Length"])
                chat = json.loads(self.rfile.read(length), object_hook=outer.shared_images)
                with outer.lock:
                    outer.chats.append(chat)
                    outer.bytes_received += len(self.raw_requestline) + len(bytes(self.headers))
                    outer.bytes_received += length
                    outer.headers.append(dict(self.headers))
                    outer.in_flight += 1
                    outer.most_in_flight = max(outer.most_in_flight, outer.in_flight)
                time.sleep(outer.delay)
                reply = outer.reply(chat, outer)
                with outer.lock:
                    outer.in_flight -= 1
                if reply is None:
                    self.connection.shutdown(socket.SHUT_RDWR)
                    self.close_connection = True
                else:
                    self.respond(*reply)

            def respond(self, status: int, content: object) -> None:
                body = content if isinstance(content, bytes) else json.dumps(content).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *arguments: object) -> None:
                pass

        class Quiet(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 64

            def process_request(self, request: Any, client_address: object) -> None:
                outer.connections.append(request)
                super().process_request(request, client_address)

            def handle_error(self, request: object, client_address: object) -> None:
                pass  # clients that give up

        self.http = Quiet(("127.0.0.1", self.port), Handler)
        self.port = self.http.server_port
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()

    def stop(self) -> None:
        if self.http:
            self.http.shutdown()
            self.http.server_close()
            self.http = None
        while self.connections:  # including idle ones
            with contextlib.suppress(OSError):
                self.connections.pop().shutdown(socket.SHUT_RDWR)
