"""`sana-bench train`: configurations that are checked alone, and those of SANA-1.5 for one step on small stand-ins."""

import re
from pathlib import Path

import pytest
import yaml
from PIL import Image

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
    paths = yaml.safe_load((CONFIGS / name).read_text())["data"].get("paths")
    # A configuration of the user's own images is valid, and lacks these.
    assert execute(["train", str(CONFIGS / name), "--check"]) == (2 if paths else 0)
    told = capsys.readouterr()
    assert f"{name}: valid: " in told.out
    assert not paths or f"{paths[0]}: no such file or folder" in told.err
    assert not list(tmp_path.iterdir())


def test_check_tells_what_a_folder_of_images_will_give(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    folder = write_folder(tmp_path / "images", 12)
    (folder / "0005.png").write_bytes((folder / "0005.png").read_bytes()[:60])
    (folder / "0007.txt").write_text("a " * 99)
    # Only configurations and a tokenizer are read: weights that are none do not matter.
    start = write_tiny_pipeline(tmp_path / "start")
    for path in start.rglob("*.safetensors"):
        path.write_bytes(b"")
    data = {"source": "images", "paths": ["images"], "image_size": 64, "max_length": 20, "max_bad_share": 0.1}
    config = {"kind": "sana", "name": "dots", "start": str(start), "data": data}
    config["training"] = {"steps": 9, "batch_size": 4, "learning_rate": 1e-4}
    Path("dots.yaml").write_text(yaml.safe_dump(config))
    assert execute(["train", "dots.yaml", "--check", "-o", "out"]) == 0
    told = capsys.readouterr().out
    for line in (
        "images: 12 images, 12 captions",
        "sizes: 32x32 to 32x64, median 0.0014 megapixels",
        "12 images are smaller than 64 pixels squared and will be enlarged",
        "longest 100; 1 are cut at 16",
        "decoded: 12 of 12 images",
        f"bad records: 1 of 12, in {Path('out/check_bad_records.csv')}",
        "  images/0005: image file is truncated",
    ):
        assert line in told, told
    assert sum(int(count) for count in re.findall(r"\d+x\d+: (\d+)", told)) == 12
    with Image.open("out/first_batch.png") as sheet:
        assert sheet.size == (2 * 200 + 8, 2 * 256 + 8)
        colours = {sheet.convert("RGB").getpixel((x, y)) for x in range(0, 400, 5) for y in range(0, 190, 5)}
    assert any(red > 150 > green + blue or blue > 150 > green + red for red, green, blue in colours)
    # Nothing is left for the training to remember, and a share of bad images that would stop it stops the check.
    assert sorted(path.name for path in Path("out").iterdir()) == ["check_bad_records.csv", "first_batch.png"]
    data["max_bad_share"] = 0.05
    Path("dots.yaml").write_text(yaml.safe_dump(config))
    assert execute(["train", "dots.yaml", "--check", "-o", "out"]) == 2
    assert "1 of 12 training records are bad, more than the allowed share 0.05" in capsys.readouterr().err


TOO_LONG = {
    "a name": "n" * 300,
    "a name below a new folder": "new/" + "n" * 300,
    "a whole path": "deep/" * 1000 + "n",
    # The folder could be there, what the training writes or reads below it could not.
    "a path without room for what is below it": "/tmp/" + "deep/" * 802,
}


@pytest.mark.parametrize("length", TOO_LONG)
@pytest.mark.parametrize(
    "key", ["start", "autoencoder", "data.paths", "data.cache", "validation.paths", "rendered.cache"]
)
def test_a_path_that_is_too_long_is_told_with_its_key(key, length, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    section, _, last = key.rpartition(".")
    data = {"source": "images", "paths": [str(write_folder(tmp_path / "images", 4))], "image_size": 64}
    config = {"kind": "sana", "name": "dots", "start": "start", "data": data}
    if section == "rendered":
        config["data"], section = {"source": "micro"}, "data"
    config |= {"training": {"steps": 1, "batch_size": 4, "learning_rate": 1e-4}, "validation": {"every": 1}}
    path = TOO_LONG[length]
    (config[section] if section else config)[last] = [path] if last == "paths" else path
    Path("dots.yaml").write_text(yaml.safe_dump(config))
    for more in ([], ["--check"], ["--encode"]) if length == "a name" else (["--check"],):
        assert execute(["train", "dots.yaml", *more]) == 2
        error = capsys.readouterr().err
        name = f"{section}.{last}" if section else last
        assert f"dots.yaml: {name} is '{path[:60]}" in error
        assert error.endswith(": file name too long\n")
        assert len(error) < 300


@pytest.mark.parametrize("kind", ["clip", "vqa", "reward"])
def test_a_judge_has_no_start_that_is_too_long(kind, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for start in ("n" * 300, "micro://" + "n" * 300):
        config = yaml.safe_load((CONFIGS / f"{kind}_micro.yaml").read_text()) | {"start": start}
        Path("judge.yaml").write_text(yaml.safe_dump(config))
        assert execute(["train", "judge.yaml"]) == 2
        assert "judge.yaml: start is " in (error := capsys.readouterr().err)
        assert error.endswith(": file name too long\n")


def test_a_sprint_checkpoint_is_refused_before_its_weights_are_read(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    start = write_tiny_pipeline(tmp_path / "start", sprint=True)
    for path in (start / "transformer").glob("*.safetensors"):
        path.write_bytes(b"")
    folder = write_folder(tmp_path / "images", 4)
    config = {"kind": "sana", "name": "dots", "start": str(start)}
    config["data"] = {"source": "images", "paths": [str(folder)], "image_size": 64}
    config["training"] = {"steps": 1, "batch_size": 4, "learning_rate": 1e-4}
    Path("dots.yaml").write_text(yaml.safe_dump(config))
    prompts = Path("prompts.txt")
    prompts.write_text("a dot")
    for command in (
        ["train", "dots.yaml"],
        ["train", "dots.yaml", "--check"],
        ["grow", str(start), "--depth", "4", "-o", "grown"],
        ["prune", str(start), "--keep", "1", "--prompts", str(prompts), "-o", "pruned"],
    ):
        assert execute(command) == 2
        error = capsys.readouterr().err
        assert f"{start}: is SANA-Sprint, distilled for a few steps" in error
        assert len(error.splitlines()) == 1


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
