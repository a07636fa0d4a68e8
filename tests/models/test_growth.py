"""Growth in depth: strategies, the identity start, and the command from checkpoint to checkpoint."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from sana_bench.cli.main import execute
from sana_models.checkpoints import load_transformer, save_transformer
from sana_models.growth import STRATEGIES, Growth, grow_transformer, take_blocks
from tests.small_parts import tiny_inputs, tiny_transformer


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("keep", [3, 2])
def test_the_grown_model_computes_what_the_kept_prefix_computes(strategy, keep):
    source = tiny_transformer(3)
    grown = grow_transformer(source, Growth(depth=6, keep=keep, strategy=strategy, seed=4))
    with torch.no_grad():
        expected, found = take_blocks(source, range(keep))(*tiny_inputs()), grown(*tiny_inputs())
    assert len(grown.transformer_blocks) == 6
    assert expected.std() > 0.3
    # The new blocks add exact zeros; the bound is the promise to users.
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_without_identity_start_the_output_changes(strategy):
    source = tiny_transformer(2)
    grown = grow_transformer(source, Growth(depth=4, keep=2, strategy=strategy, identity_start=False))
    with torch.no_grad():
        assert (grown(*tiny_inputs()) - source(*tiny_inputs())).abs().max() > 1e-3


def test_strategies_take_the_blocks_that_the_paper_names():
    def sources(strategy, keep=2, depth=6, source=4):
        return Growth(depth=depth, keep=keep, strategy=strategy).sources(source)

    assert sources("partial_preservation") == [0, 1, None, None, None, None]
    assert sources("cyclic_replication") == [0, 1, 0, 1, 0, 1]
    assert sources("block_replication") == [0, 0, 0, 1, 1, 1]
    # The published model: 18 kept of 20, then 60 in all.
    assert Growth(depth=60).kept(20) == 18


def test_copies_are_copies_and_share_no_memory():
    source = tiny_transformer(2)
    grown = grow_transformer(source, Growth(depth=4, keep=2, strategy="cyclic_replication"))
    key = "attn1.to_q.weight"
    blocks = [block.state_dict()[key] for block in grown.transformer_blocks]
    assert torch.equal(blocks[0], blocks[2])
    assert torch.equal(blocks[1], source.transformer_blocks[1].state_dict()[key])
    pointers = {tensor.data_ptr() for tensor in [*grown.state_dict().values(), *source.state_dict().values()]}
    assert len(pointers) == len(grown.state_dict()) + len(source.state_dict())


def test_new_blocks_start_as_the_published_code_starts_them_and_by_seed():
    source = tiny_transformer(2)
    grown = grow_transformer(source, Growth(depth=4, keep=2, seed=7))
    block = grown.transformer_blocks[3].state_dict()
    assert bool((block["attn1.norm_q.weight"] == 1).all())
    assert not block["attn2.to_q.bias"].any()
    # Standard errors of a standard deviation over n values are about 1 / sqrt(2 n): under 4 % here.
    assert float(block["ff.conv_depth.weight"].std()) == pytest.approx(0.2, rel=0.15)
    assert float(block["attn1.to_q.weight"].std()) == pytest.approx(0.02, rel=0.15)
    again = grow_transformer(source, Growth(depth=4, keep=2, seed=7)).transformer_blocks[3].state_dict()
    other = grow_transformer(source, Growth(depth=4, keep=2, seed=8)).transformer_blocks[3].state_dict()
    assert torch.equal(block["attn1.to_q.weight"], again["attn1.to_q.weight"])
    assert not torch.equal(block["attn1.to_q.weight"], other["attn1.to_q.weight"])


def test_new_blocks_learn_from_the_first_step():
    grown = grow_transformer(tiny_transformer(2), Growth(depth=4, keep=2)).requires_grad_(True)
    grown(*tiny_inputs()).square().mean().backward()
    for block in grown.transformer_blocks[2:]:
        # Zero projections pass no gradient inwards, but they get one themselves.
        assert block.attn1.to_out[0].weight.grad.abs().max() > 0
        assert block.ff.conv_point.weight.grad.abs().max() > 0


def test_a_source_without_query_key_norm_can_get_one():
    source = tiny_transformer(2, qk_norm=None)
    grown = grow_transformer(source, Growth(depth=4, keep=2, qk_norm=True))
    assert grown.config.qk_norm is not None
    assert bool((grown.transformer_blocks[0].attn2.norm_k.weight == 1).all())


@pytest.mark.parametrize(
    ("growth", "message"),
    [
        (Growth(depth=4, keep=3), "keep is 3"),
        (Growth(depth=2, keep=2), "needs more"),
        (Growth(depth=5, keep=2, strategy="block_replication"), "multiple"),
        (Growth(depth=4, keep=2, strategy="stack"), "strategy is 'stack'"),
    ],
)
def test_plans_that_do_not_fit_are_refused(growth, message):
    with pytest.raises(ValueError, match=message):
        grow_transformer(tiny_transformer(2), growth)


@pytest.mark.parametrize("blocks", [[], [0, 0], [2]])
def test_blocks_that_are_not_there_are_refused(blocks):
    with pytest.raises(ValueError, match="blocks are"):
        take_blocks(tiny_transformer(2), blocks)


def test_the_command_writes_a_pipeline_with_its_provenance(tiny_pipeline_dir: Path, tmp_path: Path, capsys):
    from sana_models import load_pipeline

    out = tmp_path / "grown"
    assert execute(["grow", str(tiny_pipeline_dir), "--depth", "3", "--keep", "1", "-o", str(out)]) == 0
    assert "1 -> 3 blocks" in capsys.readouterr().out
    images = [
        load_pipeline(folder)(["a photo of a red circle"], seeds=[3], steps=2)
        for folder in (tiny_pipeline_dir, out)
    ]
    assert torch.equal(*images)
    facts = json.loads((out / "provenance.json").read_text())
    assert facts["block_sources"] == [0, None, None]
    assert facts["strategy"] == "partial_preservation"
    assert "| depth | 3 |" in (out / "README.md").read_text()


def test_a_lone_transformer_keeps_its_number_format(tmp_path: Path):
    source = tiny_transformer(2).to(torch.bfloat16)
    save_transformer(source, tmp_path / "source", dtype=torch.bfloat16)
    command = ["grow", str(tmp_path / "source"), "--depth", "4", "--keep", "2", "-o", str(tmp_path / "out")]
    assert execute(command) == 0
    grown = load_transformer(tmp_path / "out", dtype=torch.bfloat16)
    assert grown.config == replace(source.config, num_layers=4)
    assert torch.equal(grown.proj_out.weight, source.proj_out.weight)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--depth", "3", "--keep", "2"], "keep is 2"),
        (["--depth", "3", "--strategy", "cyclic"], "did you mean 'cyclic_replication'"),
    ],
)
def test_bad_commands_are_one_line(tiny_pipeline_dir: Path, tmp_path: Path, capsys, options, message):
    assert execute(["grow", str(tiny_pipeline_dir), *options, "-o", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_an_existing_checkpoint_is_not_overwritten(tiny_pipeline_dir: Path, tmp_path: Path, capsys):
    command = ["grow", str(tiny_pipeline_dir), "--depth", "2", "--keep", "1", "-o", str(tmp_path / "out")]
    assert execute(command) == 0
    assert execute(command) == 2
    assert "holds a checkpoint already" in capsys.readouterr().err
