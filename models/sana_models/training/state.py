"""The state of a training on disk: written whole, never with a value that is not finite, the last two before it kept.

It is a file, or a folder of files of several processes, which any number of processes can read. A state knows the
configuration it belongs to, so that a changed one is told and not continued.
"""

import pickle
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sana_models.came import local_part
from sana_models.files import link_or_copy, plain, write_whole
from sana_models.training.distributed import barrier, gathered, is_main
from sana_models.training.progress import tell
from sana_models.training.sharding import read_note, read_shards, write_shards

__all__ = ["KEPT_STATES", "StateFolder", "identity_of"]

#: Names of the states in a training's folder, newest first.
KEPT_STATES = ("state.pt", "state.1.pt", "state.2.pt")
#: What of a state holds tensors.
_PARTS = ("modules", "optimizer", "average")
#: Where processes write until all are done.
_WRITTEN = ".state.tmp"
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
        # As the number of processes, these change sums by rounding alone.
        "training.distributed",
        "training.gradient_accumulation",
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

    def load(self, template: Callable[[], Mapping[str, Any]] = dict) -> dict[str, Any] | None:
        """Return the newest state that is whole and finite, on the CPU; None where there is none.

        Of a state of several processes the tensors are read into those of `template()`, and what is returned has none.
        Raises ValueError, one line, for a state of another configuration, and when every state is damaged.
        """
        problems = []
        for path in (self.folder / name for name in KEPT_STATES):
            if not path.exists():
                continue
            try:
                if path.is_dir():
                    state, bad = self._load_shards(path, template)
                else:
                    state = torch.load(plain(path), map_location="cpu", weights_only=True)
                    bad = _first_not_finite(state)
            except _Another:
                raise
            except _DAMAGE as error:
                problems.append(f"{path}: damaged ({(str(error).splitlines() or ['empty'])[0]})")
                continue
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

    def _load_shards(
        self, path: Path, template: Callable[[], Mapping[str, Any]]
    ) -> tuple[dict[str, Any], str | None]:
        """Return what is no tensor, and the name of one that is not finite in some process."""
        note = read_note(path)
        self._check(path, note.get("identity"))
        state = template()
        read_shards(path, dict(_tensors(state)))
        return note, _first_anywhere(state)

    def save(self, state: Mapping[str, Any], *, sharded: bool = False) -> None:
        """Write a state; the one before it and the one before that keep older names.

        With `sharded` all processes call it, and each writes what it holds. Raises FloatingPointError, with all files as they
        were, when a value is not finite.
        """
        bad = _first_anywhere(state) if sharded else _first_not_finite(state)
        if bad is not None:
            good = next((name for name in KEPT_STATES if (self.folder / name).exists()), None)
            kept = (
                "no state was saved yet" if good is None else f"the last good state is {self.folder / good}"
            )
            raise FloatingPointError(f"{bad} is not finite after step {state['step'] - 1}: {kept}")
        content = {**state, "identity": dict(self.identity)}
        newest = self.folder / KEPT_STATES[0]
        if not sharded:
            self._make_room(keep_name=True)
            write_whole(newest, lambda stream: torch.save(content, stream))
            return
        written = self.folder / _WRITTEN
        if is_main():
            _remove(written)
        barrier()
        tensors = dict(_tensors(content))
        write_shards(written, tensors, {key: content[key] for key in content if key not in _PARTS})
        if is_main():
            self._make_room(keep_name=False)
            written.replace(newest)
        barrier()

    def _make_room(self, *, keep_name: bool) -> None:
        """Give the states their older names; with `keep_name` a newest that is a file keeps its name as well."""
        newest, second, third = (self.folder / name for name in KEPT_STATES)
        if second.exists():
            _remove(third)
            second.replace(third)
        if newest.is_file() and keep_name:
            link_or_copy(newest, second)
        elif newest.exists():
            newest.replace(second)

    def clear(self) -> None:
        """Remove all states."""
        for name in (*KEPT_STATES, _WRITTEN):
            _remove(self.folder / name)

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
            raise _Another(
                f"{path}: belongs to another configuration: {shown}; give --fresh to start anew, or another folder"
            )


class _Another(ValueError):
    """A state is whole, and not of this configuration."""


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _first_not_finite(state: Mapping[str, Any]) -> str | None:
    floats = ((name, local_part(value)) for name, value in _tensors(state) if value.is_floating_point())
    return next((name for name, value in floats if not bool(torch.isfinite(value).all())), None)


def _first_anywhere(state: Mapping[str, Any]) -> str | None:
    bad = _first_not_finite(state)
    return next(iter(gathered([bad] if bad is not None else [])), None)


def _tensors(value: Any, name: str = "") -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        yield name, value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _tensors(item, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from _tensors(item, f"{name}.{index}")
