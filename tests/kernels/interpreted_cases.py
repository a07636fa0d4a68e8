"""Every Triton kernel against its PyTorch reference, on Triton's interpreter or on a GPU.

`test_interpreted_kernels.py` runs this file in a process of its own: Triton reads TRITON_INTERPRET when kernels are defined, and
other tests need them compiled. `python -m pytest tests/kernels/interpreted_cases.py` runs it where there is a GPU. All output
memory is filled with NaN first, so a place that no kernel writes shows.
"""

import mmap
import os
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor

if os.environ.get("TRITON_INTERPRET") != "1" and not torch.cuda.is_available():
    pytest.skip(
        "needs a GPU, or TRITON_INTERPRET=1 as test_interpreted_kernels.py sets it", allow_module_level=True
    )

from sana_kernels import KernelError, launch, operations, self_check
from sana_models import SanaConfig, SanaTransformer
from sana_models.dc_ae import DCAE
from tests.small_parts import small_dc_ae

DEVICE = "cpu" if os.environ.get("TRITON_INTERPRET") == "1" else "cuda"
TORCH, TRITON = operations("torch"), operations("triton")
DTYPES = (torch.float32, torch.float16, torch.bfloat16)


@pytest.fixture(autouse=True)
def _on_the_device() -> Iterator[None]:
    with torch.device(DEVICE):
        yield


@pytest.fixture(autouse=True)
def _nan_filled(monkeypatch: pytest.MonkeyPatch) -> None:
    def filled(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
        return torch.full(shape, float("nan"), dtype=dtype, device=device)

    monkeypatch.setattr(launch, "empty", filled)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator("cpu").manual_seed(seed + sum(shape))
    return torch.randn(shape, generator=generator, device="cpu").to(DEVICE)


def leaves(inputs: list[Tensor], dtype: torch.dtype) -> list[Tensor]:
    """Leaf tensors with the inputs' values and strides."""
    return [torch.empty_like(x, dtype=dtype).copy_(x).requires_grad_() for x in inputs]


def assert_same(name: str, inputs: list[Tensor], dtype: torch.dtype, **options: object) -> None:
    """Compare result and all gradients with the reference in fp32 on the same rounded inputs.

    In fp32 both sum the same products in another order: 32 roundings of the largest value. A half-precision
    result passes at most two roundings on its way, one where an intermediate is stored, in sums of a few like terms;
    the interpreter cuts bf16 off where a GPU rounds, which doubles them: 4 roundings.
    """
    inputs = [x.to(dtype) for x in inputs]
    ours, reference = leaves(inputs, dtype), leaves(inputs, torch.float32)
    result = getattr(TRITON, name)(*ours, **options)
    expected = getattr(TORCH, name)(*reference, **options)
    assert result.dtype == dtype
    grad = drawn(*result.shape, seed=9).to(dtype)
    result.backward(grad)
    expected.backward(grad.float())
    pairs = [(result, expected)] + [(x.grad, y.grad) for x, y in zip(ours, reference)]
    roundings = 32 if dtype == torch.float32 else 4
    for index, (found, wanted) in enumerate(pairs):
        assert found.shape == wanted.shape
        assert torch.isfinite(found).all(), f"{name}: entry {index} holds unwritten memory"
        tolerance = roundings * torch.finfo(dtype).eps * wanted.abs().max().item()
        difference = (found.float() - wanted).abs().max().item()
        assert difference <= tolerance, f"{name}: entry {index} is off by {difference}, allowed {tolerance}"


CASES: dict[str, Callable[[], tuple[str, list[Tensor], dict[str, object]]]] = {
    "rms": lambda: ("rms_norm", [drawn(2, 5, 37), drawn(37)], {"eps": 1e-5}),
    "rms, two axes": lambda: ("rms_norm", [drawn(3, 64), drawn(64)], {}),
    "rms, wide": lambda: ("rms_norm", [drawn(1, 2, 1152), drawn(1152)], {}),
    "rms with bias": lambda: ("rms_norm", [drawn(2, 5, 37), drawn(37), drawn(37, seed=1)], {}),
    "rms with bias, added": lambda: (
        "rms_norm",
        [drawn(2, 3, 7, 128), drawn(128), drawn(128, seed=1), drawn(2, 3, 7, 128, seed=1)],
        {"eps": 1e-5},
    ),
    "rms with bias, added, wide": lambda: (
        "rms_norm",
        [drawn(5, 600), drawn(600), drawn(600, seed=1), drawn(5, 600, seed=1)],
        {},
    ),
    "rms, more rows than programs": lambda: ("rms_norm", [drawn(1, 259, 4), drawn(4)], {}),
    "modulate": lambda: (
        "layer_norm_modulate",
        [drawn(2, 5, 37), drawn(2, 1, 37), drawn(2, 1, 37, seed=1)],
        {},
    ),
    "modulate, one for all": lambda: (
        "layer_norm_modulate",
        [drawn(3, 2, 64), drawn(1, 1, 64), drawn(1, 1, 64, seed=1)],
        {},
    ),
    "modulate, tokens left over": lambda: (
        "layer_norm_modulate",
        [drawn(2, 129, 8), drawn(2, 1, 8), drawn(2, 1, 8, seed=1)],
        {},
    ),
    "residual": lambda: ("gated_residual", [drawn(2, 5, 37), drawn(2, 1, 37), drawn(2, 5, 37, seed=1)], {}),
    "residual, tokens left over": lambda: (
        "gated_residual",
        [drawn(2, 129, 8), drawn(2, 1, 8), drawn(2, 129, 8, seed=1)],
        {},
    ),
    "attention": lambda: ("linear_attention", [drawn(2, 70, 64, seed=i) for i in range(3)], {}),
    "attention, two splits": lambda: ("linear_attention", [drawn(1, 259, 32, seed=i) for i in range(3)], {}),
    "attention, more splits than are read": lambda: (
        "linear_attention",
        [drawn(1, 1030, 32, seed=i) for i in range(3)],
        {},
    ),
    "attention, small heads": lambda: (
        "linear_attention",
        [drawn(1, 9, 22, seed=i) for i in range(3)],
        {"head_dim": 11},
    ),
    "attention, normalised": lambda: (
        "linear_attention",
        [drawn(2, 70, 64, seed=i) for i in range(3)] + [drawn(64), drawn(64, seed=1)],
        {},
    ),
    # Of two images, each of several strips of rows and groups of channels; of strips of columns too; of one forward group more.
    "depthwise": lambda: ("gated_depthwise", [drawn(2, 9, 3, 38), drawn(38, 1, 3, 3), drawn(38)], {}),
    "depthwise, wide": lambda: ("gated_depthwise", [drawn(1, 9, 35, 6), drawn(6, 1, 3, 3), drawn(6)], {}),
    "depthwise, many channels": lambda: (
        "gated_depthwise",
        [drawn(1, 1, 2, 130), drawn(130, 1, 3, 3), drawn(130)],
        {},
    ),
    "bias and SiLU": lambda: ("bias_silu", [drawn(2, 3, 7, 37), drawn(37)], {}),
    "bias and SiLU, wide": lambda: ("bias_silu", [drawn(5, 600), drawn(600)], {}),
    "depthwise, one token": lambda: ("gated_depthwise", [drawn(1, 1, 1, 8), drawn(8, 1, 3, 3), drawn(8)], {}),
}


# The interpreter takes longest for two strips each way; what half precision adds it shows with one.
TRIALS = [
    (case, dtype)
    for case in CASES
    for dtype in DTYPES
    if (case, DEVICE) != ("depthwise, wide", "cpu") or dtype == torch.float32
]


@pytest.mark.parametrize(("case", "dtype"), TRIALS, ids=str)
def test_results_and_gradients(case: str, dtype: torch.dtype) -> None:
    name, inputs, options = CASES[case]()
    assert_same(name, inputs, dtype, **options)


def strided(*shape: int, seed: int = 0) -> Tensor:
    """A part of a larger tensor: rows, tokens and channels all have gaps."""
    larger = drawn(shape[0], *(size + 3 for size in shape[1:]), seed=seed)
    return larger[tuple(slice(0, size) for size in shape)]


def transposed(*shape: int, seed: int = 0) -> Tensor:
    return drawn(*shape[:-2], shape[-1], shape[-2], seed=seed).transpose(-1, -2)


@pytest.mark.parametrize("layout", [strided, transposed])
def test_layouts(layout: Callable[..., Tensor]) -> None:
    """Inputs that are not contiguous, and a gradient that is one number repeated."""
    table = drawn(2, 6, 24)
    cases: dict[str, list[Tensor]] = {
        "rms_norm": [layout(2, 5, 24), drawn(48)[::2], drawn(48, seed=1)[::2], layout(2, 5, 24, seed=1)],
        "layer_norm_modulate": [layout(2, 5, 24), table[:, 1:2], table[:, 2:3]],
        "gated_residual": [layout(2, 5, 24), table[:, 1:2], layout(2, 5, 24, seed=1)],
        "bias_silu": [layout(2, 5, 24), drawn(48)[::2]],
        "linear_attention": [layout(2, 9, 32, seed=i) for i in range(3)],
        "gated_depthwise": [layout(2, 3, 4, 12), drawn(12, 1, 3, 3).transpose(2, 3), drawn(24)[::2]],
    }
    for name, values in cases.items():
        ours = [x.detach().requires_grad_() for x in values]
        reference = [x.detach().requires_grad_() for x in values]
        result, expected = getattr(TRITON, name)(*ours), getattr(TORCH, name)(*reference)
        result.sum().backward()
        expected.sum().backward()
        # Sums of fp32 products in another order, as above.
        torch.testing.assert_close(result, expected, rtol=1e-5, atol=1e-5)
        for x, y in zip(ours, reference):
            torch.testing.assert_close(x.grad, y.grad, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("width", [100, 200, 400, 800])
def test_a_norm_is_rounded_before_it_is_added(width: int) -> None:
    """And the sum has the format of both, as in PyTorch; without a bias too."""
    x, residual, weight = drawn(19, width).half(), drawn(19, width, seed=1), drawn(width).half()
    norm = TRITON.rms_norm(x, weight)
    assert norm.dtype == torch.float16
    assert torch.equal(TRITON.rms_norm(x, weight, None, residual), residual + norm)
    near = residual.half()
    assert torch.equal(TRITON.rms_norm(x, weight, None, near), near + norm)


@pytest.mark.parametrize("norm", [False, True])
def test_queries_and_keys_without_a_positive_channel_give_zero(norm: bool) -> None:
    q, k, v = (drawn(1, 5, 32, seed=i) for i in range(3))
    q[:, 2] = -q[:, 2].abs()
    weights = [torch.ones(32), torch.ones(32)] if norm else []
    ours = leaves([q, k, v], torch.float32)
    result = TRITON.linear_attention(*ours, *weights)
    assert (result[:, 2] == 0).all()
    result.sum().backward()
    assert (ours[0].grad[:, 2] == 0).all()
    assert all(torch.isfinite(x.grad).all() for x in ours)
    dead = TRITON.linear_attention(q, -k.abs(), v, *weights)
    assert (dead == 0).all()


@pytest.mark.parametrize("place", range(3))
def test_nan_is_not_hidden_by_the_rectifier(place: int) -> None:
    inputs = [drawn(1, 5, 32, seed=i) for i in range(3)]
    inputs[place][0, 1, 3] = float("nan")
    result = TRITON.linear_attention(*inputs)
    assert torch.equal(result.isnan(), TORCH.linear_attention(*inputs).isnan())
    assert result.isnan().any()


def test_tensors_beyond_32_bit_addresses() -> None:
    """Three rows, 2^30 elements apart, in memory that is mostly never touched: the last lies 2^31 elements in."""
    apart, width = 2**30 + 8, 32
    values = 2 * apart + width
    if DEVICE == "cpu":
        memory = torch.frombuffer(mmap.mmap(-1, 2 * values), dtype=torch.float16)
    else:
        memory = torch.empty(values, dtype=torch.float16)
    far = memory.as_strided((1, 3, width), (apart, apart, 1))
    near = drawn(1, 3, width).half()
    far.copy_(near)
    weight, row = torch.ones(width), torch.ones(1, 1, width)
    pairs = [
        (TRITON.rms_norm(x, weight), TRITON.layer_norm_modulate(x, row, row), TRITON.gated_residual(x, row, x),
         TRITON.bias_silu(x, weight), TRITON.linear_attention(x, x, x),
         TRITON.gated_depthwise(x.unsqueeze(1), weight.new_ones(width, 1, 3, 3), weight))
        for x in (far, near)
    ]  # fmt: skip
    for found, wanted in zip(*pairs):
        assert torch.equal(found, wanted)


def test_no_tokens_are_no_work() -> None:
    x, row = torch.empty(0, 4, 32, requires_grad=True), torch.ones(1, 1, 32)
    results = [
        TRITON.rms_norm(x, row[0, 0]),
        TRITON.bias_silu(x, row[0, 0]),
        TRITON.layer_norm_modulate(x, row, row),
        TRITON.linear_attention(x, x, x),
    ]
    results.append(TRITON.gated_residual(x, row, x))
    for result in results:
        assert result.shape == (0, 4, 32)
        result.sum().backward()


def test_what_no_configuration_holds_is_refused() -> None:
    wide, heads = torch.ones(1, 1, 4097), torch.ones(1, 1, 66)
    with pytest.raises(
        ValueError, match="width is 4097; the Triton kernels hold rows of at most 4096 channels"
    ):
        TRITON.rms_norm(wide, wide[0, 0])
    with pytest.raises(ValueError, match=r"residual is \(1, 2\); expected \(1, 1, 8\)"):
        TRITON.rms_norm(wide[..., :8], wide[0, 0, :8], None, torch.ones(1, 2))
    with pytest.raises(ValueError, match="head_dim is 33; the Triton kernels take heads of at most 32"):
        TRITON.linear_attention(heads, heads, heads, head_dim=33)
    with pytest.raises(ValueError, match="C a multiple of 32"):
        TRITON.linear_attention(heads, heads, heads)
    with pytest.raises(ValueError, match="expected one dtype"):
        TRITON.linear_attention(heads[..., :32], heads[..., :32], heads[..., :32].half())
    with pytest.raises(ValueError, match="of both query and key"):
        TRITON.linear_attention(heads, heads, heads, heads[0, 0], head_dim=11)
    with pytest.raises(ValueError, match="even C"):
        TRITON.gated_depthwise(torch.ones(1, 2, 2, 5), torch.ones(5, 1, 3, 3), torch.ones(5))


@pytest.mark.parametrize("norm", [False, True])
def test_the_whole_transformer(norm: bool) -> None:
    """Velocity and every weight's gradient on Triton as on PyTorch; fp32 sums in another order through two blocks."""
    config = SanaConfig(
        num_layers=2,
        num_attention_heads=2,
        num_cross_attention_heads=2,
        cross_attention_head_dim=32,
        caption_channels=16,
        in_channels=8,
        out_channels=8,
        sample_size=4,
        mlp_ratio=1.0,
        qk_norm="rms_norm_across_heads" if norm else None,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = SanaTransformer(config)
    arguments = (drawn(2, 8, 4, 3), torch.tensor([3.0, 700.0]), drawn(2, 5, 16))
    results = []
    for backend in ("torch", "triton"):
        model.use_kernels(backend)
        assert model.kernels == backend
        model.zero_grad()
        velocity = model(*arguments)
        velocity.square().sum().backward()
        results.append([velocity.detach(), *(p.grad.clone() for p in model.parameters())])
    names = ["velocity", *(name for name, _ in model.named_parameters())]
    largest = max(wanted.abs().max().item() for wanted in results[0])
    for name, found, wanted in zip(names, results[1], results[0], strict=True):
        if name.endswith("attn2.to_k.bias") and not norm:
            # Softmax ignores what all keys share: the gradient is zero but for rounding, here 16 roundings of the largest.
            assert max(found.abs().max().item(), wanted.abs().max().item()) <= 16 * 2**-23 * largest, name
            continue
        # 2^-23 a rounding, some hundred in a sum: 1e-5 of the tensor's own largest value.
        noise = 1e-5 * wanted.abs().max().item()
        torch.testing.assert_close(
            found, wanted, rtol=1e-4, atol=noise, msg=lambda text, name=name: f"{name}: {text}"
        )


@torch.no_grad()
def test_the_whole_decoder() -> None:
    """Images on Triton as on PyTorch: fp32 sums in another order through twenty layers, as in the comparison with diffusers."""
    config = small_dc_ae()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = DCAE(config)
    latents = drawn(2, config.latent_channels, 2, 3)
    plain = model.decode(latents)
    model.use_kernels("triton")
    assert all(m.operations is TRITON for m in model.modules() if hasattr(m, "operations"))
    assert torch.isfinite(plain).all()
    # 2^-23 a rounding, some hundred in a sum.
    noise = 1e-5 * plain.abs().max().item()
    torch.testing.assert_close(model.decode(latents), plain, rtol=1e-4, atol=noise)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_the_check_before_use_finds_a_wrong_kernel(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    check = self_check.check_operations.__wrapped__
    check(torch.device(DEVICE), dtype)

    def with_wrong_residual(backend: str) -> object:
        right = operations(backend)
        if backend == "torch":
            return right
        return replace(right, gated_residual=lambda h, gate, x: right.gated_residual(h, gate, x * 1.1))

    monkeypatch.setattr(self_check, "operations", with_wrong_residual)
    with pytest.raises(KernelError, match=r"gated_residual is off by .*choose kernels 'torch'"):
        check(torch.device(DEVICE), dtype)
