"""The files of a run directory."""

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sana_bench.core import atomic
from sana_bench.core.errors import UsageError, nearest
from sana_bench.core.fingerprint import short
from sana_bench.core.samples import Prompt
from sana_bench.core.text import lines, read_text
from sana_bench.results.database import STORE_NAME
from sana_bench.results.store import Store
from sana_models.files import first_line, is_there, parse_json

__all__ = [
    "DEFAULT_OUTPUT",
    "LATEST",
    "WRITTEN_AGAIN",
    "RunFiles",
    "find_run",
    "image_path",
    "is_path_name",
    "locate_run",
    "open_store",
]

#: How files of a run directory that are damaged come back.
WRITTEN_AGAIN = "run the suite again, which writes it anew"
#: The output folder where none is given.
DEFAULT_OUTPUT = Path("results")
# Bytes of a name that becomes part of a path; file systems take 255.
_LONGEST_NAME = 200


def is_path_name(name: object) -> bool:
    """Whether a name can be part of a path in a run directory: no separators, no dot first, at most 200 bytes.

    What is not printable, which is refused too, is NUL, line ends and lone surrogates among others.
    """
    if not isinstance(name, str) or not name or name.startswith(".") or not name.isprintable():
        return False
    return not {"/", "\\"} & set(name) and len(name.encode("utf-8")) <= _LONGEST_NAME


def image_path(variant: str, variant_fingerprint: str, benchmark: str, prompt_id: str, index: int) -> Path:
    """Path of an image relative to the run directory."""
    return Path("images", f"{variant}-{short(variant_fingerprint)}", benchmark, prompt_id, f"{index:05d}.png")


@dataclass(frozen=True)
class RunFiles:
    """The files of one run directory."""

    directory: Path

    @property
    def suite(self) -> Path:
        """The suite with every default filled in."""
        return self.directory / "suite.resolved.yaml"

    @property
    def provenance(self) -> Path:
        """Where the numbers come from."""
        return self.directory / "provenance.json"

    @property
    def log(self) -> Path:
        """What libraries printed while the run was worked on; there when they printed something."""
        return self.directory / "log.txt"

    @property
    def report(self) -> Path:
        """Folder of the report."""
        return self.directory / "report"

    def write_prompts(self, benchmark: str, prompts: Iterable[Prompt]) -> None:
        """Keep the prompts of a benchmark beside its images."""
        records = [
            json.dumps({"id": p.id, "text": p.text, "tag": p.tag, "metadata": p.metadata}, ensure_ascii=False)
            for p in prompts
        ]
        atomic.write_text(self._prompts(benchmark), "\n".join(records) + "\n")

    def read_prompts(self, benchmark: str) -> dict[str, Prompt]:
        """Return the prompts of a benchmark by id; raises `UsageError`, in one line, for a damaged file or none."""
        path = self._prompts(benchmark)
        try:
            records = map(parse_json, lines(read_text(path)))
            return {record["id"]: Prompt(**record) for record in records}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UsageError(f"{path}: damaged prompts: {first_line(error)}; {WRITTEN_AGAIN}") from None

    def write_rewrites(self, variant: str, benchmark: str, texts: Mapping[str, str]) -> None:
        """Keep the texts by prompt id that the model of a variant is given instead of the prompts."""
        atomic.write_text(
            self._rewrites(variant, benchmark), json.dumps(texts, ensure_ascii=False, indent=0) + "\n"
        )

    def read_rewrites(self, variant: str, benchmark: str) -> dict[str, str]:
        """Return those texts, empty where there are none; raises `UsageError`, in one line, for a damaged file."""
        path = self._rewrites(variant, benchmark)
        try:
            return {str(name): str(text) for name, text in parse_json(read_text(path)).items()}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, AttributeError) as error:
            raise UsageError(f"{path}: damaged rewritten prompts: {first_line(error)}") from None

    def has_prompts(self, benchmark: str) -> bool:
        """Say whether the prompts of a benchmark are there."""
        return self._prompts(benchmark).is_file()

    def _rewrites(self, variant: str, benchmark: str) -> Path:
        return self.directory / "prompts" / "rewritten" / variant / f"{benchmark}.json"

    def _prompts(self, benchmark: str) -> Path:
        return self.directory / "prompts" / f"{benchmark}.jsonl"


#: The name of the run that was worked on last.
LATEST = "latest"
# A hash is known by as many of its letters as git asks for.
_SHORTEST_HASH = 4
_CANDIDATES_SHOWN = 5


def find_run(run: str, output: Path) -> RunFiles:
    """Return the run that `run` names: a run directory, or below `output` the one that it stands for.

    That is `latest`, a run's whole name, the name of its suite, how its name begins, or how its hash begins, the first of these
    that fits any. Raises `UsageError` with the candidates where several fit, the last one worked on first, and with the nearest
    name where none does.
    """
    if is_there(RunFiles(Path(run)).suite, Path.is_file):
        return RunFiles(Path(run))
    runs = output / "runs"
    # A run writes its suite again whenever it goes on.
    found = sorted(
        (files for path in runs.glob("*") if (files := RunFiles(path)).suite.is_file()),
        key=lambda files: (files.suite.stat().st_mtime_ns, files.directory.name),
        reverse=True,
    )
    by_name = {files.directory.name: files for files in found}
    if run in by_name or (run == LATEST and found):
        return by_name.get(run, found[0])
    fitting = next(
        filter(None, ([by_name[name] for name in by_name if fits(name)] for fits in _ways(run))), []
    )
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        names = [files.directory.name for files in fitting]
        more = f" and {len(names) - _CANDIDATES_SHOWN} more" if len(names) > _CANDIDATES_SHOWN else ""
        listed = ", ".join(names[:_CANDIDATES_SHOWN])
        raise UsageError(f"{run}: {len(names)} runs in {runs} fit, the latest first: {listed}{more}")
    if os.path.lexists(RunFiles(runs / run).suite):
        raise UsageError(f"{RunFiles(runs / run).suite}: is no file; remove it, then {WRITTEN_AGAIN}")
    known = [*by_name, *(_suite_of(name) for name in by_name), *([LATEST] if found else [])]
    raise UsageError(f"{run}: not a run directory, and {runs} has no such run{nearest(run, known)}")


def _ways(run: str) -> Sequence[Callable[[str], bool]]:
    """How `run` may stand for the name of a run, the plainest way first."""
    return (
        lambda name: run in (_suite_of(name), name.rpartition("-")[0]),
        lambda name: bool(run) and name.startswith(run),
        lambda name: len(run) >= _SHORTEST_HASH and name.rpartition("-")[2].startswith(run),
    )


def _suite_of(name: str) -> str:
    """The suite of a run by the run's name, SUITE-TIER-HASH."""
    return name.rsplit("-", 2)[0]


def locate_run(run: str, output: Path | None) -> tuple[RunFiles, Path]:
    """Return the run that `run` names and the output folder whose store knows it.

    `output` None stands for the output folder that a run directory lies in, and for `DEFAULT_OUTPUT` otherwise. Raises
    `UsageError` as `find_run` does.
    """
    files = find_run(run, output or DEFAULT_OUTPUT)
    if output is not None:
        return files, output
    runs = files.directory.resolve().parent
    own = runs.name == "runs" and (runs.parent / STORE_NAME).is_file()
    return files, runs.parent if own else DEFAULT_OUTPUT


def open_store(output: Path) -> Store:
    """Open the result store of `output`; raises `UsageError` when there is none."""
    store = Store.open_existing(output)
    if store is None:
        raise UsageError(f"{output}: there is no result store; sana-bench run makes one")
    return store
