"""The table of optimizer state sizes in docs/training.md, measured.

Usage: python scripts/optimizer_state.py            write the table
       python scripts/optimizer_state.py --check    exit 1 if the committed table is not what is measured

One tensor of each distinct shape is stepped once and its state weighed; a model's state is the sum over its tensors.
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
from sana_models.transformer import SanaTransformer

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "training.md"
BEGIN, END = "<!-- optimizer state: begin -->", "<!-- optimizer state: end -->"
MODELS = ("sana-1.6b-1024", "sana1.5-4.8b-1024")

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
    """Weigh the state of one tensor after one step."""
    parameter = nn.Parameter(torch.zeros(shape))
    parameter.grad = torch.ones(shape)
    optimizer = make([parameter])
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


def main() -> int:
    """Run the command line; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing")
    arguments = parser.parse_args()
    text = PAGE.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    fresh = f"{before}{BEGIN}\n{table()}\n{END}{rest.split(END)[1]}"
    if arguments.check:
        if fresh != text:
            print(f"{PAGE}: the table is stale; run python scripts/optimizer_state.py", file=sys.stderr)
        return int(fresh != text)
    PAGE.write_text(fresh, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
