"""The shipped suites on the shipped micro weights: every evaluation scores, with no GPU and no network."""

import socket

import pytest

from sana_bench.cli.main import execute
from sana_bench.suites.config_files import read_yaml
from sana_bench.suites.find import suite_files
from tests import ROOT
from tests.runner import numbers_of_runs as numbers

LIMIT = 4
#: How many of the images concern a metric, where it is not all of them.
CONCERNED = {"oneig_alignment": 2, "oneig_text": 2}
SCORES = {
    "dpg_bench": {("dpg_bench", "dpg")},
    "image_reward": {("image_reward", "image_reward"), ("image_reward", "clip_score")},
    "preference": {("hpdv2", "image_reward"), ("hpdv2", "pickscore"), ("hpdv2", "clip_score")},
    "mjhq30k": {("mjhq30k", "fid"), ("mjhq30k", "clip_score")},
    "geneval2": {("geneval2", "geneval2")},
    "longtext": {("longtext", "longtext")},
    # Of so few images no two are of one prompt, so there is no diversity.
    "oneig": {("oneig", "oneig_alignment"), ("oneig", "oneig_text")},
    "all": {
        ("geneval", "geneval"),
        ("geneval", "clip_score"),
        ("dpg_bench", "dpg"),
        ("dpg_bench", "clip_score"),
        ("image_reward", "image_reward"),
        ("image_reward", "clip_score"),
        ("mjhq30k", "fid"),
        ("mjhq30k", "clip_score"),
        ("latency", "latency"),
        ("latency", "throughput"),
    },
}


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a suite of the micro tier asked the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.chdir(ROOT)


@pytest.mark.parametrize("suite", SCORES)
def test_a_shipped_suite_scores_on_the_micro_tier(suite, tmp_path, capsys) -> None:
    arguments = (
        "--tier",
        "micro",
        "--limit",
        str(LIMIT),
        "--variants",
        "sana-micro",
        "--output",
        str(tmp_path),
    )
    few = ("--set", "variants.sana-micro.sampler.steps=2")
    # Few images of many are an incomplete set.
    assert execute(["run", f"suites/{suite}.yaml", *arguments, *few]) == 3
    found = [row for row in numbers.summaries(tmp_path) if row.key == "overall" or row.benchmark == "latency"]
    assert {(row.benchmark, row.metric) for row in found} == SCORES[suite]
    for row in found:
        assert row.benchmark == "latency" or row.n_samples == CONCERNED.get(row.metric, LIMIT)
    assert "do not compare" in capsys.readouterr().out


def test_no_shipped_suite_of_the_evaluations_is_left_out() -> None:
    others = {"geneval", "sana15_micro", "demo", "latency"}
    micro = {name for name, path in suite_files().items() if "micro" in read_yaml(path).data["variants"]}
    assert micro - others == set(SCORES)
