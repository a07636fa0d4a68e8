"""A run that lacks nothing: no network is imported, and its numbers are those that were stored."""

import subprocess
import sys

import pytest

from sana_bench.core import fingerprint
from sana_bench.results.store import Store
from sana_bench.runner import scoring
from sana_bench.runner.run import RunOptions, execute_suite
from tests.suite_files import write_suite

_HEAVY = ("torch", "open_clip", "transformers", "torchvision", "pandas")
_SCRIPT = """
import sys
from sana_bench.cli.main import execute
assert execute(sys.argv[2:]) == 0
print("imported:", *sorted(set(sys.argv[1].split(",")) & sys.modules.keys()))
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A suite of all kinds of metrics, run once: of verdicts, of features with scores, and of a distance between sets."""
    folder = tmp_path_factory.mktemp("nothing_to_do")
    suite = write_suite(
        folder / "suites",
        "{name: geneval, prompts: 6, images_per_prompt: 1, metrics: [geneval, clip_score, fid]}",
        ["micro-rendered"],
        tier="micro",
    )
    options = RunOptions(suite=suite, output=folder / "results", tier="micro")
    outcome = execute_suite(options)
    assert outcome.exit_code == 0
    return options, outcome.run_id


def _summaries(output, run_id):
    with Store.open(output) as store:
        return store.summaries(run_id)


def test_nothing_to_do_imports_no_network_and_changes_no_number(finished):
    options, run_id = finished
    before = _summaries(options.output, run_id)
    command = ["run", str(options.suite), "--tier", "micro", "--output", str(options.output)]
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT, ",".join(_HEAVY), *command], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "imported:"
    assert {row.metric for row in before} == {"geneval", "clip_score", "fid"}
    assert _summaries(options.output, run_id) == before


def test_stored_rows_give_what_their_features_give(finished, monkeypatch):
    """To the last bit: rows hold the very numbers that are computed from the features again."""
    options, run_id = finished
    before = _summaries(options.output, run_id)
    monkeypatch.setattr(scoring, "SummarisesRows", type("Nobody", (), {}))
    assert execute_suite(options).exit_code == 0
    assert _summaries(options.output, run_id) == before


def test_weights_are_read_once_and_never_again(tmp_path, monkeypatch):
    """Those of judges too, of metrics as of searches: published ones have up to 16 GB."""
    read, opened = [], fingerprint.open_plain
    monkeypatch.setattr(fingerprint, "open_plain", lambda path: (read.append(path), opened(path))[1])
    suite = write_suite(
        tmp_path / "suites",
        "{name: image_reward, prompts: 2, images_per_prompt: 1, metrics: [image_reward, clip_score]}",
        ["sana15-micro-grown-best-of-4"],
        tier="micro",
    )
    options = RunOptions(suite=suite, output=tmp_path / "results", tier="micro")
    assert execute_suite(options).exit_code == 0
    weights = [path for path in read if path.suffix == ".safetensors"]
    assert {path.parent.name for path in weights} >= {"clip", "reward", "transformer"}
    assert sum(path.parent.name == "reward" for path in weights) == 1
    read.clear()
    assert execute_suite(options).exit_code == 0
    assert not [path for path in read if path.suffix == ".safetensors"]
