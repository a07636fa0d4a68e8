"""The suites of the papers' tables: every number as the published one was made, so that a whole run on an A100 is comparable."""

import pytest

from sana_bench.runner.benchmarks import asked_of
from sana_bench.suites.load import load_suite
from sana_reports import ReportData, SummaryCell, VariantInfo
from sana_reports.beside_published import NOT_COMPARABLE, beside_published
from tests import ROOT

SUITES = ROOT / "suites"
#: Benchmark: prompts, images for each, and the metrics with their protocols; as the papers count them.
MADE = {
    "geneval": (553, 4, {"geneval": "geneval/sana@1"}),
    "mjhq30k": (30_000, 1, {"fid": "fid/sana@1", "clip_score": "clip_score/sana@1"}),
    "dpg_bench": (1065, 4, {"dpg": "dpg/sana-grid@1"}),
    "image_reward": (100, 10, {"image_reward": "image_reward/sana-jpeg@1"}),
    "latency": (6, 5, {"latency": "latency/warm-interleaved@1", "throughput": "throughput/fixed-batch@1"}),
}
#: Suite: its benchmarks, the batches of its paper's throughput, and how many published numbers its variants have, of GenEval's
#: tasks two alone.
EXPECTED = {
    "paper_table": (tuple(MADE), 16, 44),
    "paper_table_sana15": (("geneval", "mjhq30k", "dpg_bench", "latency"), 10, 30),
    "paper_table_sana15_geneval": (("geneval",), None, 9),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_every_benchmark_is_made_as_published(name) -> None:
    suite = load_suite(SUITES / f"{name}.yaml", "full")
    benchmarks, batch, _ = EXPECTED[name]
    assert tuple(spec.source for spec in suite.file.benchmarks) == benchmarks
    for spec in suite.file.benchmarks:
        images, metrics = asked_of(spec, suite)
        _, expected, protocols = MADE[spec.source]
        assert (images, set(metrics)) == (expected, set(protocols))
        assert spec.subset is None
        chosen = {metric.name: metric for metric in spec.metric_specs}
        if spec.source == "latency":
            # The protocol of throughput follows from the batch; latency has one.
            assert chosen["throughput"].parameters == {"batch_size": batch}
        else:
            assert {key: metric.protocol for key, metric in chosen.items()} == protocols
            assert not any(metric.parameters for metric in chosen.values())
        without = spec.source in ("dpg_bench", "image_reward")
        told = spec.settings.model_dump(exclude_none=True) if spec.settings is not None else {}
        assert told == ({"instruction": "none"} if without else {})
    # With SANA's instruction and 20 steps, but for SANA-Sprint's two.
    for variant in suite.variants:
        assert variant.model.instruction == "sana"
        assert variant.sampler.steps == (2 if "sprint" in variant.name else 20)
        assert variant.sampler.guidance_scale == 4.5
        assert variant.compile == "none"


@pytest.mark.parametrize("name", EXPECTED)
def test_a_whole_run_on_an_a100_is_held_against_every_published_number(name) -> None:
    """No number of a whole run is out of reach by how the suite makes it; those of other devices and formats are."""
    suite = load_suite(SUITES / f"{name}.yaml", "full")
    found = []
    for variant in suite.variants:
        info = VariantInfo(
            name=variant.name, fingerprint="f" * 64, published=variant.published,
            settings=variant.model_dump(mode="json"),
        )  # fmt: skip
        cells = [cell for spec in suite.file.benchmarks for cell in _cells(variant.name, spec.source, name)]
        data = ReportData(
            title="t", suite_name=name, tier="full", tier_reason="asked", created="now", fingerprint="r" * 64,
            complete=True, variants=[info], summaries=cells, samples=[], provenance={},
        )  # fmt: skip
        found += beside_published(data)
    # Table 5 has a laptop's times, one of them quantized.
    apart = [one for one in found if "Table 5" in one.source]
    assert [one for one in found if one.verdict == NOT_COMPARABLE] == apart
    assert len(found) - len(apart) == EXPECTED[name][2]


def _cells(variant: str, benchmark: str, suite: str) -> list[SummaryCell]:
    prompts, images, protocols = MADE[benchmark]
    keys = ("overall", "counting", "position") if benchmark == "geneval" else ("overall",)
    return [
        SummaryCell(
            variant=variant, benchmark=benchmark, metric=metric, protocol=protocol, key=key, value=1.0, low=0.9, high=1.1,
            n_samples=prompts * images, n_expected=prompts * images, n_prompts=prompts, unit="", higher_is_better=True,
            device="NVIDIA A100-SXM4-80GB" if benchmark == "latency" else "",
            batch_size=EXPECTED[suite][1] if metric == "throughput" else None,
        )
        for metric, protocol in protocols.items()
        for key in keys
    ]  # fmt: skip
