"""The recipe of a new colour, end to end at micro size: images, check, training, and a run that shows before and after."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import sana_bench
from sana_bench.cli.main import execute
from tests import ROOT

EXAMPLE = ROOT / "examples" / "new_colour"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """The recipe with fewer steps and prompts; everything else is as shipped."""
    folder = tmp_path_factory.mktemp("recipe")
    shutil.copytree(EXAMPLE / "suites", folder / "examples/new_colour/suites")
    config = yaml.safe_load((ROOT / "configs/train/sana_micro_teal.yaml").read_text())
    config["training"] |= {"steps": 60, "learning_rate": 4e-4, "ema_decay": 0.8}
    config["validation"] |= {"every": 30, "prompts": config["validation"]["prompts"][:1], "steps": 8}
    (folder / "sana_micro_teal.yaml").write_text(yaml.safe_dump(config))
    suite = folder / "examples/new_colour/suites/new_colour.yaml"
    short = suite.read_text().replace("images_per_prompt: 4", "images_per_prompt: 1")
    suite.write_text(short.replace("name: geneval,", "name: geneval@24,"))
    script = [sys.executable, str(EXAMPLE / "make_images.py"), str(folder / "data/new_colour")]
    done = subprocess.run(
        [*script, "--known", "200"], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    return folder


def test_a_new_colour_is_learnt_and_nothing_else_gets_worse(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    assert execute(["train", "sana_micro_teal.yaml", "--check"]) == 0
    told = capsys.readouterr().out
    assert "data/new_colour: 400 images, 400 captions" in told
    assert "200 captions have words that the tokenizer does not know" in told
    assert execute(["train", "sana_micro_teal.yaml"]) == 0
    assert Path("results/train/sana_micro_teal/exports/best/model_index.json").is_file()
    suite = "examples/new_colour/suites/new_colour.yaml"
    assert execute(["run", suite, "--tier", "micro"]) == 0
    run = sana_bench.load_run("latest")
    found = run.compare("sana-micro", "sana-micro-teal").table()
    (teal,) = found[(found.metric == "teal_share") & (found.key == "overall")].itertuples()
    # A pixel is teal or not by the nearest of eleven colours, so half of them is no chance.
    assert teal.a < 0.05
    assert teal.b > 0.5
    assert teal.verdict == "better"
    assert found[found.verdict == "worse"].empty, found.to_string()
    report = next(Path("results/runs").glob("*/report/report.md")).read_text()
    assert "teal_share" in report
    assert "sana-micro-teal" in report
    name = f"{run.name}:sana-micro"
    assert execute(["baseline", "set", "before", name]) == 0
    policy = ["--policy", "examples/new_colour/suites/policy.yaml"]
    assert execute(["gate", f"{name}-teal", "--baseline", "before", *policy]) == 0
