"""`baseline` as typed."""

import shutil
from pathlib import Path

import pytest

from sana_bench.cli.main import execute


@pytest.mark.parametrize("content", ["{", "[]", '{"x": 1}', '{"x": {"run": "r"}}', "\xff"])
@pytest.mark.parametrize("command", ["baseline list", "gate A --baseline x", "compare A baseline:x"])
def test_damaged_baselines_are_one_line(made, a, tmp_path, capsys, content, command) -> None:
    output = Path(shutil.copytree(made, tmp_path / "copy"))
    (output / "baselines.json").write_bytes(content.encode("latin-1"))
    arguments = command.replace("A", a, 1).split() if "A" in command else command.split()
    assert execute([*arguments, "-o", str(output)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "baselines.json: damaged baselines" in line
