"""The number formats, TF32, compilation and CUDA graphs of a variant: what they mean, what they identify, what refuses them."""

import csv
from dataclasses import replace

import pytest

from sana_bench import generators
from sana_bench.core.errors import SuiteError
from sana_bench.core.fingerprint import FileHashes
from sana_bench.core.precision import PrecisionSpec
from sana_bench.profiling.work import stage_precision
from sana_bench.runner.resolve import resolve_suite
from sana_bench.suites.cells import NO_WEIGHTS, GeneratorSpec, ResolvedVariant
from sana_bench.suites.find import variant_files
from sana_bench.suites.load import load_suite, load_variant
from sana_bench.suites.tiers import TierChoice, choose_tier
from tests import ROOT
from tests.suite_files import FEW_STEPS, write_suite, write_variant

MICRO = ROOT / "suites" / "variants" / "sana-micro.yaml"
WORDS = ("fp32", "bf16", "fp16")


def variant(tmp_path, *lines, name="mine"):
    return load_variant(write_variant(tmp_path, name, FEW_STEPS, *lines, weights="./weights"))


def identity(variant):
    return ResolvedVariant(GeneratorSpec(variant, MICRO.parent, "0" * 64), 0).identity()


@pytest.mark.parametrize(
    ("written", "parts"),
    [
        ("fp32", ("fp32", "fp32", "fp32")),
        ("bf16", ("bf16", "bf16", "bf16")),
        # Both overflow in fp16.
        ("fp16", ("fp16", "fp32", "fp32")),
        ("{transformer: fp16, text_encoder: bf16, autoencoder: fp32}", ("fp16", "bf16", "fp32")),
        ("{transformer: bf16, text_encoder: fp32}", ("bf16", "fp32", "bf16")),
        ("{transformer: fp16, autoencoder: bf16}", ("fp16", "fp32", "bf16")),
    ],
)
def test_a_word_or_a_format_for_each_network(tmp_path, written, parts):
    found = variant(tmp_path, f"precision: {written}").precisions
    assert (found.transformer, found.text_encoder, found.autoencoder) == parts


@pytest.mark.parametrize("word", WORDS)
def test_a_plain_word_keeps_its_identity_however_it_is_written(tmp_path, word):
    plain = identity(variant(tmp_path, f"precision: {word}"))
    assert plain["precision"] == word
    assert not {"tf32", "compile", "cuda_graphs"} & plain.keys()
    beside = "fp32" if word == "fp16" else word
    for parts in (
        f"{{transformer: {word}}}",
        f"{{transformer: {word}, autoencoder: {beside}}}",
        f"{{transformer: {word}, text_encoder: {beside}, autoencoder: {beside}}}",
    ):
        unset = ("tf32: null", "compile: none", "cuda_graphs: false")
        assert identity(variant(tmp_path, f"precision: {parts}", *unset)) == plain


def test_what_changes_images_changes_the_identity(tmp_path):
    settings = [
        ("precision: fp16",),
        ("precision: {transformer: fp16, text_encoder: bf16}",),
        ("precision: {transformer: fp16, autoencoder: bf16}",),
        ("precision: fp16", "tf32: true"),
        ("precision: fp16", "tf32: false"),
        ("precision: fp16", "compile: default"),
        ("precision: fp16", "compile: max-autotune"),
        ("precision: fp16", "cuda_graphs: true"),
    ]
    found = [str(identity(variant(tmp_path, *lines))) for lines in settings]
    assert len(set(found)) == len(settings)


def test_stored_runs_of_the_shipped_variants_stay_theirs():
    """The committed leaderboard of the micro tier was measured before the new keys were there."""
    with open(ROOT / "reports" / "micro" / "leaderboard.csv", newline="", encoding="utf-8") as file:
        rows = [row for row in csv.reader(file) if "sana15_micro-micro" in "".join(row)]
    stored = {row[6]: row[7] for row in rows}
    resolved = resolve_suite(
        load_suite(ROOT / "suites" / "sana15_micro.yaml", "micro"), choose_tier("micro"), FileHashes()
    )
    found = {variant.name: variant.fingerprint for variant in resolved.variants}
    assert found == stored


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("precision: fp8", "precision is 'fp8', must be one of fp32, bf16 or fp16"),
        (
            "precision: {transformer: fp8}",
            "precision.transformer is 'fp8', must be one of fp32, bf16 or fp16",
        ),
        ("precision: {text_encoder: bf16}", "'precision.transformer' is missing"),
        ("precision: {transformer: bf16, vae: fp32}", "unknown key 'precision.vae'"),
        ("compile: fast", "compile is 'fast', must be one of none, default or max-autotune"),
        ("tf32: 1", "tf32 is 1"),
        ("cuda_graphs: 1", "cuda_graphs is 1"),
    ],
)
def test_mistakes_are_one_line_with_what_is_allowed(tmp_path, line, told):
    with pytest.raises(SuiteError) as refused:
        variant(tmp_path, line)
    assert told in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("part", ["text_encoder", "autoencoder"])
def test_sana_refuses_fp16_where_it_overflows(tmp_path, part):
    given = variant(tmp_path, f"precision: {{transformer: fp16, {part}: fp16}}")
    with pytest.raises(SuiteError, match="overflow in fp16; write bf16 or fp32"):
        generators.find(given, tmp_path)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (
            "precision: {transformer: bf16, text_encoder: fp32}",
            "precision by network belongs to generator sana",
        ),
        ("compile: default", "compile and cuda_graphs belong to generator sana"),
        ("cuda_graphs: true", "compile and cuda_graphs belong to generator sana"),
    ],
)
@pytest.mark.parametrize("generator", ["diffusers", "images"])
def test_other_generators_refuse_what_they_would_ignore(tmp_path, generator, line, told):
    sampler = ["sampler: {name: pipeline, steps: 2, guidance_scale: 1.0}"] if generator == "diffusers" else []
    path = write_variant(tmp_path, "mine", f"generator: {generator}", *sampler, line)
    with pytest.raises(SuiteError, match=told):
        generators.find(load_variant(path), path.parent)


def test_existing_images_refuse_tf32(tmp_path):
    path = write_variant(tmp_path, "mine", "generator: images", "tf32: true")
    with pytest.raises(SuiteError, match="takes no sampler, instruction, conditioning or tf32"):
        generators.find(load_variant(path), path.parent)


def refused(tmp_path, line, device):
    """What is said of the shipped weights with another setting on a device."""
    write_variant(tmp_path, "mine", FEW_STEPS, line, tier="micro", weights="micro://sana-micro")
    suite = load_suite(write_suite(tmp_path, "{name: latency}", tier="micro"), "micro")
    with pytest.raises(SuiteError) as caught:
        resolve_suite(suite, TierChoice("micro", "asked for", device), FileHashes())
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("cuda_graphs: true", "cuda_graphs needs a CUDA device, and this one is cpu"),
        ("tf32: true", "tf32 needs a CUDA device, and this one is cpu"),
    ],
)
def test_what_a_cpu_cannot_do_is_refused_before_the_run(tmp_path, line, told):
    assert refused(tmp_path, line, "cpu") == f"variant 'mine': {told}"


def test_compiling_without_a_compiler_is_refused_before_the_run(tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.which", lambda _: None)
    assert "compile default needs a C++ compiler on a cpu (g++, " in refused(
        tmp_path, "compile: default", "cpu"
    )


@pytest.mark.parametrize(
    ("line", "capability", "told"),
    [
        ("tf32: true", (7, 5), "tf32 needs a GPU of compute capability 8.0; this one has 7.5"),
        (
            "compile: max-autotune",
            (6, 1),
            "compile max-autotune needs a GPU of compute capability 7.0; this one has 6.1",
        ),
    ],
)
def test_what_an_older_gpu_cannot_do_is_refused_before_the_run(tmp_path, monkeypatch, line, capability, told):
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda _: capability)
    assert refused(tmp_path, line, "cuda") == f"variant 'mine': {told}"


def test_stages_are_held_against_the_peak_of_their_own_format():
    given = load_variant(MICRO)
    mixed = PrecisionSpec(transformer="fp16", text_encoder="bf16", autoencoder="fp32")
    asked = given.model_copy(update={"precision": mixed})
    stages = ("text encoder", "text projection", "transformer step", "decoder")
    assert [stage_precision(stage, asked) for stage in stages] == ["bf16", "fp16", "fp16", "fp32"]
    in_tf32 = asked.model_copy(update={"tf32": True})
    assert [stage_precision(stage, in_tf32) for stage in stages] == ["bf16", "fp16", "fp16", "tf32"]


def test_searches_that_were_kept_before_the_keys_were_there_are_found_again(monkeypatch, tmp_path):
    """The folder of a search is named by the settings of its candidates; it is the same with the keys at their defaults."""
    from sana_bench.generators.best_of_n import search

    path = variant_files(MICRO.parent)["sana15-micro-grown-best-of-4"]
    given = load_variant(path)
    named = []
    monkeypatch.setattr(search, "fingerprint", lambda parts: named.append(parts) or "0" * 64)
    monkeypatch.setattr(search.generators, "build", lambda *_: object())
    spec = GeneratorSpec(given, generators.find(given, path.parent), "0" * 64, variants_dir=path.parent)
    search.build_best_of_n(spec, "cpu")
    settings = named[-1][0]
    assert not {"tf32", "compile", "cuda_graphs"} & settings.keys()
    assert settings["precision"] == "fp32"
    set_ = given.model_copy(update={"compile": "default"})
    search.build_best_of_n(replace(spec, variant=set_), "cpu")
    assert named[-1][0]["compile"] == "default"
    assert given.model.weights != NO_WEIGHTS
