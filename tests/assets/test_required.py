"""Files of the full tier that are there but not whole are refused before anything is made."""

import pytest
import torch
from safetensors.torch import save_file

from sana_bench.assets.required import required
from sana_bench.assets.table import find_asset
from sana_bench.core.errors import AssetError

TENSORS = {"a.weight": torch.arange(4000.0), "a.bias": torch.zeros(3, dtype=torch.int64)}
FILES = ("clip_vit_l_14", "geneval_detector", "inception_torchscript", "inception_pytorch")


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A whole file of each format, under the name that the data root has for it."""
    monkeypatch.setenv("SANA_BENCH_DATA", str(tmp_path))

    def put(name):
        path = find_asset(name).path
        path.parent.mkdir(parents=True, exist_ok=True)
        if name == "clip_vit_l_14":
            save_file(TENSORS, path)
        else:
            # pytorch-fid's file is older than torch 1.6: no archive, but one pickle after another.
            torch.save(TENSORS, path, _use_new_zipfile_serialization=name != "inception_pytorch")
        return path

    return put


@pytest.mark.parametrize("name", FILES)
def test_whole_files_of_every_format_are_found(place, name):
    path = place(name)
    assert required("fid", (name,)) == [path]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda content: content[:-100], id="end missing"),
        pytest.param(lambda content: content[:40], id="beginning only"),
        pytest.param(lambda content: b"", id="empty"),
        pytest.param(lambda content: b"<html>404</html>", id="error page"),
    ],
)
def test_damaged_files_are_named_with_what_to_do(place, name, damage):
    path = place(name)
    path.write_bytes(damage(path.read_bytes()))
    how = find_asset(name).how
    with pytest.raises(AssetError) as caught:
        required("fid", (name,))
    message = str(caught.value)
    assert message.startswith(f"metric 'fid' on the full tier: {path} is damaged (")
    assert message.endswith(f"): delete it and get it again: {how}")
    assert "\n" not in message


def test_every_file_that_is_missing_or_damaged_is_named(place):
    place("clip_vit_l_14").write_bytes(b"x")
    with pytest.raises(
        AssetError, match=r"quickgelu-openai\.safetensors is damaged.*/inception-2015.* is missing"
    ):
        required("clip_score", ("clip_vit_l_14", "inception_torchscript"))
