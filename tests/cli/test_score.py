"""`sana-bench score` as it is typed: what is shown before work, what is left over, numbers, verdicts, and the round trip."""

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import sana_bench
from sana_bench.benchmarks.geneval import GenEval
from sana_bench.cli.main import execute
from sana_bench.micro.captions import scene_for
from sana_bench.micro.renderer import render
from sana_bench.results.reader import load_features
from tests.cli.conftest import one_line
from tests.judges.chat_server import said, serving

N = 8
FUNCTION = """
def brightness(image, prompt):
    return image.mean()
"""


def prompts():
    """The first prompts of different texts."""
    return list({prompt.text: prompt for prompt in GenEval().prompts("micro")}.values())[:N]


def draw(path: Path, prompt, seed: int, size: int = 64) -> None:
    """A scene that shows a prompt."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(render(scene_for(prompt.metadata, np.random.default_rng(seed))))
    image.resize((size, size)).save(path)


@pytest.fixture
def given(tmp_path, monkeypatch):
    """Three folders beside a table of prompts: true images, images of other prompts, and a reference."""
    monkeypatch.chdir(tmp_path)
    asked = prompts()
    with open("prompts.csv", "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["id", "prompt", "tag"])
        rows.writerows([f"{i:04d}", prompt.text, prompt.tag] for i, prompt in enumerate(asked, start=1))
    for i, prompt in enumerate(asked, start=1):
        draw(Path(f"my_images/prompt_{i:04d}.png"), prompt, i, 64 if i % 2 else 96)
        draw(Path(f"other/{i:04d}.png"), asked[i - 3], i)
        draw(Path(f"real/{i}.png"), prompt, 100 + i)
    Path("mine.py").write_text(FUNCTION)
    return asked


def score(*arguments: str) -> int:
    return execute(["score", "my_images", "--tier", "micro", *arguments])


def as_json(capsys, *arguments: str) -> dict:
    assert score("--json", *arguments) == 0
    return json.loads(capsys.readouterr().out)


def test_the_tier_is_told_as_it_was_asked_for(given, capsys, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    for more, reason in (((), "no CUDA device found"), (("--tier", "micro"), "asked for with --tier micro")):
        assert execute(["score", "my_images", "--prompts", "prompts.csv", "--dry-run", *more]) == 0
        assert f"\ntier: micro ({reason})\n" in capsys.readouterr().out


def test_two_folders_with_prompts_and_a_reference(given, capsys):
    found = as_json(
        capsys, "--prompts", "prompts.csv", "--metrics", "clip_score,./mine.py:brightness", "--reference", "real",
        "--name", "mine", "--compare", "other",
    )  # fmt: skip
    overall = {(row["variant"], row["metric"]): row for row in found["numbers"] if row["key"] == "overall"}
    metrics = ("clip_score", "brightness", "fid")
    assert set(overall) == {(name, metric) for name in ("mine", "other") for metric in metrics}
    assert all(row["n_samples"] == row["n_expected"] == N and row["complete"] for row in overall.values())
    pixels = [np.asarray(Image.open(path)).mean() for path in Path("my_images").glob("*.png")]
    assert overall["mine", "brightness"]["value"] == pytest.approx(np.mean(pixels), rel=1e-12)
    (comparison,) = found["comparisons"]
    verdicts = {row["metric"]: row["verdict"] for row in comparison["metrics"] if row["key"] == "overall"}
    assert verdicts["clip_score"] == "worse"  # the other images show other prompts
    assert verdicts["fid"] == "no evidence"
    assert (found["complete"], found["reasons"]) == (True, {"mine": [], "other": []})
    report = Path(found["report"]).read_text()
    assert "8 images of my_images: 4 of 64x64, 4 of 96x96" in report
    assert (Path(found["report"]).parent / "report.csv").is_file()


def test_what_matched_is_shown_before_work_begins(given, capsys, monkeypatch):
    def stop(*_):
        raise sana_bench.UsageError("stopped")

    monkeypatch.setattr("sana_bench.runner.score.execute_suite", stop)
    assert score("--prompts", "prompts.csv") == 2
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "my_images: 8 images in my_images; 4 of 64x64, 4 of 96x96"
    assert lines[1] == "  8 of 8 prompts have images (8, found by name), such as"
    assert lines[2] == f"    prompt_0001.png: image 0 of prompt 0001, {given[0].text!r}"
    assert not Path("results").exists()


def test_images_and_prompts_that_are_left_over_are_listed(given, capsys):
    draw(Path("my_images/holiday.png"), given[0], 0)
    Path("my_images/prompt_0003.png").unlink()
    assert score("--prompts", "prompts.csv") == 3
    out, error = capsys.readouterr()
    assert f"my_images has no image for 1 prompts:\n  0003: {given[2].text}\n" in out
    assert "my_images has images that the suite does not ask for:\n  holiday.png\n" in out
    assert error.startswith("sana-bench: 1 images belong to no sample of the suite")
    assert not Path("results").exists()
    assert score("--prompts", "prompts.csv", "--allow-incomplete") == 3
    out = capsys.readouterr().out
    assert "7/8" in out
    assert "my_images has 1 images that the suite does not ask for" in out


def test_without_prompts_a_set_is_held_against_another(given, capsys):
    found = as_json(capsys, "--reference", "real")
    (row,) = found["numbers"]
    assert (row["metric"], row["protocol"], row["n_samples"]) == ("fid", "fid/clip-micro@1+own-reference", N)
    folder = row["value"]
    with np.load(next(Path("results/cache").glob("frechet-*.npz"))) as stored:
        np.savez("real.npz", mu=stored["mean"], sigma=stored["scatter"] / (N - 1))
    (row,) = as_json(capsys, "--reference", "real.npz")["numbers"]
    # 1e-8: the same covariance through square roots of its small eigenvalues.
    assert row["value"] == pytest.approx(folder, rel=1e-8)


def test_inception_distances_to_a_folder_and_to_its_statistics(given, capsys, monkeypatch, tmp_path):
    import torch

    from tests.metrics.fid.inception_cases import random_state

    monkeypatch.setenv("SANA_BENCH_DATA", str(tmp_path / "data"))
    (tmp_path / "data/inception").mkdir(parents=True)
    torch.save(random_state(), "data/inception/pt_inception-2015-12-05-6726825d.pth")
    options = ("--metrics", "fid/pytorch-fid@1", "--tier", "full", "--compare", "other", "--reference")
    folder = as_json(capsys, *options, "real")
    assert {row["protocol"] for row in folder["numbers"]} == {"fid/pytorch-fid@1+own-reference"}
    with np.load(next(Path("results/cache").glob("inception-*.npz"))) as stored:
        np.savez("real.npz", mu=stored["mean"], sigma=stored["scatter"] / (N - 1))
    archive = as_json(capsys, *options, "real.npz")
    for ours, theirs in zip(archive["numbers"], folder["numbers"], strict=True):
        # 1e-6: of 8 images a covariance has rank 7 of 2,048.
        assert ours["value"] == pytest.approx(theirs["value"], rel=1e-6)
    # Features of 2,048 numbers an image are not in a baseline; the distances without groups of prompts are.
    sana_bench.export_baseline(f"{folder['run']}:my_images", "mine.json")
    assert Path("mine.json").stat().st_size < 20_000
    found = sana_bench.compare("mine.json", f"{folder['run']}:other").to_dict()
    assert found["metrics"] == folder["comparisons"][0]["metrics"]
    rows = [found["comparisons"][0]["metrics"][0] for found in (folder, archive)]
    assert [row["verdict"] for row in rows] != ["not measured", "not measured"]
    assert rows[1]["effect"]["difference"] == pytest.approx(rows[0]["effect"]["difference"], rel=1e-6)


def test_statistics_of_torch_fidelity(given, capsys):
    """As its cache has them: features through its own function, kept by its own writer."""
    import torch

    fidelity = pytest.importorskip("torch_fidelity.metric_fid")
    from torch_fidelity.utils_torch import torch_atomic_save

    images = sana_bench.score("real", reference="my_images", tier="micro", quiet=True)
    places = [sample.image.sha256 for sample in images.results.variants["real"].samples]
    key = next(iter(images.results.variants["real"].identities.values()))
    features = load_features(Path("results"), f"{key['network']}/{key['weights_sha256']}", places)
    torch_atomic_save(fidelity.fid_features_to_statistics(torch.from_numpy(features)), "real-stat-fid.pt")
    (folder,) = as_json(capsys, "--reference", "real")["numbers"]
    (row,) = as_json(capsys, "--reference", "real-stat-fid.pt")["numbers"]
    assert row["note"].startswith("against the statistics of real-stat-fid.pt")
    # 1e-6: it takes the mean in float32.
    assert row["value"] == pytest.approx(folder["value"], rel=1e-6)


class Hostile:
    def __reduce__(self):
        return Path.touch, (Path("touched"),)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (Hostile(), "unsafe archive"),
        ({"mu": Hostile()}, "unsafe archive"),
        ([1, 2], "no mu and sigma (it has nothing)"),
        ({"mu": [1.0]}, "no mu and sigma (it has mu)"),
        ({"mu": "a", "sigma": "b"}, "could not convert string to float"),
        ({"mu": [1.0], "sigma": [[1.0]]}, "mean (1,) and covariance (1, 1), expected (64,) and (64, 64)"),
        (b"PK", "truncated or not a PyTorch archive"),
    ],
)
def test_a_pt_file_is_data(given, capsys, content, told):
    import torch

    if isinstance(content, bytes):
        Path("real.pt").write_bytes(content)
    else:
        torch.save(content, "real.pt")
    assert score("--reference", "real.pt") == 2
    line = one_line(capsys)
    assert "real.pt: " in line
    assert told in line
    assert not Path("touched").exists()
    assert not Path("results/store.sqlite").exists()


def test_a_dry_run_says_what_it_would_do_and_writes_nothing(given, capsys):
    assert score("--prompts", "prompts.csv", "--compare", "other", "--dry-run") == 0
    out = capsys.readouterr().out
    assert "  8 of 8 prompts have images (8, found by name), such as\n" in out
    assert "prompts / my_images: 8 images, 0 done, 8 to read, its images exist\n" in out
    assert "\ntotal: 16 images to read\n" in out
    assert not Path("results").exists()
    assert score("--prompts", "prompts.csv", "--dry-run", "--json") == 2
    assert one_line(capsys) == "sana-bench: --json prints numbers, and --dry-run makes none"


def test_a_limit_is_a_quick_look(given, capsys):
    options = ("--prompts", "prompts.csv", "--metrics", "./mine.py:brightness")
    assert score(*options, "--limit", "3") == 3
    out = capsys.readouterr().out
    assert ": 3 images to read, 0 already there" in out
    found = sana_bench.load_run()
    assert found.table()[["n_samples", "n_expected", "complete"]].values.tolist() == [[3, N, False]]
    assert score(*options) == 0
    assert ": 5 images to read, 3 already there" in capsys.readouterr().out
    assert sana_bench.load_run().complete


def test_a_changed_image_is_scored_again_and_the_others_are_not(given, capsys):
    options = ("--prompts", "prompts.csv", "--metrics", "./mine.py:brightness")
    before = as_json(capsys, *options)
    assert as_json(capsys, *options) == before
    Image.fromarray(np.full((32, 48, 3), 9, np.uint8)).save("my_images/prompt_0001.png")
    after = as_json(capsys, *options)
    assert after["run"] != before["run"]
    assert after["numbers"][0]["value"] != before["numbers"][0]["value"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((), "without prompts images are held against others: --reference FOLDER, or --prompts FILE"),
        (("--metrics", "clip_score"), "clip_score judges images by their prompts: --prompts FILE"),
        (("--metrics", "fid"), "fid holds images against others: --reference FOLDER, or a file of"),
        (("--metrics", "cmmd"), "cmmd holds images against others: --reference FOLDER, or a file of"),
        (("--metrics", "diversity"), "has no diversity; between images of a prompt it has oneig_diversity"),
        (("--metrics", "latency"), "--metrics latency: is measured while images are made"),
        (("--metrics", "clip_scor"), "unknown metric 'clip_scor' (did you mean 'clip_score'?)"),
        (("--reference", "nowhere"), "--reference nowhere: there is no such folder or file"),
        (("--prompts", "nowhere.csv"), "nowhere.csv: there is no such file"),
        (("--prompts", "prompts.csv", "--name", "Mine"), "--name Mine: use lower-case letters"),
        (("--prompts", "prompts.csv", "--compare", "nowhere"), "nowhere: there is no such folder"),
        (
            ("--prompts", "prompts.csv", "--metrics", "geneval"),
            "metric 'geneval' looks for 'include' in every prompt, and prompt 0001 has none",
        ),
        (("--prompts", "prompts.csv", "--metrics", "./none.py:f"), "--metrics ./none.py:f: there is no file"),
        (
            ("--prompts", "prompts.csv", "--metrics", "clip_score/micro@2"),
            "metric 'clip_score' has no protocol 'clip_score/micro@2'",
        ),
    ],
)
def test_what_does_not_fit_is_one_line_and_nothing_is_written(given, capsys, arguments, told):
    assert score(*arguments) == 2
    assert told in one_line(capsys)
    assert not Path("results").exists()


def test_an_image_that_the_manifest_names_and_that_is_gone_is_told(given, capsys):
    names = [f"prompt_{i:04d}.png" for i in range(1, N + 1)]
    rows = [{"prompt": prompt.text, "file": name} for prompt, name in zip(given, names, strict=True)]
    Path("my_images/manifest.jsonl").write_text("\n".join(map(json.dumps, rows)))
    Path("my_images", names[0]).unlink()
    assert score() == 3
    out = capsys.readouterr().out
    assert "1 of unreadable" in out
    assert f"my_images/{names[0]}: no such image" in out


def test_generated_prompts_are_read_back(given, capsys):
    draws = ("generate", "--model", "sana-micro", "--prompts", "prompts.csv", "--images", "2", "--steps", "1")
    assert execute([*draws, "-o", "drawn"]) == 0
    assert sorted(path.name for path in Path("drawn").iterdir())[:2] == ["0001_00.png", "0001_01.png"]
    capsys.readouterr()
    assert execute([*draws, "-o", "drawn"]) == 2
    assert "drawn/manifest.jsonl: already exists (--force replaces it)" in one_line(capsys)
    found = sana_bench.score("drawn", metrics=["clip_score"], tier="micro")
    table = found.samples()
    assert len(table) == 2 * N
    assert sorted(set(zip(table["prompt_id"], table["prompt"], table["tag"], strict=True))) == [
        (f"{i:04d}", prompt.text, prompt.tag) for i, prompt in enumerate(given, start=1)
    ]
    for row in table.to_dict("records"):
        drawn = Path("drawn") / f"{row['prompt_id']}_{row['index']:02d}.png"
        np.testing.assert_array_equal(np.asarray(Image.open(drawn)), np.asarray(Image.open(row["image"])))
    # The table that they were drawn from finds the same images by name, and the same samples.
    named = sana_bench.score(
        "drawn", prompts="prompts.csv", metrics=["clip_score"], tier="micro", allow_incomplete=True
    )
    assert named.table()["value"].tolist() == found.table()["value"].tolist()


def test_from_python(given):
    found = sana_bench.score("my_images", prompts="prompts.csv", compare=["other"], tier="micro")
    assert found.complete
    table = found.table().set_index(["variant", "metric", "key"])
    samples = found.samples()
    mean = samples[samples["variant"] == "my_images"]["clip_score"].mean()
    assert table.loc[("my_images", "clip_score", "overall"), "value"] == pytest.approx(mean, rel=1e-12)
    assert found.to_dict()["comparisons"][0]["comparable"]
    assert found.report.is_file()
    with pytest.raises(sana_bench.UsageError, match="tier 'small': one of auto, micro, full"):
        sana_bench.score("my_images", tier="small")


def test_two_folders_are_decided_without_scoring_them_whole(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    asked = list({prompt.text: prompt for prompt in GenEval().prompts("micro")}.values())[:96]
    Path("prompts.txt").write_text("".join(f"{prompt.text}\n" for prompt in asked))
    for i, prompt in enumerate(asked, start=1):
        draw(Path(f"my_images/{i:04d}.png"), asked[i - 7], i)
        draw(Path(f"other/{i:04d}.png"), prompt, i)
    given = ("--prompts", "prompts.txt", "--compare", "other", "--output", "results")
    found = as_json(capsys, *given, "--until", "decided", "--effect", "2")
    assert not found["complete"]
    assert found["numbers"] == []
    (last,) = found["sequences"]
    assert (last["variant"], last["against"], last["metric"]) == ("other", "my_images", "clip_score")
    assert last["verdict"] == "better"
    assert 0 < last["low"] <= last["value"] <= last["high"]
    assert last["n_images"] < len(asked)
    assert found["reasons"]["other"][0].endswith(last["finding"])
    assert as_json(capsys, *given)["complete"]
    assert score(*given, "--until", "decided", "--metrics", "image_reward") == 2
    assert "no metric that can stop a run; the suite has image_reward" in one_line(capsys)


def test_a_metrics_judge_is_named_on_the_command_line(given, capsys, monkeypatch):
    """Of any prompts, by a server; asked once, as the same command again finds."""
    key = "sk-Secret_123"
    monkeypatch.setenv("SANA_BENCH_JUDGE_KEY", key)
    with serving(lambda _: said("Yes", {"Yes": math.log(0.75), "No": math.log(0.25)})) as server:
        arguments = (
            "--prompts", "prompts.csv", "--metrics", "vqascore", "--set", "vqascore.judge=owner/Tiny",
            "--set", f"vqascore.server={server.address}",
        )  # fmt: skip
        server.models = ["huge"]
        assert score(*arguments) == 2
        assert "the server has no such model; it has huge" in one_line(capsys)
        assert not Path("results").exists()
        server.models = ["owner/Tiny"]
        for _ in range(2):
            found = as_json(capsys, *arguments)
            assert len(server.requests) == N
    overall = next(row for row in found["numbers"] if row["key"] == "overall")
    assert (overall["metric"], overall["protocol"]) == ("vqascore", "vqascore/vlm-served-tiny@1")
    assert overall["value"] == pytest.approx(0.75, rel=1e-12)
    # Each question, and whether the model is there: before the images are taken, so not the second time.
    assert server.keys == [f"Bearer {key}"] * (N + 2)
    assert not [
        path for path in Path("results").rglob("*") if path.is_file() and key.encode() in path.read_bytes()
    ]


@pytest.mark.parametrize(
    ("given_set", "message"),
    [
        (
            "vqascore=3",
            "--set vqascore=3: expected METRIC.PARAMETER=VALUE with a metric of --metrics: vqascore",
        ),
        ("dpg.judge=x", "expected METRIC.PARAMETER=VALUE with a metric of --metrics: vqascore"),
        ("vqascore.judge=[x]", "expected a number, a text, true or false"),
        ("vqascore.juge=x", "metric 'vqascore' has no parameter 'juge' (did you mean 'judge'?)"),
        ("vqascore.judge=clip_score", "judge 'clip_score' scores images and answers no questions in words"),
    ],
)
def test_parameters_that_no_metric_has_are_refused(given, capsys, given_set, message):
    assert score("--prompts", "prompts.csv", "--metrics", "vqascore", "--set", given_set) == 2
    assert message in one_line(capsys)
