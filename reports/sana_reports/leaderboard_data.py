"""What a leaderboard is made of, as plain data that also has a JSON form."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from sana_reports.colors import variant_colors
from sana_reports.data import Gain, ImageCost, Latency, SummaryCell
from sana_reports.labels import KINDS

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "Column",
    "Contrast",
    "Entry",
    "Incomplete",
    "Leaderboard",
    "Table",
    "from_json",
    "to_json",
]


# A line names so many variants; more are counted.
_NAMED = 4
# Columns of a leaderboard in a notebook.
_SHOWN = (
    *("tier", "benchmark", "variant", "metric", "protocol", "rank_best", "rank_worst"),
    *("value", "low", "high", "n_samples"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A metric under one protocol."""

    metric: str
    protocol: str
    unit: str
    higher_is_better: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One complete variant: a row. `numbers` holds the overall number of each metric by name.

    `kind` is a key of `KINDS`, `derived_from` the variant that this one was made from. `parameters` counts the
    denoising network's weights, `depth` its blocks, None where unknown; `cut_from` is what a pruned variant was cut from, with
    its depth. `published` are the rows of published tables that it reproduces, with the `settings` that tell how far. `report` is
    a link to the run's HTML report relative to the leaderboard, or None. `other_runs` measured the
    same fingerprint earlier.
    """

    variant: str
    fingerprint: str
    description: str = ""
    kind: str = "full"
    derived_from: str = ""
    run: str
    created: str
    weights: str = ""
    weights_sha256: str = ""
    parameters: int | None = None
    depth: int | None = None
    cut_from: str = ""
    cut_from_depth: int | None = None
    rewritten: bool = False
    published: Sequence[str] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    cost: ImageCost | None = None
    latency: Latency | None = None
    numbers: Mapping[str, SummaryCell]
    report: str | None = None
    other_runs: Sequence[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Contrast:
    """Paired difference `right - left` of a metric between two entries, named by fingerprint, with its interval."""

    metric: str
    left: str
    right: str
    difference: float
    low: float
    high: float
    n_prompts: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Entries that may be ranked together: one tier, one set of prompts, one protocol per metric.

    `workload` identifies prompts, images per prompt and the exact evaluators; `settings` are those that the
    benchmark changes of every model.
    Raises `ValueError` for a number under another protocol, an incomplete number, or a repeated variant.
    """

    tier: str
    benchmark: str
    workload: str
    columns: Sequence[Column]
    entries: Sequence[Entry]
    contrasts: Sequence[Contrast] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        seen: set[str] = set()
        for entry in self.entries:
            if entry.fingerprint in seen:
                raise ValueError(
                    f"variant {entry.variant!r} ({entry.fingerprint[:12]}) is in one table twice"
                )
            seen.add(entry.fingerprint)
            if entry.kind not in KINDS:
                raise ValueError(f"variant {entry.variant!r} has the unknown kind {entry.kind!r}")
            for column in self.columns:
                cell = entry.numbers.get(column.metric)
                if cell is None or not cell.is_complete:
                    raise ValueError(f"variant {entry.variant!r} has no complete {column.metric}")
                if cell.protocol != column.protocol:
                    raise ValueError(
                        f"variant {entry.variant!r} has {column.metric} under {cell.protocol}, "
                        f"the table is of {column.protocol}"
                    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Incomplete:
    """A result that may not be ranked, and why."""

    variant: str
    tier: str
    benchmark: str
    run: str
    reasons: Sequence[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaderboard:
    """Everything one leaderboard shows; `palette` names variants in the order in which they are given colours."""

    tables: Sequence[Table]
    incomplete: Sequence[Incomplete] = field(default_factory=tuple)
    palette: Sequence[str] = ()

    @property
    def entries(self) -> list[Entry]:
        """The entries of all tables: a variant is in several when it was measured on several benchmarks."""
        return [entry for table in self.tables for entry in table.entries]

    @property
    def n_variants(self) -> int:
        """How many variants are ranked, each counted once."""
        return len({entry.fingerprint for entry in self.entries})

    @property
    def not_ranked(self) -> list[tuple[list[str], Incomplete]]:
        """What is incomplete, with the variants of which a run says the same; the record is that of the first one."""
        groups: dict[tuple[object, ...], list[Incomplete]] = {}
        for row in self.incomplete:
            groups.setdefault((row.run, row.tier, row.benchmark, tuple(row.reasons)), []).append(row)
        return [([row.variant for row in rows], rows[0]) for rows in groups.values()]

    @property
    def not_ranked_lines(self) -> list[str]:
        """What is incomplete, a line each: up to four variants by name, more by number."""
        return [
            f"not ranked: {', '.join(variants) if len(variants) <= _NAMED else f'{len(variants)} variants'} "
            f"on {row.benchmark} ({row.run}): {'; '.join(row.reasons)}"
            for variants, row in self.not_ranked
        ]

    @property
    def colors(self) -> dict[str, int]:
        """The series colour of each variant, the same in all tables."""
        return variant_colors((entry.variant for entry in self.entries), self.palette)

    def table(self) -> "pd.DataFrame":
        """One row a ranked variant and metric, and one a published number beside it: the columns of `leaderboard.csv`."""
        from sana_reports.leaderboard_text import csv_frame

        return csv_frame(self)

    def to_dict(self) -> dict[str, Any]:
        """The leaderboard as JSON holds it; numbers that do not exist are None."""
        return dict(_without_nan(asdict(self)))

    def _repr_html_(self) -> str:
        from sana_reports.labels import MICRO_NOTICE
        from sana_reports.notebook import section

        micro = any(table.tier == "micro" for table in self.tables)
        lines = [MICRO_NOTICE] if micro else []
        lines += self.not_ranked_lines
        found = self.table()
        return section(lines, found[found["rank_best"].notna()][list(_SHOWN)])


def to_json(board: Leaderboard) -> str:
    """The leaderboard as JSON with sorted keys; numbers that do not exist are null, links are left out."""
    tables = [
        replace(table, entries=[replace(entry, report=None) for entry in table.entries])
        for table in board.tables
    ]
    plain = replace(board, tables=tables).to_dict()
    return json.dumps(plain, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"


def from_json(text: str) -> Leaderboard:
    """Read what `to_json` wrote; raises `ValueError` for anything else."""
    try:
        plain = json.loads(text)
        return Leaderboard(
            tables=[_table(table) for table in plain["tables"]],
            incomplete=[Incomplete(**row) for row in plain["incomplete"]],
            palette=plain.get("palette", ()),
        )
    except (KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"not a leaderboard: {error}") from None


def _table(plain: dict[str, Any]) -> Table:
    return Table(
        **plain
        | {
            "columns": [Column(**column) for column in plain["columns"]],
            "entries": [_entry(entry) for entry in plain["entries"]],
            "contrasts": [Contrast(**contrast) for contrast in plain["contrasts"]],
        }
    )


def _entry(plain: dict[str, Any]) -> Entry:
    numbers = {name: _cell(cell) for name, cell in plain["numbers"].items()}
    latency = plain["latency"] and Latency(**_nan(plain["latency"], ("low_ms", "high_ms")))
    cost = plain.get("cost") and ImageCost(**plain["cost"])
    return Entry(**plain | {"numbers": numbers, "latency": latency, "cost": cost})


def _cell(plain: dict[str, Any]) -> SummaryCell:
    gain = plain.get("gain") and Gain(**_nan(plain["gain"], ("low", "high")))
    return SummaryCell(**_nan(plain, ("low", "high")) | {"gain": gain})


def _nan(plain: Mapping[str, Any], keys: Iterable[str]) -> dict[str, Any]:
    return dict(plain) | {key: math.nan for key in keys if plain[key] is None}


def _without_nan(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
