"""An autoencoder that lies in a neighbouring pipeline: loaded, checked, hashed and copied as if it were the folder's own."""

import json
import shutil
from pathlib import Path

import pytest
import torch

import sana_models
from sana_bench.assets.checks import check_pipeline_directory
from sana_bench.core.errors import AssetError
from sana_bench.core.fingerprint import directory_sha256
from sana_models.derived import write_derived
from sana_models.shared_parts import SHARED_PARTS, part_folder, pipeline_files, shared_parts
from sana_models.weight_files import CheckpointError

SHIPPED = Path(sana_models.__file__).resolve().parents[2] / "sana_bench" / "micro" / "weights"


@pytest.fixture
def family(tmp_path: Path) -> Path:
    """Two equal pipelines, `whole` and `shares`; the second has no autoencoder of its own."""
    shutil.copytree(SHIPPED / "sana-micro", tmp_path / "whole")
    shutil.copytree(tmp_path / "whole", tmp_path / "shares")
    shutil.rmtree(tmp_path / "shares" / "vae")
    say(tmp_path / "shares", {"vae": "whole"})
    return tmp_path


def say(folder: Path, entries: object) -> None:
    (folder / SHARED_PARTS).write_text(json.dumps(entries), encoding="utf-8")


def test_the_autoencoder_is_loaded_from_the_neighbour(family):
    whole, shares = (sana_models.load_pipeline(family / name) for name in ("whole", "shares"))
    ours, theirs = whole.autoencoder.state_dict(), shares.autoencoder.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert part_folder(family / "shares", "vae") == family / "whole" / "vae"
    assert part_folder(family / "shares", "transformer") == family / "shares" / "transformer"


def test_a_hash_does_not_tell_how_weights_are_stored(family):
    assert pipeline_files(family / "shares").keys() == pipeline_files(family / "whole").keys()
    assert directory_sha256(family / "shares") == directory_sha256(family / "whole")
    (family / "whole" / "vae" / "config.json").write_text("{}")
    assert directory_sha256(family / "shares") == directory_sha256(family / "whole")
    (family / "shares" / "scheduler" / "scheduler_config.json").write_text("{}")
    assert directory_sha256(family / "shares") != directory_sha256(family / "whole")


def test_a_shared_part_is_checked_like_an_own_one(family):
    check_pipeline_directory(family / "shares")
    weights = family / "whole" / "vae" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(AssetError, match="truncated"):
        check_pipeline_directory(family / "shares")
    weights.unlink()
    with pytest.raises(AssetError, match=r"missing vae/\*\.safetensors"):
        check_pipeline_directory(family / "shares")


def test_what_is_made_of_a_sharing_pipeline_stands_on_its_own(family):
    transformer = sana_models.load_transformer(family / "shares")
    made = family / "elsewhere" / "made"
    write_derived(family / "shares", made, transformer, dtype=torch.float16, provenance={}, card="# made\n")
    assert shared_parts(made) == {}
    assert directory_sha256(made / "vae") == directory_sha256(family / "whole" / "vae")
    sana_models.load_pipeline(made)


@pytest.mark.parametrize(
    ("entries", "match"),
    [
        ({"vae": "gone"}, "which is not there"),
        ({"vae": "../whole"}, "name of a folder beside this one"),
        ({"vae": ".."}, "name of a folder beside this one"),
        ({"vae": ""}, "name of a folder beside this one"),
        ({"vae": 3}, "name of a folder beside this one"),
        ({"transformer": "whole"}, "name of a folder beside this one"),
        ({"vae": "whole", "scheduler": "whole"}, "name of a folder beside this one"),
        (["vae"], "name of a folder beside this one"),
    ],
)
def test_anything_but_a_neighbour_is_refused(family, entries, match):
    say(family / "shares", entries)
    refused(family / "shares", match)


def test_damaged_and_contradictory_entries_are_refused(family):
    (family / "shares" / SHARED_PARTS).write_text("{")
    refused(family / "shares", "not valid JSON")
    say(family / "shares", {"vae": "whole"})
    shutil.copytree(family / "whole" / "vae", family / "shares" / "vae")
    refused(family / "shares", "in this folder and shared as well")


def refused(folder: Path, match: str) -> None:
    with pytest.raises(CheckpointError, match=match):
        sana_models.load_pipeline(folder)
    with pytest.raises(AssetError, match=match):
        check_pipeline_directory(folder)


def test_files_in_linked_folders_are_files_of_the_pipeline(tmp_path):
    """Weights that are put together of links must not have the hash of a folder without weights."""
    for name in ("one", "two"):
        (tmp_path / name / "transformer").mkdir(parents=True)
        (tmp_path / name / "transformer" / "model.safetensors").write_bytes(name.encode())
        (tmp_path / f"linked-{name}").mkdir()
        (tmp_path / f"linked-{name}" / "transformer").symlink_to(tmp_path / name / "transformer")
        (tmp_path / f"linked-{name}" / "self").symlink_to(tmp_path / f"linked-{name}")
        assert list(pipeline_files(tmp_path / f"linked-{name}")) == ["transformer/model.safetensors"]
        assert directory_sha256(tmp_path / f"linked-{name}") == directory_sha256(tmp_path / name)
    assert directory_sha256(tmp_path / "linked-one") != directory_sha256(tmp_path / "linked-two")
