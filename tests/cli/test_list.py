"""`sana-bench list` as typed."""

from sana_bench.cli.main import execute
from sana_bench.core.registry import REGISTRIES


def test_every_kind_is_listed(capsys) -> None:
    assert execute(["list"]) == 0
    out = capsys.readouterr().out
    for word in (
        "geneval: GenEval with CLIP score and FID on the same images",
        "sana-1.5-4.8b-1024 (full, grown from sana-1.6b-1024)",
        "sana-1.5-2.4b-1024 (full, pruned from sana-1.5-4.8b-1024)",
        "geneval:",
        "clip_score",
    ):
        assert word in out
    assert execute(["list", "metrics"]) == 0
    assert capsys.readouterr().out.splitlines()[0] == "geneval"


def test_the_licence_of_published_prompts_is_said(capsys) -> None:
    assert execute(["list", "benchmarks"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert (
        "geneval2: 1 images per prompt, geneval2, clip_score; full tier's prompts: CC BY-NC 4.0, no commercial use"
    ) in lines
    assert "geneval: 4 images per prompt, geneval, clip_score, fid" in lines


def test_the_help_names_every_kind(capsys) -> None:
    assert execute(["list", "-h"]) == 0
    words = capsys.readouterr().out.replace(",", " ").replace(";", " ").split()
    assert {"suites", "variants", *REGISTRIES} <= set(words)
