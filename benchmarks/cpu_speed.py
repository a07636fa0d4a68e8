"""Speed on the processor against diffusers, and against the matrix products alone.

    python benchmarks/cpu_speed.py [--repetitions 5] [--only transformer-fp32,decode,...] [--to reports/benchmarks]

Random weights, shared by both sides: speed does not depend on their values. Each part first checks that both sides give the
same output and times nothing otherwise. The limit of the transformer is the time of its matrix products alone, on
the layers' own shapes in the same run. Rows of parts that were not asked for stay as they were measured before.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from side_by_side import Timing, environment, interleave, table
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from sana_bench.core.allocator import keep_freed_memory
from sana_models.compilation import Compile
from sana_models.config import DC_AE_F32C32, SANA_CONFIGS
from sana_models.dc_ae import DCAE
from sana_models.layers import linear
from sana_models.transformer import SanaTransformer

ROOT = Path(__file__).resolve().parents[1]
TOKENS_SIDE, BATCH, TEXT_TOKENS = 32, 2, 300
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
# Of the outputs' spread: fp32 sums of 10^4 terms in another order through 28 blocks; bf16 keeps 8 bits.
AGREEMENT = {"fp32": 1e-4, "bf16": 0.1}

#: What was measured, and the times of each side.
Measured = tuple[str, dict[str, Timing]]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--only", default=",".join(PARTS))
    parser.add_argument("--to", type=Path, default=ROOT / "reports" / "benchmarks")
    arguments = parser.parse_args()
    unknown = [name for name in arguments.only.split(",") if name not in PARTS]
    if unknown:
        parser.error(f"unknown part {unknown[0]!r}; one of {', '.join(PARTS)}")
    # As the command line does. Without, diffusers takes up to 1.7 times as long, by what ran before it in the process.
    keep_freed_memory()
    arguments.to.mkdir(parents=True, exist_ok=True)
    kept = arguments.to / "cpu_speed.json"
    measured = json.loads(kept.read_text(encoding="utf-8")) if kept.is_file() else {}
    for name in arguments.only.split(","):
        with torch.inference_mode():
            what, times = PARTS[name](arguments.repetitions)
        shown = row(what, times)
        measured[name] = {
            "what": what,
            "row": [*shown, str(arguments.repetitions)],
            "seconds": {side: list(timing.seconds) for side, timing in times.items()},
            "environment": environment(),
        }
        print(*shown, sep="  ", flush=True)
        kept.write_text(json.dumps(measured, indent=2) + "\n", encoding="utf-8")
        (arguments.to / "cpu_speed.md").write_text(report(measured), encoding="utf-8")
    return 0


def report(measured: dict[str, dict[str, Any]]) -> str:
    header = (
        "what",
        "ours",
        "diffusers",
        "diffusers / ours",
        "limit",
        "share of the limit's rate",
        "repetitions",
    )
    rows = [tuple(measured[name]["row"]) for name in PARTS if name in measured]
    # Parts of one sitting differ in how busy the machine was, and in nothing else: the most is told.
    loads: dict[str, str] = {}
    for part in measured.values():
        facts = dict(part["environment"])
        load = facts.pop("load", "")
        where = ", ".join(f"{name} {value}" for name, value in facts.items())
        loads[where] = max(loads.get(where, ""), load, key=lambda told: float(told or 0))
    environments = "; ".join(
        f"{where}, load {load}" if load else where for where, load in sorted(loads.items())
    )
    return (
        "# Speed on the processor\n\n`python benchmarks/cpu_speed.py`: median of interleaved repetitions, fastest and slowest in "
        "brackets; ours, diffusers and\nthe limit of one row ran in turn in one process. Random weights shared by both sides; "
        f"outputs agreed in the same run.\n{environments}.\n\n{table(header, rows)}\n"
    )


def check(ours: Tensor, theirs: Tensor, bound: float, what: str) -> None:
    """Refuse to time what differs."""
    error = float((ours.float() - theirs.float()).abs().max() / theirs.float().std())
    if not error <= bound:
        sys.exit(
            f"{what}: outputs differ by {error:.2g} of their spread, more than {bound:g}; nothing was timed"
        )


def transformer(precision: str) -> Callable[[int], Measured]:
    """A step of the 0.6B model at 1024 pixels, batch 2: a guided step of one image, as each pipeline takes it.

    Ours has projected the text before the first step, diffusers projects it in every one.
    """

    def measure(repetitions: int) -> Measured:
        from diffusers import SanaTransformer2DModel

        config, dtype = SANA_CONFIGS["sana-0.6b-1024"], DTYPES[precision]
        torch.manual_seed(0)
        theirs = SanaTransformer2DModel.from_config(config.to_dict()).to(dtype).eval()
        with torch.device("meta"):
            ours = SanaTransformer(config)
        ours.load_state_dict(theirs.state_dict(), assign=True)
        ours.eval()
        latents = torch.randn(BATCH, config.in_channels, TOKENS_SIDE, TOKENS_SIDE).to(dtype)
        times = torch.full((BATCH,), 500.0)
        text = torch.randn(BATCH, TEXT_TOKENS, config.caption_channels).to(dtype)
        mask = torch.ones(BATCH, TEXT_TOKENS)

        def run_theirs() -> Tensor:
            return theirs(latents, text, times, encoder_attention_mask=mask.to(dtype), return_dict=False)[0]

        def run_ours() -> Tensor:
            return ours(latents, times, text, mask)

        check(run_ours(), run_theirs(), AGREEMENT[precision], f"transformer {precision}")
        context = ours.text_context(text, mask)

        def run_step() -> Tensor:
            return ours(latents, times, context)

        contestants = {"ours": run_step, "diffusers": run_theirs, "limit": products_of(run_step, dtype)}
        times_of = interleave(contestants, repetitions)
        return f"transformer step, 0.6B, 1024 tokens, batch {BATCH}, {precision}", times_of

    return measure


class RecordProducts(TorchDispatchMode):
    """Notes the shapes (rows, in, out) of all dense products with weights."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes: list[tuple[int, int, int]] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = function.overloadpacket.__name__
        if name in ("linear", "mm", "addmm", "_linear_pointwise"):
            left, right = args[1:3] if name == "addmm" else args[:2]
            n_out = right.shape[0] if "linear" in name else right.shape[1]
            self.shapes.append((left.numel() // left.shape[-1], left.shape[-1], n_out))
        return function(*args, **(kwargs or {}))


def products_of(run: Callable[[], Tensor], dtype: torch.dtype) -> Callable[[], None]:
    """Return a function that does the dense products of `run`, on tensors of their shapes, and nothing else."""
    with RecordProducts() as record:
        run()
    if not record.shapes:
        sys.exit("no matrix product was seen; the limit cannot be measured")
    inputs = {(rows, n_in): torch.randn(rows, n_in).to(dtype) for rows, n_in, _ in record.shapes}
    # A weight of its own for every layer: read from memory as in the network, not from the caches.
    weights = [torch.randn(n_out, n_in).to(dtype) for _, n_in, n_out in record.shapes]

    def products() -> None:
        for (rows, n_in, _), weight in zip(record.shapes, weights, strict=True):
            linear(inputs[rows, n_in], weight)

    return products


def row(what: str, times: dict[str, Timing]) -> tuple[str, ...]:
    ours, theirs, limit = times["ours"], times["diffusers"], times.get("limit")
    ratio = f"{theirs.median / ours.median:.2f}"
    if limit is None:
        return what, str(ours), str(theirs), ratio, "", ""
    return what, str(ours), str(theirs), ratio, str(limit), f"{limit.median / ours.median:.0%}"


def decode(repetitions: int) -> Measured:
    """The autoencoder of the published models: 16 x 16 latents to 512 pixels, fp32."""
    from diffusers import AutoencoderDC

    torch.manual_seed(0)
    theirs = AutoencoderDC.from_config(DC_AE_F32C32.to_dict()).eval()
    with torch.device("meta"):
        ours = DCAE(DC_AE_F32C32)
    ours.load_state_dict(theirs.state_dict(), assign=True)
    ours.eval()
    latents = torch.randn(1, DC_AE_F32C32.latent_channels, 16, 16)

    def run_ours() -> Tensor:
        return ours.decode(latents)

    def run_theirs() -> Tensor:
        return theirs.decode(latents, return_dict=False)[0]

    check(run_ours(), run_theirs(), AGREEMENT["fp32"], "DC-AE decoder")
    times = interleave({"ours": run_ours, "diffusers": run_theirs}, repetitions)
    return "DC-AE decode, 512 pixels, batch 1, fp32", times


def micro_pipeline(repetitions: int, compile: Compile = "none") -> Measured:
    """The shipped pipeline end to end: 16 prompts, 20 steps, guidance 2; diffusers runs eagerly beside either of ours.

    diffusers would ignore the micro autoencoder's latent statistics, so both sides get one without.
    """
    import tempfile

    from diffusers import SanaPipeline

    import sana_models

    micro = ROOT / "sana_bench" / "micro" / "weights" / "sana-micro"
    source = sana_models.load_pipeline(micro)
    config = replace(source.autoencoder.config, latents_mean=None, latents_std=None)
    plain = DCAE(config)
    plain.load_state_dict(source.autoencoder.state_dict())
    prompts = [f"a photo of a {color} circle" for color in ("red", "blue", "green", "black")] * 4
    noise = source.draw_noise(range(len(prompts)), 64, 64)
    with tempfile.TemporaryDirectory() as folder:
        sana_models.save_pretrained(
            Path(folder),
            transformer=source.transformer,
            autoencoder=plain,
            text_encoder=source.text_encoder,
            flow_shift=source.flow_shift,
        )
        ours = sana_models.load_pipeline(folder, compile=compile)
        theirs = SanaPipeline.from_pretrained(folder, local_files_only=True)
    theirs.set_progress_bar_config(disable=True)
    theirs.text_encoder.set_attn_implementation("eager")

    def run_ours() -> Tensor:
        return ours(prompts, noise=noise, steps=20, guidance_scale=2.0).float()

    def run_theirs() -> Tensor:
        images = theirs(
            prompts,
            negative_prompt="",
            latents=noise.clone(),
            height=64,
            width=64,
            use_resolution_binning=False,
            max_sequence_length=ours.max_length,
            complex_human_instruction=None,
            num_inference_steps=20,
            guidance_scale=2.0,
            output_type="np",
        ).images
        return torch.from_numpy(images * 255).round()

    began = time.perf_counter()
    run_ours()
    started = time.perf_counter() - began
    # One of 256 levels where a value sits on the edge of rounding, by the spread of the pixels.
    reference = run_theirs()
    check(run_ours(), reference, 1.01 / float(reference.std()), "micro pipeline")
    times = interleave({"ours": run_ours, "diffusers": run_theirs}, repetitions)
    how = "" if compile == "none" else ", ours compiled"
    print(f"first call of ours{how}: {started:.1f} s")
    return f"micro pipeline, {len(prompts)} images of 64 pixels, 20 steps, fp32{how}", times


def micro_compiled(repetitions: int) -> Measured:
    """Run ours compiled."""
    return micro_pipeline(repetitions, "default")


PARTS: dict[str, Callable[[int], Measured]] = {
    "transformer-fp32": transformer("fp32"),
    "transformer-bf16": transformer("bf16"),
    "decode": decode,
    "micro": micro_pipeline,
    "micro-compiled": micro_compiled,
}

if __name__ == "__main__":
    sys.exit(main())
