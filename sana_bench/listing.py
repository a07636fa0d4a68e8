"""What there is to choose from, without loading any model."""

from collections.abc import Callable
from pathlib import Path

from sana_bench import benchmarks, generators, loggers, metrics, plugins
from sana_bench.catalogue import catalogue
from sana_bench.errors import SuiteError
from sana_bench.suite import Variant, list_variants, load_variant
from sana_bench.yaml_files import read_yaml
from sana_reports.labels import origin_label

__all__ = ["SECTIONS", "section_lines", "suites_dir"]

SECTIONS = ("suites", "variants", "benchmarks", "metrics", "generators", "loggers")


def suites_dir() -> Path:
    """Return `suites` of the working directory, or the one beside the package when there is none."""
    here = Path("suites")
    return here if here.is_dir() else Path(__file__).resolve().parents[1] / "suites"


def section_lines(section: str) -> list[str]:
    """Return one line per entry of a section; raises `SuiteError` for a broken file."""
    directory = suites_dir()
    match section:
        case "suites":
            return [_described(str(path), read_yaml(path).data) for path in sorted(directory.glob("*.yaml"))]
        case "variants":
            names = list_variants(directory / "variants")
            variants = [load_variant(directory / "variants" / f"{name}.yaml", catalogue()) for name in names]
            return [_variant(v) for v in sorted(variants, key=lambda v: v.tier, reverse=True)]
        case "benchmarks":
            return [_named("benchmarks", name, _benchmark) for name in benchmarks.names()]
        case "metrics":
            return [_named("metrics", name) for name in metrics.names()]
        case "generators":
            return [_named("generators", name) for name in generators.names()]
    return [_named("loggers", name) for name in loggers.names()]


def _variant(variant: Variant) -> str:
    facts = filter(None, (variant.tier, origin_label(variant.kind, variant.derived_from)))
    return f"{variant.name} ({', '.join(facts)}): {variant.description}"


def _benchmark(name: str) -> str:
    found = benchmarks.get(name)
    return f"{name}: {found.default_images_per_prompt} images per prompt, {', '.join(found.metric_names)}"


def _named(kind: plugins.Kind, name: str, describe: Callable[[str], str] = str) -> str:
    """Return one line about a name; for a plug-in with its package, or with what keeps it from working."""
    offered = plugins.candidates(kind, name)
    if not offered:
        return describe(name)
    try:
        offered[0].load()
        return f"{describe(name)} (plug-in: {' and '.join(plugin.identity for plugin in offered)})"
    except SuiteError as error:
        return f"{name}: ! {error}"


def _described(name: str, data: dict[str, object]) -> str:
    description = data.get("description")
    return f"{name}: {description}" if description else name
