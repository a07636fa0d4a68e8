"""The suite of SANA's table on the full tier, from fetch to verdicts, with stand-ins for every file and no network.

Swin-S, ViT-L/14, ViT-L/16 and Inception have their published sizes; all that is made smaller here is how many images a batch is
padded to, which changes no number.
"""

import importlib.util
import shutil
import sys
import zipfile
from pathlib import Path

import pytest
import torch

from sana_bench.assets.checks import check_pipeline_directory
from sana_bench.assets.hub import check_repository
from sana_bench.assets.locate import resolve_autoencoder, resolve_folder
from sana_bench.assets.needs import needs_named
from sana_bench.assets.table import (
    VERIFIER,
    Repository,
    find_asset,
    published_judges,
    read_assets,
    repositories_of,
)
from sana_bench.judges.vlm import VisionLanguageModel
from sana_bench.metrics.clip import features as clip_features
from sana_bench.metrics.fid import features as fid_features
from sana_bench.metrics.image_reward import metric as image_reward
from sana_bench.metrics.oneig.style_encoders import OneIGEncoder
from sana_bench.results.run_folder import RunFiles
from sana_bench.suites.find import variant_files
from sana_bench.suites.load import load_variant
from tests import ROOT, stand_in_files
from tests.runner import numbers_of_runs as numbers
from tests.stand_in_files import ASSETS

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


def test_every_asset_has_a_stand_in(tmp_path, monkeypatch):
    assert set(ASSETS) == set(read_assets())
    # The paper's tables are rehearsed above with these two and CLIP at their sizes.
    small = [name for name in ASSETS if name not in ("geneval_detector", "image_reward_weights")]
    monkeypatch.setattr(stand_in_files, "_open_clip", lambda model: {model: torch.zeros(1)})
    for name in small:
        ASSETS[name](tmp_path)
        lacking = [file.path for file in find_asset(name).files if not (tmp_path / file.path).is_file()]
        assert lacking == [], name
    with zipfile.ZipFile(tmp_path / "dreamsim/dreamsim_ensemble_checkpoint.zip") as archive:
        assert "ensemble_lora/adapter_config.json" in archive.namelist()


def test_every_repository_but_other_models_pipelines_has_a_stand_in(stand_ins, monkeypatch):
    monkeypatch.chdir(ROOT)
    without = set()
    for path in variant_files().values():
        variant = load_variant(path)
        missing = [one for one in repositories_of([variant], path.parent) if not stand_ins.has_stand_in(one)]
        assert not missing or variant.generator == "diffusers", variant.name
        without |= {one.name for one in missing}
    assert len(without) > 5
    judges = [Repository(name.removeprefix("hf://")) for name in published_judges().values()]
    assert all(map(stand_ins.has_stand_in, judges))


@pytest.mark.parametrize(
    ("name", "reader"),
    [
        ("Qwen/Qwen3-VL-8B-Instruct", "other"),
        ("Qwen/Qwen2.5-VL-7B-Instruct", "other"),
        ("xingpng/OneIG-StyleEncoder", "other"),
        ("mit-han-lab/dc-ae-lite-f32c32-sana-1.1-diffusers", "other"),
        (VERIFIER, "vila"),
        ("Efficient-Large-Model/SANA1.5_4.8B_1024px_diffusers", "sana"),
        ("Efficient-Large-Model/Sana_Sprint_0.6B_1024px_diffusers", "sana"),
    ],
)
def test_repositories_lie_in_the_hubs_cache_and_are_whole(stand_ins, name, reader, tmp_path, monkeypatch):
    repository = Repository(name, reader)
    snapshot = stand_ins.write_repository(tmp_path, repository)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("SANA_BENCH_DATA", str(tmp_path / "data"))
    assert resolve_folder(name, Path()) == snapshot
    assert all(path.is_symlink() for path in snapshot.rglob("*") if not path.is_dir())
    if "dc-ae" in name:
        assert resolve_autoencoder(name, Path()) == snapshot
    elif "Qwen" in name:
        VisionLanguageModel(snapshot).network.eval()
    elif reader == "other":
        OneIGEncoder(snapshot).network.eval()
    else:
        check_repository(snapshot, repository)
    # A second suite that needs it writes it again.
    assert stand_ins.write_repository(tmp_path, repository) == snapshot


def test_weights_that_nobody_publishes_lie_beside_a_copy_of_the_suites(stand_ins, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    needs = needs_named("paper_table_sana15_geneval")
    assert needs.missing_folders
    lines = stand_ins._write_unpublished(tmp_path, needs)
    copy = tmp_path / "suites" / "paper_table_sana15_geneval.yaml"
    assert [line.rpartition("; run ")[2] for line in lines] == [str(copy)] * 2
    assert needs_named(str(copy)).missing_folders == []
    for weights, folder in needs_named(str(copy)).folders.values():
        check_pipeline_directory(resolve_folder(weights, folder))
    assert stand_ins._write_unpublished(tmp_path, needs_named(SUITE)) == []


def test_what_has_no_stand_in_is_named(stand_ins, tmp_path):
    with pytest.raises(
        SystemExit, match=r"^flux.1-dev-1024: there is no stand-in for black-forest-labs/FLUX"
    ):
        stand_ins.write(tmp_path, "flux.1-dev-1024")
    with pytest.raises(SystemExit, match=r"^sana-micro: the micro tier needs nothing$"):
        stand_ins.write(tmp_path, "sana-micro")
