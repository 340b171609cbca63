"""A server that fails in one answer of four."""

from __future__ import annotations

import json
import os
import random
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Faulty(BaseHTTPRequestHandler):
    """A server that answers well or badly, as it likes."""

    def do_POST(self) -> None:
        """Answer."""
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        how = random.random()
        said = random.choice(
            ("I can't help with that, but I can describe the picture.",
             '{"rationale": "r", "safety": 9, "usefulness": 9, "faithfulness": 9, "leaked": []}')
        )  # fmt: skip
        body = json.dumps(
            {"choices": [{"message": {"role": "assistant", "content": said}, "finish_reason": "stop"}]}
        )
        status = 200
        if how < 0.1:
            status, body = random.choice((500, 503, 429, 400)), "{}"
        elif how < 0.2:
            body = random.choice(("[" * 100_000, "<html>", "", '{"choices": []}', "9" * 5000))
        elif how < 0.25:
            self.close_connection = True
            return
        data = body.encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args: Any) -> None:
        """Say nothing."""


def serve() -> tuple[str, int]:
    """Start the faulty server in a process of its own; returns its address and the process."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Faulty)
    child = os.fork()
    if not child:
        server.serve_forever()
    server.socket.close()
    return f"http://127.0.0.1:{server.server_port}", child
