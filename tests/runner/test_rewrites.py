"""A variant with rewritten prompts: the model is given the rewrite, everything else sees the prompt, and all pages say so."""

import json
import re

import numpy as np
import pytest

from sana_bench.analysis.compare import compare_variants
from sana_bench.analysis.compare_text import as_text
from sana_bench.analysis.leaderboard import collect_leaderboard
from sana_bench.cli.main import execute
from sana_bench.core.errors import SuiteError
from sana_bench.generators.base import Request
from sana_bench.generators.best_of_n.search import BestOfN
from sana_bench.judges.base import YesNo
from sana_bench.results.reader import load_run
from sana_bench.suites.rewrites import read_rewrites
from sana_bench.suites.schema import BestOfNSpec, JudgeSpec
from tests import suite_files
from tests.runner import fakes

PROMPTS = fakes.Shapes().prompts("micro")
SIZE = {"tier": "micro", "weights": "./weights", "height": fakes.SIZE, "width": fakes.SIZE}


def rewritten(prompt):
    return f"a masterful {prompt.text}, ünder soft light\nand more"


@pytest.fixture
def rewrites(world, monkeypatch):
    """A suite whose variant `fake-4` is given rewritten prompts; `given` are the texts that a model got."""
    given = []
    inner = fakes.FakeGenerator.generate

    def generate(self, requests):
        given.extend(requests)
        return inner(self, requests)

    monkeypatch.setattr(fakes.FakeGenerator, "generate", generate)
    write(world, [{"id": prompt.id, "text": rewritten(prompt)} for prompt in PROMPTS])
    world.given = given
    return world


def write(world, rows, name="up.jsonl"):
    variants = world.folder / "suites" / "variants"
    text = "".join(json.dumps(row) + "\n" for row in rows) if isinstance(rows, list) else json.dumps(rows)
    (variants / name).write_text(text, encoding="utf-8")
    sampler = "sampler: {name: flow_euler, steps: 4, guidance_scale: 4.5}"
    suite_files.write_variant(
        world.folder / "suites", "fake-4", "generator: fake", sampler, f"prompt_rewrites: {name}", **SIZE
    )


def run_name(world):
    (directory,) = (world.output / "runs").iterdir()
    return directory.name


def test_the_model_is_given_the_rewrite_and_scores_are_of_the_prompt(rewrites):
    assert rewrites.run() == 0
    texts = {prompt.id: rewritten(prompt) for prompt in PROMPTS}
    own = {prompt.id: prompt.text for prompt in PROMPTS}
    of_rewrites = [request for request in rewrites.given if request.original is not None]
    assert {(request.prompt_id, request.prompt) for request in of_rewrites} == set(texts.items())
    assert {(request.prompt_id, request.judged_prompt) for request in rewrites.given} == set(own.items())
    run = load_run(rewrites.output, run_name(rewrites))
    for variant in run.variants.values():
        assert {one.prompt.id: one.prompt.text for one in variant.samples} == own
        assert all("redness" in one.scores for one in variant.samples)
    assert run.variant("fake-4").rewrites == {"shapes": texts}
    assert run.variant("fake-2").rewrites == {}


def test_the_content_of_the_file_is_part_of_the_identity(rewrites):
    assert rewrites.run() == 0
    made = len(rewrites.given)
    write(rewrites, {prompt.id: rewritten(prompt) for prompt in reversed(PROMPTS)}, "same.json")
    assert rewrites.run() == 0
    assert len(rewrites.given) == made, "the same texts from another file"
    write(rewrites, {prompt.id: f"{rewritten(prompt)}!" for prompt in PROMPTS}, "same.json")
    assert rewrites.run() == 0
    assert len(rewrites.given) == made * 3 // 2, "other texts make other images of this variant alone"


def test_every_page_marks_the_row_and_the_report_shows_both_texts(rewrites, capsys, tmp_path):
    assert rewrites.run() == 0
    name = run_name(rewrites)
    (row,) = (line for line in capsys.readouterr().out.splitlines() if "rewritten prompts" in line)
    assert re.search("fake-4 +rewritten prompts ", row)
    report = rewrites.output / "runs" / name / "report"
    assert "rewritten prompts" in (report / "report.md").read_text(encoding="utf-8")
    assert "rewritten prompts" in (report / "report.csv").read_text(encoding="utf-8")
    page = (report / "report.html").read_text(encoding="utf-8")
    assert "rewritten prompts" in page
    assert "a masterful micro circles 0" in page
    assert '"prompt":"micro circles 0"' in page.replace('": "', '":"')

    (table,) = collect_leaderboard(rewrites.output).tables
    assert {entry.variant: entry.rewritten for entry in table.entries} == {"fake-4": True, "fake-2": False}
    assert execute(["leaderboard", "--output", str(rewrites.output)]) == 0
    for file in ("leaderboard.html", "leaderboard.md"):
        assert "rewritten prompts" in (rewrites.output / "leaderboard" / file).read_text(encoding="utf-8")

    run = load_run(rewrites.output, name)
    text = as_text(compare_variants(*((run, run.variant(variant)) for variant in ("fake-2", "fake-4"))))
    assert f"B: {name}:fake-4 (rewritten prompts)" in text
    assert f"A: {name}:fake-2\n" in text


@pytest.mark.parametrize("format_", ["parquet", "csv", "json", "folder"])
def test_both_texts_come_back_from_an_export(rewrites, tmp_path, format_):
    assert rewrites.run() == 0
    source = rewrites.output
    if format_ != "folder":
        source = tmp_path / "sent"
        arguments = ["--all", "--format", format_, "--to", str(source), "-o", str(rewrites.output)]
        assert execute(["export", *arguments]) == 0
    assert execute(["import", str(source), "-o", str(tmp_path / "new")]) == 0
    name = run_name(rewrites)
    there, here = load_run(rewrites.output, name), load_run(tmp_path / "new", name)
    assert here.variant("fake-4").rewrites == there.variant("fake-4").rewrites
    assert here.variant("fake-4").rewrites["shapes"]["00000"] == rewritten(PROMPTS[0])


def test_prompts_without_a_text_are_named_before_anything_is_written(rewrites):
    write(rewrites, [{"id": prompt.id, "text": "x"} for prompt in PROMPTS[2:]])
    with pytest.raises(SuiteError) as caught:
        rewrites.run()
    path = rewrites.folder / "suites/variants/up.jsonl"
    assert str(caught.value) == (
        f"variant 'fake-4': {path} has no text for 00000, 00001 of benchmark 'shapes'"
    )
    assert not rewrites.output.exists()


def test_a_line_for_one_benchmark_goes_before_one_for_all(rewrites):
    rows = [{"id": prompt.id, "text": "for all"} for prompt in PROMPTS]
    rows.append({"id": "00000", "text": "for shapes", "benchmark": "shapes"})
    rows.append({"id": "00001", "text": "for another", "benchmark": "others"})
    write(rewrites, rows)
    assert rewrites.run() == 0
    texts = load_run(rewrites.output, run_name(rewrites)).variant("fake-4").rewrites["shapes"]
    assert (texts["00000"], texts["00001"]) == ("for shapes", "for all")


def test_what_is_said_of_a_benchmark_holds_for_its_parts(tmp_path):
    rows = [{"id": "a", "text": "of all"}, {"id": "b", "text": "of all"}]
    rows += [{"id": "a", "text": "whole", "benchmark": "geneval"}]
    rows += [{"id": "b", "text": "part", "benchmark": "geneval@24"}]
    path = tmp_path / "up.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    found = read_rewrites(path)
    assert [found.text("geneval@24", name) for name in "ab"] == ["whole", "part"]
    assert [found.text("geneval", name) for name in "ab"] == ["whole", "of all"]
    assert found.lacking("geneval@24", "abc") == "c of benchmark 'geneval@24'"


BROKEN = {
    "no such file of rewritten prompts": ("gone.jsonl", None),
    "rewritten prompts are a .json or .jsonl file": ("texts.txt", "x"),
    ":2: no JSON": ("texts.jsonl", '{"id": "a", "text": "b"}\n{\n'),
    ":1: expected an object with id, text and, if needed, benchmark": (
        "texts.jsonl",
        '{"id": "a", "txt": "b"}',
    ),
    ":1: text of prompt 'a' is no text": ("texts.jsonl", '{"id": "a", "text": " "}'),
    ":2: prompt 'a' stands twice": ("texts.jsonl", '{"id": "a", "text": "b"}\n{"id": "a", "text": "c"}'),
    "prompt 'a' stands twice": ("texts.json", '{"a": "b", "a": "c"}'),
    "expected one object with a text for each prompt id": ("texts.json", "[]"),
    "half of a surrogate pair": ("texts.json", '{"a": "\\ud800"}'),
}


@pytest.mark.parametrize("message", BROKEN)
def test_a_broken_file_is_one_line(tmp_path, message):
    name, content = BROKEN[message]
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(SuiteError) as caught:
        read_rewrites(tmp_path / name)
    assert message in str(caught.value)
    assert str(caught.value).startswith(str(tmp_path / name))
    assert "\n" not in str(caught.value)


def test_texts_are_split_at_line_feeds_alone(tmp_path):
    path = tmp_path / "texts.jsonl"
    rows = [{"id": "a", "text": "one\u2028two"}, {"id": "b", "text": "\u0085" + "x"}]
    path.write_bytes(
        "".join(json.dumps(row, ensure_ascii=False) + "\r\n" for row in rows).encode("utf-8-sig")
    )
    found = read_rewrites(path)
    assert [found.text("any", name) for name in "ab"] == ["one\u2028two", "\u0085x"]


def test_the_judge_of_a_search_judges_against_the_prompt(tmp_path):
    seen = []

    class Inner:
        def generate(self, requests):
            return np.zeros((len(requests), 2, 2, 3), np.uint8)

    class Judge:
        def judge(self, prompts, images):
            seen.extend(prompts)
            return [YesNo(0.0, 0.0) for _ in prompts]

    spec = BestOfNSpec(candidates=2, judge=JudgeSpec(name="clip_score"))
    search = BestOfN(Inner(), Judge(), spec, identity="i" * 64, folder=tmp_path)
    requests = [Request("long text", 1, 0, "a", "short"), Request("plain", 2, 0, "b")]
    search.generate(requests)
    assert sorted(set(seen)) == ["plain", "short"]
    seen.clear()
    BestOfN(Inner(), Judge(), spec, identity="i" * 64, folder=tmp_path).generate(
        [Request("long text", 1, 0, "a", "another")]
    )
    assert set(seen) == {"another"}, "a search judged against another prompt is another search"
