"""Starting anew loses nothing to a configuration that cannot be used."""

import pytest

from sana_bench.cli.main import execute

CONFIG = """schema_version: 1
name: clip-micro
kind: clip
model:
  embed_dim: 8
  vision_cfg: {image_size: 64, layers: [1, 1, 1, 1], width: 8, head_width: 32}
  text_cfg: {context_length: 16, width: 16, heads: 2, layers: 1}
training: {steps: 1, batch_size: 4, learning_rate: 1.0e-3}
"""


@pytest.mark.parametrize(
    ("right", "wrong"), [("learning_rate: 1.0e-3", "lerning_rate: 1.0e-3"), ("steps: 1", "steps: 2.5")]
)
def test_a_wrong_configuration_keeps_the_states_that_fresh_would_remove(tmp_path, capsys, right, wrong):
    states = [tmp_path / "out" / name for name in ("state.pt", "state.1.pt")]
    states[0].parent.mkdir()
    for state in states:
        state.write_bytes(b"earlier")
    config = tmp_path / "clip.yaml"
    config.write_text(CONFIG.replace(right, wrong))
    assert execute(["train", str(config), "-o", str(tmp_path / "out"), "--fresh"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert [state.read_bytes() for state in states] == [b"earlier"] * 2
