"""A small MJHQ-30K, images generated for its prompts, and the reference that a stand-in for Inception makes of it."""

from pathlib import Path

import pytest

from sana_bench.core.samples import Sample
from sana_bench.metrics.fid.reference import InceptionReference
from tests.metrics.fid.colour_sets import Colours, write_mjhq, write_samples


@pytest.fixture(scope="session")
def mjhq(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data set's folder; tests must not change it."""
    return write_mjhq(tmp_path_factory.mktemp("mjhq30k"))


@pytest.fixture(scope="session")
def generated(mjhq: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Sample]:
    """One image for every prompt."""
    return write_samples(tmp_path_factory.mktemp("generated"), mjhq)


@pytest.fixture
def reference(mjhq: Path, tmp_path: Path) -> InceptionReference:
    """The reference of this test alone, not computed yet."""
    return InceptionReference(Colours(), mjhq / "meta_data.json", tmp_path)
