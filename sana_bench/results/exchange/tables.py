"""The flat tables of an export: every column with its type, its unit and its meaning."""

from dataclasses import dataclass
from typing import Any, Literal

__all__ = ["EXPORT_VERSION", "TABLES", "Column", "Table", "Tables"]

# Raised when a column changes its meaning or goes away; a new column does not raise it.
EXPORT_VERSION = 1

Type = Literal["text", "integer", "real", "boolean", "json"]
# Rows by table; a `json` value is held as plain data.
Tables = dict[str, list[dict[str, Any]]]


@dataclass(frozen=True)
class Column:
    """One column; a nullable one is empty where there is nothing to say.

    `kind` narrows the type for an import; see `sana_bench.results.exchange.validation`.
    """

    name: str
    type: Type
    meaning: str
    unit: str = ""
    nullable: bool = False
    kind: str = ""


@dataclass(frozen=True)
class Table:
    """One table; `key` names the columns that together are unique. Exports of earlier versions lack a `later` one."""

    name: str
    meaning: str
    key: tuple[str, ...]
    columns: tuple[Column, ...]
    later: bool = False


_AS_SUMMARIES = "as in summaries.unit"
_RUN = Column("run_id", "text", "the run", kind="name")
_CELL = (
    _RUN,
    Column("variant", "text", "the variant's name", kind="name"),
    Column("benchmark", "text", "the benchmark", kind="name"),
)
_SAMPLE = (
    *_CELL,
    Column("prompt_id", "text", "the prompt within its benchmark", kind="name"),
    Column("sample_index", "integer", "which of the prompt's images, from 0", kind="index"),
)

_ALL = (
    Table(
        "runs",
        "one row per run",
        ("run_id",),
        (
            Column("run_id", "text", "name of the run directory", kind="name"),
            Column("suite", "text", "name of the suite"),
            Column(
                "tier",
                "text",
                "`micro` or `full`; numbers of different tiers are not comparable",
                kind="tier",
            ),
            Column("fingerprint", "text", "SHA-256 of what the run asks for"),
            Column("created", "text", "when the run was first started, ISO 8601 in UTC"),
            Column(
                "origin", "text", "where an imported run came from; empty for one made here", nullable=True
            ),
            Column("suite_resolved", "json", "the suite with every default filled in", nullable=True),
        ),
    ),
    Table(
        "variants",
        "one row per variant of a run",
        ("run_id", "variant"),
        (
            _RUN,
            Column("variant", "text", "the variant's name", kind="name"),
            Column(
                "fingerprint",
                "text",
                "SHA-256 of everything that changes the variant's images",
                kind="name",
            ),
            Column("description", "text", "what the variant file says"),
            Column("generator", "text", "name of the generator"),
            Column("precision", "text", "number format of the computation, or of each network"),
            Column("weights_sha256", "text", "SHA-256 over the files of the weights"),
            Column("model", "json", "weights, image size in pixels, instruction"),
            Column(
                "sampler",
                "json",
                "solver, steps, guidance, shift; empty where images exist already",
                nullable=True,
            ),
            Column(
                "prompt_rewrites",
                "json",
                "texts by benchmark and prompt id that the model was given; empty where they were the prompts",
                nullable=True,
                kind="rewrites",
            ),
        ),
    ),
    Table(
        "prompts",
        "one row per prompt of a run's benchmarks",
        ("run_id", "benchmark", "prompt_id"),
        (
            _RUN,
            Column("benchmark", "text", "the benchmark", kind="name"),
            Column("prompt_id", "text", "the prompt within its benchmark", kind="name"),
            Column("text", "text", "the prompt"),
            Column("tag", "text", "the task that the prompt counts for"),
            Column("metadata", "json", "what a metric may look at beside the text", kind="object"),
        ),
    ),
    Table(
        "images",
        "one row per sample that was generated or failed",
        ("run_id", "variant", "benchmark", "prompt_id", "sample_index"),
        (
            *_SAMPLE,
            Column("image_key", "text", "identity shared by runs that can use each other's images"),
            Column("prompt_sha256", "text", "SHA-256 of the text that the image was made from"),
            Column("status", "text", "`ok` or `failed`", kind="status"),
            Column(
                "path", "text", "file in the output folder; empty when the file is not there", nullable=True
            ),
            Column("sha256", "text", "SHA-256 of the file", nullable=True),
            Column("length", "integer", "size of the file", "bytes", nullable=True, kind="count"),
            Column("error", "text", "why the sample failed", nullable=True),
            Column("created", "text", "when it was recorded, ISO 8601 in UTC"),
            Column("produced_by", "text", "the run that generated it"),
            Column(
                "worker", "text", "who made it: a key of `workers` in the run's provenance", nullable=True
            ),
        ),
    ),
    Table(
        "timings",
        "one row per sample whose generation was timed",
        ("run_id", "variant", "benchmark", "prompt_id", "sample_index"),
        (
            *_SAMPLE,
            Column("seconds", "real", "time of the batch divided by its size", "s"),
            Column("batch_size", "integer", "images in the batch", nullable=True, kind="count"),
            Column("device", "text", "device that generated it", nullable=True),
            Column(
                "search",
                "json",
                "what the search that chose the image cost, at the first image of the search: images generated, "
                "seconds of generation and judging, FLOPs of both",
                nullable=True,
                kind="costs",
            ),
        ),
    ),
    Table(
        "metrics",
        "one row per metric that a run was scored with",
        ("run_id", "metric_key"),
        (
            _RUN,
            Column("metric_key", "text", "SHA-256 of name, protocol and identity"),
            Column("name", "text", "the metric's name"),
            Column("protocol", "text", "how it is measured; different protocols are not comparable"),
            Column(
                "identity",
                "json",
                "everything that changes its scores, weight hashes included",
                kind="object",
            ),
        ),
    ),
    Table(
        "scores",
        "one row per metric and sample, for metrics that judge single images",
        ("run_id", "variant", "benchmark", "prompt_id", "sample_index", "metric_key"),
        (
            *_SAMPLE,
            Column("metric", "text", "the metric's name"),
            Column("metric_key", "text", "see metrics"),
            Column("protocol", "text", "see metrics"),
            Column("image_sha256", "text", "the image that was judged"),
            Column("prompt_sha256", "text", "SHA-256 of text, tag and metadata of the prompt"),
            Column("value", "real", "the score", _AS_SUMMARIES),
            Column(
                "details", "json", "verdict, reasons, detections, where the metric has them", kind="object"
            ),
            Column(
                "worker", "text", "who made it: a key of `workers` in the run's provenance", nullable=True
            ),
        ),
    ),
    Table(
        "summaries",
        "one row per number of a run",
        ("run_id", "variant", "benchmark", "metric", "key"),
        (
            *_CELL,
            Column("position", "integer", "order of the rows in the report"),
            Column("metric", "text", "the metric's name"),
            Column("key", "text", "`overall` or a prompt tag"),
            Column("metric_key", "text", "see metrics"),
            Column("image_key", "text", "see images"),
            Column("protocol", "text", "see metrics"),
            Column("value", "real", "the number", "as in unit"),
            Column("low", "real", "lower end of the 95 % interval", "as in unit", nullable=True),
            Column("high", "real", "upper end of the 95 % interval", "as in unit", nullable=True),
            Column("n_samples", "integer", "images in the number", kind="count"),
            Column("n_expected", "integer", "images that the suite asks for", kind="count"),
            Column("n_prompts", "integer", "prompts in the number", kind="count"),
            Column("unit", "text", "unit of value, low and high"),
            Column("higher_is_better", "boolean", "the direction of better"),
            Column("note", "text", "what a reader must know beside the number"),
            Column("complete", "boolean", "n_samples equals n_expected"),
        ),
    ),
    Table(
        "sequences",
        "one row per look of a sequence that a run was stopped by, or was to be",
        ("run_id", "sequence_key", "look"),
        (
            *_CELL,
            Column(
                "sequence_key", "text", "SHA-256 of the question and of what its images and scores depend on"
            ),
            Column("look", "integer", "number of the look, from 0", kind="count"),
            Column("metric", "text", "the metric's name"),
            Column("metric_key", "text", "see metrics"),
            Column(
                "against",
                "text",
                "the variant that is subtracted; empty where one is looked at alone",
                nullable=True,
            ),
            Column("effect", "real", "a difference smaller than this is none", _AS_SUMMARIES, nullable=True),
            Column("width", "real", "how narrow the interval is to become", _AS_SUMMARIES, nullable=True),
            Column("error", "real", "chance that any look is wrong"),
            Column("n_prompts", "integer", "prompts used by then", kind="count"),
            Column("n_images", "integer", "images of each variant used by then", kind="count"),
            Column("n_expected", "integer", "images of each variant that the suite asks for", kind="count"),
            Column("value", "real", "the difference, or the score, so far", _AS_SUMMARIES),
            Column("low", "real", "lower end of the interval that holds at every look", _AS_SUMMARIES),
            Column("high", "real", "upper end of the interval that holds at every look", _AS_SUMMARIES),
            Column(
                "verdict",
                "text",
                "what the look says; `undecided`, and last `all prompts used`, are none",
                kind="verdict",
            ),
            Column(
                "tasks",
                "json",
                "by task: prompts, value and, of a difference, the p-value valid at any look",
                kind="tasks",
            ),
        ),
        later=True,
    ),
    Table(
        "sessions",
        "one row per command that worked on a run",
        ("run_id", "session_id"),
        (
            _RUN,
            Column("session_id", "integer", "number within the store that was exported"),
            Column("started", "text", "ISO 8601 in UTC"),
            Column("command", "text", "as typed"),
            Column("state", "text", "`running`, `done`, `incomplete`, `interrupted` or `failed`"),
            Column("finished", "text", "ISO 8601 in UTC; empty when it was killed", nullable=True),
            Column("images_generated", "integer", "images made", kind="count"),
            Column("images_reused", "integer", "images that were there before", kind="count"),
            Column("images_failed", "integer", "samples that failed", kind="count"),
            Column("scores_computed", "integer", "scores computed", kind="count"),
        ),
    ),
    Table(
        "events",
        "one row per thing worth knowing that happened in a session, such as a halved batch",
        (),
        (
            _RUN,
            Column("session_id", "integer", "see sessions"),
            Column("created", "text", "ISO 8601 in UTC"),
            Column("kind", "text", "what happened"),
            Column("details", "json", "more about it", kind="object"),
        ),
    ),
    Table(
        "provenance",
        "one row per run",
        ("run_id",),
        (
            _RUN,
            Column(
                "document",
                "json",
                "code, packages, machine, command, weights: the run's provenance.json",
                kind="document",
            ),
        ),
    ),
)

TABLES: dict[str, Table] = {table.name: table for table in _ALL}
