"""What workers of a test find installed: a generator that draws noise, two metrics, and faults that the test asks for.

A fault is a file of the folder `.faults` in the weights of the variant, which is no part of the weights' identity. The process
that takes the file does what its name says; `kill-on-ID-INDEX`, `slow` and `hold`, until it is gone, are for every process.
"""

import errno
import os
import signal
import time
from pathlib import Path

import numpy as np

from sana_bench.core import atomic
from sana_bench.generators.base import OutOfMemoryError, Request
from sana_bench.metrics.selfcheck import session
from sana_bench.suites.cells import GeneratorSpec
from tests import ROOT, suite_files
from tests.runner import fakes

FAULTS = ".faults"
#: The variable with the folder of faults at the start of a worker.
STARTS = "CROWD_STARTS"
SIZE = fakes.SIZE
#: Images a batch, prompts of a suite, images a prompt.
BATCH, N_PROMPTS, PER_PROMPT = 4, 12, 2
N_IMAGES = N_PROMPTS * PER_PROMPT


class Painter:
    """Images from the noise seed and the weights alone."""

    def __init__(self, spec: GeneratorSpec, device: str) -> None:
        self._faults = spec.weights_path / FAULTS
        self._salt = (spec.weights_path / "model.bin").read_bytes()[0]
        self._largest = 64

    def generate(self, requests: list[Request]) -> np.ndarray:
        for request in requests:
            if (self._faults / f"kill-on-{request.prompt_id}-{request.index}").exists():
                os.kill(os.getpid(), signal.SIGKILL)
        if self._takes("kill"):
            os.kill(os.getpid(), signal.SIGKILL)
        if self._takes("hang"):
            time.sleep(600)
        if self._takes("memory"):
            self._largest = 2
        if self._takes("disk"):
            atomic.write_bytes = _full_disk
        if len(requests) > self._largest:
            raise OutOfMemoryError(f"{len(requests)} images do not fit")
        until = time.monotonic() + 300
        while (self._faults / "hold").exists() and time.monotonic() < until:
            time.sleep(0.02)
        if (self._faults / "slow").exists():
            time.sleep(0.3)
        return np.stack([_image(request.noise_seed, self._salt) for request in requests])

    def _takes(self, fault: str) -> bool:
        """Whether this process is the one that a fault is meant for."""
        try:
            (self._faults / fault).rename(self._faults / f"{fault}-taken-by-{os.getpid()}")
        except OSError:
            return False
        return True


def _takes_start(fault: str) -> bool:
    """Whether this process is the one that a fault at its start is meant for: not the one that asks for it."""
    folder = Path(os.environ[STARTS])
    try:
        if (folder / fault).read_text() == str(os.getpid()):
            return False
        (folder / fault).rename(folder / f"{fault}-taken")
    except OSError:
        return False
    return True


def _image(seed: int, salt: int) -> np.ndarray:
    noise = np.random.Generator(np.random.Philox(key=[seed, salt]))
    return noise.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)


def _full_disk(path: Path, content: bytes) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))


def build_redness(*_: object) -> fakes.Redness:
    """What every worker does before it says that it is there."""
    if _takes_start("hang-before-hello"):
        time.sleep(600)
    if _takes_start("hang-in-check"):
        session.check_run = lambda *_: time.sleep(600)
    return fakes.Redness()


#: What the metric may stop a run by.
build_redness.limits = (0, 255)


def build_spread(*_: object) -> fakes.Spread:
    return fakes.Spread()


def install(folder: Path) -> Path:
    """Write what an installer leaves of the package, and return the folder, which is to be on the path."""
    info = folder / "crowd-0.1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: crowd\nVersion: 0.1\n")
    here = "tests.runner.engines.crowd"
    (info / "entry_points.txt").write_text(
        f"[sana_bench.generators]\npainter = {here}:Painter\n"
        "[sana_bench.judges]\nmean = tests.runner.fakes:ByMean\n"
        f"[sana_bench.metrics]\nredness = {here}:build_redness\nspread = {here}:build_spread\n"
    )
    return folder


def search_path(*folders: Path) -> str:
    """`PYTHONPATH` of a process that finds the tests, the packages and what is in `folders`."""
    return os.pathsep.join(
        map(str, (*folders, ROOT, *(ROOT / name for name in ("models", "kernels", "reports"))))
    )


#: A variant that chooses among four images of the generator, and keeps two of each search.
SEARCH = (
    "generator: best_of_n",
    "best_of_n: {generator: painter, candidates: 4, keep: 2, batch_size: 2, judge: {name: mean}}",
)


def write_suite(
    folder: Path, metrics: str = "redness, spread", lines: tuple[str, ...] = ("generator: painter",)
) -> Path:
    """Write a suite of two variants that differ in their weights."""
    suites = folder / "suites"
    (suites / "variants").mkdir(parents=True)
    prompts = [
        f'{{"id": "{line:05d}", "prompt": "prompt {line}", "tag": "t{line % 3}"}}'
        for line in range(N_PROMPTS)
    ]
    (suites / "prompts.jsonl").write_text("\n".join(prompts) + "\n")
    names = [f"painter-{number}" for number in range(2)]
    for number, name in enumerate(names):
        weights = suites / "variants" / f"weights-{number}"
        (weights / FAULTS).mkdir(parents=True)
        (weights / "model.bin").write_bytes(bytes([number]))
        place = {"tier": "micro", "weights": f"./weights-{number}", "height": SIZE, "width": SIZE}
        suite_files.write_variant(suites, name, *lines, **place)
    benchmark = (
        f"{{name: crowd, prompts: prompts.jsonl, images_per_prompt: {PER_PROMPT}, metrics: [{metrics}]}}"
    )
    return suite_files.write_suite(suites, benchmark, names, tier="micro", name="crowd")


def ask_for(suite: Path, *faults: str, of: int = 0) -> None:
    """Let the next process that makes an image of a variant have these faults."""
    for fault in faults:
        (suite.parent / "variants" / f"weights-{of}" / FAULTS / fault).touch()


def ask_for_start(fault: str) -> Path:
    """Let the next process that starts have a fault, and return the file that is there once one has it."""
    folder = Path(os.environ[STARTS])
    (folder / fault).write_text(str(os.getpid()))
    return folder / f"{fault}-taken"
