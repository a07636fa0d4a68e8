"""Which engine a run takes, and which worker does what; no worker is started."""

import itertools
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sana_bench.core.engines import EngineRequest
from sana_bench.core.errors import UsageError
from sana_bench.core.samples import Prompt, Sample
from sana_bench.runner.engines import choice
from sana_bench.runner.engines.choice import choose_engine
from sana_bench.runner.engines.queue import BatchQueue, ChunkQueue
from sana_bench.runner.engines.worker import differences
from sana_bench.runner.workshop import ImageBatch, ScoreChunk
from tests.runner import fakes

SCORED = [SimpleNamespace(name="geneval", metrics=("geneval", "clip_score"))]
TIMED = [SimpleNamespace(name="speed", metrics=("latency",))]


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch):
    """A machine with so many GPUs, and with or without Ray."""

    def make(gpus: int, *, has_ray: bool = True) -> None:
        monkeypatch.setattr(choice, "_visible_gpus", lambda: gpus)
        monkeypatch.setattr(choice, "find_spec", lambda name: object() if has_ray else None)

    return make


def chosen(device: str = "cuda", benchmarks=SCORED, **request: object) -> choice.Choice:
    return choose_engine(EngineRequest(**request), device, benchmarks)


def test_one_device_needs_nothing(machine) -> None:
    machine(1, has_ray=False)
    assert chosen() == choice.Choice("local")
    assert chosen("cpu") == chosen(workers=1) == chosen(engine="local", workers=1) == choice.Choice("local")


def test_several_gpus_are_taken_and_it_is_said(machine) -> None:
    machine(4)
    found = chosen()
    assert (found.engine, found.workers) == ("ray", 4)
    assert found.line == "engine: Ray with 4 workers, as 4 GPUs are visible (--engine local takes one)"
    assert chosen(engine="local") == chosen(workers=1) == choice.Choice("local")
    assert (chosen(workers=3).workers, chosen(engine="ray").workers) == (3, 4)
    with pytest.raises(UsageError, match="--workers 5: this machine has 4 GPUs"):
        chosen(workers=5)
    assert chosen(workers=5, address="head:6379") == choice.Choice("ray", 5)
    assert chosen(address="auto") == choice.Choice("ray", None)


def test_idle_gpus_are_named_with_the_remedy(machine) -> None:
    machine(4, has_ray=False)
    assert chosen().engine == "local"
    assert chosen().line == "3 of 4 GPUs idle: pip install 'sana-bench[distributed]' lets all of them work"
    with pytest.raises(
        UsageError, match=r"ray, which is not installed: pip install 'sana-bench\[distributed\]'"
    ):
        chosen(workers=2)


def test_measuring_stays_on_one_device(machine) -> None:
    machine(4)
    found = chosen(benchmarks=[*SCORED, *TIMED])
    assert found.engine == "local"
    assert found.line == "3 of 4 GPUs idle: benchmark 'speed' measures one device alone"
    for request in ({"workers": 2}, {"address": "auto"}, {"engine": "ray"}):
        with pytest.raises(
            UsageError, match="benchmark 'speed' measures the time of one device, which others"
        ):
            chosen(benchmarks=TIMED, **request)


@pytest.mark.parametrize("request_", [{"workers": 2}, {"address": "auto"}, {"timeout_s": 3.0}])
def test_the_local_engine_has_no_workers(machine, request_) -> None:
    machine(4)
    with pytest.raises(UsageError, match="the engine local is one process on one device"):
        chosen(engine="local", **request_)


def test_a_timeout_without_workers_is_a_mistake(machine) -> None:
    machine(1)
    with pytest.raises(UsageError, match="--worker-timeout goes with --workers"):
        chosen(timeout_s=3.0)


def batch(cell: str, number: int, searches: frozenset[tuple[str, int]] = frozenset()) -> ImageBatch:
    sample = Sample("v", "b", Prompt(f"{number:05d}", "text", "tag"), 0, None)
    return ImageBatch(cell, (sample,), (True,), searches=searches)


@settings(deadline=None)  # a machine that does other work is no fault
@given(st.lists(st.integers(1, 9), min_size=1, max_size=5), st.integers(1, 5), st.randoms())
def test_every_batch_is_done_once_and_few_models_are_loaded(sizes, n_workers, random) -> None:
    batches = [batch(f"cell {cell}", number) for cell, size in enumerate(sizes) for number in range(size)]
    queue = BatchQueue(batches)
    held: list[str | None] = [None] * n_workers
    done, n_loaded = [], 0
    while len(queue):
        worker = random.randrange(n_workers)
        found = queue.take(held[worker], [*held[:worker], *held[worker + 1 :]], ())
        assert found is not None
        if found.cell != held[worker]:
            assert not any(left.cell == held[worker] for left in batches if left not in done), (
                "it held a model in use"
            )
            n_loaded += 1
        held[worker] = found.cell
        done.append(found)
    assert sorted(map(repr, done)) == sorted(map(repr, batches))
    assert n_loaded <= n_workers * len(sizes), "nobody loads a model twice"


def test_workers_spread_over_variants_and_help_with_the_longest() -> None:
    queue = BatchQueue([*(batch("a", n) for n in range(6)), *(batch("b", n) for n in range(2))])
    first = queue.take(None, [None, None], ())
    second = queue.take(None, ["a", None], ())
    third = queue.take(None, ["a", "a"], ())
    assert [one.cell for one in (first, second, third) if one] == ["a", "a", "b"]


def test_winners_of_one_search_are_made_by_one_worker() -> None:
    same = frozenset({("00000", 0)})
    first, second, other = batch("a", 0, same), batch("a", 1, same), batch("a", 2, frozenset({("00001", 0)}))
    queue = BatchQueue([first, second, other])
    assert queue.take(None, [], ()) is first
    assert queue.take("a", ["a"], [first]) is other
    assert queue.take("a", ["a"], [first]) is None, "it waits for the search that is being done elsewhere"
    assert queue.take("a", ["a"], [other]) is second


def test_chunks_are_taken_as_there_is_somebody_for_them() -> None:
    made = itertools.count()
    queue = ChunkQueue(ScoreChunk("m", "score", (), next(made)) for _ in range(3))
    first = queue.take(None, (), ())
    assert (first.number, next(made)) == (0, 1), "the others are not read yet"
    queue.put_back(first)
    assert [queue.take(None, (), ()).number for _ in range(3)] == [0, 2, 3]
    assert (len(queue), queue.take(None, (), ())) == (0, None)


def test_what_differs_is_named() -> None:
    here = {"package torch": "2.11.0", "Python": "3.12.1", "variant a": "f" * 64}
    there = {"package torch": "2.12.0", "Python": "3.12.1", "package new": "1.0", "variant a": "f" * 64}
    assert differences(here, there) == [
        "package torch is 2.12.0 there and 2.11.0 here",
        "package new is 1.0 there and not here",
    ]
    assert differences(here, here) == []


def test_a_dry_run_shows_what_each_worker_would_do(world, capsys, machine) -> None:
    machine(0)
    request = EngineRequest(workers=3)
    assert world.run(dry_run=True, batch_size=8, engine=request) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("worker ")]
    n = fakes.N_PROMPTS * 4
    assert lines == [
        "worker 1 of 3: 2 batches: 16 of shapes / fake-4",
        "worker 2 of 3: 2 batches: 16 of shapes / fake-2",
        "worker 3 of 3: 2 batches: 8 of shapes / fake-4, 8 of shapes / fake-2",
    ]
    assert sum(8 * int(line.split(": ")[1].split()[0]) for line in lines) == 2 * n
    assert world.run(dry_run=True, engine=EngineRequest(address="auto")) == 0
    assert "workers: one for each device of the cluster at auto" in capsys.readouterr().out
