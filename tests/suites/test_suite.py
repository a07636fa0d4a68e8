"""Suite and variant files: what is accepted, and the one line that refuses the rest."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sana_bench.core.errors import SuiteError
from sana_bench.suites.config_files import read_yaml
from sana_bench.suites.load import load_all_tiers, load_suite

SUITE = """\
schema_version: 1
name: demo
seed: 0
benchmarks:
  - name: geneval
    images_per_prompt: 4
    metrics: [geneval, clip_score]
variants:
  micro: [small, small-8.steps]
  full: [large]
"""

VARIANT = """\
schema_version: 1
name: {name}
tier: {tier}
description: a variant
generator: sana
model:
  weights: micro://sana-micro
  height: 64
  width: 64
sampler:
  name: flow_dpm_solver
  steps: 20
  guidance_scale: 4.5
precision: fp32
"""


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    (tmp_path / "variants").mkdir()
    for name, tier in (("small", "micro"), ("small-8.steps", "micro"), ("large", "full")):
        (tmp_path / "variants" / f"{name}.yaml").write_text(VARIANT.format(name=name, tier=tier))
    path = tmp_path / "demo.yaml"
    path.write_text(SUITE)
    return path


def refusal(path: Path, *overrides: str) -> str:
    """Return the message that refuses a suite, without the folder it is in."""
    with pytest.raises(SuiteError) as caught:
        load_suite(path, "micro", overrides)
    message = str(caught.value)
    assert "\n" not in message
    return message.replace(f"{path.parent}/", "")


def test_a_valid_suite(suite: Path) -> None:
    loaded = load_suite(suite, "micro")
    assert [variant.name for variant in loaded.variants] == ["small", "small-8.steps"]
    assert loaded.file.benchmarks[0].metrics == ("geneval", "clip_score")
    assert loaded.variants[0].sampler.shift is None
    assert [one.tier for one in load_all_tiers(suite)] == ["micro", "full"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("seed: 0", "sead: 0", "demo.yaml:3: unknown key 'sead' (did you mean 'seed'?)"),
        ("seed: 0", "seed: -1", "demo.yaml:3: seed is -1, must be at least 0"),
        ("seed: 0", "seed: 9223372036854775808", "demo.yaml:3: seed is 9223372036854775808, must be at most"),
        ("seed: 0", "seed: '0'", "demo.yaml:3: seed is '0', must be a whole number"),
        ("seed: 0", "seed: true", "demo.yaml:3: seed is True, must be a whole number"),
        ("seed: 0", "seed: 1.5", "demo.yaml:3: seed is 1.5, must be a whole number"),
        ("seed: 0", "seed: 0\nseed: 1", "demo.yaml:4: key 'seed' appears twice"),
        (
            "    images_per_prompt: 4",
            "    image_per_prompt: 4",
            "demo.yaml:6: unknown key 'benchmarks.0.image_per_prompt' (did you mean 'images_per_prompt'?)",
        ),
        (
            "per_prompt: 4",
            "per_prompt: 0",
            "demo.yaml:6: benchmarks.0.images_per_prompt is 0, must be at least 1",
        ),
        ("per_prompt: 4", "per_prompt: 1001", "must be at most 1000"),
        (
            "per_prompt: 4",
            "per_prompt: many",
            "benchmarks.0.images_per_prompt is 'many', must be a whole number",
        ),
        (
            "name: geneval",
            "name: genevall",
            "demo.yaml:5: unknown benchmark 'genevall' (did you mean 'geneval'?)",
        ),
        (
            "clip_score]",
            "clip_scor]",
            "demo.yaml:7: benchmark 'geneval' has no metric 'clip_scor' (did you mean 'clip_score'?)",
        ),
        ("clip_score]", "geneval]", "demo.yaml:7: 'geneval' appears twice"),
        (
            "[geneval, clip_score]",
            "geneval",
            "demo.yaml:7: benchmarks.0.metrics is 'geneval', must be a list",
        ),
        ("[geneval, clip_score]", "[]", "benchmarks.0.metrics is []"),
        ("small, ", "smal, ", "demo.yaml:9: unknown variant 'smal' (did you mean 'small'?)"),
        ("small, ", "../demo, ", "demo.yaml:9: unknown variant '../demo'"),
        ("small, ", "small, small, ", "demo.yaml:9: 'small' appears twice"),
        ("small, ", "large, ", "demo.yaml:9: variant 'large' is of the full tier, listed under micro"),
        (
            "  micro:",
            "  mikro:",
            "demo.yaml:9: 'variants.mikro' is not a known key: must be one of micro or full",
        ),
        ("name: demo", "name: ../demo", "demo.yaml:2: name is '../demo', use lower-case letters"),
        ("name: demo\n", "", "demo.yaml:1: 'name' is missing"),
        (
            "schema_version: 1",
            "schema_version: 2",
            "demo.yaml:1: schema_version 2 is not supported; this sana-bench reads 1",
        ),
        ("schema_version: 1\n", "", "demo.yaml: schema_version is missing"),
        ("seed: 0", "seed: [", "demo.yaml:5: broken YAML: "),
        ("seed: 0", "\tseed: 0", "demo.yaml:3: broken YAML: "),
        (
            "seed: 0",
            "seed: !!python/object/apply:os.getcwd []",
            "demo.yaml:3: broken YAML: could not determine a constructor",
        ),
        ("seed: 0", "seed: &a [*a]", "demo.yaml:3: a value that contains itself"),
        ("seed: 0", "? [a]\n: b", "demo.yaml:3: keys must be plain words"),
        (SUITE, "", "demo.yaml: expected a mapping of keys to values, found an empty file"),
        (SUITE, "- 1", "demo.yaml: expected a mapping of keys to values, found a list"),
        (SUITE, "\x00", "demo.yaml: broken YAML"),
    ],
)
def test_bad_suites_are_refused_with_place_and_reason(suite: Path, old: str, new: str, message: str) -> None:
    assert old in SUITE
    suite.write_text(SUITE.replace(old, new, 1))
    assert message in refusal(suite)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("steps: 20", "steps: 0", "variants/small.yaml:12: sampler.steps is 0, must be at least 1"),
        ("steps: 20", "steps: 1001", "sampler.steps is 1001, must be at most 1000"),
        ("steps: 20", "steps: 20.0", "sampler.steps is 20.0, must be a whole number"),
        ("steps: 20", "step: 20", "unknown key 'sampler.step' (did you mean 'steps'?)"),
        ("guidance_scale: 4.5", "guidance_scale: -1", "sampler.guidance_scale is -1, must be at least 0"),
        (
            "guidance_scale: 4.5",
            "guidance_scale: .inf",
            "sampler.guidance_scale is inf, must be a finite number",
        ),
        ("guidance_scale: 4.5", "guidance_scale: .nan", "sampler.guidance_scale is nan, must be"),
        (
            "guidance_scale: 4.5",
            "guidance_scale: 1e9",
            "sampler.guidance_scale is 1000000000.0, must be at most 100",
        ),
        (
            "flow_dpm_solver",
            "ddim",
            "sampler.name is 'ddim', must be one of flow_dpm_solver, flow_euler, scm or pipeline",
        ),
        (
            "guidance_scale: 4.5",
            "guidance_scale: 4.5\n  guidance_interval: [0.5]",
            "'sampler.guidance_interval.1' is missing",
        ),
        (
            "guidance_scale: 4.5",
            "guidance_scale: 4.5\n  guidance_interval: [0.5, 0.2]",
            "sampler.guidance_interval is [0.5, 0.2], must be two rising noise levels in [0, 1]",
        ),
        (
            "guidance_scale: 4.5",
            "guidance_scale: 4.5\n  perturbed_attention: {scale: 2.0, blocks: []}",
            "sampler.perturbed_attention.blocks is []",
        ),
        (
            "guidance_scale: 4.5",
            "guidance_scale: 4.5\n  perturbed_attention: {scal: 2.0, blocks: [1]}",
            "unknown key 'sampler.perturbed_attention.scal' (did you mean 'scale'?)",
        ),
        ("fp32", "int8", "precision is 'int8', must be one of fp32, bf16 or fp16"),
        ("height: 64", "height: 100000", "model.height is 100000, must be at most 8192"),
        (
            "generator: sana",
            "generator: sanna",
            "small.yaml:5: unknown generator 'sanna' (did you mean 'sana'?)",
        ),
        ("name: small", "name: other", "small.yaml:2: name is 'other', the file name says 'small'"),
        (
            "generator: sana",
            "kind: prund\nderived_from: small-8.steps\ngenerator: sana",
            "small.yaml:5: kind is 'prund', must be one of full, pruned, grown or inference_scaled"
            " (did you mean 'pruned'?)",
        ),
        (
            "generator: sana",
            "kind: pruned\nderived_from: small-8-steps\ngenerator: sana",
            "small.yaml:6: derived_from names the unknown variant 'small-8-steps' (did you mean 'small-8.steps'?)",
        ),
        (
            "generator: sana",
            "kind: grown\ngenerator: sana",
            "small.yaml:5: a grown variant says in derived_from what it was made from",
        ),
        (
            "generator: sana",
            "derived_from: small-8.steps\ngenerator: sana",
            "small.yaml:5: derived_from needs kind pruned, grown or inference_scaled; kind is full",
        ),
        (
            "generator: sana",
            "kind: pruned\nderived_from: large\ngenerator: sana",
            "small.yaml:6: 'large' is of the full tier, this variant of the micro tier",
        ),
        (
            "generator: sana",
            "kind: pruned\nderived_from: small\ngenerator: sana",
            "small.yaml:6: small from small: a variant cannot be made from itself",
        ),
        (
            "generator: sana",
            "kind: pruned\nderived_from: ../demo\ngenerator: sana",
            "small.yaml:6: derived_from is '../demo', use lower-case letters",
        ),
        ("generator: sana", "derived_form: x", "unknown key 'derived_form' (did you mean 'derived_from'?)"),
        ("schema_version: 1", "schema_version: '1'", "small.yaml:1: schema_version '1' is not supported"),
    ],
)
def test_bad_variants_are_refused_with_place_and_reason(
    suite: Path, old: str, new: str, message: str
) -> None:
    content = VARIANT.format(name="small", tier="micro")
    assert old in content
    (suite.parent / "variants" / "small.yaml").write_text(content.replace(old, new, 1))
    assert message in refusal(suite)


def with_origin(suite: Path, name: str, kind: str, origin: str) -> None:
    content = VARIANT.format(name=name, tier="micro")
    content += f"kind: {kind}\nderived_from: {origin}\n"
    (suite.parent / "variants" / f"{name}.yaml").write_text(content)


def test_a_variant_says_what_it_was_made_from(suite: Path) -> None:
    with_origin(suite, "small-8.steps", "inference_scaled", "small")
    full, scaled = load_suite(suite, "micro").variants
    assert (full.kind, full.derived_from) == ("full", None)
    assert (scaled.kind, scaled.derived_from) == ("inference_scaled", "small")


def test_two_variants_cannot_come_from_each_other(suite: Path) -> None:
    with_origin(suite, "small-8.steps", "grown", "small")
    with_origin(suite, "small", "pruned", "small-8.steps")
    assert "small from small-8.steps from small: a variant cannot be made from itself" in refusal(suite)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("seed=-3", "--set seed=-3: seed is -3, must be at least 0"),
        ("seed", "--set seed: expected key=value"),
        ("sed=3", "--set sed=3: unknown key 'sed' (did you mean 'seed'?)"),
        ("seed=[", "--set seed=[: the value is not valid YAML"),
        ("benchmarks.1.name=x", "--set benchmarks.1.name=x: benchmarks has entries 0 to 0, not '1'"),
        (
            "benchmark.0.name=x",
            "--set benchmark.0.name=x: unknown key 'benchmark' (did you mean 'benchmarks'?)",
        ),
        ("seed.low=1", "--set seed.low=1: seed has no keys inside it"),
        (
            "variants.smal.sampler.steps=3",
            "the suite has no micro variant for 'smal.sampler.steps' (did you mean 'small'?)",
        ),
        ("variants.large.sampler.steps=3", "the suite has no micro variant for 'large.sampler.steps'"),
        (
            "variants.small.sampler.steps=0",
            "--set variants.small.sampler.steps=0: sampler.steps is 0, must be at least 1",
        ),
        ("variants.small.sampler.stepz=1", "unknown key 'sampler.stepz' (did you mean 'steps'?)"),
    ],
)
def test_bad_overrides_are_refused(suite: Path, option: str, message: str) -> None:
    assert message in refusal(suite, option)


def test_overrides_reach_suite_and_variants(suite: Path) -> None:
    loaded = load_suite(
        suite,
        "micro",
        ("seed=7", "benchmarks.0.images_per_prompt=2", "variants.small-8.steps.sampler.steps=8",
         "variants.small.sampler.shift=2.5", "variants.small-8.steps.sampler.guidance_scale=1e1"),
    )  # fmt: skip
    assert loaded.file.seed == 7
    assert loaded.file.benchmarks[0].images_per_prompt == 2
    assert loaded.variant("small-8.steps").sampler.steps == 8
    assert loaded.variant("small-8.steps").sampler.guidance_scale == 10.0
    assert loaded.variant("small").sampler.shift == 2.5


def test_every_problem_is_told(suite: Path) -> None:
    """And none that follows from another: a list with a wrong item, the right spelling of a misspelt key."""
    text = SUITE.replace("seed: 0", "seed: -1").replace("images_per_prompt", "images_per_promt")
    suite.write_text(text.replace("variants:", "variant:").replace("clip_score]", "{name: fid, protocl: 1}]"))
    assert refusal(suite) == (
        "demo.yaml:3: seed is -1, must be at least 0; "
        "demo.yaml:7: unknown key 'benchmarks.0.metrics.1.protocl' (did you mean 'protocol'?); "
        "demo.yaml:6: unknown key 'benchmarks.0.images_per_promt' (did you mean 'images_per_prompt'?); "
        "demo.yaml:8: unknown key 'variant' (did you mean 'variants'?)"
    )


def test_ten_problems_are_told_and_the_rest_counted(suite: Path) -> None:
    suite.write_text(SUITE + "".join(f"k{number}: 0\n" for number in range(12)))
    told = refusal(suite).split("; ")
    assert sum("unknown key" in one for one in told) == 10
    assert told[-1] == "and 2 more problems"


def test_a_missing_file_names_its_neighbour(suite: Path) -> None:
    asked = suite.with_name("dem.yaml")
    assert refusal(asked).startswith("dem.yaml: no such suite file (did you mean '")


def test_a_tier_without_variants_is_refused(suite: Path) -> None:
    suite.write_text(SUITE.replace("  full: [large]\n", ""))
    with pytest.raises(SuiteError, match="suite 'demo' has no full variants; it has micro"):
        load_suite(suite, "full")


def test_an_alias_bomb_is_refused(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x]"] + [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    path = tmp_path / "bomb.yaml"
    path.write_text("\n".join(lines))
    with pytest.raises(SuiteError, match="more than 50000 values"):
        read_yaml(path)


@settings(max_examples=150, deadline=None)
@given(content=st.binary(max_size=200))
def test_any_bytes_are_read_or_refused_in_one_line(
    content: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("bytes") / "any.yaml"
    path.write_bytes(content)
    refused = None
    try:
        read_yaml(path)
    except SuiteError as error:
        refused = str(error)
    assert refused is None or "\n" not in refused


def test_half_of_a_character_is_refused_with_its_line(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text('name: a\ndescription: "a \\ud83d"\n')
    with pytest.raises(SuiteError) as refused:
        read_yaml(path)
    assert str(refused.value) == f"{path}:2: a text holds U+D83D, half of a character"
