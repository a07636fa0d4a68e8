"""The suite of SANA's table on the full tier, from fetch to verdicts, with stand-ins for every file and no network.

Swin-S, ViT-L/14, ViT-L/16 and Inception have their published sizes; all that is made smaller here is how many images a batch is
padded to, which changes no number.
"""

import importlib.util
import shutil
import sys
from pathlib import Path

import pytest

from sana_bench.metrics.clip import features as clip_features
from sana_bench.metrics.fid import features as fid_features
from sana_bench.metrics.image_reward import metric as image_reward
from sana_bench.results.run_folder import RunFiles
from tests import ROOT
from tests.runner import numbers_of_runs as numbers

SUITE = "suites/paper_table.yaml"
PROTOCOLS = {
    ("geneval", "geneval/sana@1", 2),
    ("fid", "fid/sana@1", 2),
    ("clip_score", "clip_score/sana@1", 2),
    ("dpg", "dpg/sana-grid@1", 4),  # one grid
    ("image_reward", "image_reward/sana-jpeg@1", 2),
    ("latency", "latency/warm-interleaved@1", 2),
    ("throughput", "throughput/fixed-batch@1", 3),  # batches
}


@pytest.fixture(scope="module")
def stand_ins():
    """The script."""
    spec = importlib.util.spec_from_file_location("stand_in_assets", ROOT / "scripts" / "stand_in_assets.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def written(stand_ins, tmp_path, monkeypatch):
    """A folder with everything that the suite needs, 1.6 GB; it is removed after the test."""
    monkeypatch.chdir(ROOT)
    for module, name in ((clip_features, "_BATCH"), (fid_features, "_BATCH"), (image_reward, "BATCH")):
        monkeypatch.setattr(module, name, 2)
    lines = stand_ins.write(tmp_path / "stand-ins", SUITE)
    assert len(lines) == 15
    yield tmp_path / "stand-ins"
    shutil.rmtree(tmp_path)


def test_the_table_is_made_from_fetch_to_verdicts(stand_ins, written, tmp_path, capsys):
    mirror, data, output = str(written / "data"), str(tmp_path / "fetched"), str(tmp_path / "results")
    assert stand_ins.run(written, ["fetch", SUITE, "--from", mirror, "--data-dir", data]) == 0
    told = capsys.readouterr().out
    assert "mjhq30k/mjhq30k_imgs.zip: 12 files unpacked" in told
    assert told.count("already here, in") == 4
    shutil.rmtree(mirror)
    few = [
        "--limit",
        "2",
        "--variants",
        "sana-0.6b-512",
        "--set",
        "benchmarks.4.metrics.1.parameters.batch_size=2",
    ]
    run = ["run", SUITE, "--tier", "full", "--device", "cpu", *few, "--data-dir", data, "-o", output]
    # Two images of thousands are no whole table.
    assert stand_ins.run(written, run) == 3
    told = capsys.readouterr().out
    assert "tier: full (asked for with --tier full --device cpu, on the CPU)" in told
    assert "DPG-Bench: images made with instruction none" in told
    rows = [row for row in numbers.summaries(Path(output)) if row.key == "overall"]
    assert {(row.metric, row.protocol, row.n_samples) for row in rows} == PROTOCOLS
    (folder,) = (Path(output) / "runs").iterdir()
    page = (RunFiles(folder).report / "report.html").read_text()
    for text in (told, page):
        assert "Measured beside published" in text
        assert "not comparable" in text
        assert "2 of 2212 images" in text
        assert "published on A100" in text
    assert "FLUX-dev, 1024 px" in page
    # Nothing is made or scored again.
    assert stand_ins.run(written, run) == 3
    assert "0 images to generate, 12 already there" in capsys.readouterr().out
    assert stand_ins.run(written, ["leaderboard", "-o", output]) == 0


def test_what_has_no_stand_in_is_named(stand_ins, tmp_path):
    with pytest.raises(
        SystemExit, match=r"^geneval2: there is no stand-in for geneval2_prompts, Qwen/Qwen3-VL"
    ):
        stand_ins.write(tmp_path, "geneval2")
    with pytest.raises(SystemExit, match=r"^sana-micro: the micro tier needs nothing$"):
        stand_ins.write(tmp_path, "sana-micro")
