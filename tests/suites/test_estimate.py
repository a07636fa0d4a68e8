"""How long a plan says that it takes, before anything was timed."""

from sana_bench.core.fingerprint import FileHashes
from sana_bench.runner.resolve import resolve_suite
from sana_bench.suites.load import load_suite
from sana_bench.suites.plan import estimate_seconds, plan_cell
from sana_bench.suites.tiers import choose_tier
from tests import ROOT


def test_a_search_is_estimated_by_the_candidates_that_it_makes(tmp_path):
    resolved = resolve_suite(
        load_suite(ROOT / "suites" / "demo.yaml", "micro"), choose_tier("micro"), FileHashes()
    )
    found = {}
    for cell in resolved.cells():
        plan = plan_cell(cell, None, tmp_path, tmp_path / "run", None)
        found[cell.variant.name] = estimate_seconds(plan, None, "micro")
    base, search = found["sana15-micro-grown"], found["sana15-micro-grown-best-of-4"]
    assert search.seconds == 4 * base.seconds > 0
    assert search.basis == "default for 4 candidates an image, nothing timed yet"
