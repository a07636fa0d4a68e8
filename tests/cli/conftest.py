"""Tests of commands start at the root of the repository, where `suites/` is; `made` is a run to judge."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests import ROOT
from tests.stores import change

NOTHING = "UPDATE runs SET created = created"
# Measurements that differ between images, so that each is a batch of its own.
TIMES = "UPDATE images SET seconds = {} * (0.1 + 0.001 * sample_index + 0.0001 * CAST(prompt_id AS INTEGER))"
NETWORK = {"network": "corner-means@1", "weights_sha256": "w"}
REFERENCE = {"protocol": "reference@1", "n": 50, "scenes_sha256": "s"}
MEAN, SCATTER = 100.0, 49 * 20.0  # of each of the four features of the reference


@pytest.fixture(autouse=True)
def at_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    """Return the only line on standard error."""
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    return lines[0]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The results of one run, with times and with features and a reference as a Fréchet distance has them."""
    import numpy as np

    from sana_bench.core.fingerprint import fingerprint, short
    from sana_bench.metrics.fid.frechet import Moments
    from sana_bench.metrics.fid.micro_reference import write_moments
    from sana_bench.runner.run import RunOptions, run_suite
    from tests.runner import fakes

    folder = tmp_path_factory.mktemp("made")
    with fakes.installed():
        suite = fakes.write_suite(folder)
        output = folder / "results"
        assert run_suite(RunOptions(suite=suite, output=output, tier="micro")) == 0
        alone = RunOptions(suite, output, tier="micro", overrides=("name=alone", "variants.micro=[fake-4]"))
        assert run_suite(alone) == 0
        identity = {"metric": "spread", "protocol": "spread/test@1", **NETWORK, "reference": REFERENCE}
        key = fingerprint({"name": "spread", "protocol": "spread/test@1", "identity": identity})
        change(output, TIMES.format(1), f"UPDATE features SET feature_key = '{'/'.join(NETWORK.values())}'",
               f"UPDATE metrics SET identity = '{json.dumps(identity)}', metric_key = '{key}' WHERE name = 'spread'",
               f"UPDATE summaries SET metric_key = '{key}' WHERE metric = 'spread'")  # fmt: skip
        of = {**REFERENCE, "network": NETWORK}
        moments = Moments(REFERENCE["n"], np.full(4, MEAN), SCATTER * np.eye(4))
        write_moments(output / "cache" / f"frechet-{short(fingerprint(of))}.npz", of, moments)
        yield output


@pytest.fixture
def a(made: Path) -> str:
    return f"{next((made / 'runs').glob('shapes-*')).name}:fake-4"


@pytest.fixture
def other(made: Path, tmp_path: Path) -> Callable[..., str]:
    """The same variant in a copy of the results that `statements` change."""

    def copy(*statements: str) -> str:
        folder = Path(shutil.copytree(made, tmp_path / "copy"))
        change(folder, *statements)
        return f"{next((folder / 'runs').glob('shapes-*'))}:fake-4"

    return copy
