"""What there is to choose from, without loading any model."""

from sana_bench.core.errors import SuiteError
from sana_bench.core.registry import BENCHMARKS, REGISTRIES, Registry
from sana_bench.suites.config_files import read_yaml
from sana_bench.suites.load import list_variants, load_variant, suites_dir
from sana_bench.suites.schema import Variant
from sana_reports.labels import origin_label

__all__ = ["SECTIONS", "section_lines"]

SECTIONS = ("suites", "variants", *REGISTRIES)


def section_lines(section: str) -> list[str]:
    """Return one line per entry of a section; raises `SuiteError` for a broken file."""
    directory = suites_dir()
    match section:
        case "suites":
            return [_described(str(path), read_yaml(path).data) for path in sorted(directory.glob("*.yaml"))]
        case "variants":
            names = list_variants(directory / "variants")
            variants = [load_variant(directory / "variants" / f"{name}.yaml") for name in names]
            return [_variant(v) for v in sorted(variants, key=lambda v: v.tier, reverse=True)]
    return [_named(REGISTRIES[section], name) for name in REGISTRIES[section].names()]


def _variant(variant: Variant) -> str:
    facts = filter(None, (variant.tier, origin_label(variant.kind, variant.derived_from)))
    return f"{variant.name} ({', '.join(facts)}): {variant.description}"


def _named(registry: Registry, name: str) -> str:
    """Return one line about a name; for a plug-in with its package, or with what keeps it from working."""
    offered = [entry for entry in registry.plugins() if entry.name == name]
    packages = f" (plug-in: {' and '.join(entry.identity for entry in offered)})" if offered else ""
    try:
        for entry in offered[:1]:
            entry.load()
        return f"{_benchmark(name) if registry is BENCHMARKS else name}{packages}"
    except SuiteError as error:
        return f"{name}: ! {error}"


def _benchmark(name: str) -> str:
    found = BENCHMARKS.build(name)
    return f"{name}: {found.default_images_per_prompt} images per prompt, {', '.join(found.metric_names)}"


def _described(name: str, data: dict[str, object]) -> str:
    description = data.get("description")
    return f"{name}: {description}" if description else name
