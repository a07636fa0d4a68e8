"""Block importance, deletion, and the command; the result loads in diffusers too."""

import json
from pathlib import Path

import pytest
import torch

from sana_bench.cli.main import execute
from sana_models.growth import Growth, grow_transformer
from sana_models.pruning import ImportanceMeter, most_important, plot_importance, prune_transformer
from tests.small_parts import tiny_inputs, tiny_transformer
from tests.tiny_weights import write_tiny_pipeline


def measure(model, *, whole=False, passes=2):
    meter = ImportanceMeter(model, whole=whole)
    with torch.no_grad(), meter.watching():
        for seed in range(passes):
            model(*tiny_inputs(seed=seed))
    return meter


@pytest.mark.parametrize("whole", [False, True])
def test_importance_is_one_minus_the_mean_cosine(whole):
    model = tiny_transformer(3)
    seen: list[list[torch.Tensor]] = [[] for _ in range(3)]
    for index, block in enumerate(model.transformer_blocks):
        block.register_forward_hook(
            lambda _, arguments, output, index=index: seen[index].append(torch.stack([arguments[0], output]))
        )
    found = measure(model, whole=whole).importance
    for index, pairs in enumerate(seen):
        # (pass, in/out, batch, token, channel) in float64, written as the formula is.
        x = torch.stack(pairs).double()
        x = x.flatten(3) if whole else x
        before, after = x[:, 0], x[:, 1]
        cosine = (before * after).sum(-1) / (before.norm(dim=-1) * after.norm(dim=-1))
        # fp32 cosines of vectors of 32 to 512 numbers.
        assert found[index] == pytest.approx(1 - float(cosine.mean()), abs=1e-6)


def test_blocks_that_do_nothing_have_no_importance_and_go_first():
    source = tiny_transformer(3)
    grown = grow_transformer(source, Growth(depth=5, keep=3))
    importance = measure(grown).importance
    # A cosine of a vector with itself, in fp32.
    assert max(importance[3:]) < 1e-6
    assert min(importance[:3]) > 1e-3
    pruned = prune_transformer(grown, importance, 3)
    with torch.no_grad():
        assert torch.equal(pruned(*tiny_inputs()), source(*tiny_inputs()))


def test_the_hooks_are_gone_afterwards():
    model = tiny_transformer(2)
    meter = measure(model)
    before = meter.importance
    with torch.no_grad():
        model(*tiny_inputs(seed=9))
    assert meter.importance == before


def test_the_most_important_stay_in_order_and_earlier_ones_win_ties():
    assert most_important([0.9, 0.1, 0.5, 0.2, 0.7], 3) == [0, 2, 4]
    assert most_important([0.5, 0.1, 0.5, 0.5], 2) == [0, 2]
    assert most_important([0.1, 0.2], 2) == [0, 1]
    for keep in (0, 3):
        with pytest.raises(ValueError, match=f"keep is {keep}"):
            most_important([0.1, 0.2], keep)


def test_nothing_measured_is_an_error():
    with pytest.raises(ValueError, match="no forward pass"):
        _ = ImportanceMeter(tiny_transformer(2)).importance
    with pytest.raises(ValueError, match="1 importances for 2 blocks"):
        prune_transformer(tiny_transformer(2), [0.3], 1)


def test_the_plot_is_a_picture(tmp_path: Path):
    plot_importance([0.5, 0.1, 0.3], [0, 2], tmp_path / "importance.png", title="2 of 3 blocks kept")
    assert (tmp_path / "importance.png").read_bytes().startswith(b"\x89PNG")


@pytest.fixture(scope="module")
def deep_pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random pipeline of three blocks; the last two were drawn, not started as the identity."""
    root = tmp_path_factory.mktemp("deep")
    source = write_tiny_pipeline(root / "one")
    command = ["grow", str(source), "--depth", "3", "--keep", "1", "--no-identity", "-o", str(root / "three")]
    assert execute(command) == 0
    return root / "three"


def test_the_command_prunes_and_the_result_draws_and_loads_in_diffusers(
    deep_pipeline: Path, tmp_path: Path, capsys
):
    import diffusers

    from sana_models import load_pipeline, load_transformer

    out = tmp_path / "pruned"
    options = ["--keep", "2", "--n-prompts", "3", "--batch-size", "2", "--steps", "2", "-o", str(out)]
    assert execute(["prune", str(deep_pipeline), *options, "--precision", "bf16"]) == 0
    assert "3 -> 2 blocks" in capsys.readouterr().out
    facts = json.loads((out / "provenance.json").read_text())
    assert len(facts["importance"]) == 3
    assert (facts["precision"], facts["dtype"]) == ("bf16", "float32")
    assert facts["kept_blocks"] == most_important(facts["importance"], 2)
    assert (out / "importance.png").stat().st_size > 1000
    images = load_pipeline(out)(["a photo of a red circle"], seeds=[0], steps=2)
    assert images.shape == (1, 64, 64, 3)

    theirs = diffusers.SanaPipeline.from_pretrained(out, local_files_only=True).transformer
    ours = load_transformer(out)
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(2, 8, 8, 8, generator=generator)
    text, mask = torch.randn(2, 6, 16, generator=generator), torch.ones(2, 6)
    times = torch.tensor([500.0, 20.0])
    with torch.no_grad():
        expected = theirs(latents, text, times, encoder_attention_mask=mask).sample
        found = ours(latents, times, text, mask)
    # Two implementations in fp32; as in the parity tests of the whole transformer.
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--keep", "3"], "keep 1 to 2"),
        (["--keep", "2", "--prompts", "missing.txt"], "no such file"),
    ],
)
def test_bad_prune_commands_are_one_line(deep_pipeline: Path, tmp_path: Path, capsys, options, message):
    assert execute(["prune", str(deep_pipeline), *options, "-o", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_prompts_come_from_a_file(deep_pipeline: Path, tmp_path: Path):
    from sana_bench.cli.reshape import calibration_prompts

    path = tmp_path / "prompts.txt"
    path.write_text("a red circle\n\n  a blue square  \na third\n")
    assert calibration_prompts(deep_pipeline, path, 2) == ["a red circle", "a blue square"]
    assert len(calibration_prompts(deep_pipeline, None, 7)) == 7
