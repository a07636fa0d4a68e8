"""A small OpenAI-compatible server on loopback, which says what a test tells it to."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Reply = dict[str, Any] | bytes | int


def said(text: str | None, listed: dict[str, float] | None = None, **entry: Any) -> dict[str, Any]:
    """The document of a chat's answer, with the log-probabilities of its first token."""
    choice: dict[str, Any] = {"index": 0, "message": {"role": "assistant", "content": text}}
    if listed is not None:
        tops = [
            {"token": token, "logprob": logprob, "bytes": list(token.encode()), **entry}
            for token, logprob in listed.items()
        ]
        choice["logprobs"] = {"content": [{**tops[0], "top_logprobs": tops}]}
    return {"object": "chat.completion", "choices": [choice]}


class ChatServer(ThreadingHTTPServer):
    """Answers each request by `reply(body)`: a document, a status or raw bytes. `requests` and `keys` are what it was sent."""

    daemon_threads = True

    def __init__(self, reply: Callable[[dict[str, Any]], Reply]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.reply = reply
        self.models: list[str] | None = ["tiny"]
        self.requests: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.headers: dict[str, str] = {}
        self.in_flight = self.most_in_flight = 0
        self.lock = threading.Lock()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"

    def questions(self) -> list[str]:
        """The texts that it was asked, in the order in which they came."""
        return [request["messages"][0]["content"][1]["text"] for request in self.requests]


class _Handler(BaseHTTPRequestHandler):
    server: ChatServer

    def do_GET(self) -> None:
        self.server.keys.append(self.headers.get("Authorization"))
        assert self.path == "/v1/models"
        models = self.server.models
        self._send(404 if models is None else {"data": [{"id": name} for name in models]})

    def do_POST(self) -> None:
        server = self.server
        assert self.path == "/v1/chat/completions"
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with server.lock:
            server.requests.append(body)
            server.keys.append(self.headers.get("Authorization"))
            server.in_flight += 1
            server.most_in_flight = max(server.most_in_flight, server.in_flight)
        try:
            reply = server.reply(body)
        finally:
            with server.lock:
                server.in_flight -= 1
        self._send(reply)

    def _send(self, reply: Reply) -> None:
        status, content = 200, reply
        if isinstance(reply, int):
            sent = self.headers.get("Authorization", "no key")
            status, content = reply, f"status {reply},\nsent with {sent}".encode()
        elif isinstance(reply, dict):
            content = json.dumps(reply).encode()
        assert isinstance(content, bytes)
        try:
            self.send_response(status)
            for name, value in self.server.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)
        except ConnectionError:
            pass  # the client waits no longer

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def serving(reply: Callable[[dict[str, Any]], Reply]) -> Iterator[ChatServer]:
    """A server that answers inside the `with` block."""
    server = ChatServer(reply)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
