"""Work as calls: a suite run, and images that exist already scored."""

import contextlib
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sana_bench.analysis.compare import compare_with_first
from sana_bench.analysis.policy import load_policy
from sana_bench.analysis.runs import Run
from sana_bench.core.engines import ENGINES, EngineName, EngineRequest
from sana_bench.core.errors import UsageError, nearest
from sana_bench.core.fields import whole_number
from sana_bench.core.tiers import TierRequest
from sana_bench.results import reader
from sana_bench.results.run_folder import DEFAULT_OUTPUT
from sana_bench.runner.run import RunOptions, execute_suite
from sana_bench.runner.score import ScoreOptions, score_folders
from sana_bench.runner.session import Outcome
from sana_bench.suites.stop import StopRequest

__all__ = ["run", "score", "scored"]


def run(
    suite: str | Path,
    *,
    variants: Sequence[str] | None = None,
    limit: int | None = None,
    tier: TierRequest = "auto",
    output: str | Path = DEFAULT_OUTPUT,
    set: Mapping[str, Any] | None = None,
    until: str | None = None,
    compare: Sequence[str] | None = None,
    effect: float | None = None,
    error: float | None = None,
    batch_size: int | None = None,
    workers: int | None = None,
    engine: EngineName = "auto",
    address: str | None = None,
    worker_timeout: float | None = None,
    fetch: bool = False,
    allow_incomplete: bool = False,
    quiet: bool = False,
) -> Run:
    """Run a suite, as `sana-bench run` does: the same call again does what is missing.

    Args:
        suite: name of a suite, such as `geneval`, or its file.
        variants: only these of the suite's; the run is complete once every other has had its turn too.
        limit: only the first images of each variant and benchmark; their numbers are marked as incomplete.
        tier: `auto`, `micro` or `full`.
        output: folder of runs and of the result store.
        set: keys of the suite, or `variants.NAME.KEY` of a variant, with the values to put there.
        until: `decided` or `width=W` stops when the question is answered, `all` makes the whole suite whatever it says.
        compare: the two variants to decide between, the second against the first.
        effect: a difference smaller than this is none.
        error: chance of a wrong verdict, however often the run looks.
        batch_size: images a batch; changes the time, not the numbers.
        workers: share the work among so many GPUs, or one-thread workers on a CPU; a cluster's devices by default.
        engine: `local` is this process alone, `ray` has workers, and `auto` takes all visible GPUs.
        address: that of a running Ray cluster, or `auto`.
        worker_timeout: replace a worker that takes more seconds for a batch.
        fetch: download what is missing first.
        allow_incomplete: score although images are missing; the numbers are marked.
        quiet: print nothing.

    Raises:
        UsageError: a suite, variant or setting that cannot be carried out; nothing was written.
        KeyboardInterrupt: it was stopped; what was finished is kept.
        BenchError: what else a run can fail of.
    """
    options = RunOptions(
        suite=Path(suite),
        output=Path(output),
        tier=tier,
        limit=_count("limit", limit),
        variants=None if variants is None else _texts(variants),
        overrides=tuple(_override(key, value) for key, value in (set or {}).items()),
        batch_size=_count("batch_size", batch_size),
        engine=_engine(engine, workers, address, worker_timeout),
        fetch=fetch,
        allow_incomplete=allow_incomplete,
        stop=StopRequest(until, None if compare is None else _texts(compare), effect, error),
        command=_call(
            "run",
            suite,
            variants=variants,
            limit=limit,
            tier=tier,
            output=output,
            set=set,
            until=until,
            compare=compare,
        ),
    )
    with _voice(quiet):
        return Run(_results(execute_suite(options), options.output))


def score(
    images: str | Path,
    *,
    prompts: str | Path | None = None,
    metrics: Sequence[str] = (),
    set: Mapping[str, Any] | None = None,
    reference: str | Path | None = None,
    compare: str | Path | Sequence[str | Path] = (),
    name: str | None = None,
    images_per_prompt: int | None = None,
    until: str | None = None,
    effect: float | None = None,
    error: float | None = None,
    output: str | Path = DEFAULT_OUTPUT,
    tier: TierRequest = "auto",
    limit: int | None = None,
    batch_size: int | None = None,
    workers: int | None = None,
    engine: EngineName = "auto",
    address: str | None = None,
    worker_timeout: float | None = None,
    fetch: bool = False,
    allow_incomplete: bool = False,
    quiet: bool = False,
) -> Run:
    """Score a folder of images that exist already, as `sana-bench score` does.

    Args:
        images: folder of PNG, JPEG or WebP files.
        prompts: file of prompts; without one, what a manifest or GenEval's layout in the folder says.
        metrics: names, protocols (`fid/clean@1`) or functions (`./file.py:name`); `clip_score` by default.
        set: parameters of metrics, `METRIC.PARAMETER`, with their values.
        reference: folder of images, or file of their statistics, for `fid` and `kid`.
        compare: further folders of images of the same prompts.
        name: how the images are called; the folder's name by default.
        images_per_prompt: by default as many as there are of any prompt.
        until: `decided` (between two folders) or `width=W`: score in rounds, and stop when the question is answered.
        effect: a difference smaller than this is none.
        error: chance of a wrong verdict, however often one looks.
        output: folder of runs and of the result store.
        tier: `auto`, `micro` or `full`.
        limit: only the first images of each folder; their numbers are marked as incomplete.
        batch_size: images a batch; changes the time, not the numbers.
        workers, engine, address, worker_timeout: who does the work, as of `run`.
        fetch: download what is missing first.
        allow_incomplete: score what matches although images or prompts are left over.
        quiet: print nothing.

    Raises:
        UsageError: files that cannot be read or matched, or metrics that do not fit.
        IncompleteError: images that belong to no prompt, unless `allow_incomplete`.
        KeyboardInterrupt: it was stopped; what was finished is kept.
    """
    options = ScoreOptions(
        folders=(Path(images), *map(Path, _texts(compare))),
        prompts=None if prompts is None else Path(prompts),
        metrics=_texts(metrics),
        overrides=tuple(_override(key, value) for key, value in (set or {}).items()),
        reference=None if reference is None else str(reference),
        names=() if name is None else (name,),
        images_per_prompt=_count("images_per_prompt", images_per_prompt),
        output=Path(output),
        tier=tier,
        limit=_count("limit", limit),
        batch_size=_count("batch_size", batch_size),
        engine=_engine(engine, workers, address, worker_timeout),
        fetch=fetch,
        allow_incomplete=allow_incomplete,
        stop=StopRequest(until, effect=effect, error=error),
        command=_call(
            "score", images, prompts=prompts, metrics=metrics, set=set, reference=reference, compare=compare
        ),
    )
    with _voice(quiet):
        return scored(options)


def scored(options: ScoreOptions) -> Run:
    """Score folders, and compare the first with each other one; raises as `score` does."""
    results = _results(score_folders(options), options.output)
    return Run(results, tuple(compare_with_first(results, sizes=load_policy().sizes)))


def _results(outcome: Outcome, output: Path) -> reader.RunResults:
    if outcome.interrupted:
        raise KeyboardInterrupt
    return reader.load_run(output, outcome.run_id)


@contextlib.contextmanager
def _voice(quiet: bool) -> Iterator[None]:
    with contextlib.redirect_stdout(io.StringIO()) if quiet else contextlib.nullcontext():
        yield


def _texts(given: str | Path | Iterable[str | Path]) -> tuple[str, ...]:
    """One name or several as several: of a text alone, its characters are not meant."""
    return (str(given),) if isinstance(given, str | Path) else tuple(map(str, given))


def _count(name: str, value: int | None) -> int | None:
    return None if value is None else whole_number(value, name, at_least=1)


def _engine(
    engine: EngineName, workers: int | None, address: str | None, timeout_s: float | None
) -> EngineRequest:
    if engine not in ENGINES:
        raise UsageError(f"engine {engine!r}: one of {', '.join(ENGINES)}{nearest(engine, ENGINES)}")
    if timeout_s is not None and not timeout_s > 0:
        raise UsageError(f"worker_timeout {timeout_s}: expected seconds")
    return EngineRequest(engine, _count("workers", workers), address, timeout_s)


def _override(key: str, value: Any) -> str:
    """`--set` for a value; JSON is YAML."""
    try:
        return f"{key}={json.dumps(value, allow_nan=False)}"
    except (TypeError, ValueError) as error:
        raise UsageError(f"set: {key}: {error}") from None


def _call(function: str, first: str | Path, **given: Any) -> str:
    """The call as it is recorded; what was left out is left out."""
    shown = [repr(str(first))]
    for name, value in given.items():
        if value not in (None, (), {}):
            shown.append(f"{name}={str(value) if isinstance(value, Path) else value!r}")
    return f"sana_bench.{function}({', '.join(shown)})"
