"""Samplers of SANA as plain functions over tensors.

The state is x = (1 - sigma) x0 + sigma noise; the network predicts v = noise - x0 and is told t = 1000 sigma.
`velocity` functions take (x, t) with x fp32 (B, C, h, w) and t a float; they are called once a step.

The published networks were trained on integer times: the official model cuts the fraction of t inside, and
diffusers' Flow-DPM scheduler hands over integers, while its Euler scheduler does not. `truncate_time`
chooses; its defaults are those of the diffusers schedulers. The mixing of data and noise always uses the
exact sigma.

SANA-Sprint is sampled by `scm`, which draws noise again at every step, and is told sigma itself.

Sources: SANA (arXiv 2410.10629) Algorithm 1; DPM-Solver++ (arXiv 2211.01095) second-order multistep, midpoint
form; SANA-Sprint (arXiv 2503.09641) and sCM (arXiv 2410.11081) for consistency sampling.
"""

import math
from collections.abc import Callable

import numpy as np
from torch import Tensor

__all__ = [
    "SCM",
    "SOLVERS",
    "flow_dpm_solver",
    "flow_euler",
    "flow_euler_sigmas",
    "flow_sigmas",
    "scm",
    "scm_sigmas",
    "shift_sigma",
]

#: The sampler of models that embed the guidance scale, and of no others.
SCM = "scm"
# Angles of the public scheduler: the first, a little above pi / 2, and the one between two steps.
_FIRST_ANGLE, _MIDDLE_ANGLE = 1.57080, 1.3

Velocity = Callable[[Tensor, float], Tensor]
StepCallback = Callable[[int, int], None]


def shift_sigma(sigma: np.ndarray, shift: float) -> np.ndarray:
    """Move noise levels towards 1, as larger images need: shift*s / (1 + (shift-1)*s)."""
    return shift * sigma / (1 + (shift - 1) * sigma)


def flow_sigmas(steps: int, shift: float) -> np.ndarray:
    """Return the `steps + 1` decreasing float64 noise levels of Flow-DPM-Solver; the first is just below 1,
    the last 0.

    Raises ValueError unless steps >= 1 and shift > 0.
    """
    _check(steps, shift)
    levels = 1.0 - np.linspace(1.0, 0.001, steps + 1)
    return shift_sigma(levels, shift)[::-1].copy()


def flow_euler_sigmas(steps: int, shift: float) -> np.ndarray:
    """Return the `steps + 1` noise levels of flow-Euler.

    The range is read off the already shifted 1000-step training grid and shifted once more, as the public
    scheduler does, so the last level before 0 is 0.0089 for shift 3. Raises ValueError unless steps >= 1 and
    shift > 0.
    """
    _check(steps, shift)
    lowest, highest = shift_sigma(np.array([0.001, 1.0]), shift)
    levels = shift_sigma(np.linspace(highest * 1000, lowest * 1000, steps) / 1000, shift)
    return np.append(levels, 0.0)


def flow_dpm_solver(
    velocity: Velocity,
    noise: Tensor,
    sigmas: np.ndarray,
    *,
    truncate_time: bool = True,
    on_step: StepCallback | None = None,
) -> Tensor:
    """Integrate from `noise` to data by Flow-DPM-Solver: first order at the first and the last step, second
    in between.

    The last step must be first order: it ends at sigma 0, where the half-log-SNR is infinite and the
    second-order ratio 0. Returns fp32 data shaped like `noise`; `on_step(done, steps)` is called after each
    step.
    """
    x = noise.float()
    steps = len(sigmas) - 1
    previous: Tensor | None = None
    for n in range(steps):
        sigma, target = float(sigmas[n]), float(sigmas[n + 1])
        data = x - sigma * velocity(x, _model_time(sigma, truncate_time)).float()
        if target > 0:
            h = _half_log_snr(target) - _half_log_snr(sigma)
            direction = data
            if previous is not None and n < steps - 1:
                ratio = (_half_log_snr(sigma) - _half_log_snr(float(sigmas[n - 1]))) / h
                direction = data + (data - previous) / (2 * ratio)
            x = (target / sigma) * x - (1 - target) * math.expm1(-h) * direction
        else:
            x = data
        previous = data
        if on_step is not None:
            on_step(n + 1, steps)
    return x


def flow_euler(
    velocity: Velocity,
    noise: Tensor,
    sigmas: np.ndarray,
    *,
    truncate_time: bool = False,
    on_step: StepCallback | None = None,
) -> Tensor:
    """Integrate from `noise` to data by explicit Euler steps; otherwise as `flow_dpm_solver`."""
    x = noise.float()
    steps = len(sigmas) - 1
    for n in range(steps):
        sigma, target = float(sigmas[n]), float(sigmas[n + 1])
        x = x + (target - sigma) * velocity(x, _model_time(sigma, truncate_time)).float()
        if on_step is not None:
            on_step(n + 1, steps)
    return x


def scm_sigmas(steps: int, shift: float | None = None) -> np.ndarray:
    """Return the `steps + 1` noise levels of consistency sampling.

    They are sin t / (sin t + cos t) of angles t from pi / 2 down to 0: evenly spaced, but for two steps with 1.3 between them, as
    published. Raises ValueError unless steps >= 1, and for a shift, which these levels do not have.
    """
    if shift is not None:
        raise ValueError(f"shift is {shift}; the levels of sampler {SCM} have none")
    _check(steps, 1.0)
    angles = [_FIRST_ANGLE, _MIDDLE_ANGLE, 0.0] if steps == 2 else np.linspace(_FIRST_ANGLE, 0.0, steps + 1)
    return np.sin(angles) / (np.sin(angles) + np.cos(angles))


def scm(
    velocity: Velocity, noise: Tensor, sigmas: np.ndarray, *, on_step: StepCallback | None = None
) -> Tensor:
    """From noise to data by consistency steps: each predicts the data, and all but the last put new noise on it.

    `noise` is (B, steps, C, h, w), one draw a step. In TrigFlow's terms, with x = cos t data + sin t noise and the network F of
    x, the prediction is cos t x - sin t F; for a network that was trained as a flow and is used through SANA-Sprint's change of
    variables, that is x' - sigma v of the flow's own x' = (1 - sigma) data + sigma noise, whatever the data's spread.
    """
    steps = len(sigmas) - 1
    # The first level is beyond 1 by 4e-6; the public sampler starts from the noise scaled to it.
    x = noise[:, 0].float() * math.hypot(float(sigmas[0]), 1 - float(sigmas[0]))
    for n in range(steps):
        sigma, target = float(sigmas[n]), float(sigmas[n + 1])
        x = x - sigma * velocity(x, sigma).float()
        if n < steps - 1:
            x = (1 - target) * x + target * noise[:, n + 1].float()
        if on_step is not None:
            on_step(n + 1, steps)
    return x


#: Name in a variant file -> (levels, integrator).
SOLVERS: dict[str, tuple[Callable[..., np.ndarray], Callable[..., Tensor]]] = {
    "flow_dpm_solver": (flow_sigmas, flow_dpm_solver),
    "flow_euler": (flow_euler_sigmas, flow_euler),
    SCM: (scm_sigmas, scm),
}


def _model_time(sigma: float, truncate: bool) -> float:
    return float(int(1000 * sigma)) if truncate else 1000 * sigma


def _half_log_snr(sigma: float) -> float:
    return math.log((1 - sigma) / sigma)


def _check(steps: int, shift: float) -> None:
    if steps < 1 or not 0 < shift < math.inf:
        raise ValueError(f"steps is {steps} and shift {shift}; steps must be at least 1 and shift above 0")
