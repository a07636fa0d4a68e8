"""Judges by name: what cannot be built is refused."""

from pathlib import Path

import pytest

from sana_bench import judges
from sana_bench.core.errors import SuiteError
from sana_bench.suites.schema import JudgeSpec


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (JudgeSpec(name="clipscore"), "did you mean 'clip_score'"),
        (JudgeSpec(name="clip_score", weights="x"), "takes no weights"),
        (JudgeSpec(name="vision_language"), "needs weights"),
        (JudgeSpec(name="image_reward", precision="bf16"), "computes in fp32; precision is bf16"),
        (JudgeSpec(name="vqa", precision="fp16"), "computes in fp32; precision is fp16"),
    ],
)
def test_judges_that_cannot_be_built_are_refused(tmp_path: Path, spec, message):
    with pytest.raises(SuiteError, match=message):
        judges.build(spec, tmp_path, "cpu")
