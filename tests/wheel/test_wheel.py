"""What a user gets who installs the wheel: every command from an empty folder, without checkout and network."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.suite_files import write_suite

EVERYTHING = "{name: geneval, images_per_prompt: 1, metrics: [geneval, clip_score, fid]}"
MB = 1_000_000
N_IMAGES = 20
# torch alone is ten times as much; what the weights are for is in CONTRIBUTING.md.
LARGEST = 70 * MB

# All in one process: what they import takes longer than what they do.
SESSION = """
import contextlib, io, json, socket, sys

def refuse(*_):
    raise AssertionError("a command of the micro tier asked the network")

socket.socket.connect = refuse
import sana_bench, sana_kernels, sana_models, sana_reports
from sana_bench.cli.main import execute

told = {"packages": [p.__file__ for p in (sana_bench, sana_kernels, sana_models, sana_reports)]}
for command in json.loads(sys.argv[1]):
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        code = execute(command)
    told[" ".join(command)] = [code, out.getvalue()]
print(json.dumps(told))
"""
GENERATE = ["generate", "--model", "sana-micro", "--prompt", "a photo of a red circle", "-o", "circle.png"]
OWN = "run mine.yaml --tier micro --variants sana-micro --set variants.sana-micro.sampler.steps=1"
SCORE = "score my_images --prompts prompts.csv --metrics clip_score,fid --reference real_images --tier micro --name mine"
# With their exit codes; 3 is that of a run with `--limit`.
COMMANDS = {
    "list": 0,
    "validate geneval": 0,
    "doctor": 0,
    "run geneval --tier micro --limit 4 --dry-run": 0,
    "run geneval --tier micro --limit 4": 3,
    "run demo --tier micro --limit 2": 3,
    OWN: 0,
    "report latest": 0,
    "baseline set release mine": 0,
    "gate latest --baseline release": 0,
    "baseline export release -o release.json": 0,
    "gate latest --baseline release.json": 0,
    # Limited to four images: incomplete, so that nothing can be compared.
    "compare sana-micro sana-micro-8-steps --run geneval": 5,
    "profile sana-micro --images 1 --largest-batch 1": 0,
    "export latest --to exported": 0,
    SCORE: 0,
    "leaderboard": 0,
    "run genevl": 2,
}


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with nothing but what is the user's own: a suite, twenty images with their prompts, and real images."""
    folder = tmp_path_factory.mktemp("here")
    lines = ["image,prompt"]
    for index, image in enumerate(np.random.default_rng(0).integers(256, size=(2 * N_IMAGES, 64, 64, 3))):
        images = folder / ("real_images" if index < N_IMAGES else "my_images")
        images.mkdir(exist_ok=True)
        Image.fromarray(image.astype(np.uint8)).save(images / f"{index:04d}.png")
        if index >= N_IMAGES:
            lines.append(f"{index:04d}.png,a photo of a red circle")
    (folder / "prompts.csv").write_text("\n".join(lines) + "\n")
    write_suite(folder, EVERYTHING, ["sana-micro"], tier="micro", name="mine")
    return folder


@pytest.fixture(scope="module")
def told(unpacked: Path, here: Path) -> dict[str, tuple[int, str]]:
    """Exit code and output of every command."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("SANA_", "HF_"))}
    environment |= {"PYTHONPATH": str(unpacked), "HF_HOME": str(here.parent / "no-such-cache")}
    commands = json.dumps([*(command.split() for command in COMMANDS), GENERATE])
    done = subprocess.run(
        [sys.executable, "-c", SESSION, commands], cwd=here, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)
    for path in found.pop("packages"):
        assert Path(path).is_relative_to(unpacked)
    return {command: (code, out.replace(f"{unpacked}/", "")) for command, (code, out) in found.items()}


def test_every_command_ends_as_it_should(told) -> None:
    assert {command: told[command][0] for command in COMMANDS} == COMMANDS, told


def test_the_shipped_suites_are_found_by_name(told) -> None:
    assert "geneval: GenEval with CLIP score and FID on the same images" in told["list"][1]
    assert "sana_bench/shipped/suites/geneval.yaml: micro tier is valid" in told["validate geneval"][1]
    assert "genevl: no such suite file (did you mean 'geneval'?)" in told["run genevl"][1]
    assert "micro tier: ready" in told["doctor"][1]


def test_own_suites_use_shipped_variants(told) -> None:
    assert "sana-micro[steps=1]" in told[OWN][1]
    assert "gate: pass" in told["gate latest --baseline release"][1]
    assert told["gate latest --baseline release.json"] == told["gate latest --baseline release"]


def test_images_and_reports_are_written(told, here: Path) -> None:
    code, out = told[" ".join(GENERATE)]
    assert (code, out.splitlines()[-1]) == (0, "circle.png")
    assert (here / "circle.png").read_bytes().startswith(b"\x89PNG")
    assert (here / "results/leaderboard/leaderboard.html").is_file()
    assert len(list(here.glob("results/runs/*/report/report.html"))) == 5


def test_own_images_are_scored(told) -> None:
    code, out = told[SCORE]
    assert code == 0
    assert f"{N_IMAGES}/{N_IMAGES} images" in out
    assert "clip_score" in out


def test_every_package_says_that_it_is_typed(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        typed = {name for name in archive.namelist() if name.endswith("py.typed")}
    assert typed == {
        f"{name}/py.typed" for name in ("sana_bench", "sana_models", "sana_kernels", "sana_reports")
    }


def test_the_size_of_the_wheel(wheel: Path) -> None:
    assert wheel.stat().st_size < LARGEST
