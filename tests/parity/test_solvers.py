"""Samplers against diffusers' schedulers on a nonlinear velocity field.

Tolerance 1e-5 absolute at a spread near 1: both sides carry fp32 states, ours with float64 coefficients, the
schedulers with fp32 ones; measured over these cases 1.7e-6.
"""

import math

import numpy as np
import pytest
import torch
from diffusers import DPMSolverMultistepScheduler, FlowMatchEulerDiscreteScheduler, SCMScheduler

from sana_models.solvers import (
    flow_dpm_solver,
    flow_euler,
    flow_euler_sigmas,
    flow_sigmas,
    scm,
    scm_sigmas,
)

TOLERANCE = 1e-5
STEPS = [1, 2, 3, 5, 8, 14, 20, 50]
SHIFTS = [1.0, 3.0, 4.0, 6.0]


def velocity(x: torch.Tensor, t: float) -> torch.Tensor:
    return torch.tanh(x) * (0.5 + t / 1000) - 0.3 * x.roll(1, 0) + 0.1 * math.sin(t / 100)


def start() -> torch.Tensor:
    return torch.randn(2, 4, 5, 3, generator=torch.Generator().manual_seed(11))


def run_scheduler(scheduler, steps: int) -> torch.Tensor:
    scheduler.set_timesteps(steps)
    x = start()
    for t in scheduler.timesteps:
        x = scheduler.step(velocity(x, float(t)), t, x).prev_sample
    return x


@pytest.mark.parametrize("shift", SHIFTS)
@pytest.mark.parametrize("steps", STEPS)
def test_flow_dpm_solver_equals_diffusers(steps, shift):
    scheduler = DPMSolverMultistepScheduler(
        flow_shift=shift, use_flow_sigmas=True, prediction_type="flow_prediction"
    )
    ours = flow_dpm_solver(velocity, start(), flow_sigmas(steps, shift))
    assert float((ours - run_scheduler(scheduler, steps)).abs().max()) <= TOLERANCE


@pytest.mark.parametrize("shift", SHIFTS)
@pytest.mark.parametrize("steps", STEPS)
def test_flow_euler_equals_diffusers(steps, shift):
    ours = flow_euler(velocity, start(), flow_euler_sigmas(steps, shift))
    reference = run_scheduler(FlowMatchEulerDiscreteScheduler(shift=shift), steps)
    assert float((ours - reference).abs().max()) <= TOLERANCE


@pytest.mark.parametrize("spread", [0.5, 1.0])
@pytest.mark.parametrize("steps", [1, 2, 3, 4])
def test_scm_equals_diffusers(steps, spread):
    """With the change of variables between flow and TrigFlow that SanaSprintPipeline makes around its scheduler."""
    scheduler = SCMScheduler(sigma_data=spread)
    scheduler.set_timesteps(steps, intermediate_timesteps=1.3 if steps == 2 else None)
    generator = torch.Generator().manual_seed(11)
    x = torch.randn(2, 4, 5, 3, generator=generator) * spread
    for t in scheduler.timesteps[:-1]:
        s = t.sin() / (t.cos() + t.sin())
        root = (s**2 + (1 - s) ** 2).sqrt()
        flow = x / spread * root
        output = ((1 - 2 * s) * flow + (1 - 2 * s + 2 * s**2) * velocity(flow, float(s))) / root
        x, data = scheduler.step(output * spread, t, x, generator=generator, return_dict=False)
    again = torch.Generator().manual_seed(11)
    noise = torch.stack([torch.randn(2, 4, 5, 3, generator=again) for _ in range(steps)], dim=1)
    ours = scm(velocity, noise, scm_sigmas(steps))
    assert float((ours - data / spread).abs().max()) <= TOLERANCE


@pytest.mark.parametrize("shift", SHIFTS)
def test_the_network_is_told_the_times_of_the_public_scheduler(shift):
    """Exact: a time that truncates to the next integer would be a visible difference in the real network."""
    for steps in range(1, 101):
        scheduler = DPMSolverMultistepScheduler(
            flow_shift=shift, use_flow_sigmas=True, prediction_type="flow_prediction"
        )
        scheduler.set_timesteps(steps)
        told: list[float] = []
        flow_dpm_solver(lambda x, t: told.append(t) or x, torch.zeros(1), flow_sigmas(steps, shift))
        assert told == scheduler.timesteps.tolist()


def test_time_truncation_is_a_choice():
    told: list[float] = []

    def record(x: torch.Tensor, t: float) -> torch.Tensor:
        told.append(t)
        return x

    sigmas = np.array([0.9876543, 0.5, 0.0])
    flow_euler(record, start(), sigmas)
    flow_euler(record, start(), sigmas, truncate_time=True)
    flow_dpm_solver(record, start(), sigmas)
    flow_dpm_solver(record, start(), sigmas, truncate_time=False)
    exact = [1000 * 0.9876543, 500.0]
    assert told == [*exact, 987.0, 500.0, 987.0, 500.0, *exact]


def test_progress_is_reported_after_every_step():
    for solver in (flow_dpm_solver, flow_euler):
        seen: list[tuple[int, int]] = []
        solver(velocity, start(), flow_sigmas(3, 3.0), on_step=lambda done, steps: seen.append((done, steps)))
        assert seen == [(1, 3), (2, 3), (3, 3)]


def test_last_step_is_first_order_also_on_a_grid_that_stops_above_zero():
    """The first-order update of DPM-Solver++ written out; 1e-5 covers fp32 states against float64 coefficients."""
    states: list[torch.Tensor] = []

    def record(x: torch.Tensor, t: float) -> torch.Tensor:
        states.append(x.clone())
        return velocity(x, t)

    sigmas = np.array([0.95, 0.7, 0.4, 0.1])
    ended = flow_dpm_solver(record, start(), sigmas, truncate_time=False)
    data = states[-1] - 0.4 * velocity(states[-1], 400.0)
    h = math.log(0.9 / 0.1) - math.log(0.6 / 0.4)
    first_order = (0.1 / 0.4) * states[-1] + 0.9 * (1 - math.exp(-h)) * data
    assert float((ended - first_order).abs().max()) <= TOLERANCE
    previous = states[-2] - 0.7 * velocity(states[-2], 700.0)
    assert float((data - previous).abs().max()) > 1e-2, "a second-order step would not differ"


def test_published_grid_of_twenty_steps():
    sigmas = flow_sigmas(20, 3.0)
    # Six printed digits.
    np.testing.assert_allclose(
        sigmas[[0, 1, 10, 19, 20]], [0.999666, 0.982419, 0.749625, 0.136240, 0], atol=6e-7
    )
    assert [int(1000 * s) for s in sigmas[:4]] == [999, 982, 963, 944]


def test_second_order_beats_first_order_on_a_known_flow():
    """For Gaussian data N(0, s^2) the flow is linear and its end known: x0 = s * noise."""
    spread = 0.5

    def exact(x: torch.Tensor, t: float) -> torch.Tensor:
        sigma = t / 1000
        variance = (1 - sigma) ** 2 * spread**2 + sigma**2
        return x * (sigma - (1 - sigma) * spread**2) / variance

    noise = start().double()
    sigmas = flow_sigmas(40, 3.0)
    dpm = flow_dpm_solver(exact, noise, sigmas, truncate_time=False)
    euler = flow_euler(exact, noise, sigmas)
    errors = [float((x - spread * noise).abs().max()) for x in (dpm, euler)]
    assert errors[0] < 0.5 * errors[1]


@pytest.mark.parametrize("bad", [(0, 3.0), (-1, 3.0), (5, 0.0)])
def test_absurd_settings_are_refused(bad):
    with pytest.raises(ValueError, match="steps must be at least 1"):
        flow_sigmas(*bad)
