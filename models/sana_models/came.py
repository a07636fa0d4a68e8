"""CAME and CAME-8bit: confidence-guided optimizers with factored second moments.

CAME (arXiv 2307.02047) keeps row and column means in place of the full second moment of a matrix; SANA-1.5
(arXiv 2501.18427) section 2.2 stores the first moment of large matrices in 8 bits as well. The steps are those of SANA's
published training code, except for the 8-bit blocks: that code cuts a matrix into stretches of 2048 *rows*, the paper
into blocks of 2048 *values*, and so does this module.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist
from torch.distributed.device_mesh import DeviceMesh

__all__ = ["CAME", "CAME8bit", "dequantise_blocks", "optimizer_state_bytes", "quantise_blocks"]

_LEVELS = 255


class CAME(torch.optim.Optimizer):
    """CAME: state of a matrix of n x m values is n m + 2 (n + m) fp32 numbers, where AdamW keeps 2 n m.

    Matrices and 1x1 convolutions are factored. Other parameters (biases, norms, larger kernels) keep a full second moment and
    have no confidence term. There is no bias correction. `betas` are the decays of the first moment, the second
    moment and the residual; `eps` is added to the squared gradient and to the squared residual; `clip_threshold` bounds
    the root mean square of a tensor's update; `weight_decay` is decoupled.
    State is fp32 whatever the parameter's dtype. Parameters that FSDP2 sharded by rows take the steps of whole ones up to
    rounding: their state is sharded alike, but for the means of columns. Raises ValueError for settings out of range.
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
        share = RowShare.of(parameter)
        weights, gradient = local_part(parameter), local_part(parameter.grad).float()
        beta1, beta2, beta3 = group["betas"]
        if _is_factored(parameter):
            gradient = gradient.flatten(1)
        if not self.state[parameter]:
            self._start(self.state[parameter], parameter, gradient, share)
        state = {name: local_part(value) for name, value in self.state[parameter].items()}
        update = _scaled_gradient(gradient, state, beta2, group["eps"][0], share)
        root_mean_square = _mean(update.square(), share).sqrt_()
        update /= (root_mean_square / group["clip_threshold"]).clamp_(min=1.0)
        mean = self._read_mean(state, gradient.shape, share).lerp_(update, 1 - beta1)
        self._write_mean(state, mean, share)
        if _is_factored(parameter):
            residual = (update - mean).square_().add_(group["eps"][1])
            mean = mean * _follow(state, "residual_row", "residual_col", residual, 1 - beta3, share)
        if group["weight_decay"]:
            weights.mul_(1 - group["lr"] * group["weight_decay"])
        weights.add_(mean.reshape(weights.shape).to(weights.dtype), alpha=-group["lr"])

    def _start(
        self, state: dict[str, Tensor], parameter: Tensor, gradient: Tensor, share: "RowShare | None"
    ) -> None:
        whole = (lambda rows: rows) if share is None else share.whole
        state["mean"] = whole(torch.zeros_like(gradient))
        if _is_factored(parameter):
            rows, columns = gradient.shape
            for name in ("row", "residual_row"):
                state[name] = whole(gradient.new_zeros(rows))
            for name in ("col", "residual_col"):
                state[name] = gradient.new_zeros(columns)
        else:
            state["square"] = whole(torch.zeros_like(gradient))

    def _read_mean(self, state: dict[str, Tensor], shape: torch.Size, share: "RowShare | None") -> Tensor:
        return state["mean"]

    def _write_mean(self, state: dict[str, Tensor], mean: Tensor, share: "RowShare | None") -> None:
        """Keep the first moment, in place; what `_read_mean` returned may be `mean` itself."""


class CAME8bit(CAME):
    """CAME with the first moment of large factored tensors stored in 8 bits: about one byte a parameter.

    Tensors of more than `min_8bit_size` values are stored in blocks of `block_size` consecutive values, each with its own
    minimum and scale. The step itself uses the unrounded first moment; only what is kept for the next one is rounded.
    """

    MIN_SIZE = 16384
    BLOCK_SIZE = 2048

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-4,
        *,
        min_8bit_size: int = MIN_SIZE,
        block_size: int = BLOCK_SIZE,
        **kw: Any,
    ) -> None:
        if min_8bit_size < 0 or block_size < 1:
            raise ValueError("min_8bit_size must not be negative and block_size at least 1")
        self.min_8bit_size = min_8bit_size
        self.block_size = block_size
        super().__init__(params, lr, **kw)

    def _start(
        self, state: dict[str, Tensor], parameter: Tensor, gradient: Tensor, share: "RowShare | None"
    ) -> None:
        super()._start(state, parameter, gradient, share)
        if _is_factored(parameter) and parameter.numel() > self.min_8bit_size:
            del state["mean"]
            codes = torch.zeros_like(gradient, dtype=torch.uint8)
            state["mean_code"] = codes if share is None else share.whole(codes)
            blocks = -(-parameter.numel() // self.block_size)
            # Of all blocks in every process: they are a thousandth of the codes, and one may lie in two processes.
            state["mean_scale"], state["mean_min"] = gradient.new_zeros(2, blocks).unbind()

    def _read_mean(self, state: dict[str, Tensor], shape: torch.Size, share: "RowShare | None") -> Tensor:
        if "mean_code" not in state:
            return super()._read_mean(state, shape, share)
        start = 0 if share is None else share.first * shape[1]
        values = dequantise_blocks(
            state["mean_code"], state["mean_scale"], state["mean_min"], self.block_size, start=start
        )
        return values.reshape(shape)

    def _write_mean(self, state: dict[str, Tensor], mean: Tensor, share: "RowShare | None") -> None:
        if "mean_code" in state:
            codes, scale, low = quantise_blocks(mean, self.block_size, share)
            state["mean_code"].view(-1).copy_(codes)
            state["mean_scale"].copy_(scale)
            state["mean_min"].copy_(low)


@dataclass(frozen=True, slots=True)
class RowShare:
    """Which rows of a tensor a process holds when FSDP2 shards it, and how the processes add up what they know."""

    rows: int
    first: int
    mesh: DeviceMesh

    @classmethod
    def of(cls, tensor: Tensor) -> "RowShare | None":
        """Return the share of a sharded tensor, None of a whole one. Raises RuntimeError for any but rows of one mesh axis."""
        from torch.distributed.tensor import DTensor, Shard

        if not isinstance(tensor, DTensor):
            return None
        mesh, rows = tensor.device_mesh, tensor.shape[0]
        if tensor.placements != (Shard(0),):
            raise RuntimeError(f"CAME takes parameters sharded by rows, not by {tensor.placements}")
        return cls(rows, min(rows, mesh.get_local_rank() * -(-rows // mesh.size())), mesh)

    def whole(self, rows: Tensor) -> Tensor:
        """Return the sharded tensor of which `rows` are this process's."""
        from torch.distributed.tensor import DTensor, Shard

        shape = torch.Size((self.rows, *rows.shape[1:]))
        stride = torch.empty(shape, device="meta").stride()
        return DTensor.from_local(rows, self.mesh, (Shard(0),), run_check=False, shape=shape, stride=stride)

    def sum(self, values: Tensor) -> Tensor:
        """Add up values over the processes, in place."""
        dist.all_reduce(values, group=self.mesh.get_group())
        return values

    def bounds(self, low: Tensor, high: Tensor, block: int, blocks: int) -> tuple[Tensor, Tensor]:
        """Return minimum and maximum of all `blocks`, given those of this process's values from number `block` on."""
        found = low.new_full((2, blocks), torch.inf)
        found[:, block : block + len(low)] = torch.stack((low, -high))
        dist.all_reduce(found, op=dist.ReduceOp.MIN, group=self.mesh.get_group())
        return found[0], -found[1]


def local_part(tensor: Tensor) -> Tensor:
    """Return the rows that this process holds: of a whole tensor, itself. Shares memory."""
    from torch.distributed.tensor import DTensor

    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def quantise_blocks(
    values: Tensor, block_size: int, share: RowShare | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Round to 256 evenly spaced levels between the minimum and maximum of each block of consecutive values.

    Returns uint8 codes (numel,) and the fp32 scale and minimum of every block; the last block may be shorter. A block of equal
    values has scale 0 and is kept exactly. `values` may be the rows of a `share`: blocks are then those of the whole matrix.
    """
    start = 0 if share is None else share.first * values.shape[1]
    blocks = _in_blocks(values.float().flatten(), block_size, start)
    low, high = blocks.aminmax(dim=1)
    first = start // block_size
    if share is not None:
        count = -(-share.rows * values.shape[1] // block_size)
        low, high = share.bounds(low, high, first, count)
    scale = (high - low) / _LEVELS
    divisor = torch.where(scale > 0, scale, torch.ones_like(scale))
    own = slice(first, first + len(blocks))
    codes = ((blocks - low[own, None]) / divisor[own, None]).round_().clamp_(0, _LEVELS).to(torch.uint8)
    before = start % block_size
    return codes.flatten()[before : before + values.numel()].clone(), scale, low


def dequantise_blocks(
    codes: Tensor, scale: Tensor, low: Tensor, block_size: int, *, start: int = 0
) -> Tensor:
    """Return the fp32 values (numel,) of `quantise_blocks`, at most half a scale off; `start` is the place of the first of them
    in the whole matrix.
    """
    padded = _in_blocks(codes.flatten(), block_size, start)
    own = slice(start // block_size, start // block_size + len(padded))
    values = torch.addcmul(low[own, None], padded.float(), scale[own, None]).flatten()
    return values[start % block_size :][: codes.numel()]


def _in_blocks(values: Tensor, block_size: int, start: int) -> Tensor:
    """Cut values, the first of which has the place `start`, into blocks (n, block_size) that begin at multiples of the size."""
    before = start % block_size if len(values) else 0
    after = -(before + len(values)) % block_size
    if before or after:
        # Padding by the first and the last value changes neither minimum nor maximum of their blocks.
        values = torch.cat([values[:1].expand(before), values, values[-1:].expand(after)])
    return values.view(-1, block_size)


def optimizer_state_bytes(optimizer: torch.optim.Optimizer) -> int:
    """Return the bytes of all tensors that an optimizer keeps between steps in this process."""
    tensors = (value for state in optimizer.state.values() for value in state.values())
    return sum(local_part(value).nbytes for value in tensors if isinstance(value, Tensor))


def _is_factored(parameter: Tensor) -> bool:
    return parameter.ndim == 2 or (parameter.ndim == 4 and parameter.shape[2:] == (1, 1))


def _scaled_gradient(
    gradient: Tensor, state: dict[str, Tensor], beta2: float, eps: float, share: RowShare | None
) -> Tensor:
    """Update the second moment; return the gradient divided by its root."""
    square = gradient.square().add_(eps)
    if "square" in state:
        return gradient * state["square"].lerp_(square, 1 - beta2).rsqrt()
    return gradient * _follow(state, "row", "col", square, 1 - beta2, share)


def _follow(
    state: dict[str, Tensor], row: str, col: str, values: Tensor, weight: float, share: RowShare | None
) -> Tensor:
    """Move the means of rows and columns towards those of `values`; return the inverse root of row x col / mean(row)."""
    rows = state[row].lerp_(values.mean(1), weight)
    if share is None:
        columns, mean = values.mean(0), rows.mean()
    else:
        # One message for both.
        sums = share.sum(torch.cat([values.sum(0), rows.sum(0, keepdim=True)])).div_(share.rows)
        columns, mean = sums[:-1], sums[-1]
    state[col].lerp_(columns, weight)
    return (rows / mean).rsqrt_()[:, None] * state[col].rsqrt()[None, :]


def _mean(values: Tensor, share: RowShare | None) -> Tensor:
    if share is None:
        return values.mean()
    return share.sum(values.sum()).div_(share.rows * values.shape[1:].numel())
