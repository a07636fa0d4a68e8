"""Fetching: from a local HTTP server and from folders, cut short, tampered with, offline."""

import hashlib
import re
from pathlib import Path

import pytest

from sana_bench.assets import table as homes
from sana_bench.assets.download import SUMS, fetch_files, read_sums
from sana_bench.assets.required import FULL_TIER_FILES
from sana_bench.assets.table import RemoteFile, files_for, judge_ids, metric_needs
from sana_bench.cli.main import execute
from sana_bench.core.errors import AssetError
from sana_bench.metrics.fid.features import CHAINS
from sana_bench.suites.load import load_suite
from tests import ROOT
from tests.suite_files import write_suite, write_variant

SUITES = ROOT / "suites"
CONTENT = bytes(range(256)) * 4096
DIGEST = hashlib.sha256(CONTENT).hexdigest()


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


@pytest.mark.parametrize("required", FULL_TIER_FILES, ids=lambda required: required.name)
def test_the_table_of_homes_is_whole(required):
    files = files_for([required.name])
    assert required.path in [file.path for file in files]
    assert all(file.url.startswith("https://") and not Path(file.path).is_absolute() for file in files)


@pytest.mark.parametrize("required", FULL_TIER_FILES, ids=lambda required: required.name)
def test_hints_name_the_command_and_the_source(required, tmp_path, monkeypatch):
    monkeypatch.setenv("SANA_BENCH_DATA", str(tmp_path))
    (url,) = [file.url for file in files_for([required.name]) if file.path == required.path]
    assert "`sana-bench fetch" in required.how
    if url not in required.how:
        # The hub's own command, which puts the file where it is looked for and under its name.
        repository = re.search(r"huggingface\.co/(?:datasets/)?([^/]+/[^/]+)/resolve", url).group(1)
        assert f"`hf download {repository} " in required.how
        assert f"--local-dir {(tmp_path / required.path).parent}`" in required.how
        assert url.endswith(Path(required.path).name)
    suite = SUITES / f"{required.fetched_by}.yaml"
    if " " not in required.fetched_by:
        assets, _ = metric_needs(load_suite(suite, "full"))
        assert required.path in [file.path for file in files_for(assets)]


def write_mine(folder, benchmark="{name: geneval, metrics: [geneval]}"):
    write_variant(folder, "mine", "generator: images")
    return write_suite(folder, benchmark)


def test_the_command_fetches_a_suites_evaluators_from_a_copy(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SANA_BENCH_DATA", str(tmp_path / "elsewhere"))
    suite = write_mine(tmp_path / "suites")
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
    suite = write_mine(tmp_path / "suites", benchmarks)
    root, files = tmp_path / "root", files_for(assets)
    server.files = {file.path: CONTENT for file in files}
    assert execute(["fetch", str(suite), "--data-dir", str(root), "--from", server.url]) == 0
    shown = capsys.readouterr()
    assert f"to fetch: {len(files) * len(CONTENT) / 1e6:,.1f} MB" in shown.out + shown.err
    fetched = {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}
    assert fetched == {file.path for file in files} | {SUMS}


PROMPTS_AND_NEEDS = {
    "geneval": {"geneval_detector", "clip_vit_l_14", "inception_pytorch", "mjhq30k_images"},
    "dpg_bench": {"dpg_bench_questions", "mplug"},
    "image_reward": {
        *("image_reward_prompts", "image_reward_weights", "image_reward_config", "bert_vocabulary"),
        "clip_vit_l_14",
    },
    "mjhq30k": {"mjhq30k_prompts", "mjhq30k_images", "inception_pytorch", "clip_vit_l_14"},
    "latency": set(),
    "demo": {"geneval_detector", "clip_vit_l_14", "inception_pytorch", "mjhq30k_images"},
    "sana15_micro": None,  # of the micro tier alone
}
PROMPTS_AND_NEEDS["all"] = set().union(
    *(PROMPTS_AND_NEEDS[name] for name in ("geneval", "dpg_bench", "image_reward", "mjhq30k"))
)


def test_every_shipped_suite_is_here():
    assert {path.stem for path in SUITES.glob("*.yaml")} == set(PROMPTS_AND_NEEDS)


@pytest.mark.parametrize("name", [name for name, needs in PROMPTS_AND_NEEDS.items() if needs is not None])
def test_the_shipped_suites_list_their_files(name):
    suite = load_suite(SUITES / f"{name}.yaml", "full")
    assets, unlisted = metric_needs(suite)
    assert (set(assets), unlisted) == (PROMPTS_AND_NEEDS[name], [])
    assert len(files_for(assets)) >= len(set(assets) - {"mjhq30k_prompts"})
    assert judge_ids(suite, SUITES) == []


@pytest.mark.parametrize("protocol", [*CHAINS, "kid", "fid"])
def test_every_image_chain_has_its_network_and_reference(tmp_path, protocol):
    metric, _, recipe = protocol.partition("/")
    choice = f"{{name: {metric}, protocol: {protocol}}}" if recipe else metric
    suite = write_mine(tmp_path, f"{{name: mjhq30k, metrics: [{choice}]}}")
    assets, unlisted = metric_needs(load_suite(suite, "full"))
    weights = CHAINS[{"kid": "kid/clean@1", "fid": "fid/sana@1"}.get(protocol, protocol)].weights
    assert (assets, unlisted) == (["mjhq30k_prompts", weights, "mjhq30k_images"], [])


def test_metrics_that_nobody_lists_are_named(tmp_path, monkeypatch):
    table = tmp_path / "assets.yaml"
    table.write_text("schema_version: 1\nfiles: {}\nneeds: {clip_score: []}\njudges: {}\nprompts: {}\n")
    monkeypatch.setattr(homes, "_TABLE", table)
    suite = write_mine(tmp_path, "{name: geneval, metrics: [geneval, clip_score]}")
    assert metric_needs(load_suite(suite, "full")) == ([], ["geneval"])


def test_a_judge_on_the_hub_is_fetched_from_there(tmp_path):
    benchmarks = "{name: dpg_bench, metrics: [{name: dpg, parameters: {judge: hf://owner/judge-1b}}]}"
    suite = load_suite(write_mine(tmp_path, benchmarks), "full")
    assert judge_ids(suite, tmp_path) == ["owner/judge-1b"]


def test_the_command_knows_no_other_name(capsys):
    assert execute(["fetch", "genevall"]) == 2
    assert "did you mean 'geneval'" in capsys.readouterr().err
