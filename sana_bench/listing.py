"""What there is to choose from, without loading any model."""

from pathlib import Path

from sana_bench import benchmarks, metrics
from sana_bench.catalogue import catalogue
from sana_bench.suite import list_variants, load_variant
from sana_bench.yaml_files import read_yaml

__all__ = ["SECTIONS", "section_lines", "suites_dir"]

SECTIONS = ("suites", "variants", "benchmarks", "metrics")


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
            return [
                f"{v.name} ({v.tier}): {v.description}"
                for v in sorted(variants, key=lambda v: v.tier, reverse=True)
            ]
        case "benchmarks":
            found = [benchmarks.get(name) for name in benchmarks.NAMES]
            return [
                f"{b.name}: {b.default_images_per_prompt} images per prompt, {', '.join(b.metric_names)}"
                for b in found
            ]
    return list(metrics.NAMES)


def _described(name: str, data: dict[str, object]) -> str:
    description = data.get("description")
    return f"{name}: {description}" if description else name
