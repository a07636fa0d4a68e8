"""What a benchmark changes of every variant: its images alone are made so, are known by it, and the report says so."""

import json
import shutil
from pathlib import Path

import pytest

from sana_bench.cli.main import execute
from sana_bench.core.fingerprint import image_key
from sana_bench.generators import sana
from sana_bench.results.store import Store
from tests.suite_files import FEW_STEPS, write_images, write_suite, write_variant

BENCHMARK = "{name: geneval@2, images_per_prompt: 1, metrics: [clip_score], settings: {instruction: %s}}"
PLAIN = "{name: geneval@3, images_per_prompt: 1, metrics: [clip_score]}"


@pytest.fixture
def weights(tiny_weights_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SANA_BENCH_MICRO_WEIGHTS", str(tiny_weights_root))


def write(folder: Path, instruction: str) -> list[str]:
    """A suite of a variant without an instruction, in which one of two benchmarks may give it one."""
    write_variant(folder, "mine", FEW_STEPS, tier="micro", weights="micro://sana-micro")
    text = f"{BENCHMARK % instruction}\n  - {PLAIN}"
    return ["run", str(write_suite(folder, text, tier="micro")), "--tier", "micro", "-o", str(folder / "out")]


def test_only_the_benchmark_that_says_so_is_made_otherwise(weights, tmp_path, monkeypatch, capsys):
    asked = []
    load = sana._load
    monkeypatch.setattr(sana, "_load", lambda one: asked.append(one.instruction) or load(one))
    monkeypatch.setattr(sana, "instruction_text", lambda name, _: "a picture of" if name == "sana" else None)
    assert execute(write(tmp_path, "sana")) == 0
    assert "geneval@2: images made with instruction sana, whatever a variant says." in capsys.readouterr().out
    assert set(asked) == {"sana", "none"}
    with Store.open(tmp_path / "out") as store:
        (run_id,) = store.run_ids()
        variant = json.loads(json.dumps(store.run(run_id)["provenance"]["models"]))["mine"]["fingerprint"]
        keys = {
            name: image_key(variant, name, settings)
            for name, settings in (("geneval@2", {"instruction": "sana"}), ("geneval@3", {}))
        }
        assert [len(store.images(key)) for key in keys.values()] == [2, 3]
        assert not store.images(image_key(variant, "geneval@2", {}))
    report = (tmp_path / "out/runs" / run_id / "report/report.html").read_text()
    assert "images made with instruction sana" in report
    # Other settings are another run, whose images are made anew and whose numbers are ranked apart.
    assert execute(write(tmp_path, "none")) == 0
    assert "2 images to generate, 3 already there" in capsys.readouterr().out
    assert execute(["leaderboard", "-o", str(tmp_path / "out")]) == 0
    board = (tmp_path / "out/leaderboard/leaderboard.md").read_text()
    assert "images made with instruction sana" in board
    assert "images made with instruction none" in board


def test_a_run_with_settings_travels(weights, tmp_path, monkeypatch):
    monkeypatch.setattr(sana, "instruction_text", lambda name, _: "a picture of" if name == "sana" else None)
    assert execute(write(tmp_path, "sana")) == 0
    exported = tmp_path / "exported"
    assert execute(["export", "--all", "-o", str(tmp_path / "out"), "--to", str(exported)]) == 0
    assert execute(["import", str(exported), "-o", str(tmp_path / "elsewhere")]) == 0


def test_settings_of_other_generators_and_unknown_ones_are_refused(tmp_path, capsys):
    image = [({"prompt": "a", "index": 0, "file": "a.png"}, b"")]
    write_images(tmp_path / "variants/images", image)
    write_variant(tmp_path, "mine", "generator: images", tier="micro")
    suite = write_suite(tmp_path, BENCHMARK % "sana", tier="micro")
    assert execute(["run", str(suite), "--tier", "micro", "-o", str(tmp_path / "out")]) == 2
    assert "benchmark 'geneval@2' changes instruction, which belongs to generator sana; variant 'mine'" in (
        capsys.readouterr().err
    )
    shutil.rmtree(tmp_path / "variants")
    suite.write_text(suite.read_text().replace("instruction: sana", "steps: 3"))
    assert execute(["validate", str(suite)]) == 2
    assert "unknown key 'benchmarks.0.settings.steps'; known keys: instruction" in capsys.readouterr().err
