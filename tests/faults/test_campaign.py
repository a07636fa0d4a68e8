"""A few seeded faults of every kind, as a person runs hundreds of them (`make faults`)."""

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from tests import ROOT
from tests.faults.campaign import Trial, table
from tests.faults.commands import Ended
from tests.faults.kinds import KINDS, strike

#: One of each kind.
FEW = len(KINDS)


def test_a_few_faults_of_every_kind() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults", str(FEW), "--seed", "3"],
        cwd=ROOT, capture_output=True, text=True, timeout=580, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    print(done.stdout, done.stderr)  # shown when the test fails
    assert done.returncode == 0
    assert f"{FEW} faults in " in done.stdout
    assert "0 went wrong" in done.stdout


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("kill", "fill the disk")])
def test_every_kind_changes_something(tmp_path: Path, kind: str) -> None:
    """A fault that does nothing would be survived by anything."""
    work, victim = tmp_path / "work", tmp_path / "victim"
    victim.write_bytes(b"precious")
    for count in range(5):
        folder = work if not work.exists() else tmp_path / f"work{count}"
        (folder / "out" / "runs" / "r").mkdir(parents=True)
        for name in ("a.json", "b.json", "00000.png"):
            (folder / "out" / "runs" / "r" / name).write_bytes(name.encode() * 20)

        def state(folder: Path = folder) -> dict[str, object]:
            return {
                str(path.relative_to(folder)): (path.lstat().st_mode, path.lstat().st_ino, path.read_bytes())
                if path.is_file() and not path.is_symlink()
                else path.lstat().st_mode
                for path in sorted(folder.rglob("*"))
            }

        before = state()
        fault = strike(kind, folder, victim, random.Random(count), None, has_disk=False)
        assert fault.kind == kind
        assert state() != before
        if fault.lift is not None:
            fault.lift()
            assert state() == before
    assert victim.read_bytes() == b"precious"


def test_the_same_seed_strikes_the_same_place(tmp_path: Path) -> None:
    told = []
    for name in ("one", "two"):
        (tmp_path / name / "out").mkdir(parents=True)
        for number in range(9):
            (tmp_path / name / "out" / f"{number}.json").write_bytes(bytes(100))
        told.append(
            strike("bit flip", tmp_path / name, tmp_path, random.Random("7-1"), None, has_disk=False).what
        )
    assert told[0] == told[1]


@pytest.mark.parametrize(
    ("err", "clean"),
    [
        ("", True),
        ("sana-bench: x: damaged", True),
        ("sana-bench: a\nsana-bench: b", False),
        ("Traceback (most recent call last):", False),
        ("sana-bench: crashed with KeyError: 'x' (--debug shows where)", False),
    ],
)
def test_what_counts_as_one_line(err: str, clean: bool) -> None:
    assert Ended(2, "", err, 1.0).is_clean is clean


def test_the_table_counts_what_went_wrong() -> None:
    good, bad = (Trial(0, "kill", None, "", "", end="the numbers") for _ in range(2))  # type: ignore[arg-type]
    bad.wrong.append("other numbers")
    assert "| kill | 2 | 1 | 0 | 0 | 1 |" in table([good, bad])
    assert "| all | 2 | 1 | 0 | 0 | 1 |" in table([good, bad])
