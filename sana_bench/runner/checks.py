"""What a run checks before it writes anything, and what holds while it writes."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sana_bench import generators, metrics
from sana_bench.assets.locate import micro_weights_root
from sana_bench.core import atomic
from sana_bench.core.errors import AssetError, IncompleteError
from sana_bench.core.fingerprint import HashCache, canonical_json, remembering
from sana_bench.core.progress import listed, say
from sana_bench.core.registry import MEASURED
from sana_bench.core.text import difference, look_alike
from sana_bench.generators.image_folder import ImageName, bounded, find_name, other_files, read_folder
from sana_bench.judges.base import Distant
from sana_bench.judges.chat_server import TRIES
from sana_bench.metrics.base import AsksJudge, FeatureMetric, Metric, metric_key
from sana_bench.results.database import check_files
from sana_bench.results.store import Store
from sana_bench.suites.cells import Cell, ResolvedBenchmark, ResolvedSuite
from sana_bench.suites.plan import CellPlan

__all__ = [
    "check_generators",
    "check_output",
    "choice_key",
    "distant_judges",
    "load_metrics",
    "missing_images",
    "reach_judges",
    "reading",
    "refuse_surplus",
    "surplus_images",
]


def surplus_images(cells: Sequence[Cell]) -> dict[str, list[str]]:
    """By variant with `generator: images`, the files of its folder that no prompt of the suite asks for.

    A prompt that is not in the suite and a sample index beyond the images per prompt are both surplus. Raises
    `AssetError` for a folder that cannot be read, that names an image twice, or whose image would count for two prompts.
    """
    by_variant: dict[str, list[Cell]] = {}
    for cell in cells:
        if cell.variant.variant.generator == "images":
            by_variant.setdefault(cell.variant.name, []).append(cell)
    found: dict[str, list[str]] = {}
    for variant, own in by_variant.items():
        if (matched := own[0].variant.spec.found) is not None:
            found[variant] = list(matched.surplus)
            continue
        files = read_folder(own[0].variant.spec.weights_path)
        used = {name for cell in own for name in _asked_for(cell, files)}
        prompts = {(prompt.id, prompt.text) for cell in own for prompt in cell.benchmark.prompts}
        surplus = sorted(set(files) - used, key=lambda name: (name.prompt_id or "", name.text, name.index))
        found[variant] = [f"{files[name]}: {_why_surplus(name, prompts)}" for name in surplus]
    return {name: lines for name, lines in found.items() if lines}


def _asked_for(cell: Cell, files: Mapping[ImageName, Path]) -> set[ImageName]:
    """The images of a folder that a cell takes; each of them for one sample."""
    takers: dict[ImageName, str] = {}
    problems = []
    for prompt, index in cell.benchmark.places:
        name = find_name(files, prompt.id, prompt.text, index)
        if name is not None and takers.setdefault(name, prompt.id) != prompt.id:
            problems.append(f"{name} matches both prompts {takers[name]} and {prompt.id}")
    if problems:
        raise AssetError(
            f"{cell.label}: prompts with the same text need the key id in the manifest: {bounded(problems)}"
        )
    return set(takers)


def _why_surplus(name: ImageName, prompts: set[tuple[str, str]]) -> str:
    same_id = {text for prompt_id, text in prompts if name.prompt_id in (None, prompt_id)}
    if name.text in same_id:
        return f"{name} is beyond the images per prompt"
    alike = next((text for text in sorted(same_id) if look_alike(text) == look_alike(name.text)), None)
    but = "" if alike is None else f", which only looks like the suite's: {difference(name.text, alike)}"
    if name.prompt_id is None:
        return f"no prompt {name.text!r}{but}"
    if same_id:
        return f"prompt {name.prompt_id} has another text in the suite than {name.text!r}{but}"
    return f"no prompt {name.prompt_id}"


def missing_images(plan: CellPlan) -> list[str]:
    """The samples that were to be made and are not there, each with the reason that was recorded."""
    return [
        f"{plan.cell.label} {sample.id}: {plan.errors.get(sample.place, 'no image')}"
        for sample in plan.missing
    ]


def refuse_surplus(cells: Sequence[Cell], allowed: bool) -> dict[str, list[str]]:
    """Return images of existing folders that nobody asked for, by variant.

    Raises `IncompleteError` after listing them, unless `allowed`. Files that are no images of a folder are named in a line.
    """
    for variant in {cell.variant.name: cell.variant for cell in cells}.values():
        if variant.variant.generator != "images" or variant.spec.found is not None:
            continue
        if others := other_files(variant.spec.weights_path):
            say(f"{variant.name}: ignored files in its folder: {bounded(others)}")
    found = surplus_images(cells)
    for line in listed(
        {f"{name} has images that the suite does not ask for:": files for name, files in found.items()}
    ):
        say(line)
    if found and not allowed:
        count = sum(map(len, found.values()))
        raise IncompleteError(
            f"{count} images belong to no sample of the suite; --allow-incomplete scores the others and marks the result"
        )
    return found


def load_metrics(
    resolved: ResolvedSuite, cache: Path, hashes: HashCache
) -> dict[str, Metric | FeatureMetric]:
    """Return the metrics by `choice_key`, their weights hashed; benchmarks that score alike share one.

    Raises `AssetError` or `SuiteError` for one that cannot be built.
    """
    from sana_bench.metrics.base import MetricAssets

    assets = MetricAssets(micro_weights_root(), cache, resolved.tier.device, hashes)
    wanted = {
        choice_key(benchmark, name): benchmark.choice(name)
        for benchmark in resolved.benchmarks
        for name in benchmark.metrics
        if name not in MEASURED
    }
    with remembering(hashes):
        loaded = {key: metrics.build(spec, resolved.tier.tier, assets) for key, spec in wanted.items()}
        # Hashes the weights, so that a missing file is found before anything is written.
        for metric in loaded.values():
            metric_key(metric)
    return loaded


def choice_key(benchmark: ResolvedBenchmark, metric: str) -> str:
    """Benchmarks that choose alike share one loaded metric."""
    return canonical_json(benchmark.choice(metric).model_dump())


def reach_judges(plans: Sequence[CellPlan], loaded: Mapping[str, Metric | FeatureMetric]) -> None:
    """Find that a judge behind an address is away before hours of making the images that it is to score.

    Where all images are there, scoring begins at once and finds it as soon. Raises `AssetError` or `UsageError` as
    `Distant.reach`.
    """
    scoring = [
        loaded[choice_key(plan.cell.benchmark, name)]
        for plan in plans
        if plan.missing
        for name in plan.cell.benchmark.metrics
        if name not in MEASURED
    ]
    for judge in distant_judges(scoring):
        judge.reach(TRIES)


def distant_judges(loaded: Iterable[Metric | FeatureMetric]) -> list[Distant]:
    """The judges that these metrics ask and that may be behind an address, each once."""
    found = [metric.judge for metric in loaded if isinstance(metric, AsksJudge)]
    return list({id(judge): judge for judge in found if isinstance(judge, Distant)}.values())


def check_generators(plans: Sequence[CellPlan], device: str) -> None:
    """Load each checkpoint, and judge, that will be used once, so that a foreign one is found before hours of work."""
    seen: set[tuple[Any, ...]] = set()
    for plan in plans:
        spec = plan.cell.spec
        model = spec.variant.model
        identity = (
            *(spec.generator, spec.weights_sha256, model.height, model.width),
            *(
                spec.variant.precisions,
                spec.variant.quantization,
                spec.variant.compile,
                spec.variant.cuda_graphs,
            ),
            *(spec.autoencoder_sha256, spec.lora_sha256, spec.variant.lora, spec.variant.best_of_n),
        )
        if plan.missing and identity not in seen:
            seen.add(identity)
            generators.build(spec, device)


def check_output(output: Path) -> None:
    """Refuse an output folder that cannot be written, or whose files are links and the like, without creating it."""
    atomic.check_writable(output)
    check_files(output)


@contextmanager
def reading(output: Path) -> Iterator[Store | None]:
    """The store of an output folder, for reading; None where there is none."""
    store = Store.open_existing(output)
    try:
        yield store
    finally:
        if store is not None:
            store.close()
