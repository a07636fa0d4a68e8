"""What stored JSON has to be where something reads it: checked by pydantic, whoever wrote it, and refused in one line."""

from reprlib import repr as short
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from sana_bench.core.cut_texts import CUT_TEXTS
from sana_bench.core.errors import UsageError
from sana_bench.core.fingerprint import canonical_json
from sana_bench.core.text import lone_surrogate
from sana_bench.results.run_folder import is_path_name

__all__ = [
    "PathName",
    "PlainJson",
    "PlainObject",
    "Provenance",
    "Suite",
    "Text",
    "TimeDetails",
    "VerdictDetails",
    "checked",
    "first_problem",
]

# Deeper than anything that a run writes, and far from where Python's own readers give up.
_DEEPEST = 64


def _is_name(value: str) -> str:
    if not is_path_name(value):
        raise ValueError("cannot be the name of a file")
    return value


def _is_text(value: str) -> str:
    if half := lone_surrogate(value):
        raise ValueError(f"holds {half}, half of a character")
    return value


def _is_plain(value: Any, depth: int = 0) -> Any:
    if depth > _DEEPEST:
        raise ValueError(f"is nested more than {_DEEPEST} deep")
    if isinstance(value, dict | list):
        for item in (*value, *value.values()) if isinstance(value, dict) else value:
            _is_plain(item, depth + 1)
    elif isinstance(value, str):
        _is_text(value)
    elif value is not None and not isinstance(value, bool | int | float):
        raise ValueError("is not plain data")
    return value


def _is_canonical(value: Any) -> Any:
    try:
        canonical_json(_is_plain(value))
    except ValueError as error:
        raise ValueError(f"cannot be written as JSON: {error}") from None
    return value


#: A text that can be kept in a file.
Text = Annotated[str, AfterValidator(_is_text)]
#: A name that becomes part of a path in a run directory.
PathName = Annotated[str, AfterValidator(_is_name)]
#: Anything that JSON can hold, and `canonical_json` can write.
PlainJson = Annotated[Any, AfterValidator(_is_canonical)]
PlainObject = Annotated[dict[str, Any], AfterValidator(_is_canonical)]
_Count = Annotated[int, Field(ge=0, lt=2**31)]


class _Open(BaseModel):
    """A record that may hold more than is read here."""

    model_config = ConfigDict(extra="allow", strict=True)


class _Benchmark(_Open):
    name: PathName
    images_per_prompt: Annotated[int, Field(ge=1, lt=2**31)]
    metrics: list[Text]
    n_prompts: _Count
    prompts_sha256: Text
    settings: PlainObject = {}


class _Search(_Open):
    keep: Annotated[int, Field(ge=1, lt=2**31)] = 1


class _Variant(_Open):
    name: PathName
    fingerprint: PathName  # its beginning is part of the path of every image
    model: dict[str, Any] | None = None
    best_of_n: _Search | None = None


class Suite(_Open):
    """`suite.resolved.yaml`, or the column of an export that holds it."""

    name: Text
    tier: Literal["micro", "full"]
    seed: int
    benchmarks: Annotated[list[_Benchmark], Field(min_length=1)]
    variants: Annotated[list[_Variant], Field(min_length=1)]

    @model_validator(mode="after")
    def _names_once(self) -> Self:
        for kind, found in (("benchmarks", self.benchmarks), ("variants", self.variants)):
            names = [one.name for one in found]
            if len(set(names)) < len(names):
                raise ValueError(f"two {kind} of one name")
        return self


class _Event(_Open):
    kind: str
    of: str = ""
    benchmark: str = ""
    reader: str = ""
    texts: str = ""
    limit: int = 0
    n_texts: int = 0
    n_cut: int = 0

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        lacking = {"of", "benchmark", "reader", "texts", "limit", "n_texts", "n_cut"} - self.model_fields_set
        if self.kind == CUT_TEXTS and lacking:
            raise ValueError(f"lacks {min(lacking)}")
        return self


class _Model(_Open):
    fingerprint: str = ""
    parameters: int | None = None
    depth: int | None = None
    cut_from: str | None = None
    cut_from_depth: int | None = None
    image_flops: dict[str, float] | None = None


class _SelfCheck(_Open):
    summary: str = ""


class _Worker(_Open):
    device_name: str = ""
    n_images: int = 0
    n_scores: int = 0


class Provenance(_Open):
    """Where a run's numbers come from."""

    workers: dict[str, _Worker] = {}
    models: dict[str, _Model] = {}
    metrics: dict[str, dict[str, Any]] = {}
    protocols: dict[str, str] = {}
    sessions: list[dict[str, Any]] = []
    events: list[_Event] = []
    selfcheck: _SelfCheck = _SelfCheck()


class _Detection(_Open):
    label: str
    score: float
    box: Annotated[list[float], Field(min_length=4, max_length=4)]


class _Answer(_Open):
    question: str
    answer: Any
    score: float


class VerdictDetails(_Open):
    """What a report shows of a score beside its value."""

    correct: bool | None = None
    reasons: list[str] = []
    detections: list[_Detection] = []
    answers: list[_Answer] = []
    reward: float = 0.0


class TimeDetails(_Open):
    """What is known of a timed image beside its time."""

    session: int = 0
    round: int = 0
    joules: float | None = None
    slowdowns: list[str] = []
    steps: list[float] = []
    stages: dict[str, float] = {}
    image_encoding: float = 0.0


def checked(model: type[BaseModel], value: Any, where: str) -> Any:
    """`value` as it is, if it is what `model` says; raises `UsageError`, `where` in front, that names the key and what it is."""
    try:
        model.model_validate(_is_plain(value))
    except ValidationError as error:
        raise UsageError(f"{where}: {first_problem(error)}") from None
    except ValueError as error:
        raise UsageError(f"{where}: {error}") from None
    return value


def first_problem(error: ValidationError) -> str:
    """The first thing that pydantic found, as `benchmarks.0.name: '../x' cannot be the name of a file`."""
    found = error.errors(include_url=False)[0]
    place = ".".join(map(str, found["loc"]))
    if found["type"] in ("model_type", "model_attributes_type", "dict_type") and not place:
        return f"{short(found['input'])} is no mapping of keys to values"
    if found["type"] == "missing":
        return f"{place!r} is missing"
    told = found["msg"].removeprefix("Value error, ")
    told = f"{told[:1].lower()}{told[1:]}".replace("input should be", "should be")
    return f"{place}: {short(found['input'])} {told}" if place else told
