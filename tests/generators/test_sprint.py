"""SANA-Sprint as a variant: its sampler, its noise, and what does not go together."""

from pathlib import Path

import numpy as np
import pytest
import torch

from sana_bench import generators
from sana_bench.cli.main import execute
from sana_bench.core.errors import SuiteError
from sana_bench.generators.base import Request
from sana_bench.generators.noise import sample_noise
from sana_bench.generators.sana import SanaGenerator
from sana_bench.suites.cells import GeneratorSpec
from sana_bench.suites.load import load_variant
from sana_models import load_pipeline
from tests.suite_files import write_variant
from tests.tiny_weights import write_tiny_pipeline

SCM = "sampler: {name: scm, steps: 2, guidance_scale: 4.5}"
FLOW = "sampler: {steps: 2, guidance_scale: 4.5}"


@pytest.fixture(scope="module")
def sprint(tmp_path_factory) -> Path:
    return write_tiny_pipeline(tmp_path_factory.mktemp("weights") / "sprint", sprint=True)


def test_a_variant_makes_the_images_of_its_seeds(sprint, tmp_path):
    path = write_variant(tmp_path, "mine", SCM, weights=sprint)
    variant = load_variant(path)
    folder = generators.find(variant, path.parent)
    generator = SanaGenerator(GeneratorSpec(variant, folder, "0"), "cpu")
    requests = [Request("a red circle", 7), Request("two blue squares", 8)]
    noise = torch.stack([sample_noise(seed, (2, 8, 8, 8)) for seed in (7, 8)])
    expected = load_pipeline(sprint)([request.prompt for request in requests], noise=noise)
    found = generator.generate(requests)
    # Prompts are encoded one by one here and together there: one level where a value sits on the edge of rounding.
    assert np.abs(found.astype(int) - expected.numpy().astype(int)).max() <= 1
    assert not np.array_equal(found[0], found[1])


def test_sampler_and_weights_must_belong_together(sprint, tiny_pipeline_dir, tmp_path):
    for weights, sampler, message in [
        (sprint, FLOW, "sampler is flow_dpm_solver; these weights are sampled with scm"),
        (
            tiny_pipeline_dir,
            SCM,
            "sampler is scm; these weights are sampled with flow_dpm_solver or flow_euler",
        ),
    ]:
        path = write_variant(tmp_path, "mine", sampler, weights=weights)
        with pytest.raises(SuiteError, match=message):
            generators.find(load_variant(path), path.parent)


@pytest.mark.parametrize("more", ["shift: 3.0", "guidance_interval: [0.1, 0.9]"])
def test_scm_takes_no_settings_of_flow_samplers(tmp_path, more):
    path = write_variant(tmp_path, "mine", f"{SCM[:-1]}, {more}}}")
    with pytest.raises(SuiteError, match="scm takes no shift, guidance_interval or perturbed_attention"):
        load_variant(path)


def test_a_step_is_one_call_whatever_the_guidance(tmp_path):
    calls = [
        load_variant(write_variant(tmp_path, f"v{i}", sampler)).sampler.branches
        for i, sampler in enumerate((SCM, FLOW, f"{FLOW[:-1]}, guidance_interval: [0.2, 0.7]}}"))
    ]
    assert calls == [1.0, 2.0, 1.5]


def test_generate_takes_two_steps_of_a_folder(sprint, tmp_path):
    from PIL import Image

    out = tmp_path / "out.png"
    assert execute(["generate", "--model", str(sprint), "--prompt", "a red circle", "-o", str(out)]) == 0
    with Image.open(out) as image:
        assert (image.text["steps"], image.text["guidance_scale"]) == ("2", "4.5")


def test_generate_refuses_a_negative_prompt(sprint, tmp_path, capsys):
    arguments = ["--prompt", "a red circle", "--negative", "blue", "-o", str(tmp_path / "out.png")]
    assert execute(["generate", "--model", str(sprint), *arguments]) == 2
    assert "it takes no negative prompt" in capsys.readouterr().err
