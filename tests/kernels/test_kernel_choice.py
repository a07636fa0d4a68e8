"""`kernels: auto | triton | torch`: what it resolves to, and that nothing falls back silently."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from sana_kernels import dispatch, operations, resolve_backend
from tests import ROOT


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


def test_a_transformer_runs_on_torch_until_told_otherwise(tiny_pipeline_dir) -> None:
    from sana_models import load_autoencoder, load_pipeline, load_transformer
    from sana_models.layers import GatedConvFeedForward

    model = load_pipeline(tiny_pipeline_dir).transformer
    assert model.kernels == "torch"
    for load in (load_transformer, load_autoencoder):
        with pytest.raises(dispatch.KernelError, match="needs a CUDA device"):
            load(tiny_pipeline_dir, kernels="triton")
    pytest.importorskip("triton", reason="Triton is not packaged for this platform")
    model.use_kernels("triton")
    assert model.kernels == "triton"
    layers = [module for module in model.modules() if isinstance(module, GatedConvFeedForward)]
    assert layers
    assert all(layer.operations is operations("triton") for layer in layers)
    model.use_kernels("torch")
    assert all(
        module.operations.backend == "torch" for module in model.modules() if hasattr(module, "operations")
    )


def test_a_transformer_too_wide_for_the_kernels_is_refused() -> None:
    from sana_models import SanaConfig, SanaTransformer

    pytest.importorskip("triton", reason="Triton is not packaged for this platform")
    with torch.device("meta"):
        model = SanaTransformer(
            SanaConfig(
                num_layers=1,
                num_attention_heads=2,
                attention_head_dim=64,
                num_cross_attention_heads=2,
                cross_attention_head_dim=64,
            )
        )
    with pytest.raises(
        dispatch.KernelError, match=r"head_dim is 64; .* at most 32 channels; choose kernels 'torch'"
    ):
        model.use_kernels("triton")
    assert model.kernels == "torch"


def test_the_choice_is_part_of_a_variants_identity() -> None:
    """Plain PyTorch's images keep the identity from before there was a choice; Triton's have their own."""
    from sana_bench.suites.cells import GeneratorSpec, ResolvedVariant
    from sana_bench.suites.schema import ModelSpec, SamplerSpec, Variant

    model = ModelSpec(weights="micro://sana-micro", height=64, width=64)
    variant = Variant(name="one", tier="micro", model=model, sampler=SamplerSpec(steps=2, guidance_scale=4.5))
    spec = GeneratorSpec(variant, Path(), "0" * 64)
    plain, triton = ResolvedVariant(spec, 0), ResolvedVariant(spec, 0, "triton")
    assert "kernels" not in plain.identity()
    assert triton.identity() == plain.identity() | {"kernels": "triton"}
    assert triton.fingerprint != plain.fingerprint


def test_a_suite_that_asks_for_triton_on_a_processor_stops_with_one_line(tmp_path) -> None:
    command = [sys.executable, "-m", "sana_bench", "run", "suites/geneval.yaml", "--tier", "micro"]
    setting = ["--output", str(tmp_path / "out"), "--set", "variants.sana-micro.kernels=triton"]
    root = ROOT
    done = subprocess.run([*command, *setting], cwd=root, capture_output=True, text=True)
    assert done.returncode == 2
    assert (
        "variant 'sana-micro[kernels=triton]': kernels 'triton' needs a CUDA device, found 'cpu'"
        in " ".join(done.stderr.split())
    )
    assert "Traceback" not in done.stderr
