"""The speed scripts, one after the other, and their times in a result store that `sana-bench history` reads.

    python -m benchmarks [NAME ...] [--output results/benchmarks] [--to reports/benchmarks]
    sana-bench history results/benchmarks

Run from the root of the repository; without names, all of them (half an hour on two cores). Each is a run of its own, whose
directory holds what the scripts wrote; `--to` copies that to the reports. Times are comparable on one machine: the processor, its
cores and the threads in use are what a history is told apart by, while versions and the code's revision are in the provenance.
"""

import argparse
import json
import shutil
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from side_by_side import environment  # noqa: E402

from sana_bench.core.fingerprint import fingerprint, short  # noqa: E402
from sana_bench.core.provenance import code_revision, now  # noqa: E402
from sana_bench.core.samples import OVERALL  # noqa: E402
from sana_bench.results.database import writer_lock  # noqa: E402
from sana_bench.results.schema import SummaryRecord  # noqa: E402
from sana_bench.results.store import Store  # noqa: E402

PROTOCOL = "seconds@1"
# Each writes NAME.json into the folder that `--to` names.
SCRIPTS = ("harness", "judges_speed", "metrics_speed", "scoring_speed", "cpu_speed")
# What tells machines apart; a new version of a package is a step in a history, and no other history.
_MACHINE = ("processor", "cores", "threads")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(SCRIPTS)}; default: all")
    parser.add_argument("--output", type=Path, default=Path("results") / "benchmarks")
    parser.add_argument("--to", type=Path, help="folder of reports that the results are copied to")
    parser.add_argument("--repetitions", type=int, default=5)
    options = parser.parse_args()
    if unknown := set(options.names) - set(SCRIPTS):
        parser.error(f"unknown script {sorted(unknown)[0]!r}; one of {', '.join(SCRIPTS)}")
    where, began = environment(), now()
    run_id = f"benchmarks-{began.replace(':', '').replace('+0000', '')}"
    folder = options.output / "runs" / run_id
    folder.mkdir(parents=True)
    times: dict[tuple[str, str], list[float]] = {}
    failed = []
    for name in options.names or SCRIPTS:
        command = [sys.executable, str(ROOT / "benchmarks" / f"{name}.py"), "--to", str(folder)]
        done = subprocess.run([*command, "--repetitions", str(options.repetitions)])
        # A script that misses an aim has measured all the same.
        written = folder / f"{name}.json"
        if not written.is_file():
            failed.append(f"{name} ended with {done.returncode} and measured nothing")
            continue
        found = json.loads(written.read_text(encoding="utf-8"))
        times.update({(name, what): seconds for what, seconds in series(found)})
    keep(options.output, run_id, began, where, times)
    if options.to is not None:
        shutil.copytree(folder, options.to, dirs_exist_ok=True)
    print("\n".join([*failed, f"kept: sana-bench history {options.output}"]))
    return 1 if failed else 0


def series(found: Any, name: str = "") -> Iterator[tuple[str, list[float]]]:
    """Titles and times in what a script wrote, wherever they stand: `seconds` by contestant, or `cpu_seconds` of one."""
    if isinstance(found, list):
        for one in found:
            yield from series(one, name)
    if not isinstance(found, dict):
        return
    title = str(found.get("what") or found.get("model") or name)
    contestants = found.get("seconds")
    if isinstance(contestants, dict):
        for contestant, seconds in contestants.items():
            yield f"{title}: {contestant}", seconds
    if "cpu_seconds" in found:
        yield title, found["cpu_seconds"]
    for key, inner in found.items():
        if key != "seconds":
            yield from series(inner, key)


def keep(
    output: Path,
    run_id: str,
    began: str,
    where: dict[str, str],
    times: dict[tuple[str, str], list[float]],
) -> None:
    """Put the times of a sitting into the store of an output folder, as a run with one variant: the machine."""
    machine = {name: where[name] for name in _MACHINE}
    label = f"{machine['processor']}, {machine['cores']} cores, {machine['threads']} threads"
    rows = []
    with writer_lock(output), Store.open(output) as store:
        store.put_run(run_id, "benchmarks", "micro", fingerprint([machine, began]), f"runs/{run_id}", began)
        session = store.start_session(run_id, began, "python -m benchmarks")
        for (script, what), seconds in times.items():
            identity = {"script": script, "what": what}
            key = fingerprint(identity)
            store.put_metric(key, what, PROTOCOL, identity)
            rows.append(
                SummaryRecord(
                    variant=label, benchmark=script, metric=what, key=OVERALL, metric_key=key,
                    image_key=short(fingerprint(machine)), protocol=PROTOCOL,
                    value=statistics.median(seconds), low=min(seconds), high=max(seconds),
                    n_samples=len(seconds), n_expected=len(seconds), n_prompts=len(seconds), unit="s",
                    higher_is_better=False, note="median; fastest and slowest", complete=True,
                )
            )  # fmt: skip
        store.put_summaries(run_id, {label}, rows)
        store.set_provenance(run_id, {"environment": where, "code": code_revision()})
        store.finish_session(session, now(), "done")


if __name__ == "__main__":
    sys.exit(main())
