"""CAME and CAME-8bit against a plain float64 reference, on convergence, state size and saving."""

import io

import numpy as np
import pytest
import torch
from torch import nn

from sana_models.came import CAME, CAME8bit, dequantise_blocks, optimizer_state_bytes, quantise_blocks

BETAS, EPS = (0.9, 0.999, 0.9999), (1e-30, 1e-16)
# One of each: factored matrix, 1x1 convolution (factored), 3x3 convolution, bias, a matrix large enough for 8 bits.
SHAPES = ((24, 40), (12, 10, 1, 1), (6, 1, 3, 3), (33,), (130, 129))


def reference(parameter, gradients, *, lr, weight_decay=0.0, clip=1.0):
    """The published step in float64, written from its formulas; `parameter` and gradients are arrays of one shape."""
    factored = parameter.ndim == 2 or parameter.shape[2:] == (1, 1)
    shape = parameter.shape
    p = parameter.astype(np.float64).reshape(shape[0], -1) if factored else parameter.astype(np.float64)
    m, v = np.zeros_like(p), np.zeros_like(p)
    r, rr = (np.zeros(p.shape[0]) for _ in range(2))
    c, rc = (np.zeros(p.shape[1]) if factored else None for _ in range(2))
    for gradient in gradients:
        g = gradient.astype(np.float64).reshape(p.shape)
        square = g**2 + EPS[0]
        if factored:
            r = BETAS[1] * r + (1 - BETAS[1]) * square.mean(1)
            c = BETAS[1] * c + (1 - BETAS[1]) * square.mean(0)
            u = g * (r / r.mean())[:, None] ** -0.5 * c[None, :] ** -0.5
        else:
            v = BETAS[1] * v + (1 - BETAS[1]) * square
            u = g * v**-0.5
        u = u / max(1.0, np.sqrt((u**2).mean()) / clip)
        m = BETAS[0] * m + (1 - BETAS[0]) * u
        step = m
        if factored:
            residual = (u - m) ** 2 + EPS[1]
            rr = BETAS[2] * rr + (1 - BETAS[2]) * residual.mean(1)
            rc = BETAS[2] * rc + (1 - BETAS[2]) * residual.mean(0)
            step = m * (rr / rr.mean())[:, None] ** -0.5 * rc[None, :] ** -0.5
        p = p * (1 - lr * weight_decay) - lr * step
    return p.reshape(shape)


def random_problem(seed=0, steps=25):
    rng = np.random.default_rng(seed)
    start = [rng.standard_normal(shape).astype(np.float32) for shape in SHAPES]
    # Rows of very different scale, so that a row factor applied to columns would show.
    gradients = [
        [
            (
                rng.standard_normal(shape)
                * np.exp(2 * rng.standard_normal(shape[0])).reshape(-1, *[1] * (len(shape) - 1))
            ).astype(np.float32)
            for _ in range(steps)
        ]
        for shape in SHAPES
    ]
    return start, gradients


def run(optimizer_class, start, gradients, steps=None, **options):
    parameters = [nn.Parameter(torch.from_numpy(array.copy())) for array in start]
    optimizer = optimizer_class(parameters, **options)
    for step in range(len(gradients[0]) if steps is None else steps):
        for parameter, series in zip(parameters, gradients, strict=True):
            parameter.grad = torch.from_numpy(series[step].copy())
        optimizer.step()
    return parameters, optimizer


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_came_is_the_float64_reference(weight_decay):
    start, gradients = random_problem()
    parameters, _ = run(CAME, start, gradients, lr=0.01, weight_decay=weight_decay)
    for parameter, array, series in zip(parameters, start, gradients, strict=True):
        expected = reference(array, series, lr=0.01, weight_decay=weight_decay)
        found = parameter.detach().double().numpy()
        # 25 fp32 steps: each adds about one rounding of the parameter (6e-8) and a few of the update.
        np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-5 * np.abs(expected - array).max())


def test_the_first_8bit_step_is_came_and_the_stored_mean_is_half_a_level_off():
    start, gradients = random_problem(steps=1)
    plain, plain_optimizer = run(CAME, start, gradients, lr=0.01)
    rounded, rounded_optimizer = run(CAME8bit, start, gradients, lr=0.01)
    for expected, found in zip(plain, rounded, strict=True):
        assert torch.equal(expected, found)
    exact = plain_optimizer.state[plain[-1]]["mean"].flatten()
    state = rounded_optimizer.state[rounded[-1]]
    stored = dequantise_blocks(state["mean_code"], state["mean_scale"], state["mean_min"], 2048)
    half_level = state["mean_scale"].repeat_interleave(2048)[: exact.numel()] / 2
    # Half a level, and the rounding of code * scale + minimum.
    assert bool(((stored - exact).abs() <= half_level * 1.001 + 1e-7 * exact.abs().max()).all())


def test_only_large_factored_tensors_are_8bit_and_in_blocks_of_2048_values():
    shapes = ((128, 128), (128, 129), (16385,), (1821, 1, 3, 3), (65, 260, 1, 1))
    rng = np.random.default_rng(1)
    start = [rng.standard_normal(shape).astype(np.float32) for shape in shapes]
    parameters, optimizer = run(CAME8bit, start, [[array] for array in start], lr=0.01)
    states = [optimizer.state[parameter] for parameter in parameters]
    # 128 x 128 is exactly 16384, and the limit is strict.
    assert ["mean_code" in state for state in states] == [False, True, False, False, True]
    assert states[1]["mean_scale"].numel() == -(-128 * 129 // 2048)
    assert states[1]["mean_code"].dtype == torch.uint8
    assert states[1]["mean_code"].numel() == 128 * 129


def test_an_outlier_coarsens_its_own_block_only():
    values = torch.linspace(-1, 1, 5000)
    values[100] = 1000.0
    decoded = dequantise_blocks(*quantise_blocks(values, 2048), 2048)
    error = (decoded - values).abs()
    assert error[:2048].max() > 0.5
    # The other blocks span less than 1: half of a 255th of that.
    assert error[2048:].max() < 0.5 / 255 + 1e-6


@pytest.mark.parametrize("value", [0.0, -3.25, 1e-20])
def test_a_constant_block_is_kept_exactly(value):
    values = torch.full((3000,), value)
    assert torch.equal(dequantise_blocks(*quantise_blocks(values, 2048), 2048), values)


def _fit(optimizer_class, **options):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(64, 300), nn.Tanh(), nn.Linear(300, 64))
    data = torch.randn(256, 64)
    target = torch.sin(data @ torch.randn(64, 64) / 8)
    optimizer = optimizer_class(net.parameters(), **options)
    losses = []
    for _ in range(150):
        loss = (net(data) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def test_8bit_converges_as_came_and_as_adamw_do():
    came, came_8bit = _fit(CAME, lr=1e-4), _fit(CAME8bit, lr=1e-4)
    adamw = _fit(torch.optim.AdamW, lr=1e-3)
    assert came[-1] < 0.3 * came[0]
    # Rounding to 8 bits perturbs the direction by under a per cent; a tenth leaves room for the path to differ.
    assert came_8bit[-1] == pytest.approx(came[-1], rel=0.1)
    assert came_8bit[-1] < 3 * adamw[-1]


def test_state_sizes():
    start, gradients = random_problem(steps=1)
    big, series = start[-1:], gradients[-1:]
    rows, columns = big[0].shape
    factors = 4 * 2 * (rows + columns)
    sizes = {
        optimizer_class: optimizer_state_bytes(run(optimizer_class, big, series, lr=0.01)[1])
        for optimizer_class in (CAME, CAME8bit)
    }
    assert sizes[CAME] == 4 * rows * columns + factors
    assert sizes[CAME8bit] == rows * columns + 8 * -(-rows * columns // 2048) + factors


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("optimizer_class", [CAME, CAME8bit])
def test_saved_and_loaded_it_goes_on_bit_for_bit(optimizer_class, dtype):
    start, gradients = random_problem(steps=6)

    def build():
        parameters = [nn.Parameter(torch.from_numpy(array.copy()).to(dtype)) for array in start]
        return parameters, optimizer_class(parameters, lr=0.01)

    def go(parameters, optimizer, steps):
        for step in steps:
            for parameter, series in zip(parameters, gradients, strict=True):
                parameter.grad = torch.from_numpy(series[step].copy()).to(dtype)
            optimizer.step()

    whole, whole_optimizer = build()
    go(whole, whole_optimizer, range(6))
    first, first_optimizer = build()
    go(first, first_optimizer, range(3))
    stream = io.BytesIO()
    torch.save({"optimizer": first_optimizer.state_dict(), "weights": [p.data for p in first]}, stream)
    stream.seek(0)
    saved = torch.load(stream, weights_only=True)
    second, second_optimizer = build()
    second_optimizer.load_state_dict(saved["optimizer"])
    for parameter, value in zip(second, saved["weights"], strict=True):
        parameter.data.copy_(value)
    go(second, second_optimizer, range(3, 6))
    for expected, found in zip(whole, second, strict=True):
        assert torch.equal(expected, found)
    for name, value in whole_optimizer.state[whole[-1]].items():
        found = second_optimizer.state[second[-1]][name]
        assert found.dtype == value.dtype
        assert torch.equal(found, value)


def test_loading_keeps_no_reference_to_what_was_loaded():
    start, gradients = random_problem(steps=1)
    _, optimizer = run(CAME, start, gradients, lr=0.01)
    saved = optimizer.state_dict()
    parameters = [nn.Parameter(torch.from_numpy(array.copy())) for array in start]
    other = CAME(parameters, lr=0.01)
    other.load_state_dict(saved)
    before = saved["state"][0]["row"].clone()
    other.state[parameters[0]]["row"].zero_()
    assert torch.equal(saved["state"][0]["row"], before)


def test_zero_gradients_move_nothing():
    start, _ = random_problem(steps=1)
    zeros = [[np.zeros_like(array)] * 3 for array in start]
    for optimizer_class in (CAME, CAME8bit):
        for parameter, array in zip(run(optimizer_class, start, zeros, lr=0.01)[0], start, strict=True):
            assert np.array_equal(parameter.detach().numpy(), array)


@pytest.mark.parametrize(
    "bad",
    [
        {"lr": -1.0},
        {"betas": (0.9, 0.99)},
        {"betas": (0.9, 0.99, 1.0)},
        {"eps": (0.0, 1e-16)},
        {"clip_threshold": 0.0},
    ],
)
def test_absurd_settings_are_refused(bad):
    with pytest.raises(ValueError, match=r"lr|betas|eps|clip"):
        CAME([nn.Parameter(torch.zeros(2))], **bad)
