"""What a variant is called once `--set` has changed it: it is another one, and must not pass for that of the file."""

import re
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from sana_bench.core.fingerprint import fingerprint, short
from sana_bench.suites.schema import Variant
from sana_bench.suites.variant_file import DESCRIBING

__all__ = ["base_name", "named_apart"]

# In a name, which becomes part of paths; more is told by the description alone.
_LONGEST = 60
_ABSENT = object()


def named_apart(variant: Variant, before: Variant) -> Variant:
    """Return `variant` under the name of `before` with what was changed, such as `solid[steps=2]`, and described by that.

    A variant with the same settings is returned as it is, and a description that was changed too is kept.
    """
    old, new = _settings(before), _settings(variant)
    changed = {key: value for key, value in new.items() if value != old.get(key, _ABSENT)}
    if not changed:
        return variant
    label = ",".join(f"{_short_key(key)}={_short_value(value)}" for key, value in changed.items())
    if len(label) > _LONGEST:
        label = f"{len(changed)}-settings-{short(fingerprint(changed))}"
    told = ", ".join(
        f"{key} {_text(value)}" + (f" instead of {_text(old[key])}" if key in old else "")
        for key, value in changed.items()
    )
    description = variant.description
    if description == before.description:
        description = f"{before.name} with {told}"
    return variant.model_copy(update={"name": f"{before.name}[{label}]", "description": description})


def base_name(name: str) -> str:
    """Return the name of the variant's file, whatever was changed."""
    return name.partition("[")[0]


def _settings(variant: Variant) -> dict[str, Any]:
    return dict(_flat(variant.model_dump(mode="json", exclude=set(DESCRIBING)), ()))


def _flat(values: Mapping[str, Any], place: tuple[str, ...]) -> list[tuple[str, Any]]:
    found = []
    for key, value in values.items():
        inner = (*place, key)
        found += _flat(value, inner) if isinstance(value, Mapping) else [(".".join(inner), value)]
    return found


def _short_key(key: str) -> str:
    if key == "sampler.name":
        return "sampler"
    return key.removeprefix("sampler.").removeprefix("model.")


def _short_value(value: Any) -> str:
    text = PurePath(value).name if isinstance(value, str) else _text(value)
    return re.sub(r"\.\.+", ".", re.sub(r"[^A-Za-z0-9._+]+", "-", text).strip("-"))


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list):
        return f"[{', '.join(map(_text, value))}]"
    return "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
