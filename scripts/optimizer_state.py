"""The tables of optimizer state sizes, measured, and of a training's memory, computed, in docs/training.md.

Usage: python scripts/optimizer_state.py            write the tables
       python scripts/optimizer_state.py --check    exit 1 if a committed table is not what is found

One tensor of each distinct shape gets its state, which is weighed; a model's state is the sum over its tensors. torch's
optimizers and CAME do a step on the meta device, where shapes are all there is; bitsandbytes allocates on the CPU without one.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from sana_models.came import CAME, CAME8bit, optimizer_state_bytes
from sana_models.checkpoints import load_transformer
from sana_models.config import SANA_CONFIGS, SanaConfig
from sana_models.training.memory import memory_per_process
from sana_models.transformer import SanaTransformer

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "training.md"
STATE, MEMORY = "optimizer state", "memory of a training"
PROCESSES = (1, 8, 16, 64)
LARGEST = "sana1.5-4.8b-1024"
MODELS = ("sana-1.6b-1024", LARGEST)

Make = Callable[[list[nn.Parameter]], torch.optim.Optimizer]


def optimizers() -> dict[str, Make]:
    """The optimizers that run here; bitsandbytes only where it is installed."""
    found: dict[str, Make] = {"AdamW": torch.optim.AdamW, "CAME": CAME, "CAME-8bit": CAME8bit}
    try:
        import bitsandbytes
    except ImportError:
        return found
    return {"AdamW": torch.optim.AdamW, "AdamW 8-bit (bitsandbytes)": bitsandbytes.optim.AdamW8bit, **found}


def state_bytes(make: Make, shape: tuple[int, ...]) -> int:
    """Weigh the state of one tensor."""
    parameter = nn.Parameter(torch.empty(shape, device="meta"))
    optimizer = make([parameter])
    if type(optimizer).__module__.startswith("bitsandbytes"):
        real = nn.Parameter(torch.empty(shape))
        optimizer = make([real])
        optimizer.init_state(optimizer.param_groups[0], real, 0, 0)  # type: ignore[operator]
        return optimizer_state_bytes(optimizer)
    parameter.grad = torch.empty_like(parameter)
    optimizer.step()
    # AdamW's step counter is four bytes a tensor, which count like any other.
    return optimizer_state_bytes(optimizer)


def model_shapes() -> dict[str, Counter[tuple[int, ...]]]:
    """Shapes of every trained tensor, by model."""
    configs: dict[str, SanaConfig] = {name: SANA_CONFIGS[name] for name in MODELS}
    micro = load_transformer(ROOT / "sana_bench" / "micro" / "weights" / "sana-micro").config
    shapes = {}
    for name, config in {"sana-micro": micro, **configs}.items():
        with torch.device("meta"):
            model = SanaTransformer(config)
        shapes[name] = Counter(tuple(parameter.shape) for parameter in model.parameters())
    return shapes


def table() -> str:
    """The table in Markdown: bytes a parameter, and gigabytes."""
    makes = optimizers()
    lines = ["| transformer | parameters | " + " | ".join(makes) + " |", "|---|---:|" + "---:|" * len(makes)]
    for name, shapes in model_shapes().items():
        count = sum(torch.Size(shape).numel() * times for shape, times in shapes.items())
        cells = []
        for make in makes.values():
            total = sum(state_bytes(make, shape) * times for shape, times in shapes.items())
            cells.append(f"{total / count:.2f} ({total / 1e9:.2f} GB)")
        lines.append(f"| {name} | {count / 1e6:,.1f} M | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def memory_table() -> str:
    """GB in each process of a training of the largest model, in Markdown."""
    with torch.device("meta"):
        model = SanaTransformer(SANA_CONFIGS[LARGEST])
    shapes = [tuple(parameter.shape) for parameter in model.parameters()]
    columns = ("weights", "gradients", "average")
    lines = [
        "| processes | weights | gradients | moving average | AdamW | CAME-8bit | all with AdamW | all with CAME-8bit |",
        "|---|" + "---:|" * 7,
    ]
    for processes in PROCESSES:
        adamw, came = (
            memory_per_process(shapes, name, processes=processes) for name in ("adamw", "came_8bit")
        )
        cells = [*(adamw[column] for column in columns), adamw["optimizer"], came["optimizer"]]
        cells += [sum(adamw.values()), sum(came.values())]
        name = "1; DDP with any number" if processes == 1 else f"FSDP2 with {processes}"
        lines.append(f"| {name} | " + " | ".join(f"{cell / 1e9:.2f}" for cell in cells) + " |")
    block = sum(parameter.numel() for parameter in model.transformer_blocks[0].parameters())
    return "\n".join(
        [*lines, "", f"A block has {block / 1e6:.1f} M weights, {2 * block / 1e9:.2f} GB in bf16."]
    )


def filled(text: str, name: str, table: str) -> str:
    """Put a table between the marks of its name."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    before, rest = text.split(begin)
    return f"{before}{begin}\n{table}\n{end}{rest.split(end)[1]}"


def main() -> int:
    """Run the command line; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing")
    arguments = parser.parse_args()
    text = PAGE.read_text(encoding="utf-8")
    fresh = filled(filled(text, STATE, table()), MEMORY, memory_table())
    if arguments.check:
        if fresh != text:
            print(f"{PAGE}: a table is stale; run python scripts/optimizer_state.py", file=sys.stderr)
        return int(fresh != text)
    PAGE.write_text(fresh, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
