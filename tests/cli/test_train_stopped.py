"""Ctrl-C and a termination request at fixed moments of `sana-bench train`: one line, exit code 3, nothing half-written."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import yaml

from sana_bench.cli.main import execute
from sana_bench.core.stopping import stoppable
from tests.models.training.datasets import write_folder
from tests.tiny_weights import write_tiny_pipeline

SIGNALS = [signal.SIGINT, signal.SIGTERM]

#: A command that gets a signal when it imports a module, which the import loses if asked to.
IMPORTING = """
import signal, sys
name, number, lost, *arguments = sys.argv[1:]
class Finder:
    def find_spec(self, module, path=None, target=None):
        if module == name:
            sys.meta_path.remove(self)
            print("signal in", module, flush=True)
            try:
                signal.raise_signal(int(number))
            except BaseException:
                if lost != "lost":
                    raise
        return None
from sana_bench.cli.main import main
sys.meta_path.insert(0, Finder())
sys.argv = ["sana-bench", *arguments]
main()
"""


@pytest.fixture(scope="module")
def start(tmp_path_factory) -> Path:
    return write_tiny_pipeline(tmp_path_factory.mktemp("start") / "start")


@pytest.fixture
def here(tmp_path, start, monkeypatch) -> Iterator[Path]:
    """A folder with a training that needs no second, and one that would go on for hours."""
    monkeypatch.chdir(tmp_path)
    write_folder(tmp_path / "images", 8)
    data = {"source": "images", "paths": ["images"], "image_size": 64, "cache": "cache"}
    config = {"kind": "sana", "name": "dots", "start": str(start), "data": data}
    config["training"] = {"steps": 2, "batch_size": 4, "learning_rate": 1e-4, "checkpoint_every": 1}
    config["validation"] = {"every": 1, "exports": 1, "prompts": ["a red dot"], "steps": 1}
    Path("dots.yaml").write_text(yaml.safe_dump(config))
    config["training"] |= {"steps": 1_000_000, "checkpoint_every": 1_000_000}
    del config["validation"]
    Path("long.yaml").write_text(yaml.safe_dump(config))
    # As a command finds them: tests that were started in a shell's background ignore Ctrl-C, and libraries of other tests leave
    # handlers behind.
    found = (signal.default_int_handler, signal.SIG_DFL)
    before = [signal.signal(*pair) for pair in zip(SIGNALS, found, strict=True)]
    yield tmp_path
    for pair in zip(SIGNALS, before, strict=True):
        signal.signal(*pair)
    # A signal may come while torch turns autocast on; a command ends then, and these tests go on.
    torch.set_autocast_enabled("cpu", False)


def stop(arguments: list[str], number: signal.Signals = signal.SIGTERM) -> int:
    """Run a command as `main` does; a signal that was never heard of would end the tests."""
    before = signal.getsignal(number)
    with stoppable(second_ends=True) as stopped:
        code = execute(arguments, stopped)
        assert stopped.is_set()
    assert signal.getsignal(number) is before
    assert signal.getsignal(signal.SIGVTALRM) is signal.SIG_DFL
    assert signal.getitimer(signal.ITIMER_VIRTUAL) == (0, 0)
    return code


def signalled(monkeypatch, place: str, number: signal.Signals, *, lost: bool = False) -> None:
    """Send a signal to this process when `place`, module:name, is called; caught there where it is to be lost."""
    module, _, path = place.partition(":")
    __import__(module)
    owner, *names = sys.modules[module], *path.split(".")
    for name in names[:-1]:
        owner = getattr(owner, name)
    kept = getattr(owner, names[-1])

    def replaced(*arguments, **options):
        monkeypatch.setattr(owner, names[-1], kept)
        try:
            signal.raise_signal(number)
        except BaseException:
            if not lost:
                raise
        return kept(*arguments, **options)

    monkeypatch.setattr(owner, names[-1], replaced)


def leftovers(folder: Path) -> list[str]:
    """Files and folders that nobody reads: temporary ones, and pipelines without the index that is written last."""
    found = [path for path in folder.rglob("*") if path.name.startswith(".") or ".tmp" in path.name]
    exported = [*folder.glob("out/exports/step-*"), *folder.glob("out/pipeline")]
    found += [path for path in exported if not (path / "model_index.json").is_file()]
    return [str(path) for path in found]


#: Moments of each command, by what is called then.
MOMENTS = {
    "train": (
        "sana_bench.suites.config_files:read_yaml",
        "sana_models.training.settings:TextToImageSettings.from_dict",
        "sana_models.training.run:load_networks",
        "sana_models.training.parts:read_index",
        "sana_models.training.loop:make_optimizer",
        "sana_models.training.text_to_image:TextToImageTask.loss",
        "sana_models.training.validation:write_sheet",
        "torch:save",
        "safetensors.torch:save_file",
        "sana_models.checkpoints:_write_json",
        "sana_models.training.run:plot_curve",
    ),
    "--encode": (
        "sana_models.training.run:load_networks",
        "numpy:save",
        "sana_models.training.parts:share_of",
    ),
    "--check": (
        "sana_models.training.checking:read_index",
        "sana_models.training.checking:as_rgb",
        "sana_models.training.checking:write_sheet",
    ),
}


@pytest.mark.parametrize(("what", "place"), [(what, place) for what in MOMENTS for place in MOMENTS[what]])
def test_a_signal_at_any_moment_ends_in_one_line(here, what, place, monkeypatch, capsys):
    # Both signals take one way, which other tests hold; here every moment gets one of them.
    number = SIGNALS[len(place) % 2]
    command = ["train", "dots.yaml", "-o", "out", *([what] if what != "train" else [])]
    signalled(monkeypatch, place, number)
    assert stop(command, number) == 3
    told = capsys.readouterr()
    assert (told.out + told.err).count("interrupted") == 1
    assert "Traceback" not in told.err
    assert leftovers(here) == []
    # The same command goes on from there.
    assert execute(command) == 0
    assert leftovers(here) == []


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize(
    "place",
    [
        "sana_models.training.run:load_networks",
        "sana_models.training.parts:read_index",
        "sana_models.training.text_to_image:TextToImageTask.loss",
    ],
)
def test_a_signal_that_a_library_loses_ends_all_the_same(here, place, number, monkeypatch, capsys):
    """As in a finalizer, an import or a bare `except`: without a second look the training would go on for hours."""
    signalled(monkeypatch, place, number, lost=True)
    assert stop(["train", "long.yaml", "-o", "out"], number) == 3
    told = capsys.readouterr()
    assert (told.out + told.err).count("interrupted") == 1
    assert leftovers(here) == []


def test_an_error_that_an_interrupt_left_behind_is_none(here, monkeypatch, capsys):
    """Such as the import of half a module, which fails later and elsewhere."""
    from sana_models.training import run

    def broken(*_, **__):
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        raise ModuleNotFoundError("Could not import module 'Gemma2Model'")

    monkeypatch.setattr(run, "load_networks", broken)
    assert stop(["train", "dots.yaml", "-o", "out"]) == 3
    assert capsys.readouterr().err == "sana-bench: interrupted\n"


@pytest.mark.parametrize(
    ("module", "number", "lost"),
    [
        ("typer", signal.SIGINT, "raised"),
        ("sana_bench.cli.train", signal.SIGTERM, "raised"),
        ("torch.nn", signal.SIGTERM, "raised"),
        ("sana_models.training.run", signal.SIGTERM, "lost"),
    ],
)
def test_a_signal_while_modules_are_imported(here, module, number, lost):
    command = [sys.executable, "-c", IMPORTING, module, str(int(number)), lost, "train", "long.yaml"]
    done = subprocess.run(
        [*command, "-o", "out"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": ":".join(sys.path)},
    )
    assert f"signal in {module}" in done.stdout
    assert done.returncode == 3, done.stderr
    assert (done.stdout + done.stderr).count("interrupted") == 1
    assert "Traceback" not in done.stderr
    assert leftovers(here) == []
