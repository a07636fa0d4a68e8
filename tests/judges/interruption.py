"""A training that is stopped in the middle, for tests of resuming."""

from collections.abc import Callable
from typing import Any

import pytest


class Stop(Exception):
    """Stands for a kill."""


def stop_at(task: type, step: int, train: Callable[[], Any]) -> None:
    """Run `train` until its task is asked for the loss of `step`."""
    whole = task.loss

    def loss(self, at, *rest):
        if at == step:
            raise Stop
        return whole(self, at, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(task, "loss", loss)
        with pytest.raises(Stop):
            train()
