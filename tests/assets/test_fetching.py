"""Fetching: from a local HTTP server and from folders, cut short, tampered with, offline."""

import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from sana_bench.cli import execute
from sana_bench.errors import AssetError
from sana_bench.fetching import SUMS, fetch_files, read_sums
from sana_bench.homes import RemoteFile, files_for

CONTENT = bytes(range(256)) * 4096
DIGEST = hashlib.sha256(CONTENT).hexdigest()


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


@pytest.fixture
def server():
    found = Server()
    thread = threading.Thread(target=found.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield found
    found.shutdown()
    found.server_close()


@pytest.fixture(autouse=True)
def online(monkeypatch):
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)


def remote(server, path="net/weights.bin", sha256=DIGEST):
    server.files[path] = CONTENT
    return RemoteFile(path, f"{server.url}/{path}", sha256)


def leftovers(root):
    return sorted(path.name for path in root.rglob("*") if ".part" in path.name or ".tmp-" in path.name)


def test_fetches_verifies_and_says_sizes_first(server, tmp_path):
    said = []
    fetch_files([remote(server)], tmp_path, said.append)
    assert (tmp_path / "net/weights.bin").read_bytes() == CONTENT
    assert read_sums(tmp_path) == {"net/weights.bin": DIGEST}
    assert said[0] == f"net/weights.bin: 1.0 MB, from {server.url}/net/weights.bin"
    assert said[1] == f"to fetch: 1.0 MB into {tmp_path}"
    assert leftovers(tmp_path) == []
    server.requests.clear()
    fetch_files([remote(server)], tmp_path, said.append)
    assert server.requests == []


def test_goes_on_where_it_was_cut(server, tmp_path):
    file = remote(server)
    server.cut = 300_000
    with pytest.raises(AssetError, match="stopped after 300000 of 1048576 bytes; run the command again"):
        fetch_files([file], tmp_path, lambda _: None)
    assert not (tmp_path / file.path).exists()
    said = []
    fetch_files([file], tmp_path, said.append)
    assert server.requests[-1][2] == "bytes=300000-"
    assert "0.3 MB of it here" in said[0]
    assert (tmp_path / file.path).read_bytes() == CONTENT
    assert leftovers(tmp_path) == []


def test_a_file_that_changed_meanwhile_is_not_spliced(server, tmp_path):
    file = remote(server, sha256="")
    server.cut = 1000
    with pytest.raises(AssetError, match="stopped after 1000"):
        fetch_files([file], tmp_path, lambda _: None)
    server.version, server.files[file.path] = '"two"', b"new" + CONTENT
    fetch_files([file], tmp_path, lambda _: None)
    assert (tmp_path / file.path).read_bytes() == b"new" + CONTENT


def test_a_wrong_hash_leaves_nothing(server, tmp_path):
    with pytest.raises(AssetError, match="published is 0123456789ab"):
        fetch_files([remote(server, sha256="0123456789ab")], tmp_path, lambda _: None)
    assert not (tmp_path / "net/weights.bin").exists()
    assert leftovers(tmp_path) == []
    assert read_sums(tmp_path) == {}


def test_the_first_digits_of_a_hash_are_enough(server, tmp_path):
    fetch_files([remote(server, sha256=DIGEST[:8])], tmp_path, lambda _: None)
    assert read_sums(tmp_path)["net/weights.bin"] == DIGEST


def test_the_first_fetch_is_held_to(server, tmp_path):
    file = remote(server, sha256="")
    fetch_files([file], tmp_path, lambda _: None)
    (tmp_path / file.path).write_bytes(b"other")
    with pytest.raises(AssetError, match="recorded at the first fetch"):
        fetch_files([file], tmp_path, lambda _: None)
    (tmp_path / file.path).unlink()
    server.files[file.path] = b"replaced at the source"
    with pytest.raises(AssetError, match="recorded at the first fetch"):
        fetch_files([file], tmp_path, lambda _: None)
    assert (tmp_path / SUMS).read_text() == f"{DIGEST}  net/weights.bin\n"


def test_missing_files_are_named_before_anything_is_fetched(server, tmp_path):
    absent = RemoteFile("net/none.bin", f"{server.url}/none.bin")
    with pytest.raises(AssetError, match=r"none\.bin: .*404"):
        fetch_files([remote(server), absent], tmp_path, lambda _: None)
    assert not (tmp_path / "net/weights.bin").exists()


def test_an_unreachable_server_is_one_line(tmp_path):
    with pytest.raises(AssetError, match="refused"):
        fetch_files([RemoteFile("a", "http://127.0.0.1:9/a")], tmp_path, lambda _: None)


def test_a_folder_serves_as_a_copy(tmp_path):
    copy, root = tmp_path / "copy", tmp_path / "root"
    (copy / "net").mkdir(parents=True)
    (copy / "net/weights.bin").write_bytes(CONTENT)
    file = RemoteFile("net/weights.bin", "http://127.0.0.1:9/never", DIGEST)
    fetch_files([file], root, lambda _: None, mirror=str(copy))
    assert (root / file.path).read_bytes() == CONTENT
    with pytest.raises(AssetError, match=r"copy/net/gone\.bin is missing"):
        fetch_files([RemoteFile("net/gone.bin", "")], root, lambda _: None, mirror=str(copy))


@pytest.mark.parametrize("value", ["1", "true", "ON"])
def test_offline_fetches_nothing_and_names_what_is_missing(value, server, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", value)
    with pytest.raises(AssetError, match=r"HF_HUB_OFFLINE is set.*net/weights\.bin \(from http"):
        fetch_files([remote(server)], tmp_path, lambda _: None)
    assert server.requests == []


def test_offline_is_content_with_what_is_there(server, tmp_path, monkeypatch):
    fetch_files([remote(server)], tmp_path, lambda _: None)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    fetch_files([remote(server)], tmp_path, lambda _: None)


def test_the_table_of_homes_is_whole():
    from sana_bench.assets import FULL_TIER_FILES

    needed = {required.name: required.path for required in FULL_TIER_FILES}
    for name in (
        *("geneval_detector", "geneval_detector_hub", "clip_vit_l_14"),
        *("image_reward_weights", "image_reward_config", "bert_vocabulary", "image_reward_prompts"),
    ):
        files = files_for([name])
        assert needed[name] in [file.path for file in files]
        assert all(file.url.startswith("https://") and not Path(file.path).is_absolute() for file in files)


def write_suite(folder, weights, benchmarks="{name: geneval, metrics: [geneval]}"):
    (folder / "variants").mkdir(parents=True)
    (folder / "variants/mine.yaml").write_text(
        "schema_version: 1\nname: mine\ntier: full\ngenerator: images\n"
        f"model: {{weights: {weights}, height: 64, width: 64}}\n"
    )
    (folder / "s.yaml").write_text(
        f"schema_version: 1\nname: s\nbenchmarks:\n  - {benchmarks}\nvariants: {{full: [mine]}}\n"
    )
    return folder / "s.yaml"


def test_the_command_fetches_a_suites_evaluators_from_a_copy(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SANA_BENCH_DATA", str(tmp_path / "elsewhere"))
    suite = write_suite(tmp_path / "suites", "./images")
    root, copy = tmp_path / "root", tmp_path / "copy"
    code = execute(["fetch", str(suite), "--data-dir", str(root), "--from", str(copy)])
    error = capsys.readouterr().err
    assert code == 2
    assert error.count("\n") == 1
    assert "is missing, wanted as geneval/mask2former" in error
    for file in files_for(["clip_vit_l_14", "geneval_detector"]):
        (copy / file.path).parent.mkdir(parents=True, exist_ok=True)
        (copy / file.path).write_bytes(CONTENT)
    code = execute(["fetch", str(suite), "--data-dir", str(root), "--from", str(copy)])
    # The stand-in for the checkpoint has not its published hash.
    assert code == 2
    assert "published is 743b7d99" in capsys.readouterr().err
    assert not list(root.rglob("*.pth*"))


@pytest.mark.parametrize(
    ("benchmarks", "assets"),
    [
        (
            "{name: image_reward, metrics: [{name: image_reward, protocol: image_reward/sana-jpeg@1}]}",
            ["image_reward_prompts", "image_reward_weights", "image_reward_config", "bert_vocabulary"],
        ),
        ("{name: dpg_bench, metrics: [dpg]}", ["dpg_bench_questions", "mplug"]),
        (
            "{name: dpg_bench, metrics: [{name: dpg, protocol: dpg/sana-grid@1}]}",
            ["dpg_bench_questions", "mplug"],
        ),
        (
            "{name: dpg_bench, metrics: [{name: dpg, parameters: {judge: ./my-judge}}]}",
            ["dpg_bench_questions"],
        ),
    ],
)
def test_prompts_and_evaluators_of_a_suite_are_fetched(server, tmp_path, capsys, benchmarks, assets):
    suite = write_suite(tmp_path / "suites", "./images", benchmarks)
    root, files = tmp_path / "root", files_for(assets)
    server.files = {file.path: CONTENT for file in files}
    assert execute(["fetch", str(suite), "--data-dir", str(root), "--from", server.url]) == 0
    shown = capsys.readouterr()
    assert f"to fetch: {len(files) * len(CONTENT) / 1e6:,.1f} MB" in shown.out + shown.err
    fetched = {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}
    assert fetched == {file.path for file in files} | {SUMS}


def test_the_shipped_suites_list_their_files():
    from sana_bench.catalogue import catalogue
    from sana_bench.homes import judge_ids, metric_needs
    from sana_bench.suite import load_suite

    suites = Path(__file__).resolve().parents[2] / "suites"
    for name, expected in (
        ("image_reward", {"image_reward_prompts", "image_reward_weights", "bert_vocabulary"}),
        ("dpg_bench", {"dpg_bench_questions", "mplug"}),
        ("all", {"image_reward_prompts", "image_reward_weights", "dpg_bench_questions", "mplug"}),
    ):
        suite = load_suite(suites / f"{name}.yaml", "full", catalogue())
        assets, _ = metric_needs(suite)
        assert expected <= set(assets)
        assert len(files_for(assets)) >= len(assets)
        assert judge_ids(suite, suites) == []


def test_a_judge_on_the_hub_is_fetched_from_there(tmp_path):
    from sana_bench.catalogue import catalogue
    from sana_bench.homes import judge_ids
    from sana_bench.suite import load_suite

    benchmarks = "{name: dpg_bench, metrics: [{name: dpg, parameters: {judge: hf://owner/judge-1b}}]}"
    suite = load_suite(write_suite(tmp_path, "./images", benchmarks), "full", catalogue())
    assert judge_ids(suite, tmp_path) == ["owner/judge-1b"]


def test_the_command_knows_no_other_name(capsys):
    assert execute(["fetch", "genevall"]) == 2
    assert "did you mean 'geneval'" in capsys.readouterr().err
