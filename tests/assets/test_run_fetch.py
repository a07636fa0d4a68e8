"""`run --fetch` brings what a suite lacks and scores with it; without the option nothing is asked of anybody."""

import pytest
import yaml

from sana_bench.assets import table as homes
from sana_bench.assets.download import SUMS, read_sums
from sana_bench.cli.main import execute
from tests.metrics.dpg.two_prompts import TABLE, write_scenes
from tests.suite_files import write_suite, write_variant
from tests.tiny_weights import write_tiny_vqa


@pytest.fixture
def suite(server, tmp_path, monkeypatch):
    """DPG-Bench of two prompts with a random judge, whose homes are the local server."""
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("SANA_BENCH_DATA", str(tmp_path / "elsewhere"))
    judge = write_tiny_vqa(tmp_path / "judge")
    server.files = {f"mplug/{path.name}": path.read_bytes() for path in judge.iterdir()}
    server.files["dpg_bench/dpg_bench.csv"] = TABLE.encode()
    entries = {path: {"path": path, "from": f"{server.url}/{path}"} for path in server.files}
    table = {
        "schema_version": 1,
        "assets": {
            "mplug": {"files": list(entries.values())[:-1]},
            "dpg_bench_questions": {"files": list(entries.values())[-1:]},
        },
        "needs": {"dpg": ["mplug"]},
        "judges": {},
        "metric_judges": {},
        "prompts": {"dpg_bench": ["dpg_bench_questions"]},
    }
    (tmp_path / "assets.yaml").write_text(yaml.safe_dump(table))
    monkeypatch.setattr(homes, "_TABLE", tmp_path / "assets.yaml")
    folder = tmp_path / "suites"
    write_scenes(folder / "variants/images", 1)
    write_variant(folder, "mine", "generator: images")
    return write_suite(folder, "{name: dpg_bench, images_per_prompt: 1, metrics: [dpg]}")


def run_command(suite, output, root):
    return ["run", str(suite), "--tier", "full", "--output", str(output), "--data-dir", str(root)]


def test_run_fetches_only_when_told_to(suite, server, tmp_path, capsys):
    root, output = tmp_path / "root", tmp_path / "results"
    run = run_command(suite, output, root)
    assert execute(run) == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert "`sana-bench fetch dpg_bench`" in line
    assert server.requests == []
    assert not root.exists()
    assert execute([*run, "--fetch"]) == 0
    assert set(read_sums(root)) == set(server.files)
    assert (root / SUMS).is_file()
    out = capsys.readouterr().out
    assert out.index("to fetch: ") < out.index("dpg_bench/dpg_bench.csv: fetched")
    server.requests.clear()
    assert execute([*run, "--fetch"]) == 0
    assert server.requests == []


def test_run_says_what_it_could_not_fetch(suite, server, tmp_path, capsys):
    del server.files["dpg_bench/dpg_bench.csv"]
    output = tmp_path / "results"
    assert execute([*run_command(suite, output, tmp_path / "root"), "--fetch"]) == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert "dpg_bench.csv: the server answers 404" in line
    assert not output.exists()
    assert not (tmp_path / "root").exists()


def test_run_fetches_nothing_offline(suite, server, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    output = tmp_path / "results"
    assert execute([*run_command(suite, output, tmp_path / "root"), "--fetch"]) == 2
    assert "HF_HUB_OFFLINE is set, nothing is fetched; missing: " in capsys.readouterr().err
    assert server.requests == []
