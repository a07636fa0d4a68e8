"""YAML read as plain data by the safe loader, with the origin of every value kept for error messages."""

import re
from collections.abc import Callable, Hashable
from copy import deepcopy
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails
from yaml._yaml import CParser  # in every wheel of PyYAML
from yaml.composer import Composer
from yaml.constructor import SafeConstructor
from yaml.resolver import Resolver

from sana_bench.core.errors import SuiteError, nearest, nearest_names
from sana_bench.core.text import lone_surrogate
from sana_models.files import read_bytes

__all__ = ["Document", "KeyPath", "parse_override", "parse_value", "read_yaml", "validate"]

KeyPath = tuple[str | int, ...]

_MAX_BYTES = 1 << 20
_MAX_NODES = 50_000
_MOST_TOLD = 10


class _Loader(yaml.SafeLoader):
    """The safe loader, reading `1e-4` and `4e5` as numbers as YAML 1.2 does."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:\d[\d_]*)(?:\.\d*)?[eE][-+]?\d+$"),
    list("-+0123456789"),
)


class _FastLoader(Composer, CParser, SafeConstructor, Resolver):
    """The same with libyaml's parser, five times as fast; nodes are composed in Python, where deep nesting is an error.

    Composed by libyaml, a file of brackets ends the process.
    """

    yaml_implicit_resolvers = _Loader.yaml_implicit_resolvers

    def __init__(self, raw: bytes) -> None:
        CParser.__init__(self, raw)
        Composer.__init__(self)
        SafeConstructor.__init__(self)
        Resolver.__init__(self)


@dataclass
class Document:
    """The content of one YAML file and, for every key path in it, where the value was written."""

    path: Path
    data: dict[str, Any]
    origins: dict[KeyPath, str] = field(default_factory=dict)

    def origin(self, location: KeyPath) -> str:
        """Return `file:line` (or the `--set` option) of the value at `location` or of its nearest parent."""
        for length in range(len(location), -1, -1):
            if (found := self.origins.get(location[:length])) is not None:
                return found
        return str(self.path)


def read_yaml(path: Path) -> Document:
    """Read one mapping from a YAML file.

    Raises `SuiteError` for a missing, unreadable, oversized, broken or non-mapping file and for duplicate
    keys.
    """
    try:
        raw = read_bytes(path)
    except OSError as error:
        raise SuiteError(f"{path}: {(error.strerror or str(error)).lower()}") from None
    if len(raw) > _MAX_BYTES:
        raise SuiteError(
            f"{path}: {len(raw)} bytes is too large for a configuration file (at most {_MAX_BYTES})"
        )
    try:
        parsed = _parse(path, raw)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f":{mark.line + 1}" if mark is not None else ""
        raise SuiteError(f"{path}{line}: broken YAML: {error.problem or error.context}") from None
    except (yaml.YAMLError, UnicodeDecodeError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise SuiteError(f"{path}: broken YAML: {reason}") from None
    if not isinstance(parsed.data, dict):
        raise SuiteError(f"{path}: expected a mapping of keys to values, found {_kind(parsed.data)}")
    return Document(path, deepcopy(parsed.data), dict(parsed.origins))


# Variants stand on one another: listing them all reads their files three times each.
@lru_cache(maxsize=256)
def _parse(path: Path, raw: bytes) -> Document:
    """The content of a file, of whatever kind it is; raises what YAML raises, and `SuiteError`."""
    try:
        return _parse_by(_FastLoader, path, raw)
    except yaml.YAMLError:  # PyYAML's own parser says it better, and reads some that libyaml refuses
        return _parse_by(_Loader, path, raw)


def _parse_by(loads: Callable[[bytes], Any], path: Path, raw: bytes) -> Document:
    loader = loads(raw)
    try:
        node = loader.get_single_node()
        document = Document(path, {})
        if node is not None:
            _record_origins(node, (), document, [0], set())
        data: Any = loader.construct_document(node) if node is not None else None
        document.data = data
        return document
    finally:
        loader.dispose()


def parse_value(text: str) -> Any:
    """Read the right-hand side of `--set key=value` as YAML; raises `yaml.YAMLError` when it is none."""
    return yaml.load(text, Loader=_Loader)  # a subclass of the safe loader


def parse_override(option: str) -> tuple[str, Any]:
    """Split `key=value` into the dotted key and the value read as YAML."""
    key, separator, text = option.partition("=")
    if not separator or not key.strip():
        raise SuiteError(f"--set {option}: expected key=value, for example --set seed=3")
    try:
        return key.strip(), parse_value(text)
    except (yaml.YAMLError, ValueError):
        raise SuiteError(f"--set {option}: the value is not valid YAML") from None


def _record_origins(
    node: yaml.Node, location: KeyPath, document: Document, count: list[int], open_: set[int]
) -> None:
    count[0] += 1
    if count[0] > _MAX_NODES:
        raise SuiteError(f"{document.path}: more than {_MAX_NODES} values")
    if id(node) in open_:
        raise SuiteError(f"{document.path}:{node.start_mark.line + 1}: a value that contains itself")
    document.origins[location] = f"{document.path}:{node.start_mark.line + 1}"
    if isinstance(node, yaml.ScalarNode) and (half := lone_surrogate(node.value)) is not None:
        raise SuiteError(f"{document.origins[location]}: a text holds {half}, half of a character")
    open_.add(id(node))
    if isinstance(node, yaml.MappingNode):
        _record_mapping(node, location, document, count, open_)
    elif isinstance(node, yaml.SequenceNode):
        for index, child in enumerate(node.value):
            _record_origins(child, (*location, index), document, count, open_)
    open_.discard(id(node))


def _record_mapping(
    node: yaml.MappingNode, location: KeyPath, document: Document, count: list[int], open_: set[int]
) -> None:
    seen: set[Hashable] = set()
    for key_node, value_node in node.value:
        line = key_node.start_mark.line + 1
        if not isinstance(key_node, yaml.ScalarNode):
            raise SuiteError(f"{document.path}:{line}: keys must be plain words")
        if key_node.tag == "tag:yaml.org,2002:merge":
            raise SuiteError(f"{document.path}:{line}: merge keys (<<) are not supported")
        key = key_node.value
        if key in seen:
            raise SuiteError(f"{document.path}:{line}: key {key!r} appears twice")
        seen.add(key)
        _record_origins(value_node, (*location, key), document, count, open_)
        document.origins[(*location, key)] = f"{document.path}:{line}"


def _kind(value: Any) -> str:
    if value is None:
        return "an empty file"
    return {"list": "a list", "str": "text"}.get(type(value).__name__, type(value).__name__)


_Model = TypeVar("_Model", bound=BaseModel)


def validate(model: type[_Model], document: Document) -> _Model:
    """Return `document` as `model`; raises `SuiteError` that tells every problem, up to ten, in one line."""
    try:
        return model.model_validate(document.data)
    except ValidationError as error:
        told = [_describe(*problem, model, document) for problem in _problems(error, model, document)]
        more = len(told) - _MOST_TOLD
        rest = [f"and {more} more problem{'s' if more > 1 else ''}"] if more > 0 else []
        raise SuiteError("; ".join([*told[:_MOST_TOLD], *rest])) from None


def _problems(
    error: ValidationError, model: type[BaseModel], document: Document
) -> list[tuple[KeyPath, ErrorDetails]]:
    """The problems that are told, by where they are: one a place, and none that only follows from another."""
    found: dict[KeyPath, ErrorDetails] = {}
    for problem in error.errors(include_url=False):
        found.setdefault(_location(problem, document), problem)
    # What holds something wrong may be no other kind of thing either, and too short without it.
    around = {location[:length] for location in found for length in range(len(location))}
    # A misspelt key leaves its right spelling missing.
    misspelt = {
        (*location[:-1], meant)
        for location, problem in found.items()
        if problem["type"] == "extra_forbidden"
        for meant in nearest_names(str(location[-1]), _known_keys(model, location[:-1]))
    }
    return [
        (location, problem)
        for location, problem in found.items()
        if location not in around and not (problem["type"] == "missing" and location in misspelt)
    ]


def _location(problem: ErrorDetails, document: Document) -> KeyPath:
    """Where a problem is in the document; pydantic also names the kinds of value that it tried."""
    location: KeyPath = ()
    value: Any = document.data
    for part in problem["loc"]:
        there = range(len(value)) if isinstance(value, list) else value if isinstance(value, dict) else ()
        if part in there:
            location, value = (*location, part), value[part]
    return (*location, problem["loc"][-1]) if problem["type"] == "missing" else location


def _describe(location: KeyPath, problem: ErrorDetails, model: type[BaseModel], document: Document) -> str:
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
