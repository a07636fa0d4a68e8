"""Wheels for a machine without a network: which they are, what they may weigh; nothing here asks a network."""

import importlib.util
import subprocess
import sys

import pytest

from tests import ROOT

SCRIPT = ROOT / "scripts" / "collect_wheels.py"


@pytest.fixture(scope="module")
def collect_wheels():
    spec = importlib.util.spec_from_file_location("collect_wheels", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_what_torch_and_transformers_bring_stays_away(collect_wheels):
    names = collect_wheels.lacking(collect_wheels.HAS, "3.12")
    # What the project imports and they do not, and what that needs in turn.
    assert {"diffusers", "open-clip-torch", "pydantic", "pydantic-core", "nvidia-ml-py", "torchao"} <= set(
        names
    )
    assert not {
        "torch",
        "triton",
        "transformers",
        "numpy",
        "huggingface-hub",
        "sympy",
        "cuda-bindings",
    } & set(names)
    assert [name for name in names if name.startswith("nvidia-")] == ["nvidia-ml-py"]
    # Each has a version that was tested.
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    wanted = collect_wheels.pinned(names, lock)
    assert len(wanted) == len(names)
    assert set(wanted) <= set(lock.splitlines())


def test_what_a_machine_has_stays_away_with_what_it_alone_needs(collect_wheels):
    without = collect_wheels.lacking([*collect_wheels.HAS, "pydantic"], "3.12")
    gone = set(collect_wheels.lacking(collect_wheels.HAS, "3.12")) - set(without)
    assert {"pydantic", "pydantic-core"} <= gone
    assert "diffusers" in without


def _writing(sizes):
    def download(folder, wanted, python):
        assert (wanted, python) == (["a==1", "b==2"], "3.12")
        for name, size in sizes.items():
            (folder / name).write_bytes(bytes(size))

    return download


def test_wheels_up_to_the_limit_are_kept_and_their_size_is_said(collect_wheels, tmp_path):
    folder = tmp_path / "in" / "wheels"
    download = _writing({"a-1.whl": 1_500_000, "b-2.whl": 500_000})
    said = collect_wheels.collect(folder, ["a==1", "b==2"], "3.12", 2, download)
    assert said == f"2 wheels, 2.0 MB of at most 2: {folder}"
    assert sorted(path.name for path in folder.iterdir()) == ["a-1.whl", "b-2.whl"]
    assert list(folder.parent.iterdir()) == [folder]


def test_wheels_above_the_limit_are_refused_and_nothing_is_left(collect_wheels, tmp_path):
    folder = tmp_path / "wheels"
    download = _writing({"a-1.whl": 500_000, "b-2.whl": 1_500_001})
    with pytest.raises(ValueError, match=r"2\.0 MB, more than 2; the largest: b-2\.whl 1\.5, a-1\.whl 0\.5"):
        collect_wheels.collect(folder, ["a==1", "b==2"], "3.12", 2, download)
    assert not list(tmp_path.iterdir())


def test_a_package_without_a_tested_version_is_named(collect_wheels):
    assert collect_wheels.pinned(["pyyaml"], "PyYAML==6.0\n") == ["pyyaml==6.0"]
    with pytest.raises(ValueError, match=r"requirements\.lock has no version of other"):
        collect_wheels.pinned(["other"], "pyyaml==6.0\n")


def test_a_folder_that_is_there_is_not_touched(tmp_path):
    done = subprocess.run([sys.executable, str(SCRIPT), str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].endswith(f"{tmp_path} is there already; name a folder that is not")
