"""Fetching repositories of the hub, from a stand-in: announced, gone on with, offline, and out of reach."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from sana_bench.analysis.model_size import count_parameters
from sana_bench.assets.checks import check_pipeline_directory
from sana_bench.assets.fetch import fetch
from sana_bench.assets.hub import check_repository
from sana_bench.assets.locate import resolve_weights
from sana_bench.assets.table import Repository
from sana_bench.cli.main import execute
from sana_bench.core.errors import AssetError
from sana_bench.core.fingerprint import directory_sha256, pipeline_sha256
from tests import ROOT
from tests.assets.conftest import COMMIT, use_endpoint
from tests.suite_files import write_suite, write_variant

NAME = "org/tiny-sana"
# A port that nothing listens on.
NOBODY = "http://127.0.0.1:9"


@pytest.fixture
def published(hub, tiny_pipeline_dir):
    hub.add(NAME, tiny_pipeline_dir)
    return hub


def variant_in(suites, weights=NAME, more="generator: sana", name="mine"):
    return str(write_variant(suites, name, more, "sampler: {steps: 1, guidance_scale: 1.0}", weights=weights))


def snapshot(tmp_path, name=NAME):
    return tmp_path / "hf/hub" / f"models--{name.replace('/', '--')}" / "snapshots" / COMMIT


def begun(tmp_path, *paths, source, name=NAME):
    """The cache as a download leaves it that was cut after `paths`."""
    folder = snapshot(tmp_path, name)
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / path, folder / path)
    (folder.parents[1] / "refs").mkdir(parents=True)
    (folder.parents[1] / "refs/main").write_text(COMMIT)


def test_a_variant_is_fetched_once(published, tmp_path, capsys):
    variant = variant_in(tmp_path)
    assert execute(["fetch", variant]) == 0
    lines = capsys.readouterr().out.splitlines()
    total = sum(map(len, published.repositories[NAME].values())) / 1e6
    assert lines[:2] == [
        f"{NAME}: {total:,.1f} MB, from the hub",
        f"to fetch: {total:,.1f} MB into {tmp_path / 'hf/hub'}",
    ]
    assert lines[-1] == f"{NAME}: fetched, {snapshot(tmp_path)}"
    check_pipeline_directory(snapshot(tmp_path))
    published.repositories.clear()
    assert execute(["fetch", variant]) == 0
    assert capsys.readouterr().out == f"{NAME}: already here, in {snapshot(tmp_path)}\n"


@pytest.mark.parametrize(
    "kept",
    [
        ["model_index.json"],
        ["model_index.json", "vae/config.json", "vae/diffusion_pytorch_model.safetensors"],
    ],
)
def test_a_download_that_was_cut_goes_on(published, tiny_pipeline_dir, tmp_path, capsys, kept):
    begun(tmp_path, *kept, source=tiny_pipeline_dir)
    variant = variant_in(tmp_path)
    with pytest.raises(
        AssetError, match=r"missing .*transformer/\*\.safetensors.*`sana-bench fetch`.*`hf download"
    ):
        resolve_weights(NAME, tmp_path)
    assert execute(["fetch", variant]) == 0
    assert "of it here, from the hub" in capsys.readouterr().out
    assert set(published.loaded) == set(published.repositories[NAME]) - set(kept)
    check_pipeline_directory(snapshot(tmp_path))


def test_a_file_that_fails_leaves_the_others(published, tmp_path, capsys):
    published.failing = {"transformer/diffusion_pytorch_model.safetensors"}
    variant = variant_in(tmp_path)
    assert execute(["fetch", variant]) == 2
    # The client draws its progress on the same stream.
    error = capsys.readouterr().err.splitlines()[-1]
    assert f"sana-bench: {NAME}: no such folder here, not in the hub's cache" in error
    assert "404" in error
    published.failing = set()
    published.loaded.clear()
    assert execute(["fetch", variant]) == 0
    assert "transformer/diffusion_pytorch_model.safetensors" in published.loaded
    assert len(published.loaded) < len(published.repositories[NAME])


def test_offline_names_what_a_cut_download_lacks(published, tiny_pipeline_dir, tmp_path, capsys, monkeypatch):
    begun(tmp_path, "model_index.json", source=tiny_pipeline_dir)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert execute(["fetch", variant_in(tmp_path)]) == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert "HF_HUB_OFFLINE is set, nothing is fetched; missing: " in line
    assert "missing transformer/config.json" in line
    assert published.loaded == []


def test_offline_is_content_with_a_whole_copy(published, tmp_path, capsys, monkeypatch):
    variant = variant_in(tmp_path)
    assert execute(["fetch", variant]) == 0
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert execute(["fetch", variant]) == 0


@pytest.mark.parametrize("begins", [False, True])
def test_a_hub_out_of_reach_is_one_line(published, tiny_pipeline_dir, tmp_path, capsys, monkeypatch, begins):
    if begins:
        begun(tmp_path, "model_index.json", source=tiny_pipeline_dir)
    use_endpoint(monkeypatch, NOBODY)
    assert execute(["fetch", variant_in(tmp_path)]) == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert f"{NAME}: no such folder here, and the hub cannot be reached" in line


def test_an_unknown_repository_is_one_line(hub, tmp_path, capsys):
    assert execute(["fetch", variant_in(tmp_path)]) == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert f"{NAME}: no such folder here, and the hub says: " in line


def test_a_folder_below_the_data_root_is_not_passed_over(published, tiny_pipeline_dir, tmp_path, capsys):
    local = tmp_path / "data/models" / NAME
    shutil.copytree(tiny_pipeline_dir, local)
    variant = variant_in(tmp_path)
    assert execute(["fetch", variant]) == 0
    assert f"{NAME}: already here, in {local}" in capsys.readouterr().out
    shutil.rmtree(local / "vae")
    assert execute(["fetch", variant]) == 2
    assert f"`hf download {NAME} --local-dir {local}`, or move it away" in capsys.readouterr().err
    with pytest.raises(AssetError, match=f"get them with `hf download {NAME} --local-dir {local}`"):
        resolve_weights(NAME, tmp_path)


def test_all_sizes_are_said_before_the_first_byte(
    published, server, tiny_pipeline_dir, tmp_path, monkeypatch
):
    """Files, a judge, and two variants: one list, one total, one look at the free space."""
    published.add("org/other-sana", tiny_pipeline_dir)
    suites = tmp_path / "suites"
    variant_in(suites, NAME, name="mine")
    variant_in(suites, "org/other-sana", name="other")
    suite = str(write_suite(suites, "{name: geneval, metrics: [clip_score]}", ["mine", "other"]))
    clip = "clip/ViT-L-14-quickgelu-openai.safetensors"
    server.files = {clip: b"weights" * 1000}
    said, loaded = [], []

    def say(line):
        said.append(line)
        loaded.append(len(published.loaded) + sum(command == "GET" for command, *_ in server.requests))

    fetch(suite, say, server.url)
    place = next(place for place, line in enumerate(said) if line.startswith("to fetch: "))
    assert [line.partition(":")[0] for line in said[:place]] == [clip, NAME, "org/other-sana"]
    assert loaded[: place + 1] == [0] * (place + 1)
    each = sum(map(len, published.repositories[NAME].values()))
    assert said[place] == (
        f"to fetch: 0.0 MB into {tmp_path / 'data'}, {2 * each / 1e6:,.1f} MB into {tmp_path / 'hf/hub'}, "
        f"{(2 * each + 7000) / 1e6:,.1f} MB in all"
    )
    shutil.rmtree(tmp_path / "data")
    shutil.rmtree(tmp_path / "hf")
    published.loaded.clear()
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=2 * each + 6999))
    with pytest.raises(AssetError, match="MB are needed"):
        fetch(suite, say, server.url)
    assert published.loaded == []
    assert not (tmp_path / "data").exists()


@pytest.fixture
def precisions(hub, tiny_pipeline_dir, tmp_path):
    """A repository with its weights twice, and single files of everything: what each reader opens, by name."""
    folder = tmp_path / "published"
    shutil.copytree(tiny_pipeline_dir, folder)
    plain = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    fp16 = {
        name if not name.endswith(".safetensors") else name.replace(".safe", ".fp16.safe") for name in plain
    }
    for name in fp16 - plain:
        tensors = load_file(folder / name.replace(".fp16", ""))
        save_file({key: value.half() for key, value in tensors.items()}, folder / name)
    save_file({"a": torch.zeros(9)}, folder / "everything.safetensors")
    hub.add(NAME, folder)
    return {None: plain, "fp16": fp16}


@pytest.mark.parametrize("asked", [None, "fp16"])
def test_only_the_weight_files_of_one_variant_are_fetched(hub, precisions, tmp_path, capsys, asked):
    first = variant_in(tmp_path, f"{NAME}, weights_variant: {asked}" if asked else NAME)
    assert execute(["fetch", first]) == 0
    assert set(hub.loaded) == precisions[asked]
    size = sum(len(hub.repositories[NAME][name]) for name in precisions[asked])
    label = f"{NAME} ({asked})" if asked else NAME
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{label}: {size / 1e6:,.1f} MB, from the hub"
    assert execute(["fetch", first]) == 0
    assert capsys.readouterr().out == f"{label}: already here, in {snapshot(tmp_path)}\n"
    # What another variant adds beside them changes nothing about what the first one reads.
    before = pipeline_sha256(snapshot(tmp_path), None, asked)
    parameters = count_parameters(snapshot(tmp_path), asked)
    other = variant_in(tmp_path / "other", f"{NAME}, weights_variant: fp16" if not asked else NAME)
    assert execute(["fetch", other]) == 0
    assert set(hub.loaded) == precisions[None] | precisions["fp16"]
    assert pipeline_sha256(snapshot(tmp_path), None, asked) == before
    assert count_parameters(snapshot(tmp_path), asked) == parameters
    assert directory_sha256(snapshot(tmp_path)) != before


def test_a_cut_download_of_another_variant_goes_on(hub, precisions, tmp_path, capsys):
    """All parts are here in their plain files, one of them in fp16 too: that the others have fp16 files only the hub knows."""
    from sana_models import load_transformer

    assert execute(["fetch", variant_in(tmp_path)]) == 0
    wanted = variant_in(tmp_path / "other", f"{NAME}, weights_variant: fp16")
    # Many files come at once, and who is beside the one that fails is given up: so this one comes before.
    load_transformer(NAME, variant="fp16")
    hub.failing = {name for name in precisions["fp16"] if "fp16" in name and "transformer" not in name}
    assert execute(["fetch", wanted]) == 2
    assert (snapshot(tmp_path) / "transformer/diffusion_pytorch_model.fp16.safetensors").is_file()
    hub.failing = set()
    assert execute(["fetch", wanted]) == 0
    assert set(hub.loaded) == precisions[None] | precisions["fp16"]
    hub.repositories.clear()
    capsys.readouterr()
    assert execute(["fetch", wanted]) == 0
    assert capsys.readouterr().out.startswith(f"{NAME} (fp16): already here")


def test_a_weight_variant_that_nobody_published_is_one_line(hub, precisions, tmp_path, capsys):
    assert execute(["fetch", variant_in(tmp_path, f"{NAME}, weights_variant: bf16")]) == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert "no weights of variant 'bf16' (found " in line
    assert hub.loaded == []


def test_a_pipeline_by_its_hub_id_brings_what_it_reads(hub, precisions, tmp_path):
    from sana_models import load_pipeline, load_transformer

    load_transformer(NAME, variant="fp16")
    assert set(hub.loaded) == {
        "model_index.json", "transformer/config.json", "transformer/diffusion_pytorch_model.fp16.safetensors",
    }  # fmt: skip
    load_pipeline(NAME, variant="fp16")
    assert set(hub.loaded) == precisions["fp16"]
    # Without the hub the cache serves, though it lacks the other precision.
    hub.repositories.clear()
    hub.gated = {NAME}
    load_pipeline(NAME, variant="fp16")


def test_a_gated_repository_says_where_to_accept_its_licence(hub, tmp_path, capsys):
    hub.gated = {NAME}
    assert execute(["fetch", variant_in(tmp_path)]) == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert f"asks for a licence to be accepted: at {hub.url}/{NAME}, then log in with `hf auth login`" in line


def sdxl(folder):
    """The layout of another kind of pipeline, as its index names it."""
    networks = {"unet": "UNet2DConditionModel", "vae": "AutoencoderKL", "text_encoder": "CLIPTextModel"}
    index = {name: ["diffusers", kind] for name, kind in networks.items()}
    index |= {"tokenizer": ["transformers", "CLIPTokenizer"], "image_encoder": [None, None]}
    for part in networks:
        (folder / part).mkdir(parents=True)
        (folder / part / "config.json").write_text("{}")
        stem = "model" if part == "text_encoder" else "diffusion_pytorch_model"
        save_file({"a": torch.zeros(4)}, folder / part / f"{stem}.safetensors")
    (folder / "tokenizer").mkdir(parents=True)
    (folder / "tokenizer/tokenizer_config.json").write_text("{}")
    name = "StableDiffusionXLPipeline"
    (folder / "model_index.json").write_text(json.dumps({"_class_name": name, **index}))
    return folder


def test_another_pipeline_is_asked_for_what_its_index_names(hub, tmp_path, capsys):
    hub.add("org/sdxl", sdxl(tmp_path / "source"))
    lines = ("generator: diffusers", "sampler: {name: pipeline, steps: 1, guidance_scale: 1.0}")
    variant = str(write_variant(tmp_path / "own", "xl", *lines, weights="org/sdxl"))
    assert execute(["fetch", variant]) == 0
    folder = snapshot(tmp_path, "org/sdxl")
    check_repository(folder, Repository("org/sdxl"))
    shutil.rmtree(folder / "unet")
    with pytest.raises(AssetError, match=f"^{folder}: missing unet$"):
        check_repository(folder, Repository("org/sdxl"))
    capsys.readouterr()
    assert execute(["fetch", variant, "--dry-run"]) == 0
    assert f"! org/sdxl: {folder}: missing unet\n" in capsys.readouterr().out


def test_a_pipeline_of_another_kind_is_not_asked_for_parts_of_sana(tmp_path):
    folder = sdxl(tmp_path / "xl")
    with pytest.raises(
        AssetError, match=r"'StableDiffusionXLPipeline', not 'SanaPipeline'; write generator: diff"
    ):
        check_pipeline_directory(folder)


def sharded(folder):
    """A model in two shards, as a text encoder or a judge comes."""
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"model-{place:05d}-of-00002.safetensors" for place in (1, 2)]
    for name, key in zip(names, "ab", strict=True):
        save_file({key: torch.zeros(4)}, folder / name)
    index = {"weight_map": dict(zip("ab", names, strict=True))}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "config.json").write_text("{}")
    return folder


@pytest.mark.parametrize("also_gone", [None, "model.safetensors.index.json"])
def test_a_pipeline_without_one_of_its_shards_is_not_whole(tiny_pipeline_dir, tmp_path, also_gone):
    folder = tmp_path / "pipeline"
    shutil.copytree(tiny_pipeline_dir, folder)
    for path in (folder / "text_encoder").glob("*.safetensors"):
        path.unlink()
    sharded(folder / "text_encoder")
    check_pipeline_directory(folder)
    (folder / "text_encoder/model-00002-of-00002.safetensors").unlink()
    if also_gone is not None:
        (folder / "text_encoder" / also_gone).unlink()
    with pytest.raises(AssetError, match=r"text_encoder: missing model-00002-of-00002\.safetensors"):
        check_pipeline_directory(folder)


def judged(name, weights=None):
    judge = f"{{name: {name}{f', weights: {weights}' if weights else ''}}}"
    return f"generator: best_of_n\nbest_of_n: {{candidates: 2, judge: {judge}}}"


@pytest.mark.parametrize(
    ("kind", "kept"),
    [
        ("vision_language", ["config.json"]),
        (
            "vision_language",
            ["config.json", "model.safetensors.index.json", "model-00001-of-00002.safetensors"],
        ),
        ("vila", ["mm_projector/config.json", "mm_projector/model.safetensors", "llm/config.json"]),
        ("vila", ["mm_projector/config.json", "mm_projector/model.safetensors"]),
    ],
)
def test_judges_that_were_cut_go_on(published, tiny_pipeline_dir, tmp_path, capsys, kind, kept):
    source = tmp_path / "source"
    if kind == "vila":
        for part in ("llm", "vision_tower"):
            sharded(source / part)
        (source / "mm_projector").mkdir()
        save_file({"a": torch.zeros(4)}, source / "mm_projector/model.safetensors")
        for folder in (source, source / "mm_projector"):
            (folder / "config.json").write_text("{}")
    else:
        sharded(source)
    published.add("org/judge", source)
    begun(tmp_path, *kept, source=source, name="org/judge")
    variant = variant_in(tmp_path, more=judged(kind, "org/judge"))
    assert execute(["fetch", variant]) == 0
    assert {path.relative_to(source) for path in source.rglob("*")} == {
        path.relative_to(snapshot(tmp_path, "org/judge"))
        for path in snapshot(tmp_path, "org/judge").rglob("*")
    }
    capsys.readouterr()
    assert execute(["fetch", variant]) == 0
    assert "org/judge: already here" in capsys.readouterr().out


def test_the_default_verifier_comes_with_the_variant(published, tmp_path, capsys):
    from sana_bench.assets.table import VERIFIER

    assert execute(["fetch", variant_in(tmp_path, more=judged("vila"))]) == 2
    assert VERIFIER in capsys.readouterr().err


@pytest.mark.parametrize(
    ("judge", "first"),
    [
        (judged("image_reward"), "image_reward/ImageReward.pt"),
        (
            judged("vqa", "xingjianleng/mplug_visual-question-answering_coco_large_en"),
            "mplug/pytorch_model.bin",
        ),
    ],
)
def test_files_of_a_variants_judge_come_with_it(published, tmp_path, capsys, judge, first):
    variant = variant_in(tmp_path, more=judge)
    assert execute(["fetch", variant, "--from", str(tmp_path / "copy")]) == 2
    assert f"copy/{first} is missing" in capsys.readouterr().err


def test_weights_that_nobody_publishes_are_said(published, tmp_path, capsys):
    suites = tmp_path / "suites"
    variant = variant_in(suites, "../pruned", name="pruned")
    variant_in(suites)
    assert execute(["fetch", variant]) == 2
    assert "variant pruned: weights '../pruned': there is no folder" in capsys.readouterr().err
    suite = str(write_suite(suites, "{name: latency}", ["mine", "pruned"]))
    assert execute(["fetch", suite]) == 0
    out = capsys.readouterr().out
    assert out.startswith("not fetched: variant pruned: weights '../pruned'")
    assert "may need" not in out
    assert f"{NAME}: fetched" in out


def test_the_micro_tier_fetches_nothing(capsys):
    assert execute(["fetch", "sana-micro"]) == 0
    assert capsys.readouterr().out == "the micro tier fetches nothing\n"


def test_a_shipped_variant_has_a_home(hub, tmp_path, capsys):
    root = ROOT
    assert execute(["fetch", str(root / "suites/variants/sana-1.6b-1024.yaml")]) == 2
    assert "Efficient-Large-Model/Sana_1600M_1024px_diffusers" in capsys.readouterr().err


def test_weights_that_are_not_here_are_said_in_short(tmp_path, monkeypatch):
    """Not with the name of every file that a pipeline has."""
    monkeypatch.setenv("SANA_BENCH_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    for place in (None, tmp_path / "data/models/owner/name"):
        if place is not None:
            place.mkdir(parents=True)
        with pytest.raises(AssetError, match="owner/name") as refused:
            resolve_weights("owner/name", tmp_path)
        message = str(refused.value)
        assert "hf download owner/name" in message
        assert "text_encoder" not in message
    assert "missing model_index.json and all other files of a pipeline; " in message
