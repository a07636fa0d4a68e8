"""`sana-bench generate` as typed: files, their settings, and one-line refusals."""

import shutil

import numpy as np
import pytest
from PIL import Image

from sana_bench.cli.main import execute
from sana_models import load_pipeline
from tests import ROOT

PROMPT = "a photo of a red circle"


@pytest.fixture
def generate(tiny_weights_root, monkeypatch, tmp_path):
    """Run the command on random weights, two steps; return the exit code."""
    monkeypatch.setenv("SANA_BENCH_MICRO_WEIGHTS", str(tiny_weights_root))
    monkeypatch.chdir(ROOT)

    def run(*arguments: str, model: str = "sana-micro", output: str = "out.png") -> int:
        return execute(
            ["generate", "--model", model, "--steps", "2", "-o", str(tmp_path / output), *arguments]
        )

    return run


def test_an_image_with_its_settings(generate, tiny_pipeline_dir, tmp_path, capsys):
    assert generate("--prompt", PROMPT, "--seed", "7", "--guidance", "3") == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(tmp_path / "out.png")
    with Image.open(tmp_path / "out.png") as image:
        pixels, texts = np.asarray(image), dict(image.text)
    expected = load_pipeline(tiny_pipeline_dir)([PROMPT], seeds=[7], steps=2, guidance_scale=3.0)
    assert np.array_equal(pixels, expected[0].numpy())
    assert texts["prompt"] == PROMPT
    assert (texts["seed"], texts["steps"], texts["guidance_scale"]) == ("7", "2", "3.0")
    assert texts["model"] == "sana-micro"


def test_several_images_are_numbered_and_do_not_depend_on_the_batch(generate, tmp_path):
    arguments = ("--prompt", PROMPT, "--prompt", "two blue squares", "--images", "2", "--seed", "5")
    assert generate(*arguments) == 0
    assert generate(*arguments, "--batch-size", "1", output="single.png") == 0
    for i in range(4):
        together, alone = (
            np.asarray(Image.open(tmp_path / f"{stem}-{i}.png")).astype(int) for stem in ("out", "single")
        )
        # Another batch size sums in another order: one level where a value sits on the edge of rounding.
        assert abs(together - alone).max() <= 1
    first, second = (np.asarray(Image.open(tmp_path / f"out-{i}.png")) for i in (0, 1))
    assert not np.array_equal(first, second)


def test_a_folder_and_sizes(generate, tiny_pipeline_dir, tmp_path):
    arguments = ("--prompt", PROMPT, "--height", "32", "--width", "96", "--tile", "64")
    assert generate(*arguments, model=str(tiny_pipeline_dir)) == 0
    assert Image.open(tmp_path / "out.png").size == (96, 32)


def test_the_precision_is_the_one_asked_for(generate, tiny_pipeline_dir, tmp_path):
    import torch

    for model in ("sana-micro", str(tiny_pipeline_dir)):
        arguments = ("--prompt", PROMPT, "--guidance", "3", "--precision", "bf16", "--force")
        assert generate(*arguments, model=model) == 0
        pipeline = load_pipeline(tiny_pipeline_dir, dtype=torch.bfloat16)
        expected = pipeline([PROMPT], seeds=[0], steps=2, guidance_scale=3.0)
        assert np.array_equal(np.asarray(Image.open(tmp_path / "out.png")), expected[0].numpy())
    assert generate("--prompt", PROMPT, "--precision", "fp8", "--force") == 2


def test_weight_files_are_chosen_by_variant(generate, tiny_pipeline_dir, tmp_path):
    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(tiny_pipeline_dir, tmp_path / "mixed")
    weights = load_file(folder / "transformer" / "diffusion_pytorch_model.safetensors")
    half = folder / "transformer" / "diffusion_pytorch_model.bf16.safetensors"
    save_file({key: value * 1.5 for key, value in weights.items()}, half)
    pictures = []
    for arguments in ([], ["--weights-variant", "bf16"]):
        assert generate("--prompt", PROMPT, "--force", *arguments, model=str(folder)) == 0
        pictures.append(np.asarray(Image.open(tmp_path / "out.png")))
    expected = load_pipeline(folder, variant="bf16")([PROMPT], seeds=[0], steps=2)[0].numpy()
    assert np.array_equal(pictures[1], expected)
    assert not np.array_equal(*pictures)
    options = ["--depth", "2", "--keep", "1", "--weights-variant", "bf16", "-o", str(tmp_path / "grown")]
    assert execute(["grow", str(folder), *options]) == 0
    grown = load_file(tmp_path / "grown" / "transformer" / "diffusion_pytorch_model.safetensors")
    assert np.array_equal(grown["proj_out.bias"].numpy(), weights["proj_out.bias"].numpy() * np.float32(1.5))


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((), {"model": "sana-mikro"}, "--model sana-mikro: no such variant (did you mean 'sana-micro'?)"),
        ((), {"model": "tests"}, "--model tests/model_index.json: no such file"),
        ((), {"output": "out.jpg"}, "the name must end with .png"),
        (("--negative", "a \udcff"), {}, "the prompt 'a \\udcff' holds U+DCFF, half of a character"),
        ((), {"output": "/dev/null/out.png"}, "--output /dev/null: /dev/null is a file, not a folder"),
        (("--height", "63"), {}, "image size 64x63 is not a multiple of 8 pixels"),
        (("--tile", "100"), {}, "--tile 100: must be a multiple of 8 pixels"),
        (("--device", "gpu"), {}, "--device gpu: unknown device (did you mean"),
        (("--steps", "0"), {}, "--steps"),
    ],
)
def test_refusals_are_one_line_and_write_nothing(generate, tmp_path, capsys, arguments, options, message):
    assert generate("--prompt", PROMPT, *arguments, **options) == 2
    error = capsys.readouterr().err.splitlines()
    assert len(error) == 1
    assert message in error[0]
    assert not list(tmp_path.glob("*.png"))


def test_a_missing_folder_is_made(generate, tmp_path):
    assert generate("--prompt", PROMPT, output="new/sub/out.png") == 0
    assert [path.name for path in (tmp_path / "new/sub").iterdir()] == ["out.png"]


def test_existing_files_are_kept_unless_forced(generate, tmp_path, capsys):
    (tmp_path / "out.png").write_bytes(b"precious")
    assert generate("--prompt", PROMPT) == 2
    assert "already exists (--force replaces it)" in capsys.readouterr().err
    assert (tmp_path / "out.png").read_bytes() == b"precious"
    assert generate("--prompt", PROMPT, "--force") == 0
    assert Image.open(tmp_path / "out.png").size == (64, 64)
