"""Inference-time scaling: the pairwise rule, the bracket, seeds, batches, resuming, and a whole run."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest

from sana_bench.core.errors import SampleError, SuiteError
from sana_bench.generators.base import OutOfMemoryError, Request
from sana_bench.generators.best_of_n.files import load_search, total_cost
from sana_bench.generators.best_of_n.search import BestOfN
from sana_bench.generators.best_of_n.tournament import beats, tournament
from sana_bench.generators.noise import candidate_seed
from sana_bench.judges.base import YesNo
from sana_bench.suites.cells import noise_seed
from sana_bench.suites.load import load_variant
from sana_bench.suites.schema import BestOfNSpec, JudgeSpec
from tests.suite_files import FEW_STEPS, write_suite, write_variant

YES, SURE_YES = YesNo(-0.5, -1.5), YesNo(-0.1, -2.5)
NO, SURE_NO = YesNo(-1.5, -0.5), YesNo(-2.5, -0.1)


@pytest.mark.parametrize(
    ("first", "second", "advances"),
    [
        (YES, SURE_NO, True),
        (SURE_NO, YES, False),
        (SURE_YES, YES, True),
        (YES, SURE_YES, False),
        # Of two no the smaller score of "no" advances: the one the judge is less sure about.
        (NO, SURE_NO, True),
        (SURE_NO, NO, False),
        # A tie goes to the second.
        (YES, YES, False),
        (NO, NO, False),
        # Undecided counts as no.
        (YesNo(-1.0, -1.0), YES, False),
    ],
)
def test_the_pairwise_rule(first, second, advances):
    assert beats(first, second) is advances


def test_the_bracket_is_played_between_neighbours():
    scores = [3, 1, 4, 1, 5, 9, 2, 6]
    answers = [YesNo(float(score), -1.0) for score in scores]
    assert tournament(answers, 4) == [0, 2, 5, 7]
    assert tournament(answers, 1) == [5]
    assert tournament(answers, 8) == list(range(8))
    # With equal answers the last is left.
    assert tournament([YES] * 8, 1) == [7]
    for count, keep in ((3, 1), (4, 3), (4, 8), (0, 1)):
        with pytest.raises(ValueError, match=r"candidates|keep"):
            tournament([YES] * count, keep)


def test_seeds_of_candidates_are_different_and_the_first_is_the_sample_s_own():
    seeds = [noise_seed(0, "geneval", f"{prompt:05d}", index) for prompt in range(20) for index in range(4)]
    drawn = [candidate_seed(seed, number) for seed in seeds for number in range(16)]
    assert len(set(drawn)) == len(drawn)
    assert candidate_seed(seeds[3], 0) == seeds[3]
    assert all(0 <= seed < 2**63 for seed in drawn)
    # Fixed for good: stored images depend on it.
    assert candidate_seed(1, 1) == candidate_seed(1, 1) != candidate_seed(1, 2)


class Painter:
    """Paints the low bytes of the seed; counts what it was asked for."""

    def __init__(self, *, largest=1000, broken=frozenset()):
        self.batches: list[list[int]] = []
        self.largest, self.broken = largest, broken

    def generate(self, requests: list[Request]) -> np.ndarray:
        if len(requests) > self.largest:
            raise OutOfMemoryError("too many")
        if any(request.noise_seed in self.broken for request in requests):
            raise SampleError("not finite")
        self.batches.append([request.noise_seed for request in requests])
        return np.stack([paint(request.noise_seed) for request in requests])

    @property
    def painted(self) -> list[int]:
        return list(itertools.chain(*self.batches))


def paint(seed: int) -> np.ndarray:
    return np.full((8, 8, 3), [seed % 251, seed // 251 % 251, seed // 63001 % 251], np.uint8)


class Redness:
    """Likes red."""

    def __init__(self):
        self.calls: list[int] = []

    def load(self):
        pass

    def identity(self):
        return {"judge": "redness"}

    def judge(self, prompts, images):
        assert len(prompts) == len(images)
        self.calls.append(len(images))
        return [YesNo(float(image[0, 0, 0]), 0.5) for image in images]


def search(painter, *, candidates=8, keep=1, batch_size=4, folder=None, judge=None) -> BestOfN:
    spec = BestOfNSpec(
        candidates=candidates, keep=keep, batch_size=batch_size, judge=JudgeSpec(name="clip_score")
    )
    return BestOfN(painter, judge or Redness(), spec, identity="0123456789abcdef0", folder=folder)


def best(seed: int, count: int, keep: int = 1) -> list[np.ndarray]:
    """The winners by the definition: the reddest of each k-th part of the candidates, the later of equals."""
    images = [paint(candidate_seed(seed, number)) for number in range(count)]
    part = count // keep
    winners = []
    for first in range(0, count, part):
        winners.append(
            max(range(first, first + part), key=lambda number: (int(images[number][0, 0, 0]), number))
        )
    return [images[number] for number in winners]


@pytest.mark.parametrize(("candidates", "batch_size"), [(1, 4), (4, 16), (8, 4), (16, 3)])
def test_the_winner_is_what_the_judge_likes_best(candidates, batch_size):
    painter = Painter()
    requests = [Request("a", 11, 0), Request("b", 22, 0), Request("a", 33, 1)]
    images = search(painter, candidates=candidates, batch_size=batch_size).generate(requests)
    for request, image in zip(requests, images, strict=True):
        assert np.array_equal(image, best(request.noise_seed, candidates)[0])
    assert len(painter.painted) == 3 * candidates
    assert max(map(len, painter.batches)) <= max(
        batch_size, candidates if candidates < batch_size else batch_size
    )


def test_best_of_one_is_the_wrapped_generator():
    images = search(Painter(), candidates=1).generate([Request("a", 77, 0)])
    assert np.array_equal(images[0], paint(77))


def test_small_searches_share_a_batch():
    painter, judge = Painter(), Redness()
    requests = [Request("a", seed, 0) for seed in (1, 2, 3, 4, 5)]
    search(painter, candidates=4, batch_size=8, judge=judge).generate(requests)
    assert list(map(len, painter.batches)) == [8, 8, 4]
    assert judge.calls == [8, 8, 4]


def test_keep_gives_the_winners_of_one_search_to_the_samples(tmp_path: Path):
    painter = Painter()
    generator = search(painter, candidates=8, keep=2, folder=tmp_path)
    first = generator.generate([Request("a", 5, 0)])
    generator.generate([Request("b", 6, 0)])
    second = generator.generate([Request("a", 5, 1)])
    expected = best(5, 8, keep=2)
    assert np.array_equal(first[0], expected[0])
    assert np.array_equal(second[0], expected[1])
    # The second sample came from the finished search.
    assert len(painter.painted) == 16


@pytest.mark.parametrize("made_before", [1, 2, 3])
def test_an_interrupted_search_goes_on(tmp_path: Path, made_before):
    class Stop(Exception):
        pass

    class Stopping(Painter):
        def generate(self, requests):
            if len(self.batches) == made_before:
                raise Stop
            return super().generate(requests)

    with pytest.raises(Stop):
        search(Stopping(), candidates=16, folder=tmp_path).generate([Request("a", 9, 0)])
    painter = Painter()
    images = search(painter, candidates=16, folder=tmp_path).generate([Request("a", 9, 0)])
    assert np.array_equal(images[0], best(9, 16)[0])
    winner = [candidate_seed(9, number) for number in range(16)]
    # What was judged is not made again, but for the batch of a winner whose picture was only in memory.
    again = set(painter.painted) & set(winner[: 4 * made_before])
    assert len(again) in (0, 4)
    done = Painter()
    assert np.array_equal(
        search(done, candidates=16, folder=tmp_path).generate([Request("a", 9, 0)])[0], images[0]
    )
    assert done.batches == []


def test_the_cost_is_recorded(tmp_path: Path):
    search(Painter(), candidates=8, folder=tmp_path).generate([Request("a", 1, 0), Request("b", 2, 0)])
    cost = total_cost(tmp_path)
    assert cost.images == 16
    assert cost.generation_seconds > 0
    assert cost.judge_seconds > 0
    files = list(tmp_path.rglob("search.json"))
    assert len(files) == 2
    assert len(json.loads(files[0].read_text())["answers"]) == 8


def test_a_damaged_search_is_made_again(tmp_path: Path):
    first = search(Painter(), folder=tmp_path).generate([Request("a", 1, 0)])
    path = next(tmp_path.rglob("search.json"))
    picture = next(tmp_path.rglob("*.png"))
    picture.write_bytes(b"")
    assert load_search(path.parent).answers == []
    assert np.array_equal(search(Painter(), folder=tmp_path).generate([Request("a", 1, 0)]), first)


def test_flops_of_products_are_counted(tmp_path: Path):
    import torch

    class Product(Painter):
        def generate(self, requests):
            torch.ones(len(requests), 3, 5) @ torch.ones(5, 7)
            return super().generate(requests)

    search(Product(), candidates=4, folder=tmp_path).generate([Request("a", 1, 0)])
    # Two a multiplication: 2 * 3 * 5 * 7 for each of four candidates.
    assert total_cost(tmp_path).generation_flops == 4 * 210


def test_too_large_a_batch_is_halved():
    painter = Painter(largest=3)
    images = search(painter, candidates=8, batch_size=8).generate([Request("a", 4, 0)])
    assert np.array_equal(images[0], best(4, 8)[0])
    assert max(map(len, painter.batches)) <= 3
    with pytest.raises(OutOfMemoryError):
        search(Painter(largest=0)).generate([Request("a", 4, 0)])


def test_the_wrapped_generator_is_told_the_prompt_and_says_what_the_winner_was():
    class Files(Painter):
        ids: frozenset[str] = frozenset()

        def generate(self, requests):
            self.ids |= {request.prompt_id for request in requests}
            return super().generate(requests)

        def source_format(self, request):
            return f"{request.prompt_id}: {request.noise_seed}, {request.index}"

    files, request = Files(), Request("a", 4, 0, "00007")
    generator = search(files, candidates=8)
    images = generator.generate([request])
    (winner,) = [n for n in range(8) if np.array_equal(paint(candidate_seed(4, n)), images[0])]
    assert generator.source_format(request) == f"00007: {candidate_seed(4, winner)}, {winner}"
    assert files.ids == {"00007"}
    painter = search(Painter(), candidates=8)
    painter.generate([request])
    assert painter.source_format(request) is None


def test_a_candidate_that_cannot_be_made_loses():
    painter = Painter(broken={candidate_seed(4, 2)})
    images = search(painter, candidates=4).generate([Request("a", 4, 0)])
    left = [paint(candidate_seed(4, number)) for number in (0, 1, 3)]
    assert np.array_equal(images[0], max(left, key=lambda image: int(image[0, 0, 0])))
    broken = Painter(broken={candidate_seed(4, number) for number in range(4)})
    with pytest.raises(SampleError, match="none of 4 candidates"):
        search(broken, candidates=4).generate([Request("a", 4, 0)])


def write_small(folder: Path, name: str, *more: str) -> Path:
    return write_variant(folder, name, *more, FEW_STEPS, tier="micro", weights="micro://sana-micro")


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ("best_of_n: {candidates: 4, judge: {name: geneval}}", "what the benchmark scores with"),
        ("best_of_n: {candidates: 4, judge: {name: detector}}", "what the benchmark scores with"),
        ("best_of_n: {candidates: 5, judge: {name: clip_score}}", "power of two"),
        ("best_of_n: {candidates: 4, keep: 8, judge: {name: clip_score}}", "must not be larger"),
        ("best_of_n: {judge: {name: clip_score}}", "candidates"),
        (
            "best_of_n: {candidates: 4, judge: {name: villa}}",
            r"unknown judge 'villa' \(did you mean 'vila'\?\); available: clip_score, image_reward, served, vila",
        ),
        (
            "best_of_n: {generator: sanna, candidates: 4, judge: {name: clip_score}}",
            r"unknown generator 'sanna' \(did you mean 'sana'\?\)",
        ),
        ("", "belong together"),
    ],
)
def test_bad_variants_are_one_clear_line(tmp_path: Path, section, message):
    path = write_small(tmp_path, "small", "generator: best_of_n", section)
    with pytest.raises(SuiteError, match=message) as caught:
        load_variant(path)
    assert "\n" not in str(caught.value)
    assert "small.yaml" in str(caught.value)


def test_a_whole_run_with_best_of_two(tmp_path: Path, tiny_weights_root: Path, monkeypatch, capsys):
    from sana_bench.cli.main import execute

    monkeypatch.setenv("SANA_BENCH_MICRO_WEIGHTS", str(tiny_weights_root))
    write_small(tmp_path, "small", "generator: sana")
    search = ("generator: best_of_n", "best_of_n: {candidates: 2, judge: {name: clip_score}}")
    scaled = ("kind: inference_scaled", "derived_from: small")
    write_small(tmp_path, "small-best-of-2", *search, *scaled)
    benchmark = "{name: geneval, images_per_prompt: 1, metrics: [clip_score]}"
    suite = write_suite(tmp_path, benchmark, ["small", "small-best-of-2"], tier="micro")
    command = ["run", str(suite), "--limit", "4", "--tier", "micro", "-o", str(tmp_path / "results")]
    # A limit leaves the result incomplete, which the exit code says.
    assert execute(command) == 3
    assert "8 images to generate" in capsys.readouterr().out
    cost = total_cost(tmp_path / "results" / "cache" / "search")
    assert cost.images == 8
    assert cost.generation_flops > 0
    assert execute(command) == 3
    assert "0 images to generate, 8 already there" in capsys.readouterr().out
