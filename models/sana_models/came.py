"""CAME and CAME-8bit: confidence-guided optimizers with factored second moments.

CAME (arXiv 2307.02047) keeps row and column means in place of the full second moment of a matrix; SANA-1.5
(arXiv 2501.18427) section 2.2 stores the first moment of large matrices in 8 bits as well. The steps are those of SANA's
published training code, except for the 8-bit blocks: that code cuts a matrix into stretches of 2048 *rows*, the paper
into blocks of 2048 *values*, and so does this module.
"""

from collections.abc import Callable, Iterable, Mapping
from itertools import chain
from typing import Any

import torch
from torch import Tensor

__all__ = ["CAME", "CAME8bit", "dequantise_blocks", "optimizer_state_bytes", "quantise_blocks"]

_LEVELS = 255


class CAME(torch.optim.Optimizer):
    """CAME: state of a matrix of n x m values is n m + 2 (n + m) fp32 numbers, where AdamW keeps 2 n m.

    Matrices and 1x1 convolutions are factored. Other parameters (biases, norms, larger kernels) keep a full second moment and
    have no confidence term. There is no bias correction. `betas` are the decays of the first moment, the second
    moment and the residual; `eps` is added to the squared gradient and to the squared residual; `clip_threshold` bounds
    the root mean square of a tensor's update; `weight_decay` is decoupled.
    State is fp32 whatever the parameter's dtype. Raises ValueError for settings out of range.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-4,
        *,
        betas: tuple[float, float, float] = (0.9, 0.999, 0.9999),
        eps: tuple[float, float] = (1e-30, 1e-16),
        clip_threshold: float = 1.0,
        weight_decay: float = 0.0,
    ) -> None:
        if not lr >= 0:
            raise ValueError(f"lr is {lr}; it must not be negative")
        if len(betas) != 3 or not all(0 <= beta < 1 for beta in betas):
            raise ValueError(f"betas are {betas}; expected three numbers in [0, 1)")
        if len(eps) != 2 or not all(value > 0 for value in eps):
            raise ValueError(f"eps is {eps}; expected two positive numbers")
        if not clip_threshold > 0 or not weight_decay >= 0:
            raise ValueError("clip_threshold must be positive and weight_decay not negative")
        defaults = {
            "lr": lr,
            "betas": tuple(betas),
            "eps": tuple(eps),
            "clip_threshold": clip_threshold,
            "weight_decay": weight_decay,
        }
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Do one step; `closure` computes the loss again. Raises RuntimeError for a sparse gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._step_one(parameter, group)
        return loss

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Load exactly what was saved: torch would cast every state to its parameter's dtype."""
        super().load_state_dict(dict(state_dict))
        saved_ids = chain.from_iterable(group["params"] for group in state_dict["param_groups"])
        parameters = chain.from_iterable(group["params"] for group in self.param_groups)
        for number, parameter in zip(saved_ids, parameters, strict=True):
            for name, value in state_dict["state"].get(number, {}).items():
                self.state[parameter][name] = value.to(parameter.device, copy=True)

    def _step_one(self, parameter: Tensor, group: dict[str, Any]) -> None:
        if parameter.grad is None or parameter.grad.is_sparse:
            raise RuntimeError("CAME takes dense gradients only")
        gradient = parameter.grad.float()
        state = self.state[parameter]
        beta1, beta2, beta3 = group["betas"]
        if _is_factored(parameter):
            gradient = gradient.flatten(1)
        if not state:
            self._start(state, parameter, gradient)
        update = _scaled_gradient(gradient, state, beta2, group["eps"][0])
        update /= (_root_mean_square(update) / group["clip_threshold"]).clamp_(min=1.0)
        mean = self._read_mean(state, gradient.shape).lerp_(update, 1 - beta1)
        self._write_mean(state, mean)
        if _is_factored(parameter):
            residual = (update - mean).square_().add_(group["eps"][1])
            state["residual_row"].lerp_(residual.mean(1), 1 - beta3)
            state["residual_col"].lerp_(residual.mean(0), 1 - beta3)
            mean = mean * _inverse_root(state["residual_row"], state["residual_col"])
        if group["weight_decay"]:
            parameter.mul_(1 - group["lr"] * group["weight_decay"])
        parameter.add_(mean.reshape(parameter.shape).to(parameter.dtype), alpha=-group["lr"])

    def _start(self, state: dict[str, Tensor], parameter: Tensor, gradient: Tensor) -> None:
        state["mean"] = torch.zeros_like(gradient)
        if _is_factored(parameter):
            rows, columns = gradient.shape
            for name, size in (("row", rows), ("col", columns)):
                state[name] = gradient.new_zeros(size)
                state[f"residual_{name}"] = gradient.new_zeros(size)
        else:
            state["square"] = torch.zeros_like(gradient)

    def _read_mean(self, state: dict[str, Tensor], shape: torch.Size) -> Tensor:
        return state["mean"]

    def _write_mean(self, state: dict[str, Tensor], mean: Tensor) -> None:
        state["mean"] = mean


class CAME8bit(CAME):
    """CAME with the first moment of large factored tensors stored in 8 bits: about one byte a parameter.

    Tensors of more than `min_8bit_size` values are stored in blocks of `block_size` consecutive values, each with its own
    minimum and scale. The step itself uses the unrounded first moment; only what is kept for the next one is rounded.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-4,
        *,
        min_8bit_size: int = 16384,
        block_size: int = 2048,
        **kw: Any,
    ) -> None:
        if min_8bit_size < 0 or block_size < 1:
            raise ValueError("min_8bit_size must not be negative and block_size at least 1")
        self.min_8bit_size = min_8bit_size
        self.block_size = block_size
        super().__init__(params, lr, **kw)

    def _start(self, state: dict[str, Tensor], parameter: Tensor, gradient: Tensor) -> None:
        super()._start(state, parameter, gradient)
        if _is_factored(parameter) and parameter.numel() > self.min_8bit_size:
            mean = state.pop("mean")
            state["mean_code"], state["mean_scale"], state["mean_min"] = quantise_blocks(
                mean, self.block_size
            )

    def _read_mean(self, state: dict[str, Tensor], shape: torch.Size) -> Tensor:
        if "mean_code" not in state:
            return super()._read_mean(state, shape)
        values = dequantise_blocks(
            state["mean_code"], state["mean_scale"], state["mean_min"], self.block_size
        )
        return values.reshape(shape)

    def _write_mean(self, state: dict[str, Tensor], mean: Tensor) -> None:
        if "mean_code" in state:
            state["mean_code"], state["mean_scale"], state["mean_min"] = quantise_blocks(
                mean, self.block_size
            )
        else:
            super()._write_mean(state, mean)


def quantise_blocks(values: Tensor, block_size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Round to 256 evenly spaced levels between the minimum and maximum of each block of consecutive values.

    Returns uint8 codes (numel,) and the fp32 scale and minimum of every block; the last block may be shorter. A block of equal
    values has scale 0 and is kept exactly.
    """
    flat = values.float().flatten()
    missing = -flat.numel() % block_size
    # Padding by the last value changes neither minimum nor maximum of the last block.
    padded = torch.cat([flat, flat[-1:].expand(missing)]) if missing else flat
    blocks = padded.view(-1, block_size)
    low, high = blocks.aminmax(dim=1)
    scale = (high - low) / _LEVELS
    divisor = torch.where(scale > 0, scale, torch.ones_like(scale))
    codes = ((blocks - low[:, None]) / divisor[:, None]).round_().clamp_(0, _LEVELS).to(torch.uint8)
    return codes.flatten()[: flat.numel()].clone(), scale, low


def dequantise_blocks(codes: Tensor, scale: Tensor, low: Tensor, block_size: int) -> Tensor:
    """Return the fp32 values (numel,) of `quantise_blocks`, at most half a scale off."""
    missing = -codes.numel() % block_size
    padded = torch.nn.functional.pad(codes, (0, missing)).view(-1, block_size)
    return torch.addcmul(low[:, None], padded.float(), scale[:, None]).flatten()[: codes.numel()]


def optimizer_state_bytes(optimizer: torch.optim.Optimizer) -> int:
    """Return the bytes of all tensors that an optimizer keeps between steps."""
    tensors = (value for state in optimizer.state.values() for value in state.values())
    return sum(value.numel() * value.element_size() for value in tensors if isinstance(value, Tensor))


def _is_factored(parameter: Tensor) -> bool:
    return parameter.ndim == 2 or (parameter.ndim == 4 and parameter.shape[2:] == (1, 1))


def _scaled_gradient(gradient: Tensor, state: dict[str, Tensor], beta2: float, eps: float) -> Tensor:
    """Update the second moment; return the gradient divided by its root."""
    square = gradient.square().add_(eps)
    if "square" in state:
        return gradient * state["square"].lerp_(square, 1 - beta2).rsqrt()
    state["row"].lerp_(square.mean(1), 1 - beta2)
    state["col"].lerp_(square.mean(0), 1 - beta2)
    return gradient * _inverse_root(state["row"], state["col"])


def _inverse_root(row: Tensor, col: Tensor) -> Tensor:
    """Inverse root of the rank-one estimate row x col / mean(row)."""
    return (row / row.mean()).rsqrt_()[:, None] * col.rsqrt()[None, :]


def _root_mean_square(values: Tensor) -> Tensor:
    return values.square().mean().sqrt_()
