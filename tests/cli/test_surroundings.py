"""Odd surroundings: little memory, no home, a working directory that is gone, long and linked paths, shared folders, no locks."""

import errno
import fcntl
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from sana_bench.cli.main import execute
from sana_bench.core import provenance
from sana_bench.results.database import writer_lock
from sana_bench.results.run_folder import RunFiles
from tests import ROOT
from tests.runner import fakes
from tests.runner import numbers_of_runs as numbers


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fakes.write_suite(tmp_path_factory.mktemp("surroundings"))


@pytest.fixture(scope="module")
def expected(suite: Path):
    output = suite.parent / "expected"
    with fakes.installed():
        assert execute(["run", str(suite), "--tier", "micro", "-o", str(output)]) == 0
    return numbers.summaries(output)


def command(
    suite: Path,
    output: str | Path,
    prepare: Callable[[], object] = lambda: None,
    cwd: Path = ROOT,
    **environment: str,
) -> subprocess.CompletedProcess[str]:
    """`sana-bench run` as a process of its own."""
    paths = os.pathsep.join(str(ROOT / name) for name in ("", "models", "kernels", "reports"))
    arguments = ["run", str(suite), "--tier", "micro", "-o", str(output)]
    known = {name: value for name, value in os.environ.items() if name != "HOME" or "HOME" not in environment}
    done = subprocess.run(
        [sys.executable, "-m", fakes.__name__, "0", *arguments],
        env={**known, "PYTHONPATH": paths, **{k: v for k, v in environment.items() if v}},
        cwd=cwd, preexec_fn=prepare, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert "Traceback" not in done.stderr
    return done


def one_line(text: str) -> str:
    (line,) = (line for line in text.splitlines() if line.startswith("sana-bench: "))
    assert "crashed" not in line
    return line


@pytest.mark.parametrize("megabytes", [150, 250, 350])
def test_little_memory(suite, tmp_path, expected, megabytes) -> None:
    """Whether it is enough depends on the machine and on which threads meet; what is said and kept does not."""
    limit = megabytes << 20
    done = command(suite, tmp_path / "out", lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)))
    if done.returncode != 0:
        assert done.returncode == 3
        assert "Cannot allocate memory" in one_line(done.stderr)
        assert "ulimit -v" in one_line(done.stderr)
        assert command(suite, tmp_path / "out").returncode == 0
    assert numbers.summaries(tmp_path / "out") == expected


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("can't start new thread"), SystemError("error return")]
)
def test_what_says_that_there_is_no_memory(monkeypatch, capsys, error) -> None:
    def starved(**_arguments: object) -> None:
        raise error

    monkeypatch.setattr("sana_bench.cli.app.app", starved)
    monkeypatch.setattr(resource, "getrlimit", lambda _which: (350 << 20, 350 << 20))
    assert execute(["list"]) == 3
    assert "Cannot allocate memory" in one_line(capsys.readouterr().err)


@pytest.mark.parametrize("home", ["", "/nowhere/at/all", "/dev/null", "/proc"])
def test_no_home(suite, tmp_path, expected, home) -> None:
    """None, one that is not there, one that is no folder, and one that cannot be written."""
    done = command(suite, tmp_path / "out", HOME=home, SANA_BENCH_DATA="")
    assert done.returncode == 0, done.stderr
    assert numbers.summaries(tmp_path / "out") == expected


@pytest.mark.parametrize("output", ["results", "absolute"])
def test_a_working_directory_that_is_gone(suite, tmp_path, output) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    where = str(tmp_path / "out") if output == "absolute" else output
    done = command(suite, where, lambda: os.rmdir(gone), cwd=gone)
    assert done.returncode == 2
    assert "the working directory is gone" in one_line(done.stderr)


@pytest.mark.parametrize("length", [300, 600, 5000])
def test_a_long_output_path(suite, tmp_path, expected, capsys, length) -> None:
    """SQLite takes 512 bytes, the system 4,096; either is told, and nothing is half there."""
    output = tmp_path
    while len(str(output)) < length:
        output = output / ("x" * min(200, max(1, length - len(str(output)) - 1)))
    with fakes.installed():
        code = execute(["run", str(suite), "--tier", "micro", "-o", str(output)])
    err = capsys.readouterr().err
    if length < 480:
        assert code == 0
        assert numbers.summaries(output) == expected
    else:
        assert code == 2
        assert "choose a" in one_line(err)
        assert "shorter" in one_line(err)


def test_an_output_folder_through_links(suite, tmp_path, expected) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "a").symlink_to(tmp_path / "disk")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    with fakes.installed():
        assert execute(["run", str(suite), "--tier", "micro", "-o", str(tmp_path / "b" / "out")]) == 0
        assert execute(["run", str(suite), "--tier", "micro", "-o", str(tmp_path / "disk" / "out")]) == 0
    assert numbers.summaries(tmp_path / "disk" / "out") == expected


def test_a_link_that_leads_to_itself(suite, tmp_path, capsys) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with fakes.installed():
        assert execute(["run", str(suite), "--tier", "micro", "-o", str(tmp_path / "loop")]) == 2
    assert str(tmp_path / "loop") in one_line(capsys.readouterr().err)


@pytest.fixture
def output(suite, tmp_path, expected) -> Path:
    return Path(shutil.copytree(suite.parent / "expected", tmp_path / "out"))


def test_a_renamed_run_folder(suite, output, expected, capsys) -> None:
    """It is no run that the store knows; the same command makes the run again."""
    (run,) = (output / "runs").iterdir()
    renamed = run.rename(run.with_name("mine"))
    assert execute(["report", str(renamed), "-o", str(output)]) == 2
    assert "the store" in one_line(capsys.readouterr().err)
    with fakes.installed():
        assert execute(["run", str(suite), "--tier", "micro", "-o", str(output)]) == 0
    assert numbers.summaries(output, run.name) == expected
    assert RunFiles(renamed).suite.is_file()  # what was renamed is left alone


def test_a_clock_that_goes_back(suite, tmp_path, monkeypatch, expected) -> None:
    """A session that ends before it began, and files of the future, change no number and are not made again."""
    times = iter(f"20{99 - count:02}-01-01T00:00:00+00:00" for count in range(90))
    for module in ("sana_bench.runner.session", "sana_bench.runner.provenance", "sana_bench.core.provenance"):
        if hasattr(sys.modules.get(module), "now"):
            monkeypatch.setattr(f"{module}.now", lambda: next(times))
    assert provenance.now() != provenance.now()
    arguments = ["run", str(suite), "--tier", "micro", "-o", str(tmp_path / "out")]
    with fakes.installed():
        assert execute([*arguments, "--limit", "5"]) == 3
        for path in (tmp_path / "out").rglob("*"):
            os.utime(path, (4e9, 4e9))
        assert execute(arguments) == 0
        assert execute(arguments) == 0
    assert numbers.summaries(tmp_path / "out") == expected
    first, *_ = numbers.sessions(tmp_path / "out")
    assert str(first["finished"]) < str(first["started"])
    generated = [session["images_generated"] for session in numbers.sessions(tmp_path / "out")]
    assert sum(map(int, generated)) == 2 * 4 * fakes.N_PROMPTS


def test_a_file_system_without_locks(tmp_path, monkeypatch) -> None:
    """As on some network disks: without locks two commands could write at once."""
    from sana_bench.core.errors import UsageError

    for number in (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS):

        def flock(*_: object, number: int = number) -> None:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(fcntl, "flock", flock)
        with pytest.raises(UsageError, match="gives no locks"), writer_lock(tmp_path):
            pass


def test_a_store_that_is_locked_by_something_else(output, suite, capsys, monkeypatch) -> None:
    """SQLite's own locks may fail where the command's does not."""
    import sqlite3

    from sana_bench.results import database

    original = database._connect
    monkeypatch.setattr(
        database,
        "_connect",
        lambda path, target, **more: _impatient(original(path, target, **more)),
    )
    holder = sqlite3.connect(output / "store.sqlite", isolation_level=None)
    holder.execute("PRAGMA locking_mode=EXCLUSIVE")
    holder.execute("BEGIN IMMEDIATE")
    with fakes.installed():
        code = execute(["run", str(suite), "--tier", "micro", "-o", str(output)])
    holder.execute("ROLLBACK")
    holder.close()
    assert code == 2
    assert "another program holds it" in one_line(capsys.readouterr().err)


def _impatient(connection):
    connection.execute("PRAGMA busy_timeout = 100")
    return connection


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be two users")
def test_two_users_of_one_group_share_an_output_folder(suite, tmp_path, expected) -> None:
    """Each goes on with what the other began, when the folder and their files are the group's."""
    shared = tmp_path / "shared"
    shared.mkdir()
    os.chown(shared, 0, 4242)
    shared.chmod(0o2775)
    for path in (tmp_path, *tmp_path.parents[:-1]):
        path.chmod(path.stat().st_mode | 0o055)
    for path in (suite.parent.parent, *suite.parent.parent.rglob("*"), *suite.parents[:-1]):
        path.chmod(path.stat().st_mode | 0o055)
    codes = [
        _as_user(user, suite, shared / "out", 0o002, *more)
        for user, *more in ((5001, "--limit", "5"), (5002,))
    ]
    assert codes == [3, 0]
    assert numbers.summaries(shared / "out") == expected


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be two users")
@pytest.mark.parametrize("what", ["the folder", "the store", "the lock", "the run"])
def test_a_folder_of_somebody_else_is_named(suite, tmp_path, output, what, capfd) -> None:
    """Another user's files that may not be written: one line that names the path."""
    for path in (tmp_path, *tmp_path.parents[:-1]):
        path.chmod(path.stat().st_mode | 0o055)
    (run,) = (output / "runs").iterdir()
    place = {
        "the folder": output, "the store": output / "store.sqlite", "the lock": output / ".writer.lock", "the run": run
    }[what]  # fmt: skip
    for path in (output, *output.rglob("*")):
        os.chown(path, 5001, 4242)
        path.chmod(0o775 if path.is_dir() else 0o664)
    os.chown(place, 0, 0)
    place.chmod(0o555 if place.is_dir() else 0o444)
    assert _as_user(5001, suite, output, 0o022) == 2
    line = one_line(capfd.readouterr().err)
    assert str(place) in line
    assert "ermission" in line or "unable to open" in line or "readonly" in line


def _as_user(user: int, suite: Path, output: Path, mask: int, *more: str) -> int:
    """Run the suite in a process of another user, of the group 4242."""
    arguments = ["run", str(suite), "--tier", "micro", "-o", str(output), *more]
    # What is imported later could not be read from root's home.
    import sana_bench.runner.run  # noqa: F401
    import sana_reports.html_page  # noqa: F401

    child = os.fork()
    if child == 0:
        code = 99
        try:
            os.setgroups([])
            os.setgid(4242)
            os.setuid(user)
            os.umask(mask)
            with fakes.installed():
                code = execute(arguments)
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
