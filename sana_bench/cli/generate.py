"""`sana-bench generate`: images from prompts, without a suite."""

import io
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sana_bench.cli.options import (
    BatchSizeOption,
    DeviceOption,
    NoiseSeedOption,
    VariantGuidanceOption,
    VariantStepsOption,
    WeightsVariantOption,
    complete_variants,
    from_record,
    precision_choice,
)
from sana_bench.core.errors import BenchError, UsageError, nearest
from sana_bench.core.progress import say

if TYPE_CHECKING:
    from sana_bench.suites.schema import Variant

__all__ = ["register"]

#: Prompt, seed, and where the image goes.
_Job = tuple[str, int, Path]

# What `sana_bench.generators.image_folder` looks for, whose import takes long.
_MANIFEST = "manifest.jsonl"
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?")


@dataclass(frozen=True, kw_only=True)
class _Options:
    """What to draw and how; None means the variant's or the checkpoint's own value."""

    model: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="A variant (sana-bench list variants), a pipeline folder, or a hub id.",
            autocompletion=complete_variants,
        ),
    ]
    prompt: Annotated[
        list[str] | None, typer.Option(metavar="TEXT", help="What to draw; may be repeated.")
    ] = None
    prompts: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Draw the prompts of a file, as sana-bench score reads them, into a folder."
        ),
    ] = None
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE|DIR",
            help="PNG file, its folder is made; several images get -0, -1, ... in their names. With --prompts a folder.",
        ),
    ] = Path("out.png")
    seed: NoiseSeedOption = 0
    images: Annotated[int, typer.Option(min=1, max=10_000, metavar="N", help="Images per prompt.")] = 1
    height: Annotated[int | None, typer.Option(min=1, max=8192, metavar="PIXELS")] = None
    width: Annotated[int | None, typer.Option(min=1, max=8192, metavar="PIXELS")] = None
    steps: VariantStepsOption = None
    guidance: VariantGuidanceOption = None
    negative: Annotated[
        str, typer.Option(metavar="TEXT", help="What the image should not show; needs guidance.")
    ] = ""
    tile: Annotated[
        int | None, typer.Option(min=64, metavar="PIXELS", help="Decode in tiles of this side.")
    ] = None
    precision: Annotated[
        str | None,
        precision_choice(
            "Number format of the model; the variant's own if left out, else bf16 on CUDA and fp32 on a CPU."
        ),
    ] = None
    weights_variant: WeightsVariantOption = None
    lora: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|DIR|ID",
            help="Merge a LoRA of diffusers or PEFT into the transformer; the variant's own if left out.",
        ),
    ] = None
    lora_scale: Annotated[float, typer.Option(metavar="X", help="How strongly --lora changes the model.")] = (
        1.0
    )
    device: DeviceOption = "auto"
    batch_size: BatchSizeOption = 4
    force: Annotated[bool, typer.Option("--force", help="Replace existing files.")] = False


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        epilog='Example: sana-bench generate --model sana-micro --prompt "a photo of a red circle" -o circle.png'
    )(from_record(generate))


def generate(options: _Options) -> None:
    """Generate images from prompts and write PNG files.

    With --prompts the folder gets ID.png (ID_00.png, ID_01.png, ... of several) and a manifest that sana-bench score reads.
    """
    if (options.prompts is None) == (not options.prompt):
        raise UsageError("give either --prompt TEXT or --prompts FILE")
    if options.prompts is None:
        for path in _generate_files(options, _single_jobs(options)):
            say(path)
        return
    lines, jobs = _folder_jobs(options, options.prompts)
    _generate_files(options, jobs)
    from sana_bench.core import atomic

    # Last, so that a folder with a manifest has all of its images.
    manifest = options.output / _MANIFEST
    atomic.write_text(manifest, "".join(f"{line}\n" for line in lines))
    say(manifest)


def _single_jobs(options: _Options) -> list[_Job]:
    texts = [(prompt, i) for prompt in options.prompt or () for i in range(options.images)]
    paths = _paths(options, len(texts))
    return [(prompt, options.seed + i, path) for (prompt, i), path in zip(texts, paths, strict=True)]


def _folder_jobs(options: _Options, file: Path) -> tuple[list[str], list[_Job]]:
    """The lines of the manifest and the images to make of the prompts in a file; raises `UsageError`."""
    from sana_bench.benchmarks.prompt_file import read_prompts
    from sana_bench.core import atomic
    from sana_bench.results.run_folder import is_path_name

    if options.output.suffix.lower() == ".png" or options.output.is_file():
        raise UsageError(f"--output {options.output}: with --prompts it is a folder")
    atomic.check_writable(options.output)
    lines, jobs = [], []
    for prompt in read_prompts(file).prompts:
        if not is_path_name(prompt.id):
            raise UsageError(f"{file}: the id {prompt.id!r} cannot be the name of a file")
        for i in range(options.images):
            name = f"{prompt.id}.png" if options.images == 1 else f"{prompt.id}_{i:02d}.png"
            entry = {**prompt.metadata, "id": prompt.id, "prompt": prompt.text, "index": i, "file": name}
            lines.append(json.dumps(entry, ensure_ascii=False))
            jobs.append((prompt.text, options.seed + i, options.output / name))
    _refuse_taken(options, [options.output / _MANIFEST, *(path for _, _, path in jobs)])
    return lines, jobs


def _generate_files(options: _Options, jobs: Sequence[_Job]) -> list[Path]:
    """Generate, write PNG files, and return their paths in the order of `jobs`.

    Image i of a prompt has seed `options.seed + i`. Every file carries its prompt, seed and settings as PNG text.
    Raises `UsageError` or `AssetError` before anything is written, and `BenchError` for an image that is not finite.
    """
    from sana_bench.core import atomic
    from sana_bench.core.progress import Progress
    from sana_bench.core.text import lone_surrogate

    for text in (*(prompt for prompt, _, _ in jobs), options.negative):
        if (half := lone_surrogate(text)) is not None:
            raise UsageError(f"the prompt {text!a} holds {half}, half of a character")
    pipeline, call = _load(options)
    steps = call["steps"]
    batches = [jobs[i : i + options.batch_size] for i in range(0, len(jobs), options.batch_size)]
    with Progress("generating", steps * len(batches), "steps") as progress:
        for batch in batches:
            try:
                images = pipeline(
                    [prompt for prompt, _, _ in batch],
                    seeds=[seed for _, seed, _ in batch],
                    on_step=lambda *_: progress.advance(1),
                    **call,
                )
            except FloatingPointError as error:
                raise BenchError(str(error)) from None
            except ValueError as error:
                raise UsageError(str(error)) from None
            for (prompt, seed, path), image in zip(batch, images.numpy(), strict=True):
                atomic.write_bytes(path, _png(image, _settings(options, prompt, seed, call)))
    return [path for _, _, path in jobs]


def _paths(options: _Options, count: int) -> list[Path]:
    """Return where the images go, checked to be writable and free; their folder is made with the first of them."""
    from sana_bench.core import atomic

    output = options.output
    if output.suffix.lower() != ".png":
        raise UsageError(f"--output {output}: images are written as PNG; the name must end with .png")
    atomic.check_writable(output.parent)
    width = len(str(count - 1))
    paths = (
        [output]
        if count == 1
        else [output.with_name(f"{output.stem}-{i:0{width}d}{output.suffix}") for i in range(count)]
    )
    _refuse_taken(options, paths)
    return paths


def _refuse_taken(options: _Options, paths: Sequence[Path]) -> None:
    taken = [path for path in paths if path.exists()]
    if taken and not options.force:
        raise UsageError(f"--output {taken[0]}: already exists (--force replaces it)")


def _device(name: str) -> str:
    import torch

    found = torch.cuda.is_available()
    if name == "cuda" and not found:
        raise UsageError("--device cuda: no CUDA device found")
    return "cuda" if found and name != "cpu" else "cpu"


def _load(options: _Options) -> tuple[Any, dict[str, Any]]:
    """Return the pipeline and the arguments of its call; a name that is none is refused before torch is imported."""
    from sana_bench.suites.find import variant_files
    from sana_bench.suites.load import load_variant
    from sana_bench.suites.schema import LoraSpec
    from sana_models.files import is_there

    known = variant_files()
    path = known.get(options.model)
    if path is None and not is_there(Path(options.model)) and not _HUB_ID.fullmatch(options.model):
        hint = nearest(options.model, known)
        raise UsageError(f"--model {options.model}: no such variant{hint}, pipeline folder or hub id")
    device = _device(options.device)
    if path is not None:
        variant = load_variant(path)
        if options.precision is not None:
            variant = variant.model_copy(update={"precision": options.precision})
        if options.weights_variant is not None:
            model = variant.model.model_copy(update={"weights_variant": options.weights_variant})
            variant = variant.model_copy(update={"model": model})
        if options.lora is not None:
            lora = LoraSpec(weights=str(_lora(options.lora)), scale=options.lora_scale)
            variant = variant.model_copy(update={"lora": lora})
        pipeline, call = _load_variant(variant, path.parent, device)
    else:
        pipeline = _load_checkpoint(options, device)
        call = {"steps": pipeline.default_steps, "guidance": _guidance(4.5)}
    if options.steps is not None:
        call["steps"] = options.steps
    if options.guidance is not None:
        call["guidance"] = _guidance(options.guidance)
    for name in ("height", "width"):
        if getattr(options, name) is not None:
            call[name] = getattr(options, name)
    call["negative_prompt"] = options.negative
    if options.tile is not None:
        call["tiling"] = _tiling(options.tile, pipeline.autoencoder.config.spatial_compression)
    return pipeline, call


def _load_variant(variant: "Variant", folder: Path, device: str) -> tuple[Any, dict[str, Any]]:
    from sana_bench.assets.locate import resolve_autoencoder, resolve_lora, resolve_weights
    from sana_bench.generators.sana import guidance_of, load_sana, tiling_of

    if variant.generator != "sana" or variant.sampler is None:
        raise UsageError(
            f"--model {variant.name}: its generator is {variant.generator}; only variants of generator sana can be used"
        )
    model = variant.model
    weights = resolve_weights(model.weights, folder, model.weights_variant)
    lora = resolve_lora(variant.lora.weights, folder) if variant.lora is not None else None
    autoencoder = resolve_autoencoder(model.autoencoder, folder) if model.autoencoder is not None else None
    pipeline = load_sana(weights, variant, device, lora=lora, autoencoder=autoencoder)
    return pipeline, {
        "steps": variant.sampler.steps,
        "guidance": guidance_of(variant),
        "shift": variant.sampler.shift,
        "sampler": variant.sampler.name,
        "height": variant.model.height,
        "width": variant.model.width,
        "tiling": tiling_of(variant),
    }


def _load_checkpoint(options: _Options, device: str) -> Any:
    import sana_models
    from sana_bench.core.precision import torch_dtype
    from sana_bench.generators.sana import instruction_text
    from sana_models.aspect_ratios import BASE_SIZES

    try:
        # Half precision where it is native; the CPU may emulate it slowly.
        precision = options.precision or ("bf16" if device == "cuda" else "fp32")
        pipeline = sana_models.load_pipeline(
            options.model,
            device=device,
            dtype=torch_dtype(precision),
            variant=options.weights_variant,
            lora=options.lora,
            lora_scale=options.lora_scale,
        )
    except ValueError as error:
        raise UsageError(f"--model {' '.join(str(error).split())}") from None
    if pipeline.transformer.config.sample_size in BASE_SIZES:
        # What the published models are used with; the micro ones know no such text.
        pipeline.instruction = instruction_text("sana", pipeline.conditioning)
    return pipeline


def _lora(source: str) -> Path:
    from sana_models.lora import locate_lora

    try:
        return locate_lora(source).resolve()
    except ValueError as error:
        raise UsageError(f"--lora {error}") from None


def _guidance(scale: float) -> Any:
    from sana_models import Guidance

    return Guidance(scale=scale)


def _tiling(tile: int, factor: int) -> Any:
    from sana_models import Tiling

    if tile % factor:
        raise UsageError(f"--tile {tile}: must be a multiple of {factor} pixels")
    # An eighth overlaps, as in the public pipelines.
    return Tiling(tile=tile, stride=max(factor, tile * 7 // 8 // factor * factor))


def _settings(options: _Options, prompt: str, seed: int, call: dict[str, Any]) -> dict[str, str]:
    from sana_bench import __version__

    guidance = call["guidance"]
    texts = {
        "prompt": prompt,
        "negative_prompt": call["negative_prompt"],
        "seed": seed,
        "model": options.model,
        "steps": call["steps"],
        "guidance_scale": guidance.scale,
        "lora": options.lora or "",
        "lora_scale": options.lora_scale if options.lora else "",
        "generator": f"sana-bench {__version__}",
    }
    return {name: str(value) for name, value in texts.items() if value != ""}


def _png(image: Any, texts: dict[str, str]) -> bytes:
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    for name, value in texts.items():
        info.add_itxt(name, value)
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG", pnginfo=info)
    return buffer.getvalue()
