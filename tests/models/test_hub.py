"""Paths and hub ids: what is on disk wins, the hub's cache is used offline, and failures are one line."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sana_models.hub import download, hub_files, locate
from sana_models.weight_files import CheckpointError

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def pipeline(tmp_path: Path) -> Path:
    root = tmp_path / "pipeline"
    (root / "transformer").mkdir(parents=True)
    (root / "model_index.json").write_text("{}")
    return root


def test_folders_and_parts(pipeline):
    assert locate(pipeline) == pipeline
    assert locate(str(pipeline), part="transformer") == pipeline / "transformer"
    assert locate(pipeline / "transformer", part="transformer") == pipeline / "transformer"
    with pytest.raises(CheckpointError, match="no folder 'vae'"):
        locate(pipeline, part="vae")


@pytest.mark.parametrize("source", ["nowhere", "a/b/c", "/no/where", Path("org/name"), "org/name@"])
def test_what_cannot_be_a_hub_id_is_not_asked_for(source):
    with pytest.raises(CheckpointError, match="no such file or folder"):
        locate(source)


def hub_cache(home: Path, revision: str) -> Path:
    """A cache as the hub client leaves it."""
    repository = home / "hub" / "models--org--tiny-sana"
    snapshot = repository / "snapshots" / COMMIT
    (snapshot / "transformer").mkdir(parents=True)
    (snapshot / "model_index.json").write_text("{}")
    (snapshot / "transformer" / "config.json").write_text("{}")
    (repository / "refs").mkdir()
    (repository / "refs" / revision).write_text(COMMIT)
    return snapshot


def locate_offline(home: Path, *arguments: str | None) -> tuple[int, str]:
    """In a process of its own, because the hub client reads its settings at import."""
    code = (
        "import json, sys\nfrom sana_models.hub import locate\nsource, part = json.loads(sys.argv[1])\n"
        "try: print(locate(source, part=part))\nexcept ValueError as error: print(error); sys.exit(2)"
    )
    environment = os.environ | {
        "HF_HOME": str(home),
        "HF_HUB_OFFLINE": "1",
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
    }
    environment.pop("HF_HUB_CACHE", None)
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps(arguments)],
        env=environment, capture_output=True, text=True, cwd=home, timeout=300,
    )  # fmt: skip
    assert done.returncode in (0, 2), done.stderr
    return done.returncode, done.stdout.strip()


def test_the_hub_cache_is_used_offline(tmp_path):
    snapshot = hub_cache(tmp_path, "main")
    assert locate_offline(tmp_path, "org/tiny-sana", None) == (0, str(snapshot))
    assert locate_offline(tmp_path, "org/tiny-sana@main", "transformer") == (0, str(snapshot / "transformer"))


def test_what_the_cache_lacks_is_one_line(tmp_path):
    hub_cache(tmp_path, "main")
    for source in ("org/tiny-sana@v2", "org/absent"):
        code, line = locate_offline(tmp_path, source, None)
        assert code == 2
        assert line.startswith(f"{source}: no such folder here")
        assert "\n" not in line


def test_a_hub_out_of_reach_is_one_line(monkeypatch, tmp_path):
    from huggingface_hub import constants

    # A port that nothing listens on.
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    for ask in (locate, download, hub_files):
        with pytest.raises(
            CheckpointError, match=r"^org/absent: no such folder here.* cannot be reached"
        ) as caught:
            ask("org/absent")
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("ask", [download, hub_files])
def test_only_names_of_repositories_are_asked_for(ask):
    with pytest.raises(CheckpointError, match="not the name of a repository"):
        ask("a/b/c")
