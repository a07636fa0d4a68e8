"""Variant files that extend others: what is inherited, from where paths start, and what is refused."""

from pathlib import Path

import pytest

from sana_bench.core.errors import SuiteError
from sana_bench.suites.load import load_variant
from sana_bench.suites.variant_file import read_variant_file
from tests import ROOT

BASE = """\
schema_version: 1
name: base
tier: full
description: the base
kind: grown
derived_from: other
published: ['Sana-1.6B, 1024 px']
generator: sana
model: {weights: ./weights, height: 64, width: 64, tiling: {tile: 128, stride: 96}}
sampler: {steps: 20, guidance_scale: 4.5}
precision: fp16
"""


def write(folder: Path, name: str, text: str) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}.yaml"
    path.write_text(text)
    return path


def heir(folder: Path, *lines: str, name: str = "heir", extends: str = "base") -> Path:
    return write(
        folder, name, "\n".join(["schema_version: 1", f"name: {name}", f"extends: {extends}", *lines, ""])
    )


def test_settings_are_inherited_key_by_key_and_descriptions_are_not(tmp_path) -> None:
    write(tmp_path, "base", BASE)
    variant = load_variant(heir(tmp_path, "sampler: {steps: 8}", "model: {tiling: null}"))
    assert (variant.sampler.steps, variant.sampler.guidance_scale, variant.precision) == (8, 4.5, "fp16")
    assert (variant.model.weights, variant.model.height, variant.model.tiling) == ("./weights", 64, None)
    assert (variant.description, variant.kind, variant.derived_from, variant.published) == (
        "",
        "full",
        None,
        (),
    )
    second = load_variant(heir(tmp_path, "precision: bf16", name="second", extends="heir"))
    assert (second.sampler.steps, second.precision) == (8, "bf16")


def test_a_shipped_variant_is_extended_from_any_folder(tmp_path) -> None:
    shipped = load_variant(ROOT / "suites/variants/sana-1.5-3.2b-1024.yaml")
    assert shipped.model.weights == "../../results/sana-1.5-3.2b-1024"
    own = load_variant(heir(tmp_path, extends="sana-1.5-3.2b-1024"))
    # A path of the shipped file starts from where that file lies.
    assert own.model.weights == str(ROOT / "results/sana-1.5-3.2b-1024")
    assert own.model.model_copy(update={"weights": ""}) == shipped.model.model_copy(update={"weights": ""})


def test_a_mistake_is_told_where_it_was_written(tmp_path) -> None:
    base = write(tmp_path, "base", BASE.replace("steps: 20", "steps: 0"))
    with pytest.raises(SuiteError, match=rf"^{base}:10: sampler\.steps is 0, must be at least 1$"):
        load_variant(heir(tmp_path))
    write(tmp_path, "base", BASE)
    path = heir(tmp_path, "sampler: {stepz: 8}")
    with pytest.raises(
        SuiteError, match=rf"^{path}:4: unknown key 'sampler\.stepz' \(did you mean 'steps'\?\)"
    ):
        load_variant(path)


@pytest.mark.parametrize(
    ("extends", "message"),
    [
        ("bse", r"mine\.yaml:3: extends names the unknown variant 'bse' \(did you mean 'base'\?\)"),
        ("[base]", r"mine\.yaml:3: extends names the unknown variant \['base'\]"),
        ("mine", r"mine extends mine: a variant cannot extend itself"),
        ("loop", r"mine extends loop extends mine: a variant cannot extend itself"),
    ],
)
def test_what_cannot_be_extended_is_one_line(tmp_path, extends, message) -> None:
    write(tmp_path, "base", BASE)
    heir(tmp_path, name="loop", extends="mine")
    with pytest.raises(SuiteError, match=message):
        read_variant_file(heir(tmp_path, name="mine", extends=extends))


def test_a_row_that_nobody_published_is_refused(tmp_path) -> None:
    path = write(
        tmp_path, "base", BASE.replace("1024 px", "1025 px").replace("kind: grown\nderived_from: other\n", "")
    )
    with pytest.raises(
        SuiteError, match=r"base\.yaml:5: there is no published row 'Sana-1\.6B, 1025 px' \(did"
    ):
        load_variant(path)
