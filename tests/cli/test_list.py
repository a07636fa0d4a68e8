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


def test_the_published_rows_of_each_variant_are_listed(capsys) -> None:
    assert execute(["list", "variants", "--published"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "sana-0.6b-1024: Sana-0.6B (released), 1024 px (README of NVlabs/Sana, performance table)" in lines
    assert "sana-1.6b-4k: Sana-1.6B, 4096 px (SANA, arXiv:2410.10629, Table 14)" in lines
    assert any(line.startswith("no variant: Playground-v3, 1024 px (SANA-1.5,") for line in lines)
    assert not any(line.startswith("sana-micro:") for line in lines)
    assert execute(["list", "--published"]) == 2
    assert "--published goes with `list variants`" in capsys.readouterr().err


def test_the_help_names_every_kind(capsys) -> None:
    assert execute(["list", "-h"]) == 0
    words = capsys.readouterr().out.replace(",", " ").replace(";", " ").split()
    assert {"suites", "variants", *REGISTRIES} <= set(words)
