"""Commands that load no model: what they import, which is what their time goes to. `benchmarks/harness.py` has the times."""

import subprocess
import sys

import pytest

_HEAVY = {
    *(
        "torch",
        "open_clip",
        "transformers",
        "diffusers",
        "pandas",
        "scipy",
        "numpy",
        "PIL.Image",
        "jinja2",
        "rich",
    ),
    *("urllib.request", "sana_reports.data"),
}
_SCRIPT = """
import sys
from sana_bench.cli.main import execute
assert execute(sys.argv[2:]) == 0
print(*sorted(set(sys.argv[1].split(",")) & sys.modules.keys()), file=sys.stderr)
"""


@pytest.mark.parametrize(
    ("command", "needed"),
    [
        ("--version", ()),
        ("list", ("sana_reports.data",)),  # the published rows that variants reproduce
        ("list metrics", ()),
        # GenEval's official prompts are drawn by NumPy.
        ("validate geneval", ("numpy", "sana_reports.data")),
        ("validate sana15_micro", ()),
        ("run geneval --dry-run --tier micro", ()),
        ("run demo --dry-run --tier micro", ()),  # one of whose variants searches with a judge
    ],
)
def test_what_loads_no_model_imports_nothing_heavy(command, needed, tmp_path):
    arguments = command.split()
    if "run" in arguments:
        arguments += ["--output", str(tmp_path / "results")]
    heavy = ",".join(_HEAVY - set(needed))
    done = subprocess.run([sys.executable, "-c", _SCRIPT, heavy, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr.split() == []
