"""The shipped suites of metrics whose judge reads, on the full tier: stand-in prompts, and a random Qwen-VL as it is published.

What a random judge says means nothing; that prompts, judge, scores, report and comparison hold together is what is tested.
"""

from pathlib import Path

import numpy as np
import pytest
import yaml

from sana_bench.analysis.compare import compare_variants
from sana_bench.assets.needs import needs_named
from sana_bench.benchmarks.subset import stratified
from sana_bench.cli.main import execute
from sana_bench.core.registry import BENCHMARKS
from sana_bench.core.samples import Prompt
from sana_bench.results.reader import RunResults, load_run
from tests import ROOT
from tests.metrics.oneig.tiny_encoders import write_style_encoder
from tests.stand_in_files import ASSETS
from tests.suite_files import write_images, write_suite, write_variant
from tests.tiny_qwen import write_qwen

VARIANTS = ("mine", "yours")


#: Suite, the published judge and its family, and how many prompts and images are scored.
SUITES = [
    ("geneval2", "Qwen/Qwen3-VL-8B-Instruct", "qwen3_vl", 8, 1),
    ("longtext", "Qwen/Qwen2.5-VL-7B-Instruct", "qwen2_5_vl", 2, 2),
    ("longtext_zh", "Qwen/Qwen2.5-VL-7B-Instruct", "qwen2_5_vl", 2, 2),
    ("oneig", "Qwen/Qwen2.5-VL-7B-Instruct", "qwen2_5_vl", 10, 2),
]
#: How many of the prompts concern a metric, where it is not all of them.
CONCERNED = {"oneig_alignment": 6, "oneig_style": 2, "oneig_text": 2}


def write_shortened(folder: Path, name: str, count: int, images_per_prompt: int) -> tuple[Path, list[Prompt]]:
    """The shipped suite with fewer prompts, images that exist already, and the prompts that it asks for."""
    shipped = yaml.safe_load((ROOT / "suites" / f"{name}.yaml").read_text())
    (benchmark,) = shipped["benchmarks"]
    benchmark |= {"prompts": count, "images_per_prompt": images_per_prompt}
    suite = write_suite(
        folder, yaml.safe_dump(benchmark, default_flow_style=True).strip(), VARIANTS, name=name
    )
    prompts = stratified(BENCHMARKS.build(name).prompts("full"), count)
    for place, variant in enumerate(VARIANTS):
        rng = np.random.default_rng(place)
        write_images(
            folder / "variants" / variant,
            (
                (
                    {
                        "id": prompt.id,
                        "prompt": prompt.text,
                        "index": index,
                        "file": f"{prompt.id}-{index}.png",
                    },
                    rng.integers(0, 256, (56, 56, 3), np.uint8),
                )
                for prompt in prompts
                for index in range(images_per_prompt)
            ),
        )
        write_variant(folder, variant, "generator: images", weights=f"./{variant}", height=56, width=56)
    return suite, prompts


@pytest.fixture
def data(tmp_path, monkeypatch):
    root = tmp_path / "data"
    monkeypatch.setenv("SANA_BENCH_DATA", str(root))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    return root


def run_of(output: Path) -> RunResults:
    (directory,) = (output / "runs").iterdir()
    return load_run(output, str(directory))


@pytest.mark.parametrize(("name", "judge", "family", "count", "images"), SUITES)
def test_a_shipped_suite_runs_with_the_published_layout(
    data, tmp_path, capsys, name, judge, family, count, images
):
    for asset in needs_named(name).assets:
        ASSETS[asset](data)
    if name == "oneig":
        write_style_encoder(data / "models/xingpng/OneIG-StyleEncoder")
    write_qwen(data / "models" / judge, family)
    suite, prompts = write_shortened(tmp_path / "suites", name, count, images)
    output = tmp_path / "results"
    assert execute(["run", str(suite), "--tier", "full", "--output", str(output)]) == 0
    assert "self-check" in capsys.readouterr().out
    run = run_of(output)
    for variant in run.variants.values():
        assert variant.complete
        (label,) = run.benchmarks
        for metric, row in variant.overall(label).items():
            assert row.n_samples == row.n_expected == CONCERNED.get(metric, count) * images
            assert row.protocol == f"{metric}/official@1"
        assert len(variant.samples) == len(prompts) * images
    comparison = compare_variants(*((run, variant) for variant in run.variants.values()))
    overall = [row for row in comparison.metrics if row.key == "overall" and row.metric != "latency"]
    assert len(overall) == len(run.benchmarks[label].metrics)
    for row in overall:
        numbers = [variant.overall(label)[row.metric].value for variant in run.variants.values()]
        # What is compared is what was reported: two float64 means of the same numbers.
        assert [row.value_a, row.value_b] == pytest.approx(numbers, rel=1e-9, abs=1e-12)
        assert row.effect is not None, row.reason
        assert row.effect.difference == pytest.approx(numbers[1] - numbers[0], rel=1e-9, abs=1e-9)
        if name == "longtext_zh":  # by letters, of which even noise has some
            assert min(numbers) > 0
