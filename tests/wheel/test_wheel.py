"""What a user gets who installs the wheel: every command from an empty folder, without checkout and network."""

import json
import os
import re
import shlex
import subprocess
import sys
import zipfile
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests import ROOT
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
    told.setdefault("commands", []).append([code, out.getvalue()])
with contextlib.redirect_stdout(sys.stderr):
    exec(compile(sys.argv[2], "README.md", "exec"), {})
print(json.dumps(told))
"""
OWN = "run own.yaml --tier micro --variants sana-micro --set variants.sana-micro.sampler.steps=1"
SCORE = "score my_images --prompts prompts.csv --metrics clip_score,fid --reference real_images --tier micro --name mine"
# With their exit codes; 3 is that of a run with `--limit`.
COMMANDS = {
    "list": 0,
    OWN: 0,
    "report latest": 0,
    "baseline set release own": 0,
    "gate latest --baseline release": 0,
    "baseline export release -o release.json": 0,
    "gate latest --baseline release.json": 0,
    "export latest --to exported": 0,
    SCORE: 0,
    "run genevl": 2,
}
_BLOCK = re.compile(r"^```(?P<language>bash|python)\n(?P<text>.*?)^```", re.MULTILINE | re.DOTALL)
_TYPED = re.compile(r"^sana-bench (?P<command>.*?)(?: +# (?P<comment>.*))?$", re.MULTILINE)


def blocks_of_the_readme(language: str) -> str:
    """What README.md shows in a language, one block below the other."""
    found = _BLOCK.finditer((ROOT / "README.md").read_text(encoding="utf-8"))
    return "\n".join(block["text"] for block in found if block["language"] == language)


def python_of_the_readme() -> str:
    """Its Python, of few images and wherever it runs of the micro tier."""
    text = blocks_of_the_readme("python")
    for shown, short in (
        ("limit=24", "limit=1, tier='micro'"),
        ('metrics=["clip_score"]', 'metrics=["clip_score"], tier="micro"'),
    ):
        assert text.count(shown) == 1
        text = text.replace(shown, short)
    return text


def of_the_readme() -> dict[str, int]:
    """The commands that README.md shows, in its order, cut short by options, with their exit codes.

    Those that its comments say need a clone are left out. Of suites, geneval and the demo run; the others are planned.
    """
    found = {}
    for typed in _TYPED.finditer(blocks_of_the_readme("bash")):
        if (typed["comment"] or "").startswith("in a clone"):
            continue
        name, _, rest = typed["command"].partition(" ")
        more, code = "", 0
        if name in ("run", "score") and "--tier" not in rest:
            more += " --tier micro"
        if rest == "geneval" and name == "run":
            more += " --set benchmarks.0.prompts=12 --set benchmarks.0.images_per_prompt=1"
        elif name == "fetch" or "--until" in rest or rest.startswith(("all", "sana15_micro")):
            more += " --dry-run"
        elif name == "run" and "--dry-run" not in rest:
            more, code = f"{more} --limit 1", 3
        elif name == "profile":
            more += " --images 1 --largest-batch 1"
        found[typed["command"] + more] = code
    return found


README = of_the_readme()


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with nothing but what is the user's own: a suite, twenty images with their prompts, and others."""
    folder = tmp_path_factory.mktemp("here")
    folders = ["my_images", "mine", "other", "real_images"]
    images = np.random.default_rng(0).integers(256, size=(len(folders), N_IMAGES, 64, 64, 3))
    for name, of_folder in zip(folders, images.astype(np.uint8), strict=True):
        (folder / name).mkdir()
        for index, image in enumerate(of_folder):
            Image.fromarray(image).save(folder / name / f"{index:04d}.png")
    shown = product(("red", "green", "blue", "yellow", "white"), ("circle", "square", "star", "heart"))
    rows = [f"{index:04d}.png,a photo of a {' '.join(words)}" for index, words in enumerate(shown)]
    assert len(rows) == N_IMAGES
    (folder / "prompts.csv").write_text("\n".join(["image,prompt", *rows, ""]))
    write_suite(folder, EVERYTHING, ["sana-micro"], tier="micro", name="own")
    return folder


@pytest.fixture(scope="module")
def told(unpacked: Path, here: Path) -> dict[str, tuple[int, str]]:
    """Exit code and output of every command."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("SANA_", "HF_"))}
    environment |= {"PYTHONPATH": str(unpacked), "HF_HOME": str(here.parent / "no-such-cache")}
    commands = [*README, *COMMANDS]
    given = json.dumps([shlex.split(command) for command in commands])
    done = subprocess.run(
        [sys.executable, "-c", SESSION, given, python_of_the_readme()],
        cwd=here,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)
    for path in found.pop("packages"):
        assert Path(path).is_relative_to(unpacked)
    results = zip(commands, found["commands"], strict=True)
    return {command: (code, out.replace(f"{unpacked}/", "")) for command, (code, out) in results}


def test_every_command_ends_as_it_should(told) -> None:
    assert {command: code for command, (code, _) in told.items()} == README | COMMANDS, told


def test_the_readme_shows_what_is_typed_here() -> None:
    assert len(README) >= 10
    assert {command.split()[0] for command in README} >= {
        *(
            "run",
            "score",
            "compare",
            "generate",
            "profile",
            "leaderboard",
            "validate",
            "list",
            "fetch",
            "doctor",
        ),
    }


def test_the_shipped_suites_are_found_by_name(told) -> None:
    assert "geneval: GenEval with CLIP score and FID on the same images" in told["list"][1]
    assert "sana_bench/shipped/suites/geneval.yaml: micro tier is valid" in told["validate geneval"][1]
    assert "genevl: no such suite file (did you mean 'geneval'?)" in told["run genevl"][1]
    assert "micro tier: ready" in told["doctor"][1]


def test_the_tier_is_told_as_it_came_about(told) -> None:
    (profile,) = [command for command in README if command.startswith("profile ")]
    assert told[profile][1].startswith("tier: micro (that of sana-micro)\n")


def test_own_suites_use_shipped_variants(told) -> None:
    assert "sana-micro[steps=1]" in told[OWN][1]
    assert "gate: pass" in told["gate latest --baseline release"][1]
    assert told["gate latest --baseline release.json"] == told["gate latest --baseline release"]


def test_images_and_reports_are_written(told, here: Path) -> None:
    (generate,) = [command for command in README if command.startswith("generate ")]
    code, out = told[generate]
    assert (code, out.splitlines()[-1]) == (0, "circle.png")
    assert (here / "circle.png").read_bytes().startswith(b"\x89PNG")
    assert (here / "results/leaderboard/leaderboard.html").is_file()
    assert len(list(here.glob("results/runs/*/report/report.html"))) == 9


def test_own_images_are_scored(told) -> None:
    code, out = told[SCORE]
    assert code == 0
    assert f"{N_IMAGES} of {N_IMAGES} prompts have images ({N_IMAGES}, found by the file column)" in out
    assert "clip_score" in out
    (paired,) = [out for command, (_, out) in told.items() if "--compare other/" in command]
    assert "Compared with mine, prompt by prompt" in paired


def test_every_package_says_that_it_is_typed(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        typed = {name for name in archive.namelist() if name.endswith("py.typed")}
    assert typed == {
        f"{name}/py.typed" for name in ("sana_bench", "sana_models", "sana_kernels", "sana_reports")
    }


def test_the_size_of_the_wheel(wheel: Path) -> None:
    assert wheel.stat().st_size < LARGEST
