"""The shipped suites of metrics whose judge reads, on the full tier: stand-in prompts, and a random Qwen-VL as it is published.

What a random judge says means nothing; that prompts, judge, scores, report and comparison hold together is what is tested.
"""

import json
import string
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from sana_bench.analysis.compare import compare_variants
from sana_bench.benchmarks.oneig import CATEGORIES
from sana_bench.benchmarks.subset import stratified
from sana_bench.cli.main import execute
from sana_bench.core.registry import BENCHMARKS
from sana_bench.core.samples import Prompt
from sana_bench.metrics.selfcheck.readings import write_dreamsim
from sana_bench.results.reader import RunResults, load_run
from tests import ROOT
from tests.metrics.oneig.tiny_encoders import write_csd, write_style_encoder
from tests.suite_files import write_images, write_suite, write_variant
from tests.tiny_qwen import write_qwen

VARIANTS = ("mine", "yours")


def geneval2(data: Path) -> None:
    lines = [
        {
            "prompt": f"{number} red cats",
            "atom_count": 3 + number % 8,
            "vqa_list": [["How many cats are there?", "two"], ["Are the cats red?", "Yes"]],
            "skills": ["count", "attribute"],
        }
        for number in range(800)
    ]
    write_lines(data / "geneval2/geneval2_data.jsonl", lines)


def longtext(data: Path) -> None:
    for name, text in (
        ("text_prompts", ["Open", "daily"]),
        ("text_prompts_zh", [f"每日 {string.ascii_letters}"]),
    ):
        lines = [
            {"category": f"c{number % 2}", "prompt": f"a sign {number}", "text": text, "prompt_id": number}
            for number in range(160)
        ]
        write_lines(data / f"longtext/{name}.jsonl", lines)


def oneig(data: Path) -> None:
    folder = data / "oneig"
    folder.mkdir(parents=True)
    rows = ["category,id,prompt_en,type,prompt_length,class\n"]
    for category, count in CATEGORIES.items():
        styled = category == "Anime_Stylization"
        rows += [
            f"{category},{n:03d},{category} {n},NP,long,{'Line Art' if styled else ''}\n"
            for n in range(count)
        ]
    (folder / "OneIG-Bench.csv").write_text("".join(rows))
    asked = {"question": '{"1": "Is there a cat?", "2": "Is it red?"}', "dependency": '{"1": [0], "2": [1]}'}
    for name, category in (
        ("anime", "Anime_Stylization"),
        ("human", "Portrait"),
        ("object", "General_Object"),
    ):
        questions = {f"{n:03d}": asked for n in range(CATEGORIES[category])}
        (folder / f"{name}.json").write_text(json.dumps(questions))
    texts = [f"{n:03d},{string.ascii_lowercase}\n" for n in range(CATEGORIES["Text_Rendering"])]
    (folder / "text_content.csv").write_text("id,text_content\n" + "".join(texts))
    for name, width in (("CSD_embed", 16), ("SE_embed", 12)):
        torch.save({"line_art": torch.randn(3, width)}, folder / f"{name}.pt")
    write_csd(data / "csd/pytorch_model.bin")
    write_style_encoder(data / "models/xingpng/OneIG-StyleEncoder")
    (data / "dreamsim").mkdir()
    write_dreamsim(data / "dreamsim")
    (data / "dreamsim/dino.pth").rename(data / "dreamsim/dino_vitbase16_pretrain.pth")
    # Unpacked already; the archive stays beside what was unpacked.
    (data / "dreamsim/dreamsim_ensemble_checkpoint.zip").write_bytes(b"")


def write_lines(path: Path, records: Sequence[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    path.write_text(text, encoding="utf-8")


#: Suite, who writes its stand-in prompts, the published judge and its family, and how many prompts and images are scored.
SUITES = [
    ("geneval2", geneval2, "Qwen/Qwen3-VL-8B-Instruct", "qwen3_vl", 8, 1),
    ("longtext", longtext, "Qwen/Qwen2.5-VL-7B-Instruct", "qwen2_5_vl", 2, 2),
    ("longtext_zh", longtext, "Qwen/Qwen2.5-VL-7B-Instruct", "qwen2_5_vl", 2, 2),
    ("oneig", oneig, "Qwen/Qwen2.5-VL-7B-Instruct", "qwen2_5_vl", 10, 2),
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


@pytest.mark.parametrize(("name", "write", "judge", "family", "count", "images"), SUITES)
def test_a_shipped_suite_runs_with_the_published_layout(
    data, tmp_path, capsys, name, write, judge, family, count, images
):
    write(data)
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
