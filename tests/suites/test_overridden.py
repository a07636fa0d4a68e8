"""A variant that `--set` changed is called and described as another one."""

from pathlib import Path

import pytest

from sana_bench.suites.load import load_suite
from sana_bench.suites.overridden import base_name
from tests.suite_files import GENEVAL_ALONE, write_suite, write_variant

SAMPLER = "sampler: {steps: 20, guidance_scale: 4.5}"


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    write_variant(tmp_path, "solid", SAMPLER, "description: one colour", weights="org/solid")
    write_variant(tmp_path, "cut", SAMPLER, "kind: pruned", "derived_from: solid")
    return write_suite(tmp_path, GENEVAL_ALONE, ["solid", "cut"])


def overridden(path: Path, *settings: str) -> tuple[str, str]:
    """Name and description of `solid` after `--set`."""
    loaded = load_suite(path, "full", tuple(f"variants.solid.{one}" for one in settings)).variants[0]
    return loaded.name, loaded.description


@pytest.mark.parametrize(
    ("settings", "name", "description"),
    [
        ((), "solid", "one colour"),
        (("sampler.steps=20", "precision=fp32"), "solid", "one colour"),  # as it was
        (("sampler.steps=2",), "solid[steps=2]", "solid with sampler.steps 2 instead of 20"),
        (
            ("sampler.guidance_scale=3", "model.height=32"),
            "solid[height=32,guidance_scale=3]",
            "solid with model.height 32 instead of 64, sampler.guidance_scale 3 instead of 4.5",
        ),
        (
            ("sampler.name=flow_euler",),
            "solid[sampler=flow_euler]",
            "solid with sampler.name flow_euler instead of flow_dpm_solver",
        ),
        (
            ("sampler.guidance_interval=[0.2, 0.8]",),
            "solid[guidance_interval=0.2-0.8]",
            "solid with sampler.guidance_interval [0.2, 0.8] instead of [0, 1]",
        ),
        (
            ("model.weights=../../other/org/solid@v2",),
            "solid[weights=solid-v2]",
            "solid with model.weights ../../other/org/solid@v2 instead of org/solid",
        ),
        (
            ("model.tiling={tile: 512}",),
            "solid[tiling.tile=512,tiling.stride=448]",
            "solid with model.tiling.tile 512, model.tiling.stride 448",
        ),
        (("sampler.steps=2", "description=quick"), "solid[steps=2]", "quick"),
        (("description=quick",), "solid", "quick"),  # no other images
    ],
)
def test_name_and_description(suite, settings, name, description) -> None:
    assert overridden(suite, *settings) == (name, description)
    assert base_name(name) == "solid"


def test_a_name_stays_short_enough_for_a_path(suite) -> None:
    changes = ("sampler.perturbed_attention={scale: 2.0, blocks: [1, 2]}", "model.conditioning=official")
    name, description = overridden(suite, *changes)
    assert name.startswith("solid[4-settings-")
    assert len(name) < 40
    assert "sampler.perturbed_attention.blocks [1, 2]" in description
    other, _ = overridden(suite, changes[0].replace("2.0", "3.0"), changes[1])
    assert other != name


def test_the_suite_knows_it_by_both_names(suite) -> None:
    loaded = load_suite(suite, "full", ("variants.solid.sampler.steps=2",))
    solid, cut = loaded.variants
    assert loaded.variant("solid") is loaded.variant("solid[steps=2]") is solid
    # What was made from it stands beside it still.
    assert (cut.name, cut.derived_from) == ("cut", "solid[steps=2]")
