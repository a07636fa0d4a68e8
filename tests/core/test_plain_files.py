"""Only plain files are opened, nothing waits for a pipe, and all code reads through the functions that see to it."""

import ast
import errno
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sana_bench.cli.main import execute
from sana_bench.core.fingerprint import directory_sha256, file_sha256
from sana_models.files import first_line, open_plain, plain, read_bytes, read_text
from tests import ROOT

PACKAGES = ("sana_bench", "models/sana_models", "kernels/sana_kernels", "reports/sana_reports")
#: Where a file is opened without them: the functions themselves, the system's own files, package data, and new files.
ALLOWED = {
    "models/sana_models/files.py": {"open"},
    "sana_bench/core/provenance.py": {"read_text"},  # /proc/cpuinfo
    "sana_bench/profiling/memory.py": {"read_text"},  # /proc and cgroups
    "sana_bench/profiling/hardware.py": {"read_text"},  # /proc and /sys
    "sana_bench/micro/evaluation_set.py": {"read_text"},  # a resource of the package
    "sana_bench/micro/dense_prompts.py": {"read_text"},  # a resource of the package
    "reports/sana_reports/assets.py": {"read_text"},  # a resource of the package
    "reports/sana_reports/files.py": {"open"},  # a new temporary file
    "reports/sana_reports/gallery.py": {"read_bytes"},  # after is_file()
    "sana_bench/assets/unpack.py": {"open"},  # a new temporary file
    "sana_bench/assets/download.py": {"open"},  # a new file
    "sana_bench/assets/http_file.py": {"open"},  # a descriptor of open_own
    "models/sana_models/training/records.py": {"open"},  # one that the training appends to
}
READERS = {"read_text", "read_bytes"}
#: Functions of libraries that open the path they are given first.
OPENERS = {
    *("Image.open", "np.load", "numpy.load", "torch.load", "torch.jit.load", "load_file", "safe_open"),
    *("zipfile.ZipFile", "tarfile.open", "pd.read_csv", "pd.read_parquet", "pandas.read_csv"),
    *("ParquetFile", "read_schema"),
}
#: What is called so too and opens no file, or by rules of its own.
OTHERS_NAMED_OPEN = {"os.open", "Store.open", "file.open", "archive.open", "self._maker.open"}
#: What hands them something that is no path to be opened blindly.
SAFE = {"plain", "BytesIO", "io.BytesIO"}


def calls(tree: ast.AST) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def opened_blindly(source: str) -> set[str]:
    """What a module opens files with, beside the functions of `sana_models.files`."""
    tree = ast.parse(source)
    files = {
        item.optional_vars.id
        for node in ast.walk(tree)
        if isinstance(node, ast.With)
        for item in node.items
        if isinstance(item.optional_vars, ast.Name)
        and ast.unparse(item.context_expr).startswith(("open_plain(", "record.stream("))
    }
    found = set()
    for name, call in calls(tree):
        last = name.rpartition(".")[2]
        # Judges read texts in images too, and are handed those.
        if "." in name and last in READERS and not (call.args and not isinstance(call.args[0], ast.Constant)):
            found.add(last)
        elif last == "open" and name not in OPENERS and name not in OTHERS_NAMED_OPEN:
            found.add("open")
        elif name in OPENERS and call.args:
            first = call.args[0]
            through = isinstance(first, ast.Call) and ast.unparse(first.func) in SAFE
            if not through and not (isinstance(first, ast.Name) and first.id in {*files, "buffer"}):
                found.add(name)
    return found


def test_every_file_is_opened_through_the_functions() -> None:
    found = {
        path.relative_to(ROOT).as_posix(): blind
        for package in PACKAGES
        for path in (ROOT / package).rglob("*.py")
        if (blind := opened_blindly(path.read_text(encoding="utf-8")))
    }
    assert found == ALLOWED


def test_json_is_read_by_one_function() -> None:
    """What is nested too deep for Python's reader is a `RecursionError` by any other, which nobody expects."""
    found = {
        path.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for path in (ROOT / package).rglob("*.py")
        for name, _ in calls(ast.parse(path.read_text(encoding="utf-8")))
        if name in ("json.loads", "json.load")
    }
    # The second is no part of the harness and knows by itself.
    assert found == {"models/sana_models/files.py", "reports/sana_reports/leaderboard_data.py"}


def told_raw(source: str) -> list[str]:
    """What is put into texts of an error that may be the system's: its number and, once more, its path."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if (
            isinstance(node, ast.ExceptHandler)
            and node.type is not None
            and "OSError" in ast.unparse(node.type)
        ):
            texts = [part for part in ast.walk(node) if isinstance(part, ast.FormattedValue)]
            found += [ast.unparse(node.type) for part in texts if ast.unparse(part.value) == node.name]
    return found


def test_errors_of_the_system_are_told_in_words() -> None:
    """By `first_line` or `explained`, never as `[Errno 28] No space left on device: '...'`."""
    assert told_raw("try: pass\nexcept (OSError, ValueError) as e: raise X(f'{p}: {e}')") == [
        "(OSError, ValueError)"
    ]
    found = {
        path.relative_to(ROOT).as_posix(): raw
        for package in PACKAGES
        for path in (ROOT / package).rglob("*.py")
        if (raw := told_raw(path.read_text(encoding="utf-8")))
    }
    assert found == {}
    assert first_line(OSError(errno.ENOSPC, "No space left on device", "x")) == "No space left on device"
    assert first_line(ValueError("one\ntwo")) == "one"
    assert [first_line(error) for error in (KeyError("a"), KeyError())] == ["no 'a'", "KeyError"]


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("path.read_bytes()", {"read_bytes"}),
        ("with open(path, 'rb') as f: pass", {"open"}),
        ("path.open('rb')", {"open"}),
        ("Image.open(path)", {"Image.open"}),
        ("Image.open(BytesIO(content))", set()),
        ("np.load(plain(path))", set()),
        ("np.load(path)", {"np.load"}),
        ("with open_plain(p) as file: Image.open(file)", set()),
        ("read_bytes(path)", set()),
    ],
)
def test_the_test_sees_what_it_looks_for(source: str, found: set[str]) -> None:
    assert opened_blindly(source) == found


def others(folder: Path) -> dict[str, Path]:
    """What is no plain file, by what it is."""
    os.mkfifo(folder / "pipe")
    (folder / "folder").mkdir()
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind(str(folder / "socket"))
    return {
        "a named pipe": folder / "pipe",
        "directory": folder / "folder",
        "a socket": folder / "socket",
        "a device": Path("/dev/zero"),
    }


@pytest.mark.parametrize("read", [open_plain, plain, read_bytes, read_text, file_sha256])
def test_what_is_no_plain_file_is_refused_at_once(tmp_path, read) -> None:
    for what, path in others(tmp_path).items():
        with pytest.raises(OSError, match=what) as caught:
            read(path)
        assert caught.value.filename == str(path)


def test_a_folder_with_a_pipe_in_it_has_no_hash(tmp_path) -> None:
    (tmp_path / "a").write_bytes(b"a")
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    directory_sha256(tmp_path)
    os.mkfifo(tmp_path / "b")
    with pytest.raises(OSError, match="a named pipe, not a file"):
        directory_sha256(tmp_path)


COMMANDS = {
    "a suite": ["run", "PIPE.yaml", "--tier", "micro", "-o", "OUT"],
    "a variant": ["validate", "PIPE.yaml"],
    "prompts": ["score", "IMAGES", "--prompts", "PIPE.csv", "--tier", "micro", "-o", "OUT"],
    "a manifest": ["score", "MANIFEST", "--tier", "micro", "-o", "OUT"],
    "a policy": ["gate", "a", "b", "--policy", "PIPE.yaml", "-o", "OUT"],
    "an export": ["import", "EXPORT", "-o", "OUT"],
}


@pytest.mark.parametrize("what", COMMANDS)
@pytest.mark.timeout(60)
def test_no_command_waits_for_a_pipe(tmp_path, capsys, what) -> None:
    for name in ("PIPE.yaml", "PIPE.csv", "MANIFEST/manifest.jsonl", "EXPORT/manifest.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        os.mkfifo(tmp_path / name)
    (tmp_path / "IMAGES").mkdir()
    (tmp_path / "IMAGES" / "0.png").write_bytes(b"")
    arguments = [
        str(tmp_path / word) if word.isupper() or "PIPE" in word else word for word in COMMANDS[what]
    ]
    assert execute(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "crashed" not in line


# A run whose threads wait for ever while the main thread waits for them, as on a disk that does not answer.
STUCK = """
import os, sys, threading, time
from sana_bench.core import stopping
from sana_bench.suites import plan
from tests.runner import fakes
from sana_bench.cli.main import main

def wait(path, hashes):
    time.sleep(1)  # the main thread, which has just started this one, waits by now
    print("stuck", flush=True)
    threading.Event().wait()

plan.file_sha256 = wait
stopping._PATIENCE_S = float(os.environ["PATIENCE"])
with fakes.installed():
    main()
"""
#: The same from a program or a notebook, which is not to end.
STUCK_CALL = STUCK.replace(
    "    main()",
    """
    import signal, sana_bench
    try:
        sana_bench.run(sys.argv[2], tier="micro", output=sys.argv[6])
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        os._exit(7)
""",
)


@contextmanager
def stuck(folder: Path, patience: float, program: str = STUCK) -> Iterator[subprocess.Popen[str]]:
    command = [
        sys.executable,
        "-c",
        program,
        "run",
        str(folder / "suites" / "shapes.yaml"),
        "--tier",
        "micro",
    ]
    process = subprocess.Popen(
        [*command, "-o", str(folder / "results")],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PATIENCE": str(patience)},
        # A test run started in a shell's background ignores SIGINT, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stdout is not None
    assert any("stuck" in line for line in process.stdout)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.fixture
def finished_run(tmp_path: Path) -> Path:
    from tests.runner import fakes

    with fakes.installed():
        assert fakes.World(tmp_path).run() == 0
    return tmp_path


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_threads_that_wait_do_not_keep_a_run_from_stopping(
    finished_run: Path, number: signal.Signals
) -> None:
    with stuck(finished_run, patience=1) as process:
        process.send_signal(number)
        out, _ = process.communicate(timeout=60)
        assert process.returncode == 3
        assert "run the same command again to continue" in out


def test_a_second_signal_ends_at_once(finished_run: Path) -> None:
    """Although the first one gives the threads ten minutes."""
    with stuck(finished_run, patience=600) as process:
        deadline = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < deadline:
            process.terminate()
            time.sleep(0.5)
        assert process.returncode == -signal.SIGTERM


def test_a_second_interrupt_ends_no_program_that_called(finished_run: Path) -> None:
    """Such as the kernel of a notebook: both calls of its user's Ctrl-C end in `KeyboardInterrupt`."""
    with stuck(finished_run, patience=600, program=STUCK_CALL) as process:
        deadline = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < deadline:
            process.send_signal(signal.SIGINT)
            time.sleep(0.5)
        assert process.returncode == 7
