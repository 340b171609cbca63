"""A server that misbehaves on demand, on a thread of the test's own process."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

#: Called with the handler, the parsed request and how often the server was asked before; answers itself.
Behaviour = Callable[["Handler", dict[str, Any], int], None]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FaultyServer

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            number = len(self.server.requests)
            self.server.requests.append(body)
            self.server.connections.add(self.client_address)
            self.server.keys.add(self.headers.get("Authorization", ""))
        self.server.behaviour(self, body, number)

    def send(self, status: int, body: str, *, length: int | None = None, **headers: str) -> None:
        data = body.encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data) if length is None else length))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(data)

    def say(self, text: str | None, finish: str = "stop", **message: Any) -> None:
        self.send(200, answer(text, finish, **message))

    def hang_up(self) -> None:
        """Close the connection without an answer."""
        self.close_connection = True

    def log_message(self, *_: Any) -> None:
        pass


class FaultyServer(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, behaviour: Behaviour) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.behaviour = behaviour
        self.lock = threading.Lock()
        self.requests: list[dict[str, Any]] = []
        self.connections: set[Any] = set()
        self.keys: set[str] = set()
        self.released = threading.Event()  # ends handlers that hang

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


def answer(text: str | None, finish: str = "stop", **message: Any) -> str:
    choice = {
        "index": 0,
        "finish_reason": finish,
        "message": {"role": "assistant", "content": text, **message},
    }
    return json.dumps({"id": "1", "object": "chat.completion", "model": "m", "choices": [choice]})


@contextmanager
def serving(behaviour: Behaviour) -> Iterator[FaultyServer]:
    server = FaultyServer(behaviour)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.released.set()
        server.shutdown()
        server.server_close()
        thread.join()


def echo(handler: Handler, body: dict[str, Any], number: int) -> None:
    """Say the last message back, with its pictures counted."""
    content = body["messages"][-1]["content"]
    parts = content if isinstance(content, list) else [{"type": "text", "text": content}]
    pictures = sum(part["type"] == "image_url" for part in parts)
    handler.say(f"{parts[-1]['text']}|{pictures}|{body.get('seed')}")


def slowly(seconds: float, then: Behaviour) -> Behaviour:
    def behave(handler: Handler, body: dict[str, Any], number: int) -> None:
        time.sleep(seconds)
        then(handler, body, number)

    return behave
