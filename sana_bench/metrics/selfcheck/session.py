"""A self-check as the command makes it, and the small one that a run makes of its own metrics."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sana_bench.core.errors import RegressionError, UsageError, nearest
from sana_bench.core.progress import say
from sana_bench.core.provenance import describe_machine, package_versions
from sana_bench.metrics.selfcheck.check import Check, Result, run_checks, stored_name
from sana_bench.metrics.selfcheck.outcomes import Verdict, load_results, outcome_path, save_results, verdicts
from sana_bench.metrics.selfcheck.registry import checks_for, select, unchecked_metrics

__all__ = [
    "SelfCheck",
    "as_json",
    "check_everything",
    "check_run",
    "choose_device",
    "heading",
    "lines_of",
    "result_line",
    "summary_line",
    "tell_failed",
]

_DEVICES = ("auto", "cpu", "cuda")
# Quick results of this process by where they are stored: many runs in one process check once.
_KNOWN: dict[str, dict[str, Result]] = {}


@dataclass(frozen=True)
class SelfCheck:
    """Results and verdicts of one self-check, and where they are kept."""

    device: str
    results: list[Result]
    verdicts: list[Verdict]
    path: Path

    @property
    def exit_code(self) -> int:
        """0, or 4 when a check failed: this machine's numbers are worse than those stored."""
        failed = any(result.status == "failed" for result in self.results)
        return RegressionError.exit_code if failed else 0


def choose_device(asked: str) -> str:
    """`cpu` or `cuda`; raises `UsageError` for another name, and for CUDA where there is none."""
    if asked not in _DEVICES:
        raise UsageError(
            f"--device {asked}: unknown device{nearest(asked, _DEVICES)}; one of {', '.join(_DEVICES)}"
        )
    if asked == "cpu":
        return "cpu"
    import torch

    found = torch.cuda.is_available()
    if asked == "cuda" and not found:
        raise UsageError("--device cuda: no CUDA device found")
    return "cuda" if found else "cpu"


def check_everything(
    chosen: Collection[str], device: str, output: Path, told: Callable[[Result], None]
) -> SelfCheck:
    """Run the checks of metrics or protocols (all without names), store the outcome; `told` hears each result.

    Raises `UsageError` for an unknown name.
    """
    checks = select(chosen)
    path = outcome_path(output, device)
    results = []
    for result in run_checks(checks, device):
        told(result)
        results.append(result)
    save_results(path, device, results)
    known = load_results(path)
    return SelfCheck(device, results, verdicts(_protocols(checks, chosen), known), path)


def check_run(protocols: Collection[str], device: str, output: Path) -> dict[str, Any]:
    """What a run records of the protocols it scores with: stored outcomes, and quick checks made now.

    Checks that are not quick are never made here: a protocol that rests on one is `not run` until `sana-bench selfcheck`
    has been used with the same output folder.
    """
    checks = checks_for(protocols)
    path = outcome_path(output, device)
    stored = load_results(path)
    known = {**_KNOWN.get(path.name, {}), **stored}
    lacking = [check for check in checks if check.quick and check.name not in known]
    known |= {result.name: result for result in run_checks(lacking, device)} if lacking else {}
    used = [known[check.name] for check in checks if check.name in known]
    fresh = [result for result in used if result.name not in stored]
    if fresh:
        save_results(path, device, fresh)
        _KNOWN.setdefault(path.name, {}).update({result.name: result for result in fresh})
    return {
        **_record(verdicts(protocols, known), device, path),
        "checks": {result.name: _short(result) for result in used},
    }


def tell_failed(checked: Mapping[str, Any], where: str = "") -> None:
    """Say what `check_run` found where a check failed."""
    if any(state.startswith("failed") for state in checked["protocols"].values()):
        say(f"{where}{checked['summary']}")


def summary_line(found: Sequence[Verdict]) -> str:
    """One line: which metrics' protocols passed, failed, or were not checked."""
    groups: dict[str, list[str]] = {}
    for verdict in found:
        groups.setdefault(verdict.state, []).append(verdict.protocol)
    order = ("failed", "passed", "skipped", "not run", "no cases")
    words = {"no cases": "no stored cases", "skipped": "not checked"}
    parts = [f"{words.get(state, state)}: {', '.join(groups[state])}" for state in order if state in groups]
    return "self-check " + "; ".join(parts) if parts else ""


def lines_of(check: SelfCheck) -> Iterator[str]:
    """The verdicts as the command prints them, after the results."""
    for verdict in check.verdicts:
        limits = [result for result in check.results if verdict.protocol in result.protocols]
        yield f"{verdict.protocol}: {_words(verdict, limits)}"
    for name in unchecked_metrics():
        yield f"{name}: no stored cases"
    counts = {state: sum(r.status == state for r in check.results) for state in ("ok", "failed", "skipped")}
    yield "self-check: " + ", ".join(
        f"{count} {state}" for state, count in counts.items() if count or state == "ok"
    )
    yield f"stored: {check.path}"


def result_line(result: Result) -> str:
    """One check for a person."""
    head = f"{result.status:<8}{result.name}"
    if result.error is None:
        return f"{head}: {result.reason}"
    allowed = f"{result.error:.2g}, allowed {result.limit:.2g} {result.unit} ({result.because})"
    return f"{head}: {allowed}"


def heading(device: str) -> str:
    """What is checked where."""
    name = describe_machine(device)["device_name"]
    return f"self-check on {device}: {name}, torch {package_versions().get('torch', 'unknown')}"


def as_json(check: SelfCheck) -> dict[str, Any]:
    """Everything, for programs."""
    return {
        **_record(check.verdicts, check.device, check.path),
        "exit_code": check.exit_code,
        "without_cases": unchecked_metrics(),
        "checks": [asdict(result) for result in check.results],
    }


def _record(found: Sequence[Verdict], device: str, path: Path) -> dict[str, Any]:
    return {
        "summary": summary_line(found),
        "device": device,
        "key": path.stem,
        "protocols": {
            verdict.protocol: verdict.state + (f" ({verdict.reason})" if verdict.reason else "")
            for verdict in found
        },
    }


def _short(result: Result) -> str:
    if result.error is None:
        return f"{result.status}: {result.reason}"
    return f"{result.status}: {result.error:.2g}, allowed {result.limit:.2g} {result.unit}"


def _words(verdict: Verdict, results: Sequence[Result]) -> str:
    if verdict.state == "passed":
        return f"can be trusted here: {len(results)} checks within the tolerances above"
    if verdict.state == "no cases":
        return verdict.reason
    word = {"failed": "NOT to be trusted here", "skipped": "not checked"}.get(verdict.state, verdict.state)
    return f"{word} ({verdict.reason})"


def _protocols(checks: Sequence[Check], chosen: Collection[str]) -> list[str]:
    """The protocols to speak of: those named, or all that the checks serve."""
    served = list(dict.fromkeys(name for check in checks for name in check.protocols))
    if not chosen:
        return sorted(served)
    names = {stored_name(name) for name in chosen}
    return sorted(name for name in served if name in names or name.partition("/")[0] in names)
