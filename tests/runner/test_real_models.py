"""The whole road with the real classes and random weights: suite, SANA, GenEval, CLIP score, FID, report."""

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sana_bench.benchmarks.geneval import GenEval
from sana_bench.cli.main import execute
from sana_bench.metrics.fid import micro_reference
from sana_bench.results.store import Store
from sana_models.text import TextEncoder
from tests import ROOT
from tests.runner import numbers_of_runs as numbers
from tests.suite_files import FEW_STEPS, write_suite, write_variant

LIMIT = 12
N_IMAGES = 4 * len(GenEval().prompts("micro"))


@dataclass(frozen=True)
class Whole:
    """A results folder, what the command printed, and the prompts that were encoded, in their order."""

    output: Path
    said: str
    encoded: list[str]


@contextmanager
def small_world(weights: Path) -> Iterator[None]:
    """Random weights, a reference of one scene for each evaluation prompt, and the repository as the current folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SANA_BENCH_MICRO_WEIGHTS", str(weights))
        patch.setattr(micro_reference, "_N_SCENES", N_IMAGES // 4)
        patch.chdir(ROOT)
        yield


def run_few_steps(output: Path, *arguments: str) -> int:
    """Run `sana-bench run suites/geneval.yaml` with few steps; return the exit code."""
    steps = ("sana-micro.sampler.steps=3", "sana-micro-8-steps.sampler.steps=2")
    few = [part for one in steps for part in ("--set", f"variants.{one}")]
    return execute(
        ["run", "suites/geneval.yaml", "--tier", "micro", *few, "--output", str(output), *arguments]
    )


@pytest.fixture
def sana_bench(tiny_weights_root: Path, tmp_path: Path) -> Iterator[Callable[..., int]]:
    """Run the command into a folder of this test; return the exit code."""
    with small_world(tiny_weights_root):
        yield lambda name, *arguments: run_few_steps(tmp_path / name, *arguments)


@pytest.fixture(scope="module")
def whole(tiny_weights_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """A limited run of both variants; tests must not change it."""
    output, said, encoded = tmp_path_factory.mktemp("whole") / "results", io.StringIO(), []
    encode = TextEncoder.encode

    def counting(self, prompts, **options):
        encoded.extend(prompts)
        return encode(self, prompts, **options)

    with small_world(tiny_weights_root), pytest.MonkeyPatch.context() as patch, redirect_stdout(said):
        patch.setattr(TextEncoder, "encode", counting)
        assert run_few_steps(output, "--limit", str(LIMIT)) == 3
    return Whole(output, said.getvalue(), encoded)


def test_every_metric_of_the_demo_suite(whole: Whole) -> None:
    assert f"incomplete: geneval / sana-micro[steps=3] has {LIMIT}/{N_IMAGES} images" in whole.said
    found = numbers.summaries(whole.output)
    assert {(row.variant, row.metric) for row in found} == {
        (variant, metric)
        for variant in ("sana-micro[steps=3]", "sana-micro-8-steps[steps=2]")
        for metric in ("geneval", "clip_score", "fid")
    }
    assert all(row.n_expected == N_IMAGES and row.n_samples == LIMIT for row in found if row.key == "overall")
    report = Path(whole.said.rpartition("report: ")[2].strip())
    page = report.read_text(encoding="utf-8")
    assert "geneval/micro@1" in page
    assert "do not compare" in page


def test_batch_size_leaves_images_and_scores_alone(sana_bench, tmp_path) -> None:
    """Another batch size may sum in another order: a pixel may round to the next of 256 levels."""
    for size in (1, 5):
        sana_bench(str(size), "--limit", str(LIMIT), "--variants", "sana-micro", "--batch-size", str(size))
    singles, batched = (numbers.image_bytes(tmp_path / name) for name in ("1", "5"))
    assert singles.keys() == batched.keys()
    one, five = (
        np.stack(
            [np.asarray(Image.open(tmp_path / name / "runs" / path)) for path in sorted(singles)]
        ).astype(int)
        for name in ("1", "5")
    )
    assert np.abs(one - five).max() <= 1
    assert (one != five).mean() < 1e-3
    for single, batch in zip(*(numbers.summaries(tmp_path / name) for name in ("1", "5")), strict=True):
        # One level in 1e-3 of the pixels moves a CLIP feature by about 1e-5 of its length.
        assert batch.value == pytest.approx(single.value, rel=1e-3, abs=1e-3)


def test_lost_images_come_back_bit_for_bit(sana_bench, tmp_path) -> None:
    few = ("--limit", str(LIMIT), "--variants", "sana-micro", "--batch-size", "5")
    sana_bench("results", *few)
    images, found = numbers.image_bytes(tmp_path / "results"), numbers.summaries(tmp_path / "results")
    for path in sorted(images)[2::4]:
        (tmp_path / "results" / "runs" / path).unlink()
    sana_bench("results", *few)
    assert numbers.image_bytes(tmp_path / "results") == images
    assert numbers.summaries(tmp_path / "results") == found


def test_images_depend_on_the_prompt_and_the_noise(whole: Whole) -> None:
    images = numbers.image_bytes(whole.output)
    contents = [content for path, content in images.items() if "sana-micro-8-steps" not in str(path)]
    assert len(contents) == len(set(contents)) == LIMIT


def test_timings_and_provenance_are_stored(sana_bench, tmp_path) -> None:
    sana_bench("results", "--limit", "4", "--variants", "sana-micro")
    run_id = numbers.run_ids(tmp_path / "results")[0]
    store = Store.open_existing(tmp_path / "results")
    assert store is not None
    with store:
        run = store.run(run_id)
        assert run is not None
        provenance = run["provenance"]
    assert provenance["metrics"]["fid"] != {}
    assert provenance["weights"]["sana-micro[steps=3]"]["precision"] == "fp32"
    assert provenance["devices_of_images"] == ["cpu"]


@pytest.mark.parametrize(
    ("part", "damage", "message"),
    [
        ("transformer/diffusion_pytorch_model.safetensors", "truncate", "truncated"),
        ("vae/diffusion_pytorch_model.safetensors", "empty", "not a whole safetensors file"),
        ("transformer/config.json", "foreign", "transformer"),
        ("text_encoder/config.json", "delete", "missing text_encoder/config.json"),
    ],
)
def test_bad_checkpoints_are_one_line_and_nothing_is_written(
    part, damage, message, tiny_weights_root, sana_bench, tmp_path, monkeypatch, capsys
) -> None:
    import shutil

    root = tmp_path / "weights"
    shutil.copytree(tiny_weights_root, root)
    monkeypatch.setenv("SANA_BENCH_MICRO_WEIGHTS", str(root))
    path = root / "sana-micro" / part
    content = path.read_bytes()
    if damage == "delete":
        path.unlink()
    else:
        replaced = content.replace(b'"num_layers": 1', b'"num_layers": 2')
        path.write_bytes({"truncate": content[:-100], "empty": b"", "foreign": replaced}[damage])
    assert sana_bench("results") == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert message in lines[0]
    assert not (tmp_path / "results").exists()


def test_each_prompt_is_encoded_once_for_all_variants(whole: Whole, sana_bench, tmp_path) -> None:
    # The first images are of different prompts; guidance adds the empty one.
    assert len(whole.encoded) == len(set(whole.encoded)) == LIMIT + 1
    assert len(list((whole.output / "cache/text").glob("*/*.safetensors"))) == LIMIT + 1
    sana_bench("uncached", "--limit", str(LIMIT), "--no-text-cache")
    assert not (tmp_path / "uncached/cache/text").exists()
    assert numbers.image_bytes(whole.output) == numbers.image_bytes(tmp_path / "uncached")


def test_each_prompt_is_encoded_once_for_all_its_images(sana_bench, tmp_path, monkeypatch) -> None:
    """Whichever batch an image is in: here the second of a prompt's images comes after those of the other prompts."""
    folder = tmp_path / "suites"
    write_variant(folder, "mine", FEW_STEPS, tier="micro", weights="micro://sana-micro")
    (folder / "p.txt").write_text("a red circle\na blue square\na green circle\n")
    benchmark = "{name: mine, prompts: ./p.txt, images_per_prompt: 3, metrics: [clip_score]}"
    encoded, encode = [], TextEncoder.encode
    monkeypatch.setattr(
        TextEncoder,
        "encode",
        lambda self, prompts, **given: encoded.extend(prompts) or encode(self, prompts, **given),
    )
    suite = write_suite(folder, benchmark, ["mine"], tier="micro")
    assert (
        execute(["run", str(suite), "--tier", "micro", "--batch-size", "2", "-o", str(tmp_path / "results")])
        == 0
    )
    assert sorted(encoded) == ["", "a blue square", "a green circle", "a red circle"]


@pytest.mark.parametrize("setting", ["quantization=int8", "model.tiling={tile: 64, stride: 32}"])
def test_quantization_and_tiling_are_part_of_the_identity(sana_bench, tmp_path, setting) -> None:
    if setting.startswith("quantization"):
        pytest.importorskip("torchao")
    plain = ("--limit", "4", "--variants", "sana-micro")
    sana_bench("results", *plain)
    sana_bench("results", *plain, "--set", f"variants.sana-micro.{setting}")
    with Store.open(tmp_path / "results") as store:
        assert len(store.run_ids()) == 2
    images = numbers.image_bytes(tmp_path / "results")
    assert len(images) == 8
    if setting.startswith("quantization"):
        assert len(set(images.values())) > 4
