"""GenEval's stored detections: judged again under other rules, and exported in the official format."""

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from sana_bench.cli.main import execute
from sana_bench.core.errors import IncomparableError, IncompleteError, UsageError
from sana_bench.core.fingerprint import file_sha256, fingerprint, image_key, short
from sana_bench.core.registry import BENCHMARKS
from sana_bench.core.samples import Prompt, Sample, prompts_sha256
from sana_bench.generators.image_folder import ImageName, read_folder
from sana_bench.metrics.geneval.metric import GenEvalMetric, judge, rules_of
from sana_bench.metrics.geneval.official import export_official
from sana_bench.metrics.geneval.rescore import judged_cells, rescore
from sana_bench.results.database import writer_lock
from sana_bench.results.reader import load_run
from sana_bench.results.run_folder import RunFiles
from sana_bench.results.schema import ImageRow, ScoreRecord, SummaryRecord
from sana_bench.results.store import Store

KEY = image_key("v", "geneval", {})
CAT = {"label": "cat", "score": 0.95, "box": [0.0, 0.0, 9.0, 9.0], "color": "red"}
WEAK = CAT | {"score": 0.4, "box": [20.0, 0.0, 29.0, 9.0]}
#: Prompts with the detections of their two images.
CASES = (
    ("single_object", [{"class": "cat", "count": 1}], [], ([CAT], [])),
    (
        "counting",
        [{"class": "cat", "count": 1}],
        [{"class": "cat", "count": 2}],
        ([CAT], [CAT, CAT | {"score": 0.91}]),
    ),
    ("colors", [{"class": "cat", "count": 1, "color": "red"}], [], ([WEAK], [WEAK | {"color": "blue"}])),
)


def prompts():
    found = []
    for line, (tag, include, exclude, _) in enumerate(CASES):
        text = f"a photo of a cat, {tag}"
        metadata = {
            "tag": tag,
            "include": include,
            **({"exclude": exclude} if exclude else {}),
            "prompt": text,
        }
        found.append(Prompt(f"{line:05d}", text, tag, metadata))
    return found


def described(variants: str) -> dict[str, Any]:
    """The suite of a run of variants with names of one letter."""
    benchmark = {
        "name": "geneval",
        "images_per_prompt": 2,
        "metrics": ["geneval"],
        "n_prompts": len(CASES),
        "prompts_sha256": prompts_sha256(prompts()),
    }
    suite = {"name": "geneval", "tier": "full", "seed": 7, "benchmarks": [benchmark]}
    return suite | {"variants": [{"name": name, "fingerprint": name} for name in variants]}


def run_name(variants: str) -> str:
    """A run's name ends in the hash of its suite."""
    named = [[name, name] for name in variants]
    return f"geneval-full-{short(fingerprint(described(variants) | {'variants': named}))}"


RUN = run_name("v")


class Scripted:
    def identity(self):
        return {"backend": "scripted"}


def make_run(output: Path, protocol="geneval/official@1", lost=(), marked=False, variants="v") -> RunFiles:
    """A finished run of two images a prompt, as the runner leaves it; samples of `lost` have no image.

    `marked` is a run whose folder of images held some that nobody asked for.
    """
    name = run_name(variants)
    files = RunFiles(output / "runs" / name)
    files.directory.mkdir(parents=True)
    files.suite.write_text(yaml.safe_dump(described(variants)))
    files.write_prompts("geneval", prompts())
    metric = GenEvalMetric(protocol, Scripted())
    images, scores, rows = [], [], []
    for place, (prompt, case) in enumerate(zip(prompts(), CASES, strict=True)):
        for index, detections in enumerate(case[3]):
            if f"{prompt.id}/{index:05d}" in lost:
                continue
            path = files.directory / "images" / prompt.id / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 8), (place, index, 0)).save(path)
            digest = file_sha256(path)
            relative = path.relative_to(output).as_posix()
            images.append(ImageRow(prompt.id, index, prompt.sha256, "ok", relative, digest, 1, 0.1, 1, "cpu"))
            row = judge(Sample("v", "geneval", prompt, index, path), detections, rules_of(protocol))
            rows.append(row)
            judged = prompt.judged_sha256
            scores.append(ScoreRecord(digest, judged, row.value, row.details))
    with writer_lock(output), Store.open(output) as store:
        store.put_run(name, "geneval", "full", "f", f"runs/{name}", "2026-01-01")
        session = store.start_session(name, "2026-01-01", "test")
        store.put_images(KEY, name, images, "2026-01-01", session)
        store.put_metric("m", "geneval", protocol, metric.identity())
        store.put_scores("m", scores, session)
        summaries = metric.summarise(rows, len(rows) + len(lost), seed=7)
        store.put_summaries(
            name,
            ["v"],
            [
                SummaryRecord(
                    "v", "geneval", "geneval", one.key, "m", KEY, one.protocol, one.value, one.low, one.high,
                    one.n_samples, one.n_expected, one.n_prompts, one.unit, True, one.note,
                    one.complete and not marked,
                )
                for one in summaries
            ],
        )  # fmt: skip
    return files


@pytest.fixture
def output(tmp_path):
    make_run(tmp_path / "results")
    return tmp_path / "results"


def values(done):
    return {summary.key: summary.value for summary in done[0].summaries}


def stored(output):
    run = load_run(output, RUN)
    return {row.key: row.value for row in run.summaries}, judged_cells(run)


def test_the_same_rules_give_the_same_numbers(output):
    done, path = rescore(RUN, output, "geneval/official@1", {})
    summaries, cells = stored(output)
    assert values(done) == summaries == {"overall": 0.5, "single_object": 0.5, "counting": 0.5, "colors": 0.5}
    assert [row.value for row in done[0].rows] == [one.scores["geneval"].value for one in cells[0].scored]
    assert path == output / "runs" / RUN / "rescored/geneval-official@1.json"


def test_sanas_counting_accepts_more_than_asked_for(output):
    done, path = rescore(RUN, output, "geneval/sana@1", {})
    assert values(done)["counting"] == 1.0
    assert values(done)["colors"] == 0.5
    assert {summary.protocol for summary in done[0].summaries} == {"geneval/sana@1"}
    content = json.loads(path.read_text())
    assert content[0]["detections_from"] == "geneval/official@1"
    assert content[0]["images"]["00001/00001"] == {"correct": True, "reasons": []}


def test_another_threshold_has_a_label_of_its_own_and_changes_nothing_stored(output):
    before = stored(output)[0]
    done, path = rescore(RUN, output, None, {"threshold": 0.5})
    assert done[0].protocol == "geneval/official@1+threshold=0.5"
    assert values(done) == {
        "overall": pytest.approx(1 / 3), "single_object": 0.5, "counting": 0.5, "colors": 0.0,
    }  # fmt: skip
    assert stored(output)[0] == before
    assert path.is_file()


def test_what_stored_detections_cannot_answer_is_refused(output):
    with pytest.raises(IncomparableError, match="which has another detector"):
        rescore(RUN, output, "geneval/hf-detector@1", {})
    with pytest.raises(UsageError, match=r"stored detections have scores of 0\.05 or more"):
        rescore(RUN, output, None, {"threshold": 0.01})
    with pytest.raises(UsageError, match="did you mean 'geneval/sana@1'"):
        rescore(RUN, output, "geneval/sanaa@1", {})


def test_the_hubs_detections_are_not_judged_as_the_official_ones(tmp_path):
    make_run(tmp_path, "geneval/hf-detector@1")
    with pytest.raises(IncomparableError):
        rescore(RUN, tmp_path, "geneval/official@1", {})


def official_summary(path):
    """What the official summary reads from its result file: each task's mean, and the mean of those."""
    by_tag = defaultdict(list)
    for line in path.read_text().splitlines():
        record = json.loads(line)
        assert list(record) == ["filename", "tag", "prompt", "correct", "reason", "metadata", "details"]
        assert isinstance(record["correct"], bool)
        assert isinstance(record["metadata"], str)
        by_tag[record["tag"]].append(record["correct"])
    tasks = {tag: sum(found) / len(found) for tag, found in by_tag.items()}
    return tasks | {"overall": sum(tasks.values()) / len(tasks)}


def test_the_official_folder_holds_our_numbers_and_can_be_read_again(output, tmp_path):
    (folder,) = export_official(RUN, output, tmp_path / "official")
    assert official_summary(folder / "results.jsonl") == stored(output)[0]
    images = read_folder(folder)
    assert set(images) == {
        ImageName(prompt.id, prompt.text, index) for prompt in prompts() for index in (0, 1)
    }
    metadata = json.loads((folder / "00001/metadata.jsonl").read_text())
    assert metadata == prompts()[1].metadata
    first = json.loads((folder / "results.jsonl").read_text().splitlines()[2])
    assert first["filename"] == str(folder / "00001/samples/00000.png")
    assert json.loads(first["details"]) == {"cat": [[0.0, 0.0, 9.0, 9.0, 0.95]]}
    last = json.loads((folder / "results.jsonl").read_text().splitlines()[-1])
    assert (last["correct"], last["reason"]) == (False, "expected red cat>=1, found 0 red; and 1 blue")


def test_details_hold_only_what_the_verdict_looked_at(output, tmp_path):
    (folder,) = export_official(RUN, output, tmp_path / "official")
    records = [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]
    assert json.loads(records[1]["details"]) == {}
    counts = [len(json.loads(record["details"]).get("cat", [])) for record in records]
    assert counts == [1, 0, 1, 2, 1, 1]


def test_a_lost_image_and_an_old_folder_are_refused(output, tmp_path):
    image = next((output / "runs" / RUN / "images").rglob("1.png"))
    kept = image.read_bytes()
    image.unlink()
    with pytest.raises(IncompleteError, match="is missing"):
        export_official(RUN, output, tmp_path / "official")
    assert not (tmp_path / "official").exists()
    image.write_bytes(kept[:-1])
    with pytest.raises(IncompleteError, match=r"1\.png is not the image that was scored"):
        export_official(RUN, output, tmp_path / "official")
    image.write_bytes(kept)
    export_official(RUN, output, tmp_path / "official")
    with pytest.raises(UsageError, match="already exists"):
        export_official(RUN, output, tmp_path / "official")


def test_the_commands_print_one_line_a_number(output, tmp_path, capsys):
    assert execute(["rescore", RUN, "--protocol", "geneval/sana@1", "-o", str(output)]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith("v  geneval/sana@1  overall: 0.6667 (")
    assert printed[-1].startswith("rescored: ")
    assert execute(["rescore", RUN, "-o", str(output)]) == 2
    assert execute(["export", RUN, "--geneval", str(tmp_path / "x"), "-o", str(output)]) == 0
    assert (tmp_path / "x/v/results.jsonl").is_file()
    assert execute(["export", "--geneval", str(tmp_path / "y"), "-o", str(output)]) == 2


def test_official_prompt_ids_are_the_official_folder_names():
    ids = [prompt.id for prompt in BENCHMARKS.build("geneval").prompts("full")]
    assert ids == [f"{line:05d}" for line in range(553)]


def test_an_incomplete_run_is_not_exported(tmp_path, capsys):
    """The official summary knows no marks: what it is given must be whole."""
    make_run(tmp_path, lost=("00000/00001", "00002/00000"))
    command = ["export", RUN, "--geneval", str(tmp_path / "official"), "-o", str(tmp_path)]
    assert execute(command) == 3
    printed = capsys.readouterr()
    assert printed.out.splitlines() == [
        "geneval / v cannot be exported:",
        "  sample 00000/00001 has no scored image",
        "  sample 00002/00000 has no scored image",
    ]
    assert "sample 00000/00001 has no scored image, and 1 more; run the suite again" in printed.err
    assert not (tmp_path / "official").exists()


def test_a_score_that_is_marked_for_surplus_images_stays_marked(tmp_path, capsys):
    make_run(tmp_path, marked=True)
    with pytest.raises(IncompleteError, match="the run marks the score of v as incomplete"):
        export_official(RUN, tmp_path, tmp_path / "official")
    assert execute(["rescore", RUN, "--protocol", "geneval/sana@1", "-o", str(tmp_path)]) == 3
    assert "is incomplete, as the run's own score is" in capsys.readouterr().out
    (path,) = tmp_path.glob("runs/*/rescored/*.json")
    assert json.loads(path.read_text())[0]["complete"] is False


def test_variants_without_a_score_are_named(tmp_path):
    make_run(tmp_path, variants="vw")
    with pytest.raises(IncompleteError, match=r"no score of w; .*official has v alone"):
        export_official(run_name("vw"), tmp_path, tmp_path / "official")
    assert (tmp_path / "official/v/results.jsonl").is_file()


def test_rescored_tasks_lack_their_own_images_alone(tmp_path, capsys):
    make_run(tmp_path, lost=("00000/00001",))
    done, _ = rescore(RUN, tmp_path, "geneval/sana@1", {})
    assert {summary.key: (summary.n_samples, summary.n_expected) for summary in done[0].summaries} == {
        "overall": (5, 6), "single_object": (1, 2), "counting": (2, 2), "colors": (2, 2),
    }  # fmt: skip
    assert execute(["rescore", RUN, "--protocol", "geneval/sana@1", "-o", str(tmp_path)]) == 3
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition("incomplete: ")[2] for line in lines[:4]] == ["5/6)", "1/2)", "", ""]


def test_a_run_directory_brings_its_own_store(output, tmp_path, capsys, monkeypatch):
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    directory = str(output / "runs" / RUN)
    assert execute(["rescore", directory, "--protocol", "geneval/sana@1"]) == 0
    assert execute(["export", directory, "--geneval", "official"]) == 0
    assert (here / "official/v/results.jsonl").is_file()
    # A folder that is given wins, and names still start from the default.
    assert execute(["rescore", directory, "--threshold", "0.5", "-o", "elsewhere"]) == 2
    assert "elsewhere: there is no result store" in capsys.readouterr().err
    monkeypatch.chdir(output)
    assert execute(["rescore", RUN, "--threshold", "0.5"]) == 2
    assert "results/runs has no such run" in capsys.readouterr().err


def test_runs_of_two_folders_are_not_exported_together(tmp_path, capsys):
    directories = [str(make_run(tmp_path / name).directory) for name in ("a", "b")]
    assert execute(["export", *directories, "--to", str(tmp_path / "tables")]) == 2
    assert "export them one by one" in capsys.readouterr().err
