"""The state of a training on disk: written whole, never with a value that is not finite, the last two before it kept.

A state knows the configuration it belongs to, so that a changed one is told and not continued.
"""

import pickle
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sana_models.files import link_or_copy, plain, write_whole
from sana_models.training.progress import tell

__all__ = ["KEPT_STATES", "StateFolder", "identity_of"]

#: Names of the states in a training's folder, newest first.
KEPT_STATES = ("state.pt", "state.1.pt", "state.2.pt")
#: May change between the parts of a training: how long it goes on, what it costs, where copies lie, what it reports.
_FREE_KEYS = frozenset(
    {
        "name",
        "compile",
        "gradient_checkpointing",
        "data.cache",
        "data.max_bad_share",
        "data.workers",
        "kernels",
        "training.steps",
        "training.checkpoint_every",
        "training.log_every",
        "training.stop_after_skipped",
        *(
            f"validation.{key}"
            for key in ("every", "exports", "guidance", "images", "paths", "prompts", "seed", "steps")
        ),
    }
)

#: What reading a damaged state raises.
_DAMAGE = (OSError, RuntimeError, ValueError, EOFError, KeyError, pickle.UnpicklingError)


def identity_of(config: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Return what a state belongs to: the values of a nested configuration by dotted key, free ones left out."""
    found: dict[str, str] = {}
    for key, value in config.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            found |= identity_of(value, f"{name}.")
        elif name not in _FREE_KEYS:
            found[name] = repr(list(value) if isinstance(value, tuple) else value)
    return found


@dataclass(frozen=True, slots=True)
class StateFolder:
    """Where a training keeps its states, and the identity of its configuration."""

    folder: Path
    identity: Mapping[str, str]

    def load(self) -> dict[str, Any] | None:
        """Return the newest state that is whole and finite, on the CPU; None where there is none.

        Raises ValueError, one line, for a state of another configuration, and when every state is damaged.
        """
        problems = []
        for path in (self.folder / name for name in KEPT_STATES):
            if not path.exists():
                continue
            try:
                state = torch.load(plain(path), map_location="cpu", weights_only=True)
            except _DAMAGE as error:
                problems.append(f"{path}: damaged ({(str(error).splitlines() or ['empty'])[0]})")
                continue
            bad = _first_not_finite(state)
            if bad is not None:
                problems.append(f"{path}: {bad} is not finite")
                continue
            self._check(path, state.get("identity"))
            for problem in problems:
                tell(f"{problem}; continuing from {path.name}, step {state['step']}")
            return dict(state)
        if problems:
            raise ValueError(f"{problems[0]}; no state to continue from: give --fresh or another folder")
        return None

    def save(self, state: Mapping[str, Any]) -> None:
        """Write a state; the one before it and the one before that keep older names.

        Raises FloatingPointError, with all files as they were, when a value is not finite.
        """
        bad = _first_not_finite(state)
        if bad is not None:
            good = next((name for name in KEPT_STATES if (self.folder / name).exists()), None)
            kept = (
                "no state was saved yet" if good is None else f"the last good state is {self.folder / good}"
            )
            raise FloatingPointError(f"{bad} is not finite after step {state['step'] - 1}: {kept}")
        newest, second, third = (self.folder / name for name in KEPT_STATES)
        if second.exists():
            second.replace(third)
        if newest.exists():
            link_or_copy(newest, second)
        content = {**state, "identity": dict(self.identity)}
        write_whole(newest, lambda stream: torch.save(content, stream))

    def clear(self) -> None:
        """Remove all states."""
        for name in KEPT_STATES:
            (self.folder / name).unlink(missing_ok=True)

    def _check(self, path: Path, found: Mapping[str, str] | None) -> None:
        # States of before there was an identity have none.
        if found is None:
            return
        keys = sorted(found.keys() | self.identity.keys())
        different = [key for key in keys if found.get(key) != self.identity.get(key)]
        if different:
            shown = ", ".join(
                f"{key} ({found.get(key, 'nothing')}, now {self.identity.get(key, 'nothing')})"
                for key in different
            )
            raise ValueError(
                f"{path}: belongs to another configuration: {shown}; give --fresh to start anew, or another folder"
            )


def _first_not_finite(state: Mapping[str, Any]) -> str | None:
    return next((name for name, value in _tensors(state) if not bool(torch.isfinite(value).all())), None)


def _tensors(value: Any, name: str = "") -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        if value.is_floating_point():
            yield name, value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _tensors(item, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from _tensors(item, f"{name}.{index}")
