"""A comparison as text for terminals and as Markdown."""

from pathlib import Path

from sana_bench.analysis.comparison import Comparison, MetricComparison
from sana_bench.core.samples import OVERALL
from sana_bench.core.text import escaped

__all__ = ["as_markdown", "as_text", "escape", "metric_line"]

_MOST_FLIPS = 20
# What begins HTML, a link, code or the next cell.
_MARKDOWN = str.maketrans({"&": "&amp;", "<": "&lt;", "|": "\\|", "[": "\\[", "`": "\\`"})


def metric_line(row: MetricComparison) -> list[str]:
    """Return the cells of one row: metric, A, B, difference, p, verdict."""
    name = "/".join(part for part in (row.benchmark, row.metric) if part)
    if row.key != OVERALL:
        name = f"{name} ({row.key})"
    difference, p_value = "", ""
    if row.effect is not None and row.p_value is not None:
        scale, unit = (100, " %") if row.metric == "latency" else (1, "")
        values = [f"{scale * v:+.4g}" for v in (row.effect.difference, row.effect.low, row.effect.high)]
        interval = f"[{values[1]}, {values[2]}]{unit}"
        difference = (
            f"{values[0]}{unit} ({row.no_interval})" if row.no_interval else f"{values[0]} {interval}"
        )
        p_value = f"{row.p_value:.3g}"
    verdict = row.verdict + (f": {row.reason}" if row.reason else "")
    return [_cell(name), _number(row.value_a), _number(row.value_b), difference, p_value, _cell(verdict)]


def as_text(comparison: Comparison) -> str:
    """Return lines for a terminal."""
    rows = [["metric", "A", "B", "B - A", "p (Holm)", "verdict"], *map(metric_line, comparison.metrics)]
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    lines = [f"A: {_cell(comparison.a)}", f"B: {_cell(comparison.b)}", *_settings(comparison), ""]
    lines += [
        "  ".join([*(c.ljust(w) for c, w in zip(row, widths, strict=False)), row[5]]).rstrip() for row in rows
    ]
    return "\n".join([*lines, *_flips(comparison, "")])


def as_markdown(comparison: Comparison) -> str:
    """Return a Markdown section."""
    lines = ["## Comparison", "", f"A: {escape(comparison.a)}  ", f"B: {escape(comparison.b)}", ""]
    lines += [f"- {escape(line.strip())}" for line in _settings(comparison)]
    lines += ["", "| metric | A | B | B - A | p (Holm) | verdict |", "|---|---:|---:|---:|---:|---|"]
    lines += [f"| {' | '.join(map(escape, metric_line(row)))} |" for row in comparison.metrics]
    return "\n".join([*lines, *(escape(line) for line in _flips(comparison, "- "))])


def escape(text: str) -> str:
    """Keep text from ending a table cell or becoming HTML or a link."""
    return _cell(text.replace("\n", " ")).translate(_MARKDOWN)


def _settings(comparison: Comparison) -> list[str]:
    if not comparison.settings:
        return ["settings: the same"]
    return [f"{_cell(key)}: {_cell(a)} -> {_cell(b)}" for key, (a, b) in comparison.settings.items()]


def _cell(value: object) -> str:
    """A value as text of one line that drives no terminal."""
    return escaped(str(value), "")


def _flips(comparison: Comparison, mark: str) -> list[str]:
    lost = sum(flip.lost for flip in comparison.flips)
    lines = ["", f"flipped: {lost} lost, {len(comparison.flips) - lost} won"]
    lines += [""] if mark else []
    for flip in comparison.flips[:_MOST_FLIPS]:
        how = "lost" if flip.lost else "won"
        where = f"{flip.benchmark} {flip.prompt_id}/{flip.index}"
        lines.append(
            mark
            + _cell(
                f"{how}  {where}  {flip.prompt!r}  {_from_here(flip.image_a)}  {_from_here(flip.image_b)}"
            )
        )
    rest = len(comparison.flips) - _MOST_FLIPS
    return [*lines, f"{mark}and {rest} more (--format json lists all)"] if rest > 0 else lines


def _from_here(path: Path) -> Path:
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
