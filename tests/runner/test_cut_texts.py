"""Who was given texts without their end: counted by each tokenizer, recorded once a run, and said in the report."""

import json

import pytest

from sana_bench.core.cut_texts import CutTexts, cut_lines
from sana_bench.core.samples import Prompt, Sample
from sana_bench.generators.best_of_n.search import BestOfN
from sana_bench.generators.diffusers import DiffusersGenerator
from sana_bench.judges.mplug.judge import MPlugJudge, bert_tokenizer
from sana_bench.metrics.clip.features import OpenClipFeatures
from sana_bench.metrics.clip.metric import ClipScore
from sana_bench.metrics.clip.micro_network import WordTokenizer
from sana_bench.metrics.dpg.metric import OFFICIAL, STRICT, DPGMetric
from sana_bench.metrics.image_reward.metric import ImageReward, RewardFiles
from sana_bench.suites.schema import BestOfNSpec, JudgeSpec
from sana_models.text import TextEncoder, make_word_tokenizer
from tests.runner import fakes

BERT = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a"]


def words(count):
    return " ".join(["a"] * count)


def samples(tmp_path, *texts, **metadata):
    prompts = [Prompt(f"{n}", text, "t", metadata) for n, text in enumerate(texts)]
    # Two images a prompt: a text counts once.
    return [Sample("v", "b", prompt, index, tmp_path / "x.png") for prompt in prompts for index in (0, 1)]


def test_sana_cuts_at_its_limit_with_an_instruction_and_without():
    encoder = TextEncoder(make_word_tokenizer(["a", "rule"], model_max_length=100), model=None)
    # The start token takes one of ten; the first token of an instruction, and its last, take two.
    assert encoder.cut([words(9), words(10)], max_length=10) == [False, True]
    for length in (1, 5):
        instruction = "rule " * length
        assert encoder.cut([words(8), words(9)], max_length=10, instruction=instruction) == [False, True]


def test_cut_says_what_encode_drops():
    """Against the tokenizer's own truncation, for every length around the limit."""
    tokenizer = make_word_tokenizer(["a", "rule"], model_max_length=100)
    encoder = TextEncoder(tokenizer, model=None)
    for instruction in (None, "rule rule "):
        limit = encoder.padded_length(max_length=7, instruction=instruction)
        for count in range(12):
            text = (instruction or "") + words(count)
            kept = tokenizer(text, truncation=True, max_length=limit)["input_ids"]
            whole = tokenizer(text)["input_ids"]
            found = encoder.cut([words(count)], max_length=7, instruction=instruction)
            assert found == [kept != whole], (instruction, count)


def test_clip_cuts_at_77(tmp_path):
    (tmp_path / "w").write_bytes(b"")
    metric = ClipScore("clip_score/sana@1", OpenClipFeatures(tmp_path / "w", "png"))
    found = metric.cut_texts(samples(tmp_path, words(75), words(76), words(200)))
    assert found == [CutTexts("CLIP", 77, 3, 2)]


def test_clip_counts_the_prompt_that_it_reads(tmp_path):
    (tmp_path / "w").write_bytes(b"")
    metric = ClipScore("clip_score/sana@1", OpenClipFeatures(tmp_path / "w", "png"))
    assert metric.cut_texts(samples(tmp_path, "a", full_prompt=words(76))) == [CutTexts("CLIP", 77, 1, 1)]


def test_the_micro_clip_cuts_at_its_context():
    tokenizer = WordTokenizer(("a",), 16)
    assert tokenizer.cut([words(14), words(15)]) == [False, True]
    assert tokenizer([words(14)]).tolist() == [[3, *[1] * 14, 4]]


def test_image_reward_cuts_at_35(tmp_path):
    (tmp_path / "vocab.txt").write_text("\n".join(BERT) + "\n")
    metric = ImageReward("image_reward/official@1", RewardFiles(tmp_path, tmp_path, tmp_path / "vocab.txt"))
    found = metric.cut_texts(samples(tmp_path, words(33), words(34)))
    assert found == [CutTexts("its text encoder", 35, 2, 1)]


@pytest.mark.parametrize(("rules", "n_texts"), [(STRICT, 3), (OFFICIAL, 2)])
def test_mplug_cuts_questions_at_25(tmp_path, rules, n_texts):
    judge = MPlugJudge(tmp_path)
    judge.__dict__["tokenizer"] = bert_tokenizer(BERT)
    asked = [
        {"question": words(24), "proposition_id": 1},
        {"question": words(23), "proposition_id": 2},
        {"question": words(3), "proposition_id": 3, "first_row": True},
    ]
    found = DPGMetric("dpg/official@1", judge, rules).cut_texts(samples(tmp_path, "x", questions=asked))
    assert found == [CutTexts("its judge", 25, n_texts, 1, "questions")]


def test_a_judge_without_a_limit_has_nothing_to_say(tmp_path):
    assert DPGMetric("dpg/official@1", object(), STRICT).cut_texts(samples(tmp_path, "x")) == []


class Tokenizer:
    def __init__(self, model_max_length):
        self.model_max_length = model_max_length

    def __call__(self, texts, *, truncation, verbose):
        assert not truncation
        return {"input_ids": [[0, *text.split(), 1] for text in texts]}


class CLIPTokenizerFast(Tokenizer):
    pass


class T5TokenizerFast(Tokenizer):
    pass


class Pipeline:
    def __init__(self, **components):
        self.components = {"vae": object(), **components}

    def __call__(self, prompt, max_sequence_length=20): ...


class Unlimited(Pipeline):
    def __call__(self, prompt): ...


def diffusers(pipeline):
    generator = DiffusersGenerator.__new__(DiffusersGenerator)
    generator._pipeline = pipeline
    return generator


def test_each_tokenizer_of_a_pipeline_is_counted_by_its_own_limit():
    pipeline = Pipeline(
        tokenizer=CLIPTokenizerFast(7), tokenizer_2=None, tokenizer_3=T5TokenizerFast(512), scheduler=object()
    )
    found = diffusers(pipeline).cut_texts([words(5), words(6), words(19)])
    assert found == [CutTexts("its tokenizer", 7, 3, 2), CutTexts("its tokenizer_3", 20, 3, 1)]
    # Without a length in the call, a tokenizer's own; one without any limit cuts nothing.
    unlimited = Unlimited(tokenizer=T5TokenizerFast(6), tokenizer_2=T5TokenizerFast(10**30))
    assert diffusers(unlimited).cut_texts([words(5)]) == [CutTexts("its tokenizer", 6, 1, 1)]


def test_a_search_says_what_its_generator_says():
    spec = BestOfNSpec(candidates=2, judge=JudgeSpec(name="clip_score"))
    inner = diffusers(Pipeline(tokenizer=CLIPTokenizerFast(7)))
    assert BestOfN(inner, object(), spec).cut_texts([words(6)]) == [CutTexts("its tokenizer", 7, 1, 1)]
    assert BestOfN(object(), object(), spec).cut_texts([words(6)]) == []


LINES = (
    "fake-4 read 2 of 6 prompts of shapes without their end: the text encoder takes 16 tokens.",
    "redness read 3 of 6 prompts of shapes without their end: CLIP takes 77 tokens.",
)


@pytest.fixture
def cutting(world, monkeypatch):
    """The small world with a generator and a metric that cut; `asked` counts how often they are asked."""
    asked = []

    def of_prompts(self, prompts):
        asked.append("generator")
        return [CutTexts("the text encoder", 16, len(prompts), 2), CutTexts("another", 300, len(prompts), 0)]

    def of_samples(self, found):
        asked.append("metric")
        return [CutTexts("CLIP", 77, len({one.prompt.text for one in found}), 3)]

    # Classes of their own: that a class keeps a protocol is remembered, and outlives what a test took back.
    for name, cut_texts in {"FakeGenerator": of_prompts, "Redness": of_samples}.items():
        cutting = type(name, (getattr(fakes, name),), {"cut_texts": cut_texts})
        monkeypatch.setattr(fakes, name, cutting)
    world.asked = asked
    return world


def test_a_run_says_it_and_a_resumed_one_with_nothing_to_do_too(cutting, capsys):
    assert cutting.run() == 0
    assert sorted(cutting.asked) == ["generator", "generator", "metric"]
    for _ in range(2):
        out = capsys.readouterr().out
        (run,) = (cutting.output / "runs").iterdir()
        for text in (out, (run / "report/report.md").read_text(), (run / "report/report.html").read_text()):
            for line in LINES:
                assert text.replace("\\", "").count(line) >= 1, line
            assert "another takes" not in text
        events = json.loads((run / "provenance.json").read_text())["events"]
        counted = [event for event in events if event["kind"] == "cut_texts"]
        assert [(e["of"], e["reader"], e["n_cut"]) for e in counted] == [
            ("fake-4", "the text encoder", 2), ("fake-4", "another", 0),
            ("fake-2", "the text encoder", 2), ("fake-2", "another", 0), ("redness", "CLIP", 3),
        ]  # fmt: skip
        assert cutting.run() == 0
    assert len(cutting.asked) == 3


def test_lines_are_of_texts_that_were_cut():
    assert cut_lines([{"kind": "batch_halved"}]) == []
