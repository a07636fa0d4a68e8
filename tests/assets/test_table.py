"""The table of assets: whole, in sentences, and what a suite needs of it."""

import re
from pathlib import Path

import pytest

from sana_bench.assets import table as homes
from sana_bench.assets.table import (
    files_for,
    find_asset,
    judge_ids,
    metric_needs,
    prompt_licences,
    read_assets,
    repositories_of,
)
from sana_bench.metrics.fid.features import CHAINS
from sana_bench.suites.load import load_suite, load_variant
from tests import ROOT
from tests.assets.conftest import write_mine
from tests.suite_files import write_variant

SUITES = ROOT / "suites"


ASSETS = read_assets()


@pytest.mark.parametrize("name", ASSETS)
def test_every_asset_has_public_homes(name):
    files = files_for([name])
    assert files
    assert all(file.url.startswith("https://") and not Path(file.path).is_absolute() for file in files)


@pytest.mark.parametrize("name", [name for name, asset in ASSETS.items() if asset.needed_for])
def test_hints_name_the_command_and_every_source(name, tmp_path, monkeypatch):
    monkeypatch.setenv("SANA_BENCH_DATA", str(tmp_path))
    asset = find_asset(name)
    assert asset.how.startswith("`sana-bench fetch")
    for file in asset.files:
        if file.url not in asset.how:
            # The hub's own command, which puts the file where it is looked for and under its name.
            repository = re.search(r"huggingface\.co/(?:datasets/)?([^/]+/[^/]+)/resolve", file.url).group(1)
            (command,) = re.findall(rf"`hf download {repository} (.*?)`", asset.how)
            assert Path(file.path).name in command.split()
            assert command.endswith(f"--local-dir {(tmp_path / file.path).parent}")
            assert file.url.endswith(Path(file.path).name)
    if " " not in asset.fetched_by:
        assets, _ = metric_needs(load_suite(SUITES / f"{asset.fetched_by}.yaml", "full"))
        assert set(asset.files) <= set(files_for(assets))


def test_hints_are_sentences(tmp_path, monkeypatch):
    monkeypatch.setenv("SANA_BENCH_DATA", str(tmp_path))
    assert find_asset("clip_vit_l_14").how == (
        "`sana-bench fetch geneval` downloads it; by hand: save under that name "
        "https://huggingface.co/timm/vit_large_patch14_clip_224.openai/resolve/main/open_clip_model.safetensors"
    )
    assert find_asset("geneval_detector_hub").how == (
        "`sana-bench fetch` of a suite that names geneval/hf-detector@1 downloads it; by hand: "
        "`hf download facebook/mask2former-swin-small-coco-instance model.safetensors config.json "
        f"--local-dir {tmp_path}/geneval/mask2former-swin-small-coco-instance`"
    )
    assert find_asset("mjhq30k_images").how == (
        "`sana-bench fetch mjhq30k` downloads it; by hand: `hf download playgroundai/MJHQ-30K meta_data.json "
        f"mjhq30k_imgs.zip --repo-type dataset --local-dir {tmp_path}/mjhq30k`, "
        f"then unpack mjhq30k_imgs.zip to {tmp_path}/mjhq30k/mjhq30k_imgs"
    )


PROMPTS_AND_NEEDS = {
    "geneval": {"geneval_detector", "clip_vit_l_14", "inception_pytorch", "mjhq30k_images"},
    "dpg_bench": {"dpg_bench_questions", "mplug"},
    "image_reward": {
        *("image_reward_prompts", "image_reward_weights", "image_reward_config", "bert_vocabulary"),
        "clip_vit_l_14",
    },
    "mjhq30k": {"mjhq30k_prompts", "mjhq30k_images", "inception_pytorch", "clip_vit_l_14"},
    "geneval2": {"geneval2_prompts"},
    "longtext": {"longtext_prompts"},
    "oneig": {
        *("oneig_prompts", "oneig_style_references", "csd_vit_l_14", "dino_vit_b_16", "dreamsim_ensemble"),
    },
    "longtext_zh": {"longtext_zh_prompts"},
    "preference": {
        *("hpdv2_prompts", "hpsv2_weights", "hpsv2_1_weights", "aesthetic_head", "clip_vit_l_14"),
        *("pickscore_weights", "pickscore_config", "pickscore_tokenizer"),
        *("hpsv3_weights", "hpsv3_config", "hpsv3_tokenizer", "hpsv3_request"),
        *("image_reward_weights", "image_reward_config", "bert_vocabulary"),
    },
    "latency": set(),
    "demo": {"geneval_detector", "clip_vit_l_14", "inception_pytorch", "mjhq30k_images"},
    "sana15_micro": None,  # of the micro tier alone
}
PROMPTS_AND_NEEDS["all"] = set().union(
    *(PROMPTS_AND_NEEDS[name] for name in ("geneval", "dpg_bench", "image_reward", "mjhq30k"))
)
PROMPTS_AND_NEEDS["paper_table"] = PROMPTS_AND_NEEDS["all"]
PROMPTS_AND_NEEDS["paper_table_sana15"] = PROMPTS_AND_NEEDS["all"] - {
    *("image_reward_prompts", "image_reward_weights", "image_reward_config", "bert_vocabulary"),
}
PROMPTS_AND_NEEDS["paper_table_sana15_geneval"] = {"geneval_detector", "clip_vit_l_14"}


JUDGES = {
    "geneval2": ["Qwen/Qwen3-VL-8B-Instruct"],
    "longtext": ["Qwen/Qwen2.5-VL-7B-Instruct"],
    "longtext_zh": ["Qwen/Qwen2.5-VL-7B-Instruct"],
    "oneig": ["Qwen/Qwen2.5-VL-7B-Instruct", "xingpng/OneIG-StyleEncoder"],
}


def test_every_shipped_suite_is_here():
    assert {path.stem for path in SUITES.glob("*.yaml")} == set(PROMPTS_AND_NEEDS)


@pytest.mark.parametrize("name", [name for name, needs in PROMPTS_AND_NEEDS.items() if needs is not None])
def test_the_shipped_suites_list_their_files(name):
    suite = load_suite(SUITES / f"{name}.yaml", "full")
    assets, unlisted = metric_needs(suite)
    assert (set(assets), unlisted) == (PROMPTS_AND_NEEDS[name], [])
    assert len(files_for(assets)) >= len(set(assets) - {"mjhq30k_prompts"})
    assert judge_ids(suite, SUITES) == JUDGES.get(name, [])


@pytest.mark.parametrize("protocol", [*CHAINS, "kid", "fid"])
def test_every_image_chain_has_its_network_and_reference(tmp_path, protocol):
    metric, _, recipe = protocol.partition("/")
    choice = f"{{name: {metric}, protocol: {protocol}}}" if recipe else metric
    suite = write_mine(tmp_path, f"{{name: mjhq30k, metrics: [{choice}]}}")
    assets, unlisted = metric_needs(load_suite(suite, "full"))
    weights = CHAINS[{"kid": "kid/clean@1", "fid": "fid/sana@1"}.get(protocol, protocol)].weights
    held_against = [] if metric == "vendi" else ["mjhq30k_images"]
    assert (assets, unlisted) == (["mjhq30k_prompts", weights, *held_against], [])


def test_metrics_that_nobody_lists_are_named(tmp_path, monkeypatch):
    table = tmp_path / "assets.yaml"
    table.write_text(
        "schema_version: 1\nassets: {}\nneeds: {clip_score: []}\njudges: {}\nprompts: {}\nmetric_judges: {}\n"
    )
    monkeypatch.setattr(homes, "_TABLE", table)
    suite = write_mine(tmp_path, "{name: geneval, metrics: [geneval, clip_score]}")
    assert metric_needs(load_suite(suite, "full")) == ([], ["geneval"])


def test_a_judge_on_the_hub_is_fetched_from_there(tmp_path):
    benchmarks = "{name: dpg_bench, metrics: [{name: dpg, parameters: {judge: hf://owner/judge-1b}}]}"
    suite = load_suite(write_mine(tmp_path, benchmarks), "full")
    assert judge_ids(suite, tmp_path) == ["owner/judge-1b"]


def test_nothing_is_fetched_for_a_judge_on_a_server(tmp_path):
    """Its name is that of a model there, and looks like an id of the hub."""
    server = "http://localhost:8000/v1"
    judge = f"{{judge: owner/judge-1b, server: {server}}}"
    suite = write_mine(tmp_path, f"{{name: dpg_bench, metrics: [{{name: dpg, parameters: {judge}}}]}}")
    assert judge_ids(load_suite(suite, "full"), tmp_path) == []
    search = f"{{name: served, weights: owner/judge-1b, server: {{address: {server}}}}}"
    path = write_variant(
        tmp_path,
        "best",
        f"generator: best_of_n\nbest_of_n: {{candidates: 2, judge: {search}}}",
    )
    assert repositories_of([load_variant(path)], tmp_path) == []


def test_the_published_judge_is_fetched_where_the_suite_names_none(tmp_path):
    benchmarks = "{name: geneval2, metrics: [geneval2, clip_score]}"
    assert judge_ids(load_suite(write_mine(tmp_path, benchmarks), "full"), tmp_path) == [
        "Qwen/Qwen3-VL-8B-Instruct"
    ]
    other = "{name: geneval2, metrics: [{name: geneval2, parameters: {judge: owner/judge-1b}}]}"
    assert judge_ids(load_suite(write_mine(tmp_path, other), "full"), tmp_path) == ["owner/judge-1b"]


def test_licences_of_prompts_are_those_of_their_files():
    assert prompt_licences("geneval2") == ["CC BY-NC 4.0, no commercial use"]
    assert prompt_licences("dpg_bench") == ["Apache-2.0"]
    assert prompt_licences("geneval") == prompt_licences("latency") == []
