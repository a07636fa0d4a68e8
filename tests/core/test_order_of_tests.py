"""The files that are tested first are there."""

from tests import ROOT
from tests.conftest import LONGEST


def test_what_is_started_first_is_there_and_named_once():
    assert [name for name in LONGEST if not (ROOT / "tests" / name).is_file()] == []
    assert len(set(LONGEST)) == len(LONGEST)
