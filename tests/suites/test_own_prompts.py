"""Own prompts, own functions and declared parts of a benchmark in a suite: read, refused, and told apart in a run."""

import json
from pathlib import Path

import pytest

from sana_bench.assets.table import metric_needs
from sana_bench.cli.main import execute
from sana_bench.core.errors import SuiteError
from sana_bench.core.fingerprint import FileHashes
from sana_bench.results.reader import load_run
from sana_bench.runner.resolve import resolve_suite
from sana_bench.suites.load import load_suite
from sana_bench.suites.tiers import choose_tier
from tests.suite_files import FEW_STEPS, write_suite, write_variant

CSV = "prompt,tag\na photo of a red circle,colors\na photo of two stars,counting\na photo of a cross,single\n"
FUNCTION = "def brightness(image, prompt):\n    return image.mean()\n"
OWN = "{name: mine, prompts: ./p.csv, images_per_prompt: 2, metrics: [clip_score, './f.py:brightness']}"


@pytest.fixture
def suites(tmp_path):
    folder = tmp_path / "suites"
    write_variant(folder, "mine", FEW_STEPS, tier="micro", weights="micro://sana-micro")
    (folder / "p.csv").write_text(CSV)
    (folder / "f.py").write_text(FUNCTION)
    return folder


def written(folder: Path, benchmark: str, tier: str = "micro") -> Path:
    return write_suite(folder, benchmark, tier=tier)


def resolved(path: Path):
    return resolve_suite(load_suite(path, "micro"), choose_tier("micro"), FileHashes())


def refused(path: Path) -> str:
    with pytest.raises(SuiteError) as error:
        load_suite(path, "micro")
    return str(error.value)


def test_prompts_and_functions_are_found_from_the_suites_folder(suites, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (benchmark,) = resolved(written(suites, OWN)).benchmarks
    assert [(p.id, p.text, p.tag) for p in benchmark.prompts] == [
        ("00000", "a photo of a red circle", "colors"),
        ("00001", "a photo of two stars", "counting"),
        ("00002", "a photo of a cross", "single"),
    ]
    assert benchmark.metrics == ("clip_score", "brightness")
    assert benchmark.n_samples == 6
    (default,) = resolved(written(suites, "{name: mine, prompts: p.csv}")).benchmarks
    assert (default.metrics, default.images_per_prompt) == (("clip_score",), 1)


def test_contents_identify_a_run_and_folders_do_not(suites, tmp_path):
    path = written(suites, OWN)
    before = resolved(path).fingerprint
    moved = suites.rename(tmp_path / "elsewhere") / path.name
    assert resolved(moved).fingerprint == before
    (moved.parent / "f.py").write_text(FUNCTION + "# changed\n")
    changed = resolved(moved).fingerprint
    assert changed != before
    (moved.parent / "p.csv").write_text(CSV.replace("cross", "ring"))
    assert resolved(moved).fingerprint not in (before, changed)


def test_a_part_is_a_benchmark_of_its_own(suites):
    whole, part = (
        resolved(written(suites, f"{{name: {name}, metrics: [clip_score]}}")).benchmarks[0]
        for name in ("geneval", "geneval@24")
    )
    assert (part.name, len(part.prompts)) == ("geneval@24", 24)
    assert {p.tag for p in part.prompts} == {p.tag for p in whole.prompts}
    assert {p.id for p in part.prompts} < {p.id for p in whole.prompts}
    assert part.describe()["prompts_sha256"] != whole.describe()["prompts_sha256"]
    again = resolved(written(suites, "{name: geneval, prompts: 24, metrics: [clip_score]}")).benchmarks[0]
    assert again.describe() == part.describe()


def test_a_run_of_both_is_complete(suites, tmp_path, capsys):
    two = f"{OWN}\n  - {{name: geneval@6, images_per_prompt: 1, metrics: [clip_score]}}"
    output = tmp_path / "results"
    assert execute(["run", str(written(suites, two)), "--tier", "micro", "-o", str(output)]) == 0
    run = load_run(output, next((output / "runs").iterdir()).name)
    variant = run.variants["mine"]
    assert variant.complete
    numbers = {
        (row.benchmark, row.metric): (row.n_samples, row.n_expected)
        for row in variant.summaries
        if row.key == "overall"
    }
    assert numbers == {
        ("mine", "clip_score"): (6, 6),
        ("mine", "brightness"): (6, 6),
        ("geneval@6", "clip_score"): (6, 6),
    }
    capsys.readouterr()
    # A quick look is no part of a suite: one line for a variant says what it lacks.
    limited = [
        "run",
        str(suites / "s.yaml"),
        "--tier",
        "micro",
        "-o",
        str(tmp_path / "quick"),
        "--limit",
        "2",
    ]
    assert execute(limited) == 3
    lines = capsys.readouterr().out.splitlines()
    place = lines.index("Incomplete, not ranked:")
    assert lines[place + 2] == "   mine has 2/6 images; geneval@6 has 2/6 images"
    assert lines[place + 3] == ""


@pytest.mark.parametrize(
    ("benchmark", "told"),
    [
        ("{name: mine, prompts: ./q.csv}", "s.yaml:4: ./q.csv: there is no "),
        (
            "{name: geneval, prompts: ./p.csv}",
            "s.yaml:4: 'geneval' is a benchmark already; own prompts need another",
        ),
        ("{name: Mine, prompts: ./p.csv}", "s.yaml:4: benchmark 'Mine': use lower-case letters"),
        (
            "{name: mine, prompts: 0}",
            "s.yaml:4: benchmarks.0.prompts is 0, must be a number of prompts from 1 up",
        ),
        ("{name: geneval@4, prompts: 4}", "s.yaml:4: geneval@4 says already how many prompts"),
        ("{name: genevl@4}", "s.yaml:4: unknown benchmark 'genevl' (did you mean 'geneval'?)"),
        (
            "{name: mine, prompts: ./p.csv, metrics: [clip]}",
            "has no metric 'clip' (did you mean 'clip_score'?)",
        ),
        ("{name: mine, prompts: ./p.csv, metrics: ['./g.py:f']}", "s.yaml:4: "),
        (
            "{name: mine, prompts: ./p.csv, metrics: ['../f.py:brightness']}",
            "lies outside the suite's folder",
        ),
        (
            "{name: mine, prompts: ./p.csv, metrics: [{name: clip_score, function: './f.py:brightness'}]}",
            "s.yaml:4: 'clip_score' is the name of a metric already; name the function otherwise",
        ),
        ("{name: mine, prompts: ./p.csv, metrics: [{name: fid, reference: ./none}]}", "there is no "),
    ],
)
def test_what_cannot_be_meant_is_refused_with_its_line(suites, benchmark, told):
    (suites.parent / "f.py").write_text(FUNCTION)
    assert told in refused(written(suites, benchmark))


@pytest.mark.parametrize(
    ("benchmark", "told"),
    [
        (
            "{name: mine, prompts: ./p.csv, metrics: [geneval]}",
            "metric 'geneval' looks for 'include' in every prompt, and prompt 00000 has none",
        ),
        (
            "{name: mine, prompts: ./p.csv, metrics: [dpg]}",
            "metric 'dpg' looks for 'questions' in every prompt, and prompt 00000 has none",
        ),
        (
            "{name: mine, prompts: ./p.csv, metrics: [oneig_text]}",
            "metric 'oneig_text' looks for 'text_content' in prompts, and none has it",
        ),
        ("{name: mine, prompts: ./p.csv, metrics: [fid]}", "fid of one's own prompts needs a reference"),
        (
            "{name: mine, prompts: ./p.csv, metrics: ['./f.py:bright']}",
            "no function 'bright' (did you mean 'bright",
        ),
        ("{name: mine, prompts: ./bad.csv}", "bad.csv:2: no prompt"),
        ("{name: geneval@9999}", "9999 prompts are asked for, and there are "),
    ],
)
def test_validate_refuses_what_would_fail_after_generating(suites, capsys, benchmark, told):
    (suites / "bad.csv").write_text("id,prompt\n1,\n")
    path = written(suites, benchmark)
    assert execute(["validate", str(path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert told in line
    assert "on the micro tier" in line


def test_prompts_with_what_a_metric_looks_for_are_scored_by_it(suites):
    record = {
        "tag": "colors",
        "include": [{"class": "circle", "count": 1, "color": "red"}],
        "prompt": "a red circle",
    }
    (suites / "g.jsonl").write_text(json.dumps(record) + "\n")
    path = written(suites, "{name: mine, prompts: ./g.jsonl, metrics: [geneval]}")
    assert execute(["validate", str(path)]) == 0
    assert resolved(path).benchmarks[0].prompts[0].metadata == record


def test_a_reference_of_ones_own_needs_no_published_set(suites):
    (suites / "real").mkdir()
    write_variant(suites, "mine", FEW_STEPS, tier="full", weights="./w")
    own = "{name: mine, prompts: ./p.csv, metrics: [{name: fid, reference: ./real}, './f.py:brightness']}"
    assert metric_needs(load_suite(written(suites, own, "full"), "full")) == (["inception_pytorch"], [])
    named = "{name: mine, prompts: ./p.csv, metrics: [{name: fid, reference: mjhq30k}]}"
    assert metric_needs(load_suite(written(suites, named, "full"), "full"))[0] == [
        "inception_pytorch",
        "mjhq30k_images",
    ]
