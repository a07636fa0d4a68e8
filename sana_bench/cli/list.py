"""`sana-bench list`: what there is to choose from, without loading any model."""

from typing import TYPE_CHECKING, Annotated

import typer

from sana_bench.cli.options import starting
from sana_bench.core.errors import SuiteError, UsageError, nearest
from sana_bench.core.progress import say

if TYPE_CHECKING:
    from sana_bench.core.registry import Registry
    from sana_bench.suites.schema import Variant

__all__ = ["register"]


def _sections() -> list[str]:
    from sana_bench.core.registry import REGISTRIES

    return ["suites", "variants", *REGISTRIES]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("list", epilog="Example: sana-bench list variants")(list_)


def list_(
    what: Annotated[
        str | None,
        typer.Argument(
            metavar="KIND",
            help="suites, variants, generators, metrics, benchmarks, judges or loggers; default: all.",
            autocompletion=starting(_sections),
        ),
    ] = None,
    published: Annotated[
        bool,
        typer.Option("--published", help="Of variants: the rows of published tables that each reproduces."),
    ] = False,
) -> None:
    """List suites, variants, benchmarks, metrics and more."""
    sections = _sections()
    if what is not None and what not in sections:
        raise UsageError(f"cannot list {what!r}{nearest(what, sections)}; one of {', '.join(sections)}")
    if published and what != "variants":
        raise UsageError("--published goes with `list variants`")
    if what is not None:
        say("\n".join(_published_lines() if published else _lines(what)))
        return
    for section in sections:
        say(f"{section}:")
        for line in _lines(section):
            say(f"  {line}")


def _lines(section: str) -> list[str]:
    """Return one line per entry of a section; raises `SuiteError` for a broken file."""
    from sana_bench.core.registry import REGISTRIES

    if section in REGISTRIES:
        return [_named(REGISTRIES[section], name) for name in REGISTRIES[section].names()]
    from sana_bench.suites.config_files import read_yaml
    from sana_bench.suites.find import suite_files

    if section == "suites":
        return [_described(name, read_yaml(path).data) for name, path in suite_files().items()]
    variants = _variants()
    return [_variant(v) for v in sorted(variants, key=lambda v: v.tier, reverse=True)]


def _variants() -> "list[Variant]":
    from sana_bench.suites.find import variant_files
    from sana_bench.suites.load import load_variant

    return [load_variant(path) for path in variant_files().values()]


def _published_lines() -> list[str]:
    """A line for each published row of a variant, and one for each row that no variant reproduces."""
    from sana_reports.published import PUBLISHED
    from sana_reports.published_speed import PUBLISHED_SPEED, PUBLISHED_TITLES

    sources: dict[str, dict[str, None]] = {title: {} for title in PUBLISHED_TITLES}
    for title, source in (
        *((row.title, row.source({metric for metric, _ in row.numbers})) for row in PUBLISHED),
        *(
            (row.title, row.source)
            for row in PUBLISHED_SPEED
            if row.title not in {one.title for one in PUBLISHED}
        ),
    ):
        sources[title][source] = None
    found = [(variant.name, title) for variant in _variants() for title in variant.published]
    left = [("no variant", title) for title in sources if title not in {title for _, title in found}]
    return [f"{name}: {title} ({'; '.join(sources[title])})" for name, title in (*found, *left)]


def _variant(variant: "Variant") -> str:
    from sana_reports.labels import made_from

    facts = filter(
        None,
        (
            variant.tier,
            made_from(variant.kind, variant.derived_from, rewritten=variant.prompt_rewrites is not None),
        ),
    )
    return f"{variant.name} ({', '.join(facts)}): {variant.description}"


def _named(registry: "Registry", name: str) -> str:
    """Return one line about a name; for a plug-in with its package, or with what keeps it from working."""
    offered = [entry for entry in registry.plugins() if entry.name == name]
    packages = f" (plug-in: {' and '.join(entry.identity for entry in offered)})" if offered else ""
    try:
        for entry in offered[:1]:
            entry.load()
        return f"{_benchmark(name) if registry.kind == 'benchmarks' else name}{packages}"
    except SuiteError as error:
        return f"{name}: ! {error}"


def _benchmark(name: str) -> str:
    from sana_bench.assets.table import prompt_licences
    from sana_bench.core.registry import BENCHMARKS

    found = BENCHMARKS.build(name)
    licences = "".join(f"; full tier's prompts: {licence}" for licence in prompt_licences(name))
    return f"{name}: {found.default_images_per_prompt} images per prompt, {', '.join(found.metric_names)}{licences}"


def _described(name: str, data: dict[str, object]) -> str:
    description = data.get("description")
    return f"{name}: {description}" if description else name
