"""`sana-bench fetch` of suites, from copies."""

import pytest

from sana_bench.assets.download import SUMS
from sana_bench.assets.table import files_for
from sana_bench.cli.main import execute
from tests.assets.conftest import write_mine

CONTENT = bytes(range(256)) * 4096


def test_the_command_fetches_a_suites_evaluators_from_a_copy(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SANA_BENCH_DATA", str(tmp_path / "elsewhere"))
    suite = write_mine(tmp_path / "suites")
    root, copy = tmp_path / "root", tmp_path / "copy"
    code = execute(["fetch", str(suite), "--data-dir", str(root), "--from", str(copy)])
    error = capsys.readouterr().err
    assert code == 2
    assert error.count("\n") == 1
    assert "is missing, needed as geneval/mask2former" in error
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


def test_the_command_knows_no_other_name(capsys):
    assert execute(["fetch", "genevall"]) == 2
    assert "did you mean 'geneval'" in capsys.readouterr().err
