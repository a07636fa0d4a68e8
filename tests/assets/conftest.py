"""A local HTTP server, and a stand-in for the hub with the few endpoints that its client asks."""

import json
import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from unittest import mock
from urllib.parse import unquote, urlsplit

import pytest

from sana_bench.assets.download import carry_out, planned_files
from tests.suite_files import write_suite, write_variant

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def fetch_files(files, root, say=lambda _: None, mirror=None):
    """Bring every file below `root`, as a fetch of a suite does."""
    carry_out(planned_files(files, root, say, mirror), say)


def write_mine(folder, benchmark="{name: geneval, metrics: [geneval]}"):
    """A suite of one benchmark and one variant whose images exist."""
    write_variant(folder, "mine", "generator: images")
    return write_suite(folder, benchmark)


class Server(ThreadingHTTPServer):
    """Files by path, with versions; `cut` breaks off an answer after so many bytes, once."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.version, self.cut, self.requests = {}, '"one"', None, []

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    def do_HEAD(self):
        self._answer(body=False)

    def do_GET(self):
        self._answer(body=True)

    def _answer(self, body):
        content = self.server.files.get(self.path.lstrip("/"))
        asked = self.headers.get("Range")
        self.server.requests.append((self.command, self.path, asked))
        if content is None:
            self.send_error(404)
            return
        start = 0
        if asked and self.headers.get("If-Range") == self.server.version:
            start = int(asked.removeprefix("bytes=").rstrip("-"))
        if start >= len(content):
            self.send_error(416)
            return
        if start:
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(content) - start))
        self.send_header("ETag", self.server.version)
        self.end_headers()
        if body:
            end = len(content) if self.server.cut is None else self.server.cut
            self.server.cut = None
            self.wfile.write(content[start:end])

    def log_message(self, *_):
        pass


def serving(found):
    thread = threading.Thread(target=found.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield found
    found.shutdown()
    found.server_close()


@pytest.fixture(autouse=True)
def own_places() -> Iterator[None]:
    """`--data-dir` is for the process and those it starts: here, for one test."""
    with mock.patch.dict(os.environ):
        yield


@pytest.fixture
def server():
    yield from serving(Server())


@pytest.fixture(autouse=True)
def online(monkeypatch):
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)


class Hub(ThreadingHTTPServer):
    """One commit of repositories, as files by path; `failing` paths answer 404, and repositories that are `gated` 401."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), HubHandler)
        self.repositories, self.failing, self.gated, self.loaded = {}, set(), set(), []

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"

    def add(self, name, folder):
        """Publish all files below a folder."""
        found = (path for path in folder.rglob("*") if path.is_file())
        self.repositories[name] = {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


class HubHandler(BaseHTTPRequestHandler):
    def do_HEAD(self):
        self._answer()

    def do_GET(self):
        self._answer()

    def _answer(self):
        parts = unquote(urlsplit(self.path).path).strip("/").split("/")
        name = "/".join(parts[2:4] if parts[0] == "api" else parts[:2])
        files = self.server.repositories.get(name)
        if name in self.server.gated:
            self._send(401, b"{}", error="GatedRepo")
        elif files is None:
            self._send(404, b"{}")
        elif parts[0] == "api" and "tree" in parts:
            listing = [
                {"type": "file", "path": path, "size": len(content), "oid": f"{len(content):040x}"}
                for path, content in files.items()
            ]
            self._send(200, json.dumps(listing).encode())
        elif parts[0] == "api":
            siblings = [{"rfilename": path, "size": len(content)} for path, content in files.items()]
            self._send(200, json.dumps({"id": name, "sha": COMMIT, "siblings": siblings}).encode())
        else:
            path = "/".join(parts[4:])
            if self.command == "GET":
                self.server.loaded.append(path)
            self._send(404 if path in self.server.failing else 200, files[path], f'"{hash(files[path])}"')

    def _send(self, status, content, tag='"none"', error=None):
        self.send_response(status)
        headers = {"Content-Length": len(content), "ETag": tag, "X-Repo-Commit": COMMIT}
        for header, value in (headers | ({"X-Error-Code": error} if error else {})).items():
            self.send_header(header, str(value))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def log_message(self, *_):
        pass


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """The stand-in, and an empty cache of the hub's client, which reads its settings at import only."""
    from huggingface_hub import constants

    home = tmp_path / "hf"
    monkeypatch.setenv("HF_HOME", str(home))
    monkeypatch.setenv("HF_HUB_CACHE", str(home / "hub"))
    monkeypatch.setenv("SANA_BENCH_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    server = Hub()
    use_endpoint(monkeypatch, server.url)
    yield from serving(server)


def use_endpoint(monkeypatch, url):
    """Let the hub's client ask `url`."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}"
    )
