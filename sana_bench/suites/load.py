"""From suite and variant files to `Suite`, with overrides; every problem is one line with file, line and key."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sana_bench.core.errors import SuiteError, nearest
from sana_bench.core.registry import BENCHMARKS, GENERATORS, JUDGES, MEASURED, METRICS, Registry
from sana_bench.core.tiers import TIERS, Tier
from sana_bench.suites.config_files import Document, KeyPath, parse_override, read_yaml, validate
from sana_bench.suites.find import find_suite, variant_files
from sana_bench.suites.overridden import named_apart
from sana_bench.suites.schema import (
    NAMED_REFERENCES,
    SCHEMA_VERSION,
    BenchmarkSpec,
    MetricSpec,
    Suite,
    SuiteFile,
    Variant,
    check_name,
)
from sana_bench.suites.stop import StopSpec, chosen_question
from sana_bench.suites.variant_file import read_variant_file
from sana_models.files import is_there, path_of

__all__ = [
    "FULL",
    "check_origin",
    "check_suite_file",
    "load_all_tiers",
    "load_suite",
    "load_variant",
]

# The kind of a variant that was made from no other.
FULL = "full"


def check_origin(document: Document) -> None:
    """Check `kind` and `derived_from` of a validated variant document against the files beside it and the
    shipped ones.

    Raises `SuiteError` when one is there without the other, and when the origin is unknown, of another tier, or derived
    from this variant itself.
    """
    data = document.data
    kind, origin = data.get("kind", FULL), data.get("derived_from")
    if kind != FULL and origin is None:
        raise SuiteError(
            f"{document.origin(('kind',))}: a {kind} variant says in derived_from what it was made from"
        )
    if origin is None:
        return
    where = document.origin(("derived_from",))
    if kind == FULL:
        raise SuiteError(
            f"{where}: derived_from needs kind pruned, grown or inference_scaled; kind is {FULL}"
        )
    line, current, known = [data["name"]], origin, variant_files(document.path.parent)
    while current is not None:
        if current in line:
            raise SuiteError(
                f"{where}: {' from '.join([*line, current])}: a variant cannot be made from itself"
            )
        line.append(current)
        current = _source_of(current, known, data["tier"], where)


def _source_of(name: str, known: Mapping[str, Path], tier: str, where: str) -> str | None:
    if name not in known:
        raise SuiteError(f"{where}: derived_from names the unknown variant {name!r}{nearest(name, known)}")
    found = read_variant_file(known[name]).data
    if found.get("tier") != tier:
        raise SuiteError(
            f"{where}: {name!r} is of the {found.get('tier')} tier, this variant of the {tier} tier"
        )
    further = found.get("derived_from")
    return None if further is None else str(further)


# Dotted key, value, and the option as typed.
_Override = tuple[str, Any, str]


def load_suite(path: Path, tier: Tier, overrides: tuple[str, ...] = ()) -> Suite:
    """Read and validate a suite, its benchmarks' names, and every variant file of `tier`.

    `path` may be the name of a suite, and the variants are those beside it, then the shipped ones. `overrides` are `--set`
    options: keys of the suite file, or `variants.NAME.KEY` for a key of a variant file.
    Raises `SuiteError`, one line with file, line and key.
    """
    file, document, variant_options = _load_file(path, overrides)
    names = file.variants.get(tier)
    if names is None:
        raise SuiteError(
            f"{document.origin(('variants',))}: suite {file.name!r} has no {tier} variants; "
            f"it has {' and '.join(file.variants)} (choose with --tier)"
        )
    _check_overridden_variants(variant_options, names, f"{tier} ")
    return _load_tier(file, document, tier, variant_options)


def check_suite_file(path: Path, overrides: tuple[str, ...] = ()) -> None:
    """Check a suite file without its variants, which needs no tier and imports no torch; raises `SuiteError`."""
    _load_file(path, overrides)


def load_all_tiers(path: Path, overrides: tuple[str, ...] = ()) -> list[Suite]:
    """Validate a suite for every tier that it has variants of; raises `SuiteError`."""
    file, document, variant_options = _load_file(path, overrides)
    _check_overridden_variants(
        variant_options, [name for names in file.variants.values() for name in names], ""
    )
    return [_load_tier(file, document, tier, variant_options) for tier in file.variants]


def _load_file(path: Path, overrides: tuple[str, ...]) -> tuple[SuiteFile, Document, list[_Override]]:
    document = _read_suite_document(path)
    suite_options, variant_options = _split_overrides(overrides)
    for key, value, option in suite_options:
        _apply_override(document, key, value, option)
    file = _with_paths(validate(SuiteFile, document), document)
    _check_benchmarks(file, document)
    return file, document, variant_options


def _with_paths(file: SuiteFile, document: Document) -> SuiteFile:
    """The suite with the paths of its own prompts, functions and references found from its folder."""
    benchmarks = []
    for index, spec in enumerate(file.benchmarks):
        changes: dict[str, Any] = {}
        if spec.prompt_file is not None:
            changes["prompts"] = _own_path(document, ("benchmarks", index, "prompts"), spec.prompt_file)
        if spec.metrics is not None:
            places = (("benchmarks", index, "metrics", position) for position in range(len(spec.metrics)))
            chosen = zip(spec.metric_specs, spec.metrics, places, strict=True)
            changes["metrics"] = tuple(
                _with_metric_paths(metric, document, place) if metric.is_choice else plain
                for metric, plain, place in chosen
            )
        benchmarks.append(spec.model_copy(update=changes))
    return file.model_copy(update={"benchmarks": tuple(benchmarks)})


def _with_metric_paths(metric: MetricSpec, document: Document, place: KeyPath) -> MetricSpec:
    changes = {}
    if metric.function is not None:
        path, name = metric.function_place
        inside = Path(_own_path(document, place, str(path)))
        if not inside.is_relative_to(document.path.parent.resolve()):
            raise SuiteError(
                f"{document.origin(place)}: {metric.function} lies outside the suite's folder, and is not run"
            )
        changes["function"] = f"{inside}:{name}"
    if metric.reference is not None and metric.reference not in NAMED_REFERENCES:
        changes["reference"] = _own_path(document, place, metric.reference)
    return metric.model_copy(update=changes)


def _own_path(document: Document, place: KeyPath, path: str) -> str:
    found = path_of(path, document.path.parent)
    if not is_there(found):
        raise SuiteError(f"{document.origin(place)}: {path}: there is no {found}")
    return str(found)


def _load_tier(file: SuiteFile, document: Document, tier: Tier, overrides: Sequence[_Override]) -> Suite:
    names = file.variants[tier]
    _check_unique(names, document, ("variants", tier))
    own = document.path.parent / "variants"
    known = variant_files(own)
    variants = []
    for index, name in enumerate(names):
        origin = document.origin(("variants", tier, index))
        if name not in known:
            raise SuiteError(
                f"{origin}: unknown variant {name!r}{nearest(name, known)}; neither {own} nor sana-bench has it"
            )
        variant = load_variant(known[name], overrides)
        if variant.tier != tier:
            raise SuiteError(f"{origin}: variant {name!r} is of the {variant.tier} tier, listed under {tier}")
        variants.append(variant)
    names_apart: dict[str | None, str] = {
        name: variant.name for name, variant in zip(names, variants, strict=True)
    }
    related = tuple(
        variant.model_copy(
            update={"derived_from": names_apart.get(variant.derived_from, variant.derived_from)}
        )
        for variant in variants
    )
    return Suite(file, document.path, tier, related, tuple(known[name] for name in names))


def _read_suite_document(path: Path) -> Document:
    document = read_yaml(find_suite(path))
    _check_schema_version(document)
    return document


def _check_schema_version(document: Document) -> None:
    version = document.data.get("schema_version")
    where = document.origin(("schema_version",))
    if version is None:
        raise SuiteError(
            f"{document.path}: schema_version is missing (this sana-bench reads version {SCHEMA_VERSION})"
        )
    if version != SCHEMA_VERSION or isinstance(version, bool):
        raise SuiteError(
            f"{where}: schema_version {version!r} is not supported; this sana-bench reads {SCHEMA_VERSION}"
        )


def _split_overrides(overrides: tuple[str, ...]) -> tuple[list[_Override], list[_Override]]:
    suite_options: list[_Override] = []
    variant_options: list[_Override] = []
    for text in overrides:
        key, value = parse_override(text)
        option = f"--set {text}"
        prefix, _, rest = key.partition(".")
        if prefix == "variants" and rest and rest.split(".")[0] not in TIERS:
            variant_options.append((rest, value, option))
        else:
            suite_options.append((key, value, option))
    return suite_options, variant_options


def _apply_override(document: Document, key: str, value: Any, option: str) -> None:
    """Set one dotted key; containers on the way must exist, the last key is judged by validation."""
    location: KeyPath = ()
    container: Any = document.data
    parts = key.split(".")
    for depth, part in enumerate(parts):
        last = depth == len(parts) - 1
        if isinstance(container, list):
            if not part.isdecimal() or int(part) >= len(container):
                raise SuiteError(
                    f"{option}: {'.'.join(parts[:depth])} has entries 0 to {len(container) - 1}, not {part!r}"
                )
            step: str | int = int(part)
        elif isinstance(container, dict):
            step = part
            if not last and part not in container:
                raise SuiteError(f"{option}: unknown key {part!r}{nearest(part, map(str, container))}")
        else:
            raise SuiteError(f"{option}: {'.'.join(parts[:depth])} has no keys inside it")
        location = (*location, step)
        if last:
            container[step] = value
            _forget_below(document, location)
            document.origins[location] = option
        else:
            container = container[step]


def _forget_below(document: Document, location: KeyPath) -> None:
    for known in [known for known in document.origins if known[: len(location)] == location]:
        del document.origins[known]


def _check_benchmarks(file: SuiteFile, document: Document) -> None:
    for index, spec in enumerate(file.benchmarks):
        known = _metrics_of(spec, document, index)
        names = [metric.name for metric in spec.metric_specs]
        for position, metric in enumerate(spec.metric_specs):
            where = document.origin(("benchmarks", index, "metrics", position))
            taken = metric.name in METRICS or metric.name in MEASURED
            if metric.function is not None and taken:
                raise SuiteError(
                    f"{where}: {metric.name!r} is the name of a metric already; name the function otherwise"
                )
            if metric.function is None and metric.name not in known:
                raise SuiteError(
                    f"{where}: benchmark {spec.name!r} has no metric {metric.name!r}"
                    f"{nearest(metric.name, known)}; it has {', '.join(known)}"
                )
        _check_unique(names, document, ("benchmarks", index, "metrics"))
    _check_unique([spec.label for spec in file.benchmarks], document, ("benchmarks",))
    if file.stop is not None:
        _check_stop(file, file.stop, document)


def _check_stop(file: SuiteFile, stop: StopSpec, document: Document) -> None:
    where = document.origin(("stop",))
    metrics = {
        spec.label: tuple(metric.name for metric in spec.metric_specs) or _metrics_of(spec, document, index)
        for index, spec in enumerate(file.benchmarks)
    }
    try:
        chosen_question(stop, metrics)
    except SuiteError as error:
        raise SuiteError(f"{where}: {error}") from None
    known = [name for names in file.variants.values() for name in names]
    for name in stop.compare or ():
        if name not in known:
            raise SuiteError(f"{where}: stop: the suite has no variant {name!r}{nearest(name, known)}")


def _metrics_of(spec: BenchmarkSpec, document: Document, index: int) -> tuple[str, ...]:
    """The metrics that a benchmark can be scored with; raises `SuiteError` for a benchmark that there is not."""
    place = ("benchmarks", index, "name")
    if spec.prompt_file is not None:
        if spec.source in BENCHMARKS:
            raise SuiteError(
                f"{document.origin(place)}: {spec.source!r} is a benchmark already; own prompts need another name"
            )
        try:
            check_name(spec.source)
        except ValueError as error:
            raise SuiteError(f"{document.origin(place)}: benchmark {spec.source!r}: {error}") from None
        return tuple(METRICS.names())
    _check_known(document, place, BENCHMARKS, spec.source)
    if spec.subset is not None and isinstance(spec.prompts, int) and spec.source != spec.name:
        raise SuiteError(f"{document.origin(place)}: {spec.name} says already how many prompts")
    # A broken plug-in matters only to the suites that use it.
    own = BENCHMARKS.build(spec.source).metric_names
    return tuple(dict.fromkeys((*own, *(entry.name for entry in METRICS.plugins()))))


def _check_unique(names: tuple[str, ...] | list[str], document: Document, location: KeyPath) -> None:
    for index, name in enumerate(names):
        if name in names[:index]:
            raise SuiteError(f"{document.origin((*location, index))}: {name!r} appears twice")


def load_variant(path: Path, overrides: Sequence[_Override] = ()) -> Variant:
    """Read and validate one variant file; what `overrides` change is in the variant's name. Raises `SuiteError`."""
    document = read_variant_file(path)
    _check_schema_version(document)
    name = path.stem
    before = _named_variant(document)
    own = [override for override in overrides if override[0].startswith(f"{name}.")]
    for key, value, option in own:
        _apply_override(document, key.removeprefix(f"{name}."), value, option)
    variant = _named_variant(document) if own else before
    check_origin(document)
    _check_published(document, variant)
    _check_known(document, ("generator",), GENERATORS, variant.generator)
    _check_size(document, variant)
    if variant.best_of_n is not None:
        search = variant.best_of_n
        _check_known(document, ("best_of_n", "generator"), GENERATORS, search.generator)
        _check_known(document, ("best_of_n", "judge", "name"), JUDGES, search.judge.name)
    return named_apart(variant, before)


def _named_variant(document: Document) -> Variant:
    variant, name = validate(Variant, document), document.path.stem
    if variant.name != name:
        raise SuiteError(
            f"{document.origin(('name',))}: name is {variant.name!r}, the file name says {name!r}"
        )
    return variant


def _check_size(document: Document, variant: Variant) -> None:
    """Only images that exist already may have sizes of their own."""
    lacking = [key for key in ("height", "width") if getattr(variant.model, key) is None]
    if lacking and (variant.generator != "images" or len(lacking) == 1):
        raise SuiteError(f"{document.origin(('model',))}: 'model.{lacking[0]}' is missing")


def _check_published(document: Document, variant: Variant) -> None:
    """A variant can only reproduce rows that are known."""
    if not variant.published:
        return
    from sana_reports.published_speed import PUBLISHED_TITLES

    for index, title in enumerate(variant.published):
        if title not in PUBLISHED_TITLES:
            raise SuiteError(
                f"{document.origin(('published', index))}: there is no published row {title!r}"
                f"{nearest(title, PUBLISHED_TITLES)}; see sana-bench list variants --published"
            )


def _check_known(document: Document, place: KeyPath, registry: Registry, name: str) -> None:
    if name not in registry:
        registry.refuse(name, document.origin(place))


def _check_overridden_variants(overrides: Sequence[_Override], names: Sequence[str], kind: str) -> None:
    for key, _, option in overrides:
        if not any(key.startswith(f"{name}.") and len(key) > len(name) + 1 for name in names):
            asked = key.split(".")[0]
            raise SuiteError(f"{option}: the suite has no {kind}variant for {key!r}{nearest(asked, names)}")
