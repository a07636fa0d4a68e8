"""Stored outcomes of published scoring scripts, where they lie beside the repository."""

import gzip
import json

import pytest

from tests import SHARED


def published_cases(path: str) -> list[dict]:
    """The records of a file below the shared data folder; skips the test where there is none."""
    file = SHARED / "data" / path
    if not file.exists():
        pytest.skip(f"{file} is not there")
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]
