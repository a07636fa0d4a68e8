"""A published size at work on the processor: SANA 0.6B makes one 512-pixel image from random weights in bf16.

    python benchmarks/full_size.py [--steps 20] [--to reports/benchmarks]

Transformer and autoencoder have their published shapes. The text encoder is Gemma-2's architecture at its width with two of
its 26 layers. The image is noise; time and memory are not.
"""

import argparse
import resource
import sys
import time
from itertools import pairwise
from pathlib import Path

import torch
from side_by_side import environment, table
from torch import nn
from transformers import Gemma2Config, Gemma2Model

from sana_models import DCAE, SanaPipeline, SanaTransformer, TextEncoder
from sana_models.config import DC_AE_F32C32, SANA_CONFIGS
from sana_models.text import make_word_tokenizer

ROOT = Path(__file__).resolve().parents[1]
PROMPT = "a photo of a red circle"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--to", type=Path, default=ROOT / "reports" / "benchmarks")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    pipeline, parameters = build()
    marks = [time.perf_counter()]
    images = pipeline(
        [PROMPT], seeds=[0], steps=arguments.steps, on_step=lambda *_: marks.append(time.perf_counter())
    )
    marks.append(time.perf_counter())
    assert images.shape == (1, 512, 512, 3)
    steps = sorted(later - earlier for earlier, later in pairwise(marks[1:-1]))
    row = (
        f"{parameters / 1e9:.2f} billion",
        f"{marks[-1] - marks[0]:.1f} s",
        f"{steps[len(steps) // 2]:.2f} s [{steps[0]:.2f}, {steps[-1]:.2f}]",
        f"{marks[-1] - marks[-2]:.1f} s",
        f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB",
    )
    header = (
        "parameters",
        "image",
        "guided step, median [fastest, slowest]",
        "decoder",
        "peak memory of the process",
    )
    facts = ", ".join(f"{name} {value}" for name, value in environment().items())
    text = (
        f"# SANA 0.6B on the processor\n\n`python benchmarks/full_size.py --steps {arguments.steps}`: one 512-pixel image, "
        f"random weights, bf16.\n{facts}.\n\n{table(header, [row])}\n"
    )
    arguments.to.mkdir(parents=True, exist_ok=True)
    (arguments.to / "full_size.md").write_text(text, encoding="utf-8")
    print(text)
    return 0


def build() -> tuple[SanaPipeline, int]:
    """Return the pipeline and its number of parameters."""
    config = SANA_CONFIGS["sana-0.6b-512"]
    tokenizer = make_word_tokenizer(PROMPT.split(), model_max_length=300)
    gemma = Gemma2Config(
        vocab_size=len(tokenizer),
        hidden_size=config.caption_channels,
        intermediate_size=9216,
        num_hidden_layers=2,
        num_attention_heads=8,
        num_key_value_heads=4,
        head_dim=256,
        pad_token_id=tokenizer.pad_token_id,
        attn_implementation="eager",
    )
    transformer, autoencoder = SanaTransformer(config), DCAE(DC_AE_F32C32)
    parts: list[nn.Module] = [transformer, autoencoder, Gemma2Model(gemma)]
    parts = [part.to(torch.bfloat16).eval().requires_grad_(False) for part in parts]
    count = sum(parameter.numel() for part in parts for parameter in part.parameters())
    pipeline = SanaPipeline(transformer, autoencoder, TextEncoder(tokenizer, parts[2]), flow_shift=3.0)
    return pipeline, count


if __name__ == "__main__":
    sys.exit(main())
