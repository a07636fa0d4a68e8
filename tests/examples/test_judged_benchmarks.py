"""The example plug-in of judged benchmarks, with stand-ins for the published files and a server on loopback."""

import json
import tomllib
from importlib import import_module

import numpy as np
import pytest
from PIL import Image

from sana_bench import metrics
from sana_bench.core.errors import AssetError, IncompleteError
from sana_bench.core.registry import BENCHMARKS, METRICS, Entry
from sana_bench.core.samples import Prompt, Sample
from sana_bench.metrics.base import MetricAssets
from sana_bench.suites.load import load_suite
from sana_bench.suites.schema import MetricSpec
from tests import ROOT
from tests.judges.chat_server import said, serving

EXAMPLE = ROOT / "examples" / "sana-bench-judged-benchmarks"
PACKAGE = "sana_bench_judged_benchmarks"

UNIGEN_SCRIPT = '''
import nothing_that_is_installed
raise SystemExit("this is parsed, never run")

def call(args):
    explanation_dict = {"Style": "how it is drawn", "Attribute - Color": "colours", "Attribute - Size": "sizes"}
    explanation = "Defined:「"
    for point in testpoint:
        explanation += f"\\n{point}: {explanation_dict[point]}"
    test_explanation = "Described:「"
    text = f"""Look for {testpoint} of 「{prompt}」 in {{braces}}.
    {explanation} {test_explanation}"""
'''
WISE_SCRIPT = """
def build(prompt_data, image):
    return f'''Judge strictly and end with Score: 0 or 1.
PROMPT: "{prompt_data['Prompt']}"
EXPLANATION: "{prompt_data['Explanation']}"'''
"""


@pytest.fixture
def example(tmp_path, monkeypatch):
    """The package importable, its names known, and a data root with stand-ins for the published files."""
    monkeypatch.setenv("SANA_BENCH_DATA", str(tmp_path / "data"))
    monkeypatch.syspath_prepend(str(EXAMPLE / "src"))
    points = {"Style": "ink", "Attribute - Color": "a red sun", "Attribute - Size": "huge"}
    write(tmp_path, "unigenbench/eval/qwenvl_72b_en_eval.py", UNIGEN_SCRIPT)
    about = json.dumps(
        {
            "Primary Categories": "Art",
            "Testpoints": [*points],
            "Testpoint Description": [*points.values()],
        }
    ).replace('"', '""')
    one = json.dumps(
        {"Primary Categories": "Film", "Testpoints": ["Style"], "Testpoint Description": ["noir"]}
    )
    quoted = one.replace('"', '""')
    rows = f'index,prompt_en,sub_dims_en\n0,a huge red sun,"{about}"\n7,"rain, at night","{quoted}"\n'
    write(tmp_path, "unigenbench/data/test_prompts_en.csv", rows)
    write(tmp_path, "wise_verified/vllm_eval.py", WISE_SCRIPT)
    record = {"Prompt": "the festival of lights", "Explanation": "Diwali lamps", "Subcategory": "Festival"}
    records = [
        {**record, "prompt_id": 1, "Category": "Culture"},
        {**record, "prompt_id": 450, "Category": "Time"},
    ]
    write(tmp_path, "wise_verified/data_verified/merge.json", json.dumps(records))
    entries = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())["project"]["entry-points"]
    with (
        BENCHMARKS.added(*(Entry(*one) for one in entries["sana_bench.benchmarks"].items())),
        METRICS.added(*(Entry(*one) for one in entries["sana_bench.metrics"].items())),
    ):
        yield tmp_path


def write(folder, name, content):
    path = folder / "data" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")


def shown(folder, benchmark, prompts: list[Prompt], n: int = 1) -> list[Sample]:
    """Samples with images that differ."""
    samples = []
    for place, prompt in enumerate(prompts):
        for index in range(n):
            path = folder / f"{benchmark}-{prompt.id}-{index}.png"
            Image.fromarray(np.full((8, 8, 3), 16 * place + index, np.uint8)).save(path)
            samples.append(Sample("mine", benchmark, prompt, index, path))
    return samples


def build(folder, name, server):
    spec = MetricSpec(name=name, parameters={"judge": "big", "server": server.address})
    return metrics.build(spec, "full", MetricAssets(folder, folder / "cache"))


def test_unigenbench_is_asked_and_counted_as_published(example):
    """Shares of points are pooled over images; each primary dimension weighs the same, whatever its number of points."""
    prompts = BENCHMARKS.build("unigenbench").prompts("full")
    assert [(prompt.id, prompt.text, prompt.tag) for prompt in prompts] == [
        ("0000", "a huge red sun", "Art"),
        ("0007", "rain, at night", "Film"),
    ]
    samples = shown(example, "unigenbench", prompts, 2)
    marks = iter(["[1, 0, 1]", "[0, 1, 1]", "[1]", "[0]"])
    with serving(lambda _: said(f"<analysis>[]</analysis>\n<score> {next(marks)} </score>")) as server:
        metric = build(example, "unigenbench", server)
        # One after the other, so that the marks are known.
        rows = [metric.score([sample])[0] for sample in samples]
        first = server.questions()[0]
    assert metric.protocol == "unigenbench/served-big@1"
    names = "['Style', 'Attribute - Color', 'Attribute - Size']"
    assert first == (
        f"Look for {names} of 「a huge red sun」 in {{braces}}.\n"
        "    Defined:「\nStyle: how it is drawn\nAttribute - Color: colours\nAttribute - Size: sizes\n」 "
        "Described:「\nStyle: ink\nAttribute - Color: a red sun\nAttribute - Size: huge\n」"
    )
    assert [row.value for row in rows] == [2 / 3, 2 / 3, 1, 0]
    found = {one.key: one for one in metric.summarise(rows, 4, seed=0)}
    # Style: 1, 0, 1, 0; colour 0, 1; size 1, 1.
    expected = {"Style": 2 / 4, "Attribute": 3 / 4, "Attribute - Color": 1 / 2, "Attribute - Size": 1}
    for key, value in {**expected, "overall": (2 / 4 + 3 / 4) / 2}.items():
        assert found[key].value == pytest.approx(value, rel=1e-12)
    assert set(found) == {*expected, "overall"}
    assert all(one.complete for one in found.values())
    assert metric.identity()["judge"]["model"] == "big"


@pytest.mark.parametrize(
    "answer", ["no marks", "<score>[1]</score>", "<score>[1, 2, 0]</score>", "<score>1,</score>"]
)
def test_an_answer_without_marks_is_no_score(example, answer):
    samples = shown(example, "unigenbench", BENCHMARKS.build("unigenbench").prompts("full")[:1], 2)
    replies = iter([answer, "<score>[1, 1, 1]</score>"])
    with serving(lambda _: said(next(replies))) as server:
        metric = build(example, "unigenbench", server)
        rows = [metric.score([sample])[0] for sample in samples]
    found = metric.summarise(rows, 2, seed=0)
    assert found[0].value == 1
    assert (found[0].n_samples, found[0].n_expected) == (1, 2)
    assert not any(one.complete for one in found)
    with pytest.raises(IncompleteError):
        metric.summarise(rows[:1], 1, seed=0)


def test_wise_verified_is_the_mean_over_images(example):
    prompts = BENCHMARKS.build("wise_verified").prompts("full")
    assert [(prompt.id, prompt.tag) for prompt in prompts] == [("0001", "Culture"), ("0450", "Time")]
    samples = shown(example, "wise_verified", prompts, 2)
    replies = iter(["Score: 1", "**Score**: 0.", "I think.\nscore\uff1a1", "Score: 1 or Score: 0"])
    with serving(lambda _: said(next(replies))) as server:
        metric = build(example, "wise_verified", server)
        rows = [metric.score([sample])[0] for sample in samples]
        assert server.questions()[0] == (
            'Judge strictly and end with Score: 0 or 1.\nPROMPT: "the festival of lights"\nEXPLANATION: "Diwali lamps"'
        )
    found = {one.key: one for one in metric.summarise(rows, 4, seed=0)}
    values = {key: one.value for key, one in found.items()}
    assert values == pytest.approx({"overall": 2 / 3, "Culture": 1 / 2, "Time": 1}, rel=1e-12)
    assert found["overall"].note == "1 answers without a score"
    assert (found["overall"].n_samples, found["overall"].complete) == (3, False)


@pytest.mark.parametrize(
    ("name", "file", "content", "message"),
    [
        (
            "unigenbench",
            "eval/qwenvl_72b_en_eval.py",
            None,
            "qwenvl_72b_en_eval.py is missing: get it with `curl -L",
        ),
        ("unigenbench", "eval/qwenvl_72b_en_eval.py", "x = (", "not a Python file"),
        ("unigenbench", "eval/qwenvl_72b_en_eval.py", "x = 1", "no request that names explanation, prompt"),
        ("wise_verified", "vllm_eval.py", "f'''{a} {b} {c}'''", "its request has a, which is not known here"),
        (
            "wise_verified",
            "vllm_eval.py",
            'f"""{prompt_data[\'Prompt\']}"""',
            "no request that names explanation",
        ),
    ],
)
def test_files_that_are_not_the_published_ones_are_refused(example, name, file, content, message):
    path = example / "data" / name / file
    path.unlink() if content is None else path.write_text(content)
    with serving(lambda _: 500) as server, pytest.raises(AssetError, match=message):
        build(example, name, server)


@pytest.mark.parametrize("name", ["unigenbench", "wise_verified"])
def test_prompts_of_another_form_are_refused(example, name):
    for path in (example / "data" / name).rglob("*"):
        if path.suffix in (".csv", ".json"):
            path.write_text('index,prompt_en\n0,"a"\n' if path.suffix == ".csv" else '[{"Prompt": "a"}]')
    with pytest.raises(AssetError, match="not the prompts of"):
        BENCHMARKS.build(name).prompts("full")


@pytest.mark.parametrize("name", ["unigenbench", "wise_verified"])
def test_its_suites_are_valid(example, name):
    suite = load_suite(EXAMPLE / "suites" / f"{name}.yaml", "full")
    (benchmark,) = suite.file.benchmarks
    (metric,) = benchmark.metric_specs
    built = metrics.build(metric, "full", MetricAssets(example, example / "cache"))
    assert built.protocol.startswith(f"{name}/served-")
    assert import_module(PACKAGE).__doc__
