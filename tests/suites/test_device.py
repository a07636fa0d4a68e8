"""`--device`: where the full tier computes, and what it decides about the tier."""

import pytest
import torch

from sana_bench.core.errors import UsageError
from sana_bench.suites.tiers import choose_tier


@pytest.fixture
def gpu(monkeypatch):
    """A machine with a GPU."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "Some GPU")


@pytest.mark.parametrize(
    ("tier", "device", "expected"),
    [
        ("full", "auto", ("full", "cuda")),
        ("full", "cuda", ("full", "cuda")),
        ("full", "cpu", ("full", "cpu")),
        ("auto", "cpu", ("micro", "cpu")),
        ("auto", "auto", ("full", "cuda")),
        ("micro", "cpu", ("micro", "cpu")),
    ],
)
def test_a_gpu_is_used_where_it_is_wanted(gpu, tier, device, expected) -> None:
    chosen = choose_tier(tier, device)
    assert (chosen.tier, chosen.device) == expected
    assert device == "auto" or tier == "micro" or f"--device {device}" in chosen.line


def test_a_gpu_that_is_not_there_is_one_line(monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UsageError, match=r"^--device cuda: torch finds no CUDA device$"):
        choose_tier("full", "cuda")
    with pytest.raises(UsageError, match=r"^--device cuda: the micro tier computes on the CPU alone"):
        choose_tier("micro", "cuda")
