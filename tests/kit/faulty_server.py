"""An OpenAI-compatible server, run as a process of its own, that breaks when and how it is told to.

    python faulty_server.py      prints its port

Every tag is a server of its own under /TAG/v1. `POST /TAG/break` with {"fault": NAME, "after": N} lets it
work for N more requests and then fail, with {"fault": null} it works again; `GET /TAG/asked` says how often
it was asked. Until it breaks it is polite: it refuses as a student and scores 8 as a judge or tutor.
"""

from __future__ import annotations

import json
import threading
from collections import defaultdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

_STATES: dict[str, dict[str, Any]] = defaultdict(lambda: {"fault": None, "after": 0, "asked": 0})
_LOCK = threading.Lock()
_NEVER = threading.Event()


def completion(text: str | None, finish: str = "stop", **message: Any) -> str:
    body = {"role": "assistant", "content": text, **message}
    choice = {"index": 0, "finish_reason": finish, "message": body}
    return json.dumps({"id": "1", "object": "chat.completion", "model": "m", "choices": [choice]})


def polite(body: dict[str, Any]) -> str:
    """Return what a well-behaved model says: JSON after the schema it was sent, or a refusal."""
    form = body.get("response_format")
    if form is None:
        return "I will not help with that."
    properties = form["json_schema"]["schema"]["properties"]
    return json.dumps({name: _value(shape) for name, shape in properties.items()})


def _value(shape: dict[str, Any]) -> Any:
    return 8 if shape.get("type") == "integer" else shape.get("enum", ["Please go on."])[0]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.send(200, str(_STATES[self.path.split("/")[1]]["asked"]))

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        _, tag, what, *_ = self.path.split("/")
        with _LOCK:
            state = _STATES[tag]
            if what == "break":
                state.update(fault=body["fault"], after=state["asked"] + body.get("after", 0))
                fault = None
            else:
                state["asked"] += 1
                fault = state["fault"] if state["asked"] > state["after"] else None
        if what == "break":
            self.send(200, "{}")
        elif fault is None:
            self.send(200, completion(polite(body)))
        else:
            getattr(self, fault)(polite(body))

    # -- faults -------------------------------------------------------------------------------------------

    def drop(self, said: str) -> None:
        self.close_connection = True

    def half(self, said: str) -> None:
        self.send(200, completion(said)[:40], length=4000)
        self.close_connection = True

    def http_429(self, said: str) -> None:
        self.send(429, json.dumps({"error": {"message": "slow down"}}))

    def http_500(self, said: str) -> None:
        self.send(500, json.dumps({"error": {"message": "out of memory"}}))

    def http_401(self, said: str) -> None:
        self.send(401, json.dumps({"error": {"message": f"bad key {self.headers['Authorization']}"}}))

    def http_404(self, said: str) -> None:
        self.send(404, json.dumps({"error": {"message": "The model `m` does not exist"}}))

    def hang(self, said: str) -> None:
        _NEVER.wait(60)

    def truncated(self, said: str) -> None:
        self.send(200, completion(said)[:-9])

    def cut_off(self, said: str) -> None:
        self.send(200, completion(said[: len(said) // 2], "length"))

    def garbage(self, said: str) -> None:
        self.send(200, completion("%&/( 10 10 10"))

    def filtered(self, said: str) -> None:
        self.send(200, completion(None, "content_filter"))

    # -- plumbing -----------------------------------------------------------------------------------------

    def send(self, status: int, body: str, length: int | None = None) -> None:
        data = body.encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data) if length is None else length))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


if __name__ == "__main__":
    server = Server(("127.0.0.1", 0), Handler)
    print(server.server_port, flush=True)
    server.serve_forever(poll_interval=0.02)
