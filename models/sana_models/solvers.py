"""Samplers of SANA as plain functions over tensors.

The state is x = (1 - sigma) x0 + sigma noise; the network predicts v = noise - x0 and is told t = 1000 sigma. `velocity` functions take
(x, t) with x fp32 (B, C, h, w) and t a float; they are called once a step.
Sources: SANA (arXiv 2410.10629) Algorithm 1; DPM-Solver++ (arXiv 2211.01095) second-order multistep, midpoint form.
"""

import math
from collections.abc import Callable

import numpy as np
from torch import Tensor

__all__ = ["SOLVERS", "flow_dpm_solver", "flow_euler", "flow_euler_sigmas", "flow_sigmas", "shift_sigma"]

Velocity = Callable[[Tensor, float], Tensor]
StepCallback = Callable[[int, int], None]


def shift_sigma(sigma: np.ndarray, shift: float) -> np.ndarray:
    """Move noise levels towards 1, as larger images need: shift*s / (1 + (shift-1)*s)."""
    return shift * sigma / (1 + (shift - 1) * sigma)


def flow_sigmas(steps: int, shift: float) -> np.ndarray:
    """Return the `steps + 1` decreasing float64 noise levels of Flow-DPM-Solver; the first is just below 1, the last 0.

    Raises ValueError unless steps >= 1 and shift > 0.
    """
    _check(steps, shift)
    levels = 1.0 - np.linspace(1.0, 0.001, steps + 1)
    return shift_sigma(levels, shift)[::-1].copy()


def flow_euler_sigmas(steps: int, shift: float) -> np.ndarray:
    """Return the `steps + 1` noise levels of flow-Euler.

    The range is read off the already shifted 1000-step training grid and shifted once more, as the public scheduler does, so the
    last level before 0 is 0.0089 for shift 3. Raises ValueError unless steps >= 1 and shift > 0.
    """
    _check(steps, shift)
    lowest, highest = shift_sigma(np.array([0.001, 1.0]), shift)
    levels = shift_sigma(np.linspace(highest * 1000, lowest * 1000, steps) / 1000, shift)
    return np.append(levels, 0.0)


def flow_dpm_solver(
    velocity: Velocity, noise: Tensor, sigmas: np.ndarray, *, on_step: StepCallback | None = None
) -> Tensor:
    """Integrate from `noise` to data by Flow-DPM-Solver, second order in between, first order at the first and last step.

    The last step must be first order: it ends at sigma 0, where the half-log-SNR is infinite and the second-order ratio is 0.
    """
    x = noise.float()
    steps = len(sigmas) - 1
    previous: Tensor | None = None
    for n in range(steps):
        sigma, target = float(sigmas[n]), float(sigmas[n + 1])
        data = x - sigma * velocity(x, _model_time(sigma)).float()
        direction = data
        if previous is not None and n < steps - 1:
            h = _half_log_snr(target) - _half_log_snr(sigma)
            ratio = (_half_log_snr(sigma) - _half_log_snr(float(sigmas[n - 1]))) / h
            direction = data + (data - previous) / (2 * ratio)
        if target > 0:
            h = _half_log_snr(target) - _half_log_snr(sigma)
            x = (target / sigma) * x - (1 - target) * math.expm1(-h) * direction
        else:
            x = direction
        previous = data
        if on_step is not None:
            on_step(n + 1, steps)
    return x


def flow_euler(
    velocity: Velocity, noise: Tensor, sigmas: np.ndarray, *, on_step: StepCallback | None = None
) -> Tensor:
    """Integrate from `noise` to data by explicit Euler steps; the model sees untruncated times, as in the public scheduler."""
    x = noise.float()
    steps = len(sigmas) - 1
    for n in range(steps):
        sigma, target = float(sigmas[n]), float(sigmas[n + 1])
        x = x + (target - sigma) * velocity(x, 1000 * sigma).float()
        if on_step is not None:
            on_step(n + 1, steps)
    return x


#: Name in a variant file -> (levels, integrator).
SOLVERS: dict[str, tuple[Callable[[int, float], np.ndarray], Callable[..., Tensor]]] = {
    "flow_dpm_solver": (flow_sigmas, flow_dpm_solver),
    "flow_euler": (flow_euler_sigmas, flow_euler),
}


def _model_time(sigma: float) -> float:
    # The official network truncates its time input and diffusers' scheduler hands over integers: 999.67 is seen as 999.
    return float(int(1000 * sigma))


def _half_log_snr(sigma: float) -> float:
    return math.log((1 - sigma) / sigma)


def _check(steps: int, shift: float) -> None:
    if steps < 1 or shift <= 0:
        raise ValueError(f"steps is {steps} and shift {shift}; steps must be at least 1 and shift above 0")
