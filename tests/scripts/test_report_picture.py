"""The picture of a report in the README."""

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from PIL import Image

from sana_reports import write_report
from tests import ROOT
from tests.reports.synthetic import make_report, with_verdicts

SCRIPT = ROOT / "scripts" / "report_picture.py"
SIZE = (1860, 1515)
README_LIMIT = 300_000  # bytes; a page about the project must stay quick to open


@pytest.fixture(scope="module")
def report_picture() -> ModuleType:
    spec = importlib.util.spec_from_file_location("report_picture", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_readme_shows_a_modest_picture() -> None:
    path = ROOT / "docs" / "report.png"
    assert "](docs/report.png)" in (ROOT / "README.md").read_text(encoding="utf-8")
    assert path.stat().st_size < README_LIMIT
    with Image.open(path) as picture:
        assert picture.size == SIZE


@pytest.mark.browser
@pytest.mark.skipif(shutil.which("chromium") is None, reason="no `chromium` on the PATH")
def test_the_picture_is_taken_of_the_newest_demo(tmp_path: Path) -> None:
    made = with_verdicts(make_report(tmp_path, prompts_per_task=1, images_per_prompt=1))
    write_report(made, tmp_path / "results" / "runs" / "demo-micro-1" / "report")
    taken = subprocess.run(
        [sys.executable, SCRIPT, "--to", "picture.png"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (taken.returncode, taken.stderr) == (0, "")
    assert taken.stdout.startswith("picture: picture.png, ")
    path = tmp_path / "picture.png"
    assert path.stat().st_size < README_LIMIT
    with Image.open(path) as picture:
        assert picture.size == SIZE
        colors = picture.convert("RGB").getcolors(1 << 20)
    assert colors is not None
    assert 20 < len(colors) <= 96  # a page, not a blank


def test_without_a_demo_there_is_no_picture(report_picture: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no report of the demo; sana-bench run demo makes one"):
        report_picture.newest_report(tmp_path)
