"""How much memory loading takes beyond the weights, and how long.

    python benchmarks/loading.py [--config sana-1.6b-1024] [--to reports/benchmarks]

Writes random weights of a published size in bf16 to a temporary folder, loads them in a process of their own, and compares that
process's peak memory with the size of the weights.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from safetensors.torch import save_file
from side_by_side import environment, table

from sana_models.config import SANA_CONFIGS
from sana_models.transformer import SanaTransformer

ROOT = Path(__file__).resolve().parents[1]

LOAD = """
import json, re, sys, time
import torch
from sana_models import load_transformer
def peak():
    # Of this process alone; getrusage's figure starts at the parent's.
    return 1024 * int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])
torch.zeros(1) + 1
before = peak()
began = time.perf_counter()
model = load_transformer(sys.argv[1], dtype=torch.bfloat16)
seconds = time.perf_counter() - began
# Pages are read when first touched: reading every weight makes the peak honest.
total = sum(float(p.view(torch.int16).max()) for p in model.parameters())
print(json.dumps({"seconds": seconds, "with_reading": time.perf_counter() - began, "bytes": peak() - before}))
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", default="sana-1.6b-1024", choices=sorted(SANA_CONFIGS))
    parser.add_argument("--to", type=Path, default=ROOT / "reports" / "benchmarks")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        size = write_checkpoint(Path(folder), arguments.config)
        began = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-c", LOAD, folder], capture_output=True, text=True, check=True
        )
        measured = json.loads(done.stdout) | {"process": time.perf_counter() - began}
    row = (
        arguments.config,
        f"{size / 2**30:.2f} GiB",
        f"{measured['bytes'] / 2**30:.2f} GiB",
        f"{measured['bytes'] / size:.3f}",
        f"{measured['seconds']:.2f} s",
        f"{measured['with_reading']:.2f} s",
    )
    header = ("weights, bf16", "size", "peak beyond the idle process", "ratio", "load", "load and read all")
    facts = ", ".join(f"{name} {value}" for name, value in environment().items())
    text = f"# Memory of loading\n\n`python benchmarks/loading.py`. {facts}.\n\n{table(header, [row])}\n"
    arguments.to.mkdir(parents=True, exist_ok=True)
    (arguments.to / "loading.md").write_text(text, encoding="utf-8")
    print(text)
    return 0


def write_checkpoint(folder: Path, name: str) -> int:
    """Write a transformer with random weights; return their size in bytes."""
    with torch.device("meta"):
        model = SanaTransformer(SANA_CONFIGS[name])
    shapes = {key: value.shape for key, value in model.state_dict().items()}
    tensors = {key: torch.randn(shape).to(torch.bfloat16) for key, shape in shapes.items()}
    save_file(tensors, folder / "diffusion_pytorch_model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(SANA_CONFIGS[name].to_dict()))
    return sum(tensor.nbytes for tensor in tensors.values())


if __name__ == "__main__":
    sys.exit(main())
