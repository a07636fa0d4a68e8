"""What a user sees first: our own lines, no warnings of libraries."""

import io
import logging
import subprocess
import sys
from pathlib import Path

import pytest

from sana_bench.runner.library_log import LibraryLog

ROOT = Path(__file__).parents[2]

_PROCESS = """
import sys
from pathlib import Path
from sana_bench.cli.main import execute

assert execute({arguments!r}) in (0, 3)
assert "torchao" not in sys.modules
{after}
"""

_QUANTISES = """
from sana_models.quantization import quantize
from sana_models.transformer import SanaTransformer
from tests.small_parts import small_sana
import torch

model = quantize(SanaTransformer(small_sana()).eval().requires_grad_(False), "int8")
kinds = {type(getattr(module, "weight", None)).__name__ for module in model.modules()}
assert any(kind.startswith("Int8") for kind in kinds), kinds
"""


def printed(arguments: list[str], after: str) -> str:
    script = _PROCESS.format(arguments=arguments, after="print('-----', file=sys.stderr)\n" + after)
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False, timeout=600
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr.partition("-----")[0]


def test_a_run_shows_no_line_of_a_library_and_can_quantise_afterwards(tmp_path):
    pytest.importorskip("torchao")
    arguments = ["run", "suites/geneval.yaml", "--tier", "micro", "--variants", "sana-micro", "--limit", "1"]
    shown = printed([*arguments, "--output", str(tmp_path)], _QUANTISES)
    assert "torchao" not in shown
    assert "_pytree" not in shown
    assert "report: " in shown


def test_a_selfcheck_shows_no_line_of_a_library():
    shown = printed(["selfcheck"], "")
    assert "torchao" not in shown
    assert "_pytree" not in shown


def test_lines_of_libraries_go_to_the_file_session_after_session(tmp_path, monkeypatch):
    terminal = io.StringIO()
    monkeypatch.setattr(sys, "stderr", terminal)
    early = logging.getLogger("library.set.up.before")
    early.addHandler(logging.StreamHandler())
    path = tmp_path / "log.txt"
    for turn in range(2):
        with LibraryLog("sana-bench run") as log:
            early.warning("early, turn %d", turn)
            log.keep_in(path)
            late = logging.getLogger(f"library.set.up.inside.{turn}")
            late.addHandler(logging.StreamHandler())
            late.warning("late, turn %d", turn)
            print("a warning", file=sys.stderr)
            assert log.written == path
    assert terminal.getvalue() == ""
    lines = path.read_text(encoding="utf-8").split("\n")
    heads = [line for line in lines if "sana-bench" in line]
    assert len(heads) == 2
    for turn in range(2):
        assert f"early, turn {turn}" in lines
        assert f"late, turn {turn}" in lines
    assert sum("a warning" in line for line in lines) == 2

    early.warning("early, after")
    logging.getLogger("library.set.up.inside.0").warning("late, after")
    assert terminal.getvalue() == "early, after\nlate, after\n"


def test_a_run_that_never_gets_a_folder_shows_them(tmp_path, monkeypatch):
    terminal = io.StringIO()
    monkeypatch.setattr(sys, "stderr", terminal)
    with LibraryLog("sana-bench run") as log:
        print("said before", file=sys.stderr)
        assert terminal.getvalue() == ""
    assert log.written is None
    assert terminal.getvalue() == "said before\n"
    assert sys.stderr is terminal


def test_no_file_is_made_where_nothing_was_said(tmp_path):
    with LibraryLog("sana-bench run") as log:
        log.keep_in(tmp_path / "log.txt")
    assert log.written is None
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_lost_where_the_file_cannot_be_written(tmp_path, monkeypatch):
    terminal = io.StringIO()
    monkeypatch.setattr(sys, "stderr", terminal)
    with LibraryLog("sana-bench run") as log:
        log.keep_in(tmp_path / "no folder" / "log.txt")
        print("said", file=sys.stderr)
    assert "said" in terminal.getvalue()
