"""pydantic's verdict on a document, told as one line: where, which key, what was found, what is allowed."""

import re
from typing import Any, TypeVar, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from sana_bench.errors import SuiteError, nearest
from sana_bench.yaml_files import Document, KeyPath

__all__ = ["validate"]

_Model = TypeVar("_Model", bound=BaseModel)


def validate(model: type[_Model], document: Document) -> _Model:
    """Return `document` as `model`; raises `SuiteError` that tells the first problem."""
    try:
        return model.model_validate(document.data)
    except ValidationError as error:
        # A misspelt key also leaves its right spelling missing: the misspelling is what to tell.
        problems = sorted(
            error.errors(include_url=False), key=lambda problem: problem["type"] != "extra_forbidden"
        )
        line = _describe(problems[0], model, document)
        others = len(problems) - 1
        rest = f" (and {others} more problem{'s' if others > 1 else ''})" if others else ""
        raise SuiteError(line + rest) from None


def _describe(problem: ErrorDetails, model: type[BaseModel], document: Document) -> str:
    location: KeyPath = tuple(part for part in problem["loc"] if part != "[key]")
    where = document.origin(location)
    key = ".".join(str(part) for part in location)
    kind = problem["type"]
    if kind == "extra_forbidden":
        known = _known_keys(model, location[:-1])
        hint = nearest(str(location[-1]), known) or f"; known keys: {', '.join(known)}"
        return f"{where}: unknown key {key!r}{hint}"
    if kind == "missing":
        return f"{where}: {key!r} is missing"
    found = _shown(problem["input"])
    if "[key]" in problem["loc"]:
        return f"{where}: {key!r} is not a known key: {_allowed(problem)}"
    return f"{where}: {key} is {found}, {_allowed(problem)}"


def _allowed(problem: ErrorDetails) -> str:
    context: dict[str, Any] = problem.get("ctx", {})
    match problem["type"]:
        case "greater_than_equal":
            return f"must be at least {context['ge']}"
        case "greater_than":
            return f"must be greater than {context['gt']}"
        case "less_than_equal":
            return f"must be at most {context['le']}"
        case "literal_error":
            allowed = context["expected"].replace("'", "")
            hint = nearest(str(problem["input"]), re.split(r", | or ", allowed))
            return f"must be one of {allowed}{hint}"
        case "int_type" | "int_parsing" | "int_from_float":
            return "must be a whole number"
        case "float_type":
            return "must be a number"
        case "finite_number":
            return "must be a finite number"
        case "string_type":
            return "must be text"
        case "tuple_type" | "list_type":
            return "must be a list"
        case "dict_type" | "model_type" | "model_attributes_type":
            return "must be a mapping of keys to values"
        case "value_error":
            return str(context["error"])
    message = problem["msg"]
    return message[:1].lower() + message[1:]


def _shown(value: Any) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else f"{text[:57]}..."


def _known_keys(model: type[BaseModel], location: KeyPath) -> list[str]:
    """Return the keys that the model at `location` inside `model` accepts."""
    annotation: Any = model
    for part in location:
        inner = _model_in(annotation)
        if inner is None or part not in inner.model_fields:
            continue  # a list index: the annotation already names the element's model
        annotation = inner.model_fields[str(part)].annotation
    inner = _model_in(annotation)
    return list(inner.model_fields) if inner is not None else []


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and get_origin(annotation) is None and issubclass(annotation, BaseModel):
        return annotation
    for argument in get_args(annotation):
        if (found := _model_in(argument)) is not None:
            return found
    return None
