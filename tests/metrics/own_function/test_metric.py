"""A function of one's own as a metric: what it is given, what identifies it, and what is said when it fails."""

import numpy as np
import pytest
from PIL import Image

from sana_bench.core.errors import IncompleteError, SuiteError, UsageError
from sana_bench.core.samples import Prompt, Sample
from sana_bench.metrics import build, identity
from sana_bench.metrics.base import MetricAssets
from sana_bench.suites.schema import BenchmarkSpec, MetricSpec

CODE = """
from PIL import Image

def height(image, prompt):
    image[:] = 0
    return image.shape[0] + (image.dtype.name == "uint8")

def width(image: "Image.Image", prompt: str) -> float:
    return image.width

def letters(image: Image.Image, prompt: str) -> int:
    return len(prompt)

letters.higher_is_better = False

def fails(image, prompt):
    return height(image, prompt) / (len(prompt) - 3)

def nothing(image, prompt):
    return None

def endless(image, prompt):
    return float("inf")

def three(image, prompt, more):
    return 1.0
"""


@pytest.fixture
def made(tmp_path):
    (tmp_path / "mine.py").write_text(CODE)

    def build_one(name, **more):
        spec = MetricSpec(name=name, function=f"{tmp_path / 'mine.py'}:{name}", **more)
        return build(spec, "micro", MetricAssets(tmp_path, tmp_path))

    return build_one


@pytest.fixture
def samples(tmp_path):
    found = []
    for place, (text, tag) in enumerate([("a", "x"), ("bc", "x"), ("def", "y")]):
        path = tmp_path / f"{place}.png"
        Image.fromarray(np.full((4 + place, 9, 3), 7, np.uint8)).save(path)
        found.append(Sample("v", "mine", Prompt(f"{place}", text, tag), 0, path))
    return found


def test_arrays_and_pillow_images_by_annotation(made, samples):
    assert [row.value for row in made("height").score(samples)] == [5.0, 6.0, 7.0]
    assert [row.value for row in made("width").score(samples)] == [9.0] * 3
    assert [row.value for row in made("letters").score(samples)] == [1.0, 2.0, 3.0]
    assert (made("letters").higher_is_better, made("width").higher_is_better) == (False, True)


def test_the_summary_is_the_mean_with_prompts_as_clusters(made, samples):
    metric = made("letters")
    rows = metric.score(samples)
    (summary,) = metric.summarise(rows, 4, seed=0)
    assert (summary.value, summary.n_samples, summary.n_expected, summary.n_prompts) == (2.0, 3, 4, 3)
    assert summary.low < 2 < summary.high
    assert (summary.metric, summary.unit, summary.higher_is_better) == ("letters", "", False)
    with pytest.raises(IncompleteError, match="no scored samples"):
        metric.summarise([], 4, seed=0)


def test_the_file_identifies_the_scores(made, tmp_path):
    before = made("width")
    assert identity(before) == identity(made("width"))
    assert identity(before) != identity(made("height"))
    (tmp_path / "mine.py").write_text(CODE + "# changed\n")
    after = made("width")
    assert identity(before) != identity(after)
    assert before.protocol != after.protocol
    assert before.protocol.startswith("width/mine.py@")


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("fails", r"mine\.py:17: ZeroDivisionError: division by zero \(sample 2/00000, .*2\.png\)$"),
        ("nothing", r"mine\.py: nothing gave None and no finite number \(sample 0/00000, "),
        ("endless", r"mine\.py: endless gave inf and no finite number \(sample 0/00000, "),
    ],
)
def test_a_function_that_fails_names_line_and_sample(made, samples, name, told):
    with pytest.raises(UsageError, match=told) as error:
        made(name).score(samples)
    assert "\n" not in str(error.value)


def test_what_cannot_be_used_is_refused_when_it_is_built(made, tmp_path):
    with pytest.raises(SuiteError, match=r"no function 'widths' \(did you mean 'width'\?\)"):
        made("widths")
    with pytest.raises(SuiteError, match=r"mine\.py:25: three takes other arguments than \(image, prompt\)"):
        made("three")
    with pytest.raises(SuiteError, match="is a function and has no protocols"):
        made("width", protocol="width@1")
    with pytest.raises(SuiteError, match="has no parameter 'size'"):
        made("width", parameters={"size": 3})
    (tmp_path / "mine.py").write_text("x = 1\ny = missing\n")
    with pytest.raises(SuiteError, match=r"mine\.py:2: NameError: name 'missing' is not defined$"):
        made("width")
    (tmp_path / "mine.py").write_text("def f(:\n")
    with pytest.raises(SuiteError, match=r"mine\.py:1: SyntaxError: "):
        made("width")
    (tmp_path / "mine.py").unlink()
    with pytest.raises(SuiteError, match="there is no file"):
        made("width")


def test_a_suite_names_it_by_its_file():
    spec = BenchmarkSpec(name="mine", prompts="p.csv", metrics=("clip_score", "./mine.py:width"))
    assert [(metric.name, metric.function) for metric in spec.metric_specs] == [
        ("clip_score", None),
        ("width", "./mine.py:width"),
    ]
