"""Prompt ids become parts of paths: whatever a benchmark's files say, nothing is written outside the run."""

import pytest

from sana_bench.core.errors import SuiteError
from sana_bench.core.samples import Prompt
from tests.runner import fakes

BAD = (
    "../../../../../esc",
    "..",
    ".",
    "",
    ".hidden",
    "a/b",
    "a\\b",
    "a\0b",
    "a\nb",
    "\ud800",
    "x" * 201,
    "\u00fc" * 101,
)


@pytest.mark.parametrize("bad", BAD)
def test_an_id_that_is_no_path_name_is_refused_before_anything_is_written(world, monkeypatch, bad):
    monkeypatch.setattr(fakes.Shapes, "prompts", lambda self, tier: [Prompt(bad, "a", "circles")])
    with pytest.raises(SuiteError) as refused:
        world.run()
    assert str(refused.value) == f"benchmark 'shapes': the prompt id {bad!r} cannot be the name of a folder"
    assert not world.output.exists()


def test_an_id_that_two_prompts_share_is_refused(world, monkeypatch):
    monkeypatch.setattr(fakes.Shapes, "prompts", lambda self, tier: [Prompt("x", t, "circles") for t in "ab"])
    with pytest.raises(SuiteError, match="the prompt id 'x' appears twice"):
        world.run()


def test_ids_of_the_published_sets_are_accepted(world, monkeypatch):
    names = ("00000", "COCOval2014000000000192", "005712-0095", "a b", "x.y_z", "\u00fc", "y" * 200)
    monkeypatch.setattr(
        fakes.Shapes, "prompts", lambda self, tier: [Prompt(name, name, "circles") for name in names]
    )
    assert world.run() == 0
    assert {path.parent.name for path in world.images()} == set(names)


@pytest.mark.parametrize(
    "prompt",
    [
        Prompt("p7", "a \ud83d", "circles"),
        Prompt("p7", "a", "circles\ud83d"),
        Prompt("p7", "a", "circles", {"deep": [{"key": "\ud83d"}]}),
    ],
)
def test_half_of_a_character_is_refused_with_the_prompts_id(world, monkeypatch, prompt):
    monkeypatch.setattr(fakes.Shapes, "prompts", lambda self, tier: [prompt])
    with pytest.raises(SuiteError) as refused:
        world.run()
    assert str(refused.value) == "benchmark 'shapes': prompt p7 holds U+D83D, half of a character"
    assert refused.value.exit_code == 2
    assert not world.output.exists()
