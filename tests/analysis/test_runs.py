"""A stored run as an object: its tables are the store's numbers, and what a notebook shows of it."""

import io
import json
import math
import subprocess
import sys

import matplotlib
import pandas as pd
import pytest

import sana_bench
from sana_bench.analysis.plot import plot_numbers
from sana_bench.cli.main import execute
from sana_bench.core.plain import plain
from sana_bench.results.schema import SummaryRecord
from tests.runner import fakes

N = 4 * fakes.N_PROMPTS


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    with fakes.installed():
        world = fakes.World(tmp_path_factory.mktemp("world"))
        assert world.run() == 0
        yield world.output


@pytest.fixture(scope="module")
def run(output):
    return sana_bench.load_run(output=output)


def test_tables_are_what_the_store_has(run) -> None:
    table = run.table()
    assert table[["variant", "metric"]].values.tolist() == [
        [variant, metric] for variant in ("fake-4", "fake-2") for metric in ("redness", "spread")
    ]
    with_tasks = run.table(tasks=True)
    assert with_tasks["key"].unique().tolist() == ["overall", *fakes.TAGS]
    samples = run.samples()
    assert len(samples) == 2 * N
    mean = samples[samples["variant"] == "fake-4"]["redness"].mean()
    assert table["value"][0] == pytest.approx(mean, rel=1e-12)
    assert samples["image"].map(lambda path: path.endswith(".png")).all()
    assert samples.columns[-1] == "reasons"


def test_reasons_of_a_verdict_are_with_its_sample(output, run) -> None:
    from dataclasses import replace

    variant = run.results.variants["fake-4"]
    score = variant.samples[0].scores["redness"]
    told = replace(score, details={**score.details, "reasons": ["too blue", "too dark"]})
    first = replace(variant.samples[0], scores={"redness": told})
    changed = {**run.results.variants, "fake-4": replace(variant, samples=[first, *variant.samples[1:]])}
    samples = sana_bench.Run(replace(run.results, variants=changed)).samples()
    assert samples["reasons"][:2].tolist() == ["too blue; too dark", ""]


def test_a_comparison_is_that_of_the_command_line(output, run, capsys) -> None:
    command = ["compare", "fake-4", "fake-2", "--run", run.name, "-o", str(output)]
    assert execute([*command, "--format", "json"]) == 0
    expected = json.loads(capsys.readouterr().out)
    assert execute(command) == 0
    text = capsys.readouterr().out
    targets = [(run, "fake-4"), (run, "fake-2")], [f"{run.name}:fake-4", f"{run.name}:fake-2"]
    found = [run.compare("fake-4", "fake-2"), *(sana_bench.compare(*pair, output=output) for pair in targets)]
    found.append(sana_bench.compare("fake-4", "fake-2", run=run.name, output=output))
    for one in found:
        assert one.to_dict() == expected
        assert f"{one}\n" == text
    table = found[0].table()
    assert table[["metric", "key"]].values.tolist() == [
        [row["metric"], row["key"]] for row in expected["metrics"]
    ]
    assert table["difference"][0] == expected["metrics"][0]["effect"]["difference"]
    assert "fake-2" in found[0]._repr_html_()


def test_a_gate_is_that_of_the_command_line(output, run, tmp_path, capsys) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text("schema_version: 1\nmetrics:\n  redness: {worse_by: 100}\n")
    assert execute(["baseline", "set", "release", f"{run.name}:fake-4", "-o", str(output)]) == 0
    capsys.readouterr()
    command = [
        "gate",
        f"{run.name}:fake-2",
        "--baseline",
        "release",
        "--policy",
        str(policy),
        "-o",
        str(output),
    ]
    assert execute(command) == 0
    text = capsys.readouterr().out
    for baseline in ("release", "baseline:release", (run, "fake-4")):
        found = sana_bench.gate((run, "fake-2"), baseline=baseline, policy=policy, output=output)
        assert found.passed
        assert f"{found}\n" == text
    assert found.table()["status"].tolist() == ["pass"]
    assert json.dumps(found.to_dict(), allow_nan=False)
    assert found._repr_html_().startswith("<div>gate: pass</div>")


def test_a_leaderboard_is_the_one_that_is_written(output, tmp_path) -> None:
    board = sana_bench.leaderboard(output, to=tmp_path)
    written = pd.read_csv(tmp_path / "leaderboard.csv")
    table = board.table()
    assert list(table.columns) == list(written.columns)
    pd.testing.assert_series_equal(table["value"], written["value"])
    assert table["variant"].tolist() == written["variant"].tolist()
    assert json.dumps(board.to_dict(), allow_nan=False)
    assert "rank_best" in board._repr_html_()
    with pytest.raises(sana_bench.UsageError, match="unknown tier 'small'"):
        sana_bench.leaderboard(output, tier="small")


@pytest.mark.parametrize(
    ("call", "line"),
    [
        (lambda run, output: run.compare("fake-4", "fake-3"), "no variant 'fake-3'"),
        (lambda run, output: sana_bench.compare(run, run), "has 2 variants; write RUN:VARIANT"),
        (
            lambda run, output: sana_bench.gate((run, "fake-4"), baseline="x", output=output),
            "no baseline 'x'",
        ),
        (lambda run, output: sana_bench.load_run("nothing", output), "no such run"),
        (lambda run, output: sana_bench.load_run(output=output / "none"), "not a run directory"),
        (lambda run, output: run.plot("rednes"), "has no rednes (did you mean 'redness'?)"),
    ],
)
def test_what_is_not_there_is_one_line(run, output, call, line) -> None:
    with pytest.raises(sana_bench.UsageError) as caught:
        call(run, output)
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)


def test_data_and_html_of_a_run(run) -> None:
    found = run.to_dict()
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert set(found["numbers"][0]) == set(run.table().columns)
    html = run._repr_html_()
    assert "micro tier" in html
    assert "do not compare with published" in html
    assert repr(run) == f"<Run {run.name}: fake-4, fake-2; complete>"


def number(**changed) -> SummaryRecord:
    values = {
        "variant": "a", "benchmark": "b", "metric": "m", "key": "overall", "metric_key": "", "image_key": "",
        "protocol": "m@1", "value": 0.5, "low": 0.4, "high": 0.6, "n_samples": 3, "n_expected": 3, "n_prompts": 3,
        "unit": "", "higher_is_better": True, "note": "", "complete": True,
    }  # fmt: skip
    return SummaryRecord(**{**values, **changed})


def test_a_plot_has_a_panel_a_metric_and_marks_what_is_incomplete() -> None:
    rows = [
        number(),
        number(variant="c", complete=False, n_samples=2),
        number(key="task"),
        *(number(metric=f"n{i}", low=None, high=None) for i in range(4)),
        number(metric="none", value=math.nan),
    ]
    figure = plot_numbers("r", "micro", rows, ())
    first, *others = figure.axes
    assert len(others) == 4
    assert first.get_title() == "b\nm@1"
    assert [line.get_markerfacecolor() for line in first.lines] == ["C0", "white"]
    assert [text.get_text() for text in first.texts] == ["2/3"]
    assert [len(axes.collections) for axes in figure.axes] == [2, 0, 0, 0, 0]
    assert figure.get_suptitle() == "r, micro tier"
    assert len(plot_numbers("r", "micro", rows, ["n1"]).axes) == 1
    assert not matplotlib.pyplot.get_fignums()
    figure.savefig(io.BytesIO(), format="png")
    with pytest.raises(sana_bench.UsageError, match="r: has no numbers to show"):
        plot_numbers("r", "micro", [], ())


def test_text_of_others_is_escaped_in_html(run) -> None:
    from dataclasses import replace

    hostile = "<script>alert(1)</script>"
    variant = run.results.variants["fake-4"]
    short = replace(variant, reasons={"shapes": [hostile]}, summaries=[number(variant=hostile, note=hostile)])
    html = sana_bench.Run(replace(run.results, variants={hostile: short}))._repr_html_()
    assert "<script>" not in html
    assert html.count("&lt;script&gt;") >= 3


def test_values_as_json_holds_them() -> None:
    found = plain({"a": (1, math.nan), 2: number(value=math.inf)})
    assert found["a"] == [1, None]
    assert found["2"]["value"] is None


def test_a_run_is_read_without_torch(output) -> None:
    script = (
        "import sys, sana_bench\n"
        f"run = sana_bench.load_run(output={str(output)!r})\n"
        "run.table(), run.samples(), run.compare('fake-4', 'fake-2'), run._repr_html_(), run.plot('redness')\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
