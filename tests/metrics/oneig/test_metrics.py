"""OneIG-Bench's four metrics: alignment and text against stored outcomes, diversity and style by known vectors."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sana_bench import metrics
from sana_bench.core.errors import AssetError, IncompleteError, SuiteError, UsageError
from sana_bench.core.preprocess import as_jpeg
from sana_bench.core.samples import Prompt, Sample
from sana_bench.metrics.base import MetricAssets
from sana_bench.metrics.fid.compare import NotMeasuredError, compare_sets, evidence_of, in_order
from sana_bench.metrics.oneig.alignment import AlignmentMetric
from sana_bench.metrics.oneig.diversity import DiversityMetric
from sana_bench.metrics.oneig.rules import Reading, compare, contributions, pairwise_distance, pooled
from sana_bench.metrics.oneig.rules import text as text_score
from sana_bench.metrics.oneig.style import Judged, StyleMetric
from sana_bench.metrics.oneig.text import TextMetric
from sana_bench.metrics.read_text import REQUEST
from sana_bench.results.statistics.paired import compare_means
from sana_bench.suites.schema import MetricSpec
from tests.metrics.fid.test_compare import stored_sample
from tests.metrics.published_cases import published_cases
from tests.metrics.told_judge import ToldJudge, numbered_image

SEED = 3
NOTE = "OneIG-Bench's reasoning is not measured, nor its overall"


def sample(tmp_path, prompt_id, index, metadata, *, number=0, tag="Portrait"):
    """An image of one grey level, which JPEG leaves as it is."""
    path = tmp_path / f"{prompt_id}-{index}.png"
    Image.fromarray(numbered_image(number)).save(path)
    return Sample("mine", "oneig", Prompt(prompt_id, "text", tag, metadata), index, path)


def summaries(metric, rows, n_expected=None):
    found = metric.summarise(rows, len(rows) if n_expected is None else n_expected, SEED)
    return {row.key: row for row in found}


ALIGNMENT = "oneig_alignment/official@1"


def test_every_stored_alignment_is_met_through_the_metric(tmp_path):
    """Means of the same fractions in another order: 1e-12 is thousands of roundings."""
    for case in published_cases("oneig/alignment_cases.jsonl.gz"):
        questions = {key: f"Question {key}?" for key in case["dependency"]}
        metadata = {"questions": questions, "dependency": case["dependency"]}
        n_images = len(case["answers"]["1"])

        def says(image, question, answers=case["answers"]):
            return answers[question.split()[1].split("?")[0]][image[0, 0, 0]]

        metric = AlignmentMetric(ALIGNMENT, ToldJudge(says=says))
        rows = metric.score(
            [sample(tmp_path, "000", index, metadata, number=index) for index in range(n_images)]
        )
        assert summaries(metric, rows)["overall"].value == pytest.approx(case["score"], abs=1e-12, rel=0)


GRAPH = {"questions": {"1": "A cat?", "2": "Red?"}, "dependency": {"1": [0], "2": [1]}}


def test_alignment_rows_keep_answers_and_what_they_count_with(tmp_path):
    judge = ToldJudge(says=lambda _, question: "No" if "cat" in question else "Yes")
    metric = AlignmentMetric(ALIGNMENT, judge)
    (row,) = metric.score([sample(tmp_path, "000", 0, GRAPH)])
    assert judge.asked == [
        (["A cat?. Please answer 'Yes' or 'No' only.", "Red?. Please answer 'Yes' or 'No' only."], 16)
    ]
    assert row.value == 0
    assert row.details["answers"] == [
        {"id": 1, "question": "A cat?", "answer": "No", "score": 0.0, "raw": 0.0},
        {"id": 2, "question": "Red?", "answer": "Yes", "score": 0.0, "raw": 1.0},
    ]
    found = summaries(metric, [row], n_expected=4)
    assert found["overall"].note == NOTE
    assert not found["overall"].complete
    assert set(found) == {"overall", "Portrait"}


@pytest.mark.parametrize(
    ("protocol", "seen_as"), [(ALIGNMENT, as_jpeg), ("oneig_alignment/micro@1", np.copy)]
)
def test_published_judges_see_the_image_after_jpeg(tmp_path, protocol, seen_as):
    path = tmp_path / "noise.png"
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    Image.fromarray(noise).save(path)
    seen = []
    judge = ToldJudge(says=lambda image, _: seen.append(image) or "Yes")
    AlignmentMetric(protocol, judge).score([Sample("mine", "oneig", Prompt("0", "", "all", GRAPH), 0, path)])
    assert np.array_equal(seen[0], seen_as(noise))
    assert np.array_equal(seen[0], noise) == (seen_as is np.copy)


@pytest.mark.parametrize(("answer", "ends"), [("No", "low"), ("Yes", "high")])
def test_the_interval_of_none_or_all_has_a_width(tmp_path, answer, ends):
    metric = AlignmentMetric(ALIGNMENT, ToldJudge(says=lambda *_: answer))
    rows = metric.score([sample(tmp_path, f"{place:03d}", 0, GRAPH) for place in range(5)])
    for row in summaries(metric, rows).values():
        assert getattr(row, ends) == row.value
        # Wilson's, of five prompts.
        assert row.high - row.low == pytest.approx(0.434, abs=1e-3)
    metric, _, rows = read_images(tmp_path, [{"text": "Open", "read": "Open" if answer == "Yes" else ""}] * 5)
    for key in ("CR", "WAC"):
        found = summaries(metric, rows)[key]
        assert found.high - found.low == pytest.approx(0.434, abs=1e-3)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"questions": {"1": "A?"}}, "prompt 000: the field 'dependency' is missing"),
        (GRAPH | {"dependency": {"1": [0], "2": [3]}}, "prompt 000: dependency[2]: question 3 is not asked"),
        (GRAPH | {"questions": {"1": "A?"}}, "prompt 000: answers: question 2 is missing"),
        (GRAPH | {"questions": {"1": "A?", "2": 3}}, "prompt 000: questions[2]: 3 is not a text"),
        (GRAPH | {"questions": 5}, "prompt 000: 'int' object is not iterable"),
    ],
)
def test_questions_that_cannot_be_scored_are_named(tmp_path, metadata, message):
    with pytest.raises(UsageError) as caught:
        AlignmentMetric(ALIGNMENT, ToldJudge()).score([sample(tmp_path, "000", 0, metadata)])
    assert str(caught.value) == message


TEXT = "oneig_text/official@1"


def read_images(tmp_path, images, language="en", per_prompt=1):
    judge = ToldJudge(reads=lambda image: images[image[0, 0, 0]]["read"])
    metric = TextMetric(TEXT, judge)
    samples = [
        sample(
            tmp_path, f"{place // per_prompt:03d}", place % per_prompt,
            {"text_content": image["text"], "language": language}, number=place, tag="Text_Rendering",
        )
        for place, image in enumerate(images)
    ]  # fmt: skip
    return metric, judge, metric.score(samples)


def test_every_stored_text_score_is_met_through_the_metric(tmp_path):
    """The bound of the issue: 1e-12 of numbers up to 1, sums of a few integers and one formula."""
    for case in published_cases("oneig/text_cases.jsonl.gz"):
        metric, _, rows = read_images(tmp_path, case["images"], case["language"])
        fields = ("edit_distance", "matched", "words")
        counted = [[row.details[name] for name in fields] for row in rows]
        assert counted == [[image[name] for name in fields] for image in case["images"]]
        found = summaries(metric, rows)
        expected = case["summary"]
        assert found["overall"].value == pytest.approx(expected["score"], abs=1e-12, rel=0)
        assert found["CR"].value == pytest.approx(expected["CR"], abs=1e-12, rel=0)
        assert found["WAC"].value == pytest.approx(expected["WAC"], abs=1e-12, rel=0)
        assert f"mean edit distance {expected['ED']:.1f} characters" in found["overall"].note


def test_text_rows_keep_the_reading_and_long_texts_get_more_tokens(tmp_path):
    images = [{"text": "['Open Daily']", "read": "Open Dayly"}, {"text": "word " * 61, "read": "word"}]
    metric, judge, rows = read_images(tmp_path, images)
    assert judge.asked == [(REQUEST, 128), (REQUEST, 256)]
    answer = {"question": "['Open Daily']", "answer": "Open Dayly", "score": 1 - 1 * 1 * 0.5 / 100}
    assert rows[0].details == {
        "answers": [answer], "language": "en", "edit_distance": 1, "matched": 1, "words": 2,
    }  # fmt: skip
    found = summaries(metric, rows)
    assert set(found) == {"overall", "CR", "WAC"}
    assert found["overall"].note.endswith(NOTE)
    for metadata, message in (
        ({"text_content": "['!']"}, "prompt 000: text_content: there is no word in it"),
        ({"text_content": "a", "language": "fr"}, "prompt 000: language: 'fr', expected 'en' or 'zh'"),
    ):
        with pytest.raises(UsageError, match=message):
            metric.score([sample(tmp_path, "000", 0, metadata)])


def test_texts_of_two_languages_have_no_common_score(tmp_path):
    metric, _, english = read_images(tmp_path, [{"text": "Open", "read": "Open"}])
    _, _, chinese = read_images(tmp_path, [{"text": "Open", "read": "Open"}] * 2, "zh")
    with pytest.raises(IncompleteError, match="texts in en and zh have no common score"):
        metric.summarise([*english, chinese[1]], 2, SEED)


READINGS = st.lists(
    st.builds(
        lambda distance, matched, more: {
            "edit_distance": distance,
            "matched": matched,
            "words": matched + more,
        },
        st.integers(0, 150),
        st.integers(0, 20),
        st.integers(1, 20),
    ),
    min_size=2,
    max_size=20,
)


@settings(deadline=None)
@given(READINGS, st.sampled_from(["en", "zh"]))
def test_contributions_average_to_the_score(images, language):
    score = pooled([Reading(**one) for one in images], language)["score"]
    found = contributions([one | {"language": language} for one in images])
    # Numbers up to 40 in the middle of it: 1e-11 is a thousand roundings of those.
    assert sum(found) / len(found) == pytest.approx(score, abs=1e-11)


def test_contributions_are_the_slope_of_the_score():
    """Doubling one image of a hundred moves the score by its contribution, up to terms of second order (about 1e-4)."""
    rng = np.random.default_rng(0)
    images = [
        {
            "text": "one two three four",
            "read": " ".join(rng.choice(["one", "two", "three", "for"], rng.integers(1, 5))),
        }
        for _ in range(100)
    ]
    records = [vars(compare(**one)) | {"language": "en"} for one in images]
    found = contributions(records)
    score = text_score(images, "en")["score"]
    for place in (0, 10, 50):
        moved = text_score([*images, images[place]], "en")["score"] - score
        assert moved == pytest.approx((found[place] - score) / 101, abs=2e-5)


class Known:
    """Embeddings by grey level: so many degrees from the first axis."""

    key = "known/1"

    def identity(self):
        return {"network": "known"}

    def of_samples(self, samples):
        angles = np.radians([float(np.asarray(Image.open(one.image_path))[0, 0, 0]) for one in samples])
        return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def diverse(tmp_path, angles_by_prompt):
    samples = [
        sample(tmp_path, prompt, index, {}, number=angle, tag=tag)
        for prompt, (tag, angles) in angles_by_prompt.items()
        for index, angle in enumerate(angles)
    ]
    metric = DiversityMetric("oneig_diversity/official@1", Known())
    return metric, samples


SPREAD = {
    "a": ("Portrait", [0, 60, 120, 180]),
    "b": ("Portrait", [0, 0, 0, 0]),
    "c": ("Text", [0, 90, 90, 180]),
}


def test_diversity_is_the_mean_distance_of_pairs(tmp_path):
    metric, samples = diverse(tmp_path, SPREAD)
    chunks = [(samples[:5], metric.features(samples[:5])), (samples[5:], metric.features(samples[5:]))]
    found = {row.key: row for row in metric.summarise_features(samples, chunks, 12, SEED)}
    # Pairs at 60 (three), 120 (two) and 180 degrees; none apart; two each at 90, one at 0 and one at 180 with two at 90.
    expected = {"a": (3 * 0.5 + 2 * 1.5 + 2) / 6, "b": 0.0, "c": (4 * 1 + 0 + 2) / 6}
    # Cosines of float32 vectors are exact to 1e-7.
    assert found["overall"].value == pytest.approx(sum(expected.values()) / 3, abs=1e-6)
    assert found["Portrait"].value == pytest.approx((expected["a"] + expected["b"]) / 2, abs=1e-6)
    assert found["Text"].value == pytest.approx(expected["c"], abs=1e-6)
    assert (found["overall"].n_samples, found["overall"].n_prompts, found["overall"].note) == (12, 3, NOTE)
    assert metric.score_features(samples, chunks[0][1]) == []
    # Order and chunks do not matter.
    mixed = samples[::-1]
    again = metric.summarise_features(mixed, [(mixed, metric.features(mixed))], 12, SEED)
    assert {row.key: row for row in again} == found


@pytest.fixture
def compared(tmp_path, monkeypatch):
    """Diversities of two folders compared, from stored features or from what a baseline carries of either."""

    def run(first, second, *, carried=False):
        metric, samples = diverse(tmp_path, first)
        sides = [(samples, metric.features(samples))]
        metric, others = diverse(tmp_path, second)
        sides.append((others, metric.features(others)))
        stored = {
            f"{side}{sample.id}": vector
            for side, (samples, vectors) in enumerate(sides)
            for sample, vector in zip(samples, vectors, strict=True)
        }

        def load(output, key, names):
            assert key == Known.key
            return np.stack([stored[name] for name in names])

        monkeypatch.setattr("sana_bench.metrics.fid.compare.load_features", load)
        runs = (SimpleNamespace(output=tmp_path),) * 2
        kept = [
            [stored_sample(sample, f"{side}{sample.id}") for sample in samples]
            for side, (samples, _) in enumerate(sides)
        ]
        identity = metric.identity()
        count = SimpleNamespace(n_samples=max(map(len, kept)))
        given = (None, None)
        if carried:
            given = tuple(evidence_of(runs[0], identity, in_order(samples), None) for samples in kept)
        return compare_sets(
            runs, identity, (count, count), list(zip(*kept, strict=False)), SEED, evidence=given
        )

    return run


def test_diversities_are_compared_by_prompt(compared):
    second = {**SPREAD, "b": ("Portrait", [0, 60, 0, 60]), "c": ("Text", [0, 90, 90, 90])}
    # Of b four of six pairs at 60 degrees; of c one pair less at 180, and one more at 90 is none less.
    differences = {"a": 0.0, "b": 4 * 0.5 / 6, "c": 3 / 6 - 1.0}
    effect = compared(SPREAD, second)
    expected = compare_means(np.zeros(3), np.array(list(differences.values())), list(differences), seed=SEED)
    assert effect.difference == pytest.approx(expected.difference, abs=1e-6)
    assert (effect.low, effect.high) == pytest.approx((expected.low, expected.high), abs=1e-6)
    assert (effect.p_value, effect.n_clusters) == (expected.p_value, 3)
    assert compared(SPREAD, second, carried=True) == effect
    assert compared(SPREAD, SPREAD).p_value == 1


def test_diversities_of_other_images_are_not_compared(compared):
    with pytest.raises(NotMeasuredError, match="prompt b has one image"):
        compared(*[{"a": ("Portrait", [0, 60]), "b": ("Portrait", [0])}] * 2)
    with pytest.raises(NotMeasuredError, match="only 3 of 4 images are on both sides"):
        compared({"b": ("Portrait", [0, 1, 2])}, {"b": ("Portrait", [0, 1, 2, 3])})


def test_a_prompt_of_one_image_has_no_pair(tmp_path):
    metric, samples = diverse(tmp_path, {"a": ("Portrait", [0, 60]), "b": ("Portrait", [0])})
    with pytest.raises(IncompleteError, match="prompt b has one image, and a pair takes two"):
        metric.summarise_features(samples, [(samples, metric.features(samples))], 4, SEED)
    with pytest.raises(IncompleteError, match="features cover 2 of 3 samples"):
        metric.summarise_features(samples, [(samples[:2], metric.features(samples[:2]))], 4, SEED)


@settings(deadline=None)
@given(st.integers(2, 6), st.integers(0, 1000))
def test_pairwise_distance_keeps_its_laws(n_images, seed):
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((n_images, 5))
    found = pairwise_distance(vectors)
    assert 0 <= found <= 2
    assert pairwise_distance(rng.permutation(vectors)) == pytest.approx(found, abs=1e-12)
    assert pairwise_distance(vectors * rng.uniform(0.1, 10, (n_images, 1))) == pytest.approx(found, abs=1e-12)
    assert pairwise_distance(np.repeat(vectors[:1], n_images, axis=0)) == pytest.approx(0, abs=1e-12)


class Encoder:
    """Unit vectors by grey level, as `Known`, turned by so many degrees."""

    def __init__(self, name, turn):
        self.name, self.turn = name, turn

    def identity(self):
        return {"network": self.name}

    def encode(self, images):
        angles = np.radians([float(image[0, 0, 0]) + self.turn for image in images])
        return np.stack([np.cos(angles), np.sin(angles)], axis=1)


STYLE = "oneig_style/official@1"
REFERENCES = {"clay": np.eye(2), "comic": np.array([[-1.0, 0.0]])}


def test_style_is_the_mean_over_encoders_of_the_nearest_reference(tmp_path):
    metric = StyleMetric(
        STYLE, [Judged(Encoder(*one), REFERENCES) for one in (("csd", 0), ("oneig", 90))], "sha"
    )
    asked = [("000", "clay", 0), ("000", "clay", 60), ("001", "comic", 0)]
    rows = metric.score(
        [
            sample(tmp_path, prompt, place, {"style": style}, number=angle)
            for place, (prompt, style, angle) in enumerate(asked)
        ]
    )
    # Float64 cosines.
    root = np.sqrt(0.75)
    assert [row.value for row in rows] == pytest.approx([1, (root + 0.5) / 2, 0], abs=1e-12)
    assert rows[2].details == pytest.approx({"style": "comic", "csd": -1.0, "oneig": 0.0}, abs=1e-12)
    found = summaries(metric, rows)
    assert set(found) == {"overall", "clay", "comic"}
    assert found["clay"].value == pytest.approx((1 + (root + 0.5) / 2) / 2, abs=1e-12)
    assert found["overall"].note == NOTE
    with pytest.raises(UsageError, match="there are no references of the style 'lego'"):
        metric.score([sample(tmp_path, "000", 0, {"style": "lego"})])


@pytest.fixture
def assets(tmp_path, monkeypatch):
    monkeypatch.setenv("SANA_BENCH_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    return MetricAssets(tmp_path, tmp_path / "cache")


@pytest.mark.parametrize(
    ("name", "parameters", "kind", "message"),
    [
        ("oneig_alignment", {}, AssetError, "weights 'Qwen/Qwen2.5-VL-7B-Instruct' are not on this machine"),
        ("oneig_text", {}, AssetError, "weights 'Qwen/Qwen2.5-VL-7B-Instruct' are not on this machine"),
        ("oneig_style", {}, AssetError, "CSD_embed.pt is missing"),
        ("oneig_diversity", {}, AssetError, "dreamsim_ensemble_checkpoint.zip is missing"),
        ("oneig_diversity", {"judge": "x"}, SuiteError, "no parameter 'judge'"),
        ("oneig_style", {"refs": "x"}, SuiteError, "no parameter 'refs' (did you mean 'references'?)"),
    ],
)
def test_what_is_missing_is_one_line(assets, name, parameters, kind, message):
    with pytest.raises(kind) as caught:
        metrics.build(MetricSpec(name=name, parameters=parameters), "full", assets)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
