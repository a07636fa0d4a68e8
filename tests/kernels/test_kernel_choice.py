"""`kernels: auto | triton | torch`: what it resolves to, and that nothing falls back silently."""

import pytest
import torch

from sana_kernels import dispatch, operations, resolve_backend


def test_auto_is_triton_on_cuda_and_torch_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "find_spec", lambda name: object())
    assert resolve_backend("auto", "cuda:1") == "triton"
    assert resolve_backend("triton", torch.device("cuda", 0)) == "triton"
    assert resolve_backend("torch", "cuda") == "torch"
    assert resolve_backend("auto", "cpu") == "torch"
    monkeypatch.setattr(dispatch, "find_spec", lambda name: None)
    assert resolve_backend("auto", "cuda") == "torch"
    with pytest.raises(dispatch.KernelError, match="needs the package triton, which is not installed"):
        resolve_backend("triton", "cuda")


def test_what_cannot_run_is_refused() -> None:
    with pytest.raises(dispatch.KernelError, match="'triton' needs a CUDA device, found 'cpu'"):
        resolve_backend("triton", "cpu")
    with pytest.raises(dispatch.KernelError, match="kernels is 'cuda'; allowed: auto, triton, torch"):
        resolve_backend("cuda", "cpu")  # type: ignore[arg-type]


def test_triton_operations_refuse_the_processor() -> None:
    pytest.importorskip("triton", reason="Triton is not packaged for this platform")
    x = torch.ones(1, 2, 32)
    with pytest.raises(ValueError, match="need a CUDA tensor, found one on cpu"):
        operations("triton").rms_norm(x, x[0, 0])
