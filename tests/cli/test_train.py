"""`sana-bench train`: configurations that are checked alone, and those of SANA-1.5 for one step on small stand-ins."""

from pathlib import Path

import pytest
import yaml

from sana_bench.cli.main import execute
from sana_bench.suites.load import load_variant
from tests import ROOT
from tests.models.training.datasets import write_folder
from tests.tiny_weights import write_tiny_pipeline

CONFIGS = ROOT / "configs" / "train"
OWN = sorted(
    path.name
    for path in CONFIGS.glob("*.yaml")
    if yaml.safe_load(path.read_text())["kind"] in ("sana", "dc_ae")
)
SANA_15 = ("sana15_4.8b_grown.yaml", *(f"sana15_pruned_{size}.yaml" for size in ("3.2b", "2.4b", "1.6b")))


@pytest.mark.parametrize("name", OWN)
def test_a_shipped_configuration_is_valid(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert execute(["train", str(CONFIGS / name), "--check"]) == 0
    assert f"{name}: valid: " in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


def test_a_mistake_is_told_and_nothing_is_written(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    content = (CONFIGS / SANA_15[0]).read_text().replace("warmup_steps", "warmup_stepz")
    Path("broken.yaml").write_text(content)
    assert execute(["train", "broken.yaml", "--check"]) == 2
    assert "broken.yaml: " in (error := capsys.readouterr().err)
    assert "warmup_stepz" in error
    assert execute(["train", str(CONFIGS / "clip_micro.yaml"), "--check"]) == 2
    assert "--check knows the kinds sana and dc_ae, not clip" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["broken.yaml"]


@pytest.mark.parametrize("name", SANA_15)
def test_the_published_variants_are_what_the_configurations_make(name):
    config = yaml.safe_load((CONFIGS / name).read_text())
    variant = load_variant(ROOT / "suites/variants" / f"{config['name']}.yaml")
    assert variant.model.weights == f"../../results/{config['name']}"
    if variant.kind == "pruned":
        unrecovered = load_variant(ROOT / "suites/variants" / f"{config['name']}-unrecovered.yaml")
        assert config["start"] == unrecovered.model.weights.removeprefix("../../")


@pytest.mark.parametrize("name", SANA_15[:2])
def test_one_step_on_a_stand_in(name, tmp_path, monkeypatch, capsys):
    """Every setting is the shipped one but for the sizes: of the network, of the images, of the batch."""
    monkeypatch.chdir(tmp_path)
    config = yaml.safe_load((CONFIGS / name).read_text())
    start = write_tiny_pipeline(tmp_path / "start")
    if "grown" in name:
        assert execute(["grow", str(start), "--depth", "3", "--keep", "1", "--qk-norm", "-o", "grown"]) == 0
        start = tmp_path / "grown"
    config["start"] = str(start)
    config["data"] |= {"paths": [str(write_folder(tmp_path / "images", 8))], "minimum_score": 0}
    config["data"].pop("stages", None)
    config["data"]["image_size"] = 64
    config["training"] |= {"steps": 1, "batch_size": 2}
    Path("one.yaml").write_text(yaml.safe_dump(config))
    assert execute(["train", "one.yaml", "-o", "out"]) == 0
    assert "1 steps in" in capsys.readouterr().out
    assert (tmp_path / "out/pipeline/model_index.json").is_file()
