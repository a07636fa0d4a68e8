"""What a dry run tells before anything is spent: what is lacking, hours and disk; and `fetch --dry-run`, the same table."""

import re
import shutil

import pytest

from sana_bench.analysis.model_size import count_parameters
from sana_bench.assets.table import read_assets, repositories_of, repository_facts
from sana_bench.cli.main import execute
from sana_bench.core.progress import size_text
from sana_bench.suites.find import variant_files
from sana_bench.suites.load import load_variant
from tests import ROOT
from tests.suite_files import FEW_STEPS, write_suite, write_variant

GEMMA = "terms of use beside the licence: https://ai.google.dev/gemma/terms"
SANA_1600M = "Efficient-Large-Model/Sana_1600M_1024px_diffusers (fp16)"


@pytest.fixture(autouse=True)
def nothing_here(tmp_path, monkeypatch):
    """Empty places for weights and data, and a hub that nobody may ask."""
    from huggingface_hub import constants

    monkeypatch.setenv("SANA_BENCH_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")


def rows_of(lines):
    """The cells of each row of the table, by item."""
    start = next(place for place, line in enumerate(lines) if line.startswith("item "))
    rows = {}
    for line in lines[start + 2 :]:
        if len(cells := re.split(r" {2,}", line)) < 5:
            break
        rows[cells[0]] = tuple(cells[1:])
    return rows


def planned(capsys, *arguments, code=0):
    assert execute([*arguments, "--dry-run"]) == code
    shown = capsys.readouterr()
    return shown.out.splitlines(), shown.err


def test_the_full_tier_is_told_before_anything_is_here(tmp_path, capsys):
    output = tmp_path / "results"
    lines, error = planned(capsys, "run", "all", "--tier", "full", "--output", str(output), code=2)
    assert not output.exists()
    assert not (tmp_path / "data").exists()
    rows = rows_of(lines)
    assert rows[SANA_1600M] == (
        "sana-1.6b-1024", "about 9.7 GB", "NVIDIA (NSCL v2-custom), Gemma's terms", "no",
        "sana-bench fetch sana-1.6b-1024",
    )  # fmt: skip
    assert rows["geneval_detector"] == ("geneval", "unknown", "Apache-2.0", "no", "sana-bench fetch geneval")
    assert rows["mplug"] == ("dpg", "unknown", "not stated", "no", "sana-bench fetch dpg_bench")
    assert GEMMA in lines
    sizes = [re.fullmatch(r"(?:about )?([\d.]+) (.B)|unknown", row[1]).groups() for row in rows.values()]
    known = sum(float(number) * {"kB": 1e3, "MB": 1e6, "GB": 1e9}[unit] for number, unit in sizes if number)
    (to_get,) = [line for line in lines if line.startswith("to get: ")]
    found = re.match(
        rf"to get: {len(rows)} of {len(rows)} items, about ([\d.]+) GB, and (\d) of unknown size; ", to_get
    )
    # Ten rows are rounded to a tenth of a GB.
    assert float(found[1]) == pytest.approx(known / 1e9, abs=0.5)
    assert int(found[2]) == sum(number is None for number, _ in sizes) == 3
    # Prompts that are not here are counted as published: 553, 1065, 100, 30000 and 6 of 4, 4, 10, 1 and 5 images.
    counts = [2212, 4260, 1000, 30000, 30]
    images = [
        line for line in lines if " images to generate, about " in line and not line.startswith("total")
    ]
    assert [int(re.search(r": (\d+) images", line)[1]) for line in images] == [
        n for n in counts for _ in (0, 1)
    ]
    assert f"total: {2 * sum(counts)} images to generate, about 16 h" in "\n".join(lines)
    # 1.0 and 1.7 images a second, SANA's Table 7, whose sizes are rounded.
    hours = sum(counts) * (1.604462752 / 1.6 + 0.591747872 / 0.6 / 1.7) / 3600
    assert f"GPU hours: about {hours:.1f}, {hours / 4:.1f} to {4 * hours:.1f}" in lines
    disk = size_text(2 * sum(counts) * 1024 * 1024 * 3)
    assert any(line.startswith(f"disk for images: at most {disk} in {output}; ") for line in lines)
    assert error.count("\n") == 1
    assert "variant 'sana-1.6b-1024': weights 'Efficient-Large-Model" in error


def test_what_nobody_publishes_is_planned_by_what_it_was_made_from(capsys, tmp_path):
    lines, _ = planned(capsys, "run", "demo", "--tier", "full", "--output", str(tmp_path / "r"), code=2)
    rows = rows_of(lines)
    assert rows["../../results/sana-1.5-3.2b-1024"][-1].startswith("nobody publishes it")
    # As long as the model that it is cut from, published with 4.8e9 parameters: 553 images of 4.722 / 4.8 / 0.26 s.
    pruned, whole = (
        [line for line in lines if f" / sana-1.5-{name}-1024: " in line] for name in ("3.2b", "4.8b")
    )
    assert pruned[0].replace("3.2b", "4.8b") == whole[0]
    assert "about 34 min 52 s" in whole[0]


def test_weights_that_are_here_are_planned_and_the_others_too(tmp_path, tiny_pipeline_dir, capsys):
    """With `--variants` only those that are named; a benchmark whose prompts are not here is counted."""
    suites = tmp_path / "suites"
    write_variant(suites, "here", FEW_STEPS, weights=str(tiny_pipeline_dir), height=32, width=32)
    write_variant(suites, "absent", FEW_STEPS, weights="org/absent", height=32, width=32)
    suite = write_suite(suites, "{name: latency, images_per_prompt: 2}", ["here", "absent"])
    suite.write_text(
        suite.read_text().replace("variants:", "  - {name: mjhq30k, metrics: [clip_score]}\nvariants:")
    )
    command = ["run", str(suite), "--tier", "full", "--output", str(tmp_path / "results")]
    lines, error = planned(capsys, *command, code=2)
    text = "\n".join(lines)
    assert "latency / here: 12 images, 0 done, 12 to generate, about " in text
    assert "latency / absent: 12 images to generate, about " in text
    for name in ("here", "absent"):
        assert f"mjhq30k / {name}: 30000 images to generate, about " in text
    assert "run s-full" not in text, "the run's name needs all hashes"
    assert "org/absent" in error
    lines, _ = planned(capsys, *command, "--variants", "here", "--limit", "5", code=2)
    text = "\n".join(lines)
    assert "latency / here: 5 of 12 images, 0 done, 5 to generate" in text
    assert "mjhq30k / here: 5 of 30000 images to generate" in text
    assert "/ absent: " not in text


def test_images_of_a_grid_stay_together_before_anything_is_here(tmp_path, capsys):
    """As a run takes them: whole grids of four."""
    suites = tmp_path / "suites"
    write_variant(suites, "absent", FEW_STEPS, weights="org/absent")
    grid = "{name: dpg_bench, images_per_prompt: 4, metrics: [{name: dpg, protocol: dpg/sana-grid@1}]}"
    suite = write_suite(suites, grid, ["absent"])
    suite.write_text(
        suite.read_text().replace("variants:", "  - {name: geneval, metrics: [geneval]}\nvariants:")
    )
    command = ["run", str(suite), "--tier", "full", "--output", str(tmp_path / "r"), "--limit"]
    for limit, images in ((1, 4), (4, 4), (5, 8), (9999, 4260)):
        lines, _ = planned(capsys, *command, str(limit), code=2)
        (line,) = (line for line in lines if line.startswith("dpg_bench / absent: "))
        part = "" if images == 4260 else " of 4260"
        assert line.startswith(f"dpg_bench / absent: {images}{part} images to generate"), limit
        assert any(one.startswith(f"geneval / absent: {min(limit, 2212)} ") for one in lines)


def test_own_prompts_and_parts_of_a_benchmark_are_counted(tmp_path, capsys):
    suites = tmp_path / "suites"
    write_variant(suites, "absent", FEW_STEPS, weights="org/absent")
    (suites / "prompts.txt").write_text("a cat\na dog\n")
    suite = write_suite(suites, "{name: own, prompts: ./prompts.txt, images_per_prompt: 3}", ["absent"])
    suite.write_text(suite.read_text().replace("variants:", "  - {name: mjhq30k@24}\nvariants:"))
    lines, _ = planned(capsys, "run", str(suite), "--tier", "full", "--output", str(tmp_path / "r"), code=2)
    text = "\n".join(lines)
    assert "own / absent: 6 images to generate" in text
    assert "mjhq30k@24 / absent: 24 images to generate" in text
    assert "scoring with clip_score, cmmd, coverage, density, fd_dinov2, fid, kid, " in text


def test_the_micro_tier_needs_no_table(world, capsys):
    assert world.run(dry_run=True) == 0
    out = capsys.readouterr().out
    assert "what " not in out
    assert "GPU hours" not in out
    # 48 images of 16 x 16 pixels.
    assert f"disk for images: at most {size_text(48 * 16 * 16 * 3)} in {world.output}; " in out


def test_lacking_weights_of_the_micro_tier_are_planned_too(world, capsys):
    shutil.move(world.suite.parent / "variants" / "weights", world.folder / "elsewhere")
    from sana_bench.core.errors import AssetError

    with pytest.raises(AssetError, match="there is no folder"):
        world.run(dry_run=True)
    assert "shapes / fake-4: 24 images to generate, about " in capsys.readouterr().out


def test_fetch_lists_and_loads_nothing(tmp_path, capsys):
    lines, _ = planned(capsys, "fetch", "sana-1.5-4.8b-1024-best-of-32")
    rows = rows_of(lines)
    user = "sana-1.5-4.8b-1024-best-of-32"
    assert rows["Efficient-Large-Model/SANA1.5_4.8B_1024px_diffusers"][:2] == (user, "about 16.0 GB")
    assert rows["Efficient-Large-Model/NVILA-Lite-2B-Verifier"][:2] == (user, "unknown")
    assert list(tmp_path.iterdir()) == []
    assert planned(capsys, "fetch", "sana-micro")[0] == ["the micro tier fetches nothing"]


def test_what_is_here_has_its_true_size(tmp_path, tiny_pipeline_dir, capsys):
    place = tmp_path / "data/models/org/own"
    shutil.copytree(tiny_pipeline_dir, place)
    variant = str(write_variant(tmp_path / "suites", "mine", FEW_STEPS, weights="org/own"))
    lines, _ = planned(capsys, "fetch", variant)
    size = size_text(sum(path.stat().st_size for path in place.rglob("*") if path.is_file()))
    assert rows_of(lines) == {"org/own": ("mine", size, "not stated", "yes")}
    assert lines[-1] == "all of it is here"
    (place / "vae/diffusion_pytorch_model.safetensors").unlink()
    lines, _ = planned(capsys, "fetch", variant)
    assert rows_of(lines)["org/own"] == ("mine", "unknown", "not stated", "partly", "sana-bench fetch mine")
    assert f"! org/own: {place}: missing vae/*.safetensors" in lines


@pytest.mark.parametrize(
    ("weights", "licence"),
    [
        ("black-forest-labs/FLUX.1-dev", "FLUX.1 [dev] non-commercial"),
        ("stabilityai/stable-diffusion-3.5-large", "Stability AI community"),
        ("google/gemma-2-2b-it@main", "Gemma's terms"),
    ],
)
def test_gated_weights_say_where_to_accept_the_licence(tmp_path, capsys, weights, licence):
    sampler = "sampler: {name: pipeline, steps: 20, guidance_scale: 3.5}"
    variant = write_variant(tmp_path / "suites", "mine", "generator: diffusers", sampler, weights=weights)
    lines, _ = planned(capsys, "fetch", str(variant))
    page = f"https://huggingface.co/{weights.partition('@')[0]}"
    assert rows_of(lines)[weights] == (
        "mine", "unknown", licence, "no",
        f"accept its licence at {page}, log in with `hf auth login`, then sana-bench fetch mine",
    )  # fmt: skip


def test_the_shipped_variants_have_known_sizes():
    """Of every repository of SANA that a shipped variant reads, in the variant of the weight files that it reads."""
    folder = ROOT / "suites" / "variants"
    full = [one for one in map(load_variant, variant_files(folder).values()) if one.tier == "full"]
    found = [one for one in repositories_of(full, folder) if one.reader == "sana"]
    assert len(found) == 13
    unknown = {one.name for one in found if not repository_facts(one.name).bytes}
    assert unknown == {
        f"Efficient-Large-Model/Sana_Sprint_{size}_1024px_diffusers" for size in ("0.6B", "1.6B")
    }
    for repository in found:
        if repository.name in unknown:
            continue
        facts = repository_facts(repository.name)
        size = facts.bytes[repository.weights_variant or "plain"]
        # Text encoder, autoencoder and tokenizer, and two bytes a parameter.
        assert size == pytest.approx(6.516e9 + 2 * facts.parameters, rel=1e-3)
        assert facts.licence
        assert facts.terms
    assert {
        asset.licence for asset in read_assets().values() if asset.files[0].home.startswith("hf://THUDM")
    } == {"Apache-2.0"}


def test_parameters_of_a_unet_count_too(tmp_path):
    import torch
    from safetensors.torch import save_file

    (tmp_path / "unet").mkdir()
    save_file({"a": torch.zeros(3, 4)}, tmp_path / "unet" / "diffusion_pytorch_model.safetensors")
    assert count_parameters(tmp_path) == 12
