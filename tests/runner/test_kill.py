"""SIGKILL at any moment, then the same command: the same numbers, and nothing recorded is done twice."""

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path

import pytest

from sana_bench.results.reader import load_run
from sana_bench.results.sequences import StoredSequence
from tests.runner import dice, fakes
from tests.runner import numbers_of_runs as numbers

TOTAL = 2 * 4 * fakes.N_PROMPTS
PATIENCE_SECONDS = 300.0  # a busy machine starts Python slowly
SETTINGS = ["--set", "variants.fake-4.sampler.steps=40", "--set", "variants.fake-2.sampler.steps=41"]


class Command:
    """`sana-bench run` on one of the small worlds, each slowed to 0.1 s a call, as a process of its own."""

    def __init__(
        self, suite: Path, output: Path, *, settings: Sequence[str] = SETTINGS, world: str = fakes.__name__
    ) -> None:
        self.output = output
        arguments = ["run", str(suite), "--tier", "micro", "--output", str(output), "--batch-size", "3"]
        self._command = [sys.executable, "-m", world, "0.1", *arguments, *settings]

    def start(self) -> subprocess.Popen[str]:
        environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
        return subprocess.Popen(
            self._command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment,
            # A test run started in a shell's background ignores SIGINT, and children inherit that.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )

    def finish(self) -> str:
        process = self.start()
        out, _ = process.communicate(timeout=PATIENCE_SECONDS)
        assert process.returncode == 0, out
        return out

    def kill_when(self, reached: Callable[[Path], bool], stop: signal.Signals = signal.SIGKILL) -> int:
        """Start, signal as soon as `reached(output)`, and return the exit status; fails when it never is."""
        process = self.start()
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not reached(self.output):
            assert process.poll() is None, f"ended before it could be stopped: {process.communicate()[0]}"
            assert time.monotonic() < deadline
            time.sleep(0.002)
        process.send_signal(stop)
        print(process.communicate(timeout=PATIENCE_SECONDS)[0])  # shown when the test fails
        return process.returncode


def n_images(output: Path) -> int:
    return sum(1 for _ in output.glob("runs/*/images/**/*.png"))


def n_rows(output: Path, table: str = "scores") -> int:
    try:
        with closing(sqlite3.connect(f"file:{output / 'store.sqlite'}?mode=ro", uri=True)) as connection:
            return int(connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0])
    except sqlite3.OperationalError:
        return 0


MOMENTS: dict[str, Callable[[Path], bool]] = {
    "the store appears": lambda output: (output / "store.sqlite").exists(),
    "the first image": lambda output: n_images(output) > 0,
    "in the first variant": lambda output: n_images(output) >= TOTAL // 4,
    "in the second variant": lambda output: n_images(output) > TOTAL // 2 + 3,
    "the first scores": lambda output: n_rows(output) > 0,
    "the first features": lambda output: any(output.glob("runs/*/features/**/*.npz")),
    "all scores": lambda output: n_rows(output) == TOTAL,
}


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fakes.write_suite(tmp_path_factory.mktemp("killed"))


@pytest.fixture(scope="module")
def uninterrupted(suite: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("uninterrupted") / "results"
    Command(suite, output).finish()
    return output


@pytest.fixture
def leaves_no_temporary_files(tmp_path: Path) -> Iterator[None]:
    yield
    assert not list(tmp_path.rglob(".tmp-*"))


def assert_same_as(uninterrupted: Path, output: Path) -> None:
    """Equal to the last bit: the fake generator and metrics are exact."""
    assert numbers.summaries(output) == numbers.summaries(uninterrupted)
    assert numbers.image_bytes(output) == numbers.image_bytes(uninterrupted)
    assert sum(session["images_generated"] for session in numbers.sessions(output)) == TOTAL
    assert sum(session["scores_computed"] for session in numbers.sessions(output)) == TOTAL


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.usefixtures("leaves_no_temporary_files")
def test_killed_once(moment: str, suite: Path, uninterrupted: Path, tmp_path: Path) -> None:
    command = Command(suite, tmp_path / "results")
    assert command.kill_when(MOMENTS[moment]) == -signal.SIGKILL
    command.finish()
    assert_same_as(uninterrupted, command.output)


@pytest.mark.usefixtures("leaves_no_temporary_files")
def test_killed_again_and_again(suite: Path, uninterrupted: Path, tmp_path: Path) -> None:
    command = Command(suite, tmp_path / "results")
    for count in (TOTAL // 8, TOTAL // 3, TOTAL - 2, TOTAL + TOTAL // 2):
        status = command.kill_when(lambda output, count=count: n_images(output) + n_rows(output) >= count)
        assert status == -signal.SIGKILL
    command.finish()
    assert_same_as(uninterrupted, command.output)


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_stopped_politely(stop: signal.Signals, suite: Path, uninterrupted: Path, tmp_path: Path) -> None:
    command = Command(suite, tmp_path / "results")
    assert command.kill_when(MOMENTS["in the first variant"], stop) == 3
    command.finish()
    assert_same_as(uninterrupted, command.output)


class Decided:
    """`sana-bench run --until decided` on a suite that says which of two variants is better before it is half done."""

    def __init__(self, suite: Path, output: Path) -> None:
        asked = ["--until", "decided", "--compare", "poor,good"]
        self.command = Command(suite, output, settings=asked, world=dice.__name__)

    def finish(self) -> tuple[str, StoredSequence]:
        """Go on to the end; return the last line on the question, and the looks."""
        told = [line for line in self.command.finish().splitlines() if line.startswith("good is ")]
        (found,) = load_run(self.command.output, "latest").sequences
        return told[-1], found


@pytest.fixture(scope="module")
def decided(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, tuple[str, StoredSequence]]:
    """The suite, the output folder of an undisturbed run in rounds, and what that found."""
    folder = tmp_path_factory.mktemp("decided")
    suite = dice.World(folder).suite
    return suite, folder / "undisturbed", Decided(suite, folder / "undisturbed").finish()


IMAGES_OF_A_ROUND = 2 * 24
IN_ROUNDS: dict[str, Callable[[Path], bool]] = {
    "in the first round": lambda output: n_images(output) > IMAGES_OF_A_ROUND // 4,
    "after a look": lambda output: n_rows(output, "sequences") == 1,
    "in the second round": lambda output: n_images(output) > IMAGES_OF_A_ROUND + 4,
    "between its variants": lambda output: n_images(output) > 1.5 * IMAGES_OF_A_ROUND + 4,
}


def assert_decided_as(undisturbed: tuple[str, StoredSequence], folder: Path, killed: Decided) -> None:
    """The same verdict, images used and interval at every look, to the last bit, and no image made twice."""
    found = killed.finish()
    assert found == undisturbed
    output = killed.command.output
    assert numbers.image_bytes(output) == numbers.image_bytes(folder)
    made = sum(session["images_generated"] for session in numbers.sessions(output))
    assert made == n_images(output) == 2 * found[1].last.n_images


@pytest.mark.usefixtures("leaves_no_temporary_files")
def test_killed_in_the_middle_of_a_round(decided, tmp_path: Path) -> None:
    suite, folder, undisturbed = decided
    assert undisturbed[0].startswith("good is better than poor: ")
    assert len(undisturbed[1].looks) > 1
    killed = Decided(suite, tmp_path / "results")
    assert killed.command.kill_when(IN_ROUNDS["in the second round"]) == -signal.SIGKILL
    assert_decided_as(undisturbed, folder, killed)


@pytest.mark.usefixtures("leaves_no_temporary_files")
def test_killed_again_and_again_in_rounds(decided, tmp_path: Path) -> None:
    suite, folder, undisturbed = decided
    killed = Decided(suite, tmp_path / "results")
    for reached in IN_ROUNDS.values():
        assert killed.command.kill_when(reached) == -signal.SIGKILL
    assert_decided_as(undisturbed, folder, killed)
