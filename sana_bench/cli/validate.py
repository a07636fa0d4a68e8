"""`sana-bench validate`: whether a suite could run, without loading a model."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from sana_bench.cli.options import SetOption, SuiteArgument
from sana_bench.core.errors import AssetError, SuiteError

if TYPE_CHECKING:
    from sana_bench.suites.schema import Suite

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog="Example: sana-bench validate geneval")(validate)


def validate(suite: SuiteArgument, set_: SetOption = None) -> None:
    """Check a suite and its variants without loading a model."""
    from sana_bench.suites.load import load_all_tiers

    tiers = load_all_tiers(suite, tuple(set_ or ()))
    for loaded in tiers:
        _check_metrics(loaded)
    notes = [list(_absent_weights(loaded)) for loaded in tiers]
    for loaded, lines in zip(tiers, notes, strict=True):
        names = ", ".join(variant.name for variant in loaded.variants)
        print(f"{loaded.path}: {loaded.tier} tier is valid: {names}")
        for line in loaded.borrowed + lines:
            print(line)


def _check_metrics(suite: "Suite") -> None:
    """Raise `SuiteError` for a protocol or a parameter that a metric does not have."""
    from sana_bench.assets.locate import micro_weights_root
    from sana_bench.core.registry import MEASURED

    for benchmark in suite.file.benchmarks:
        for spec in benchmark.metric_specs:
            if spec.name in MEASURED or not (spec.protocol or spec.parameters):
                continue
            from sana_bench import metrics
            from sana_bench.metrics.base import MetricAssets

            try:
                metrics.build(spec, suite.tier, MetricAssets(micro_weights_root(), Path("results/cache")))
            except AssetError:
                pass  # found after the choices were judged, and no mistake of the suite
            except SuiteError as error:
                raise SuiteError(
                    f"{suite.path}: benchmark {benchmark.name!r} on the {suite.tier} tier: {error}"
                ) from None


def _absent_weights(suite: "Suite") -> Iterator[str]:
    """One line for each variant whose weights are not on this machine; raises `SuiteError` for settings that do not fit."""
    from sana_bench import generators
    from sana_bench.suites.cells import NO_WEIGHTS

    for variant in suite.variants:
        if variant.model.weights == NO_WEIGHTS:
            continue
        try:
            generators.find(variant, suite.folder(variant))
        except AssetError:
            yield (
                f"note: the weights of {variant.name}, {variant.model.weights}, are not on this machine; "
                "a run says what is missing and how to get it"
            )
