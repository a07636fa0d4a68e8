"""Counted work of one image of a SANA generator, stage by stage, and torch's own count of the same image."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from sana_bench.generators.base import Generator, Request
from sana_bench.profiling.flops import Work, decoder_work, gemma_work, text_projection_work, transformer_work
from sana_bench.suites.schema import Variant

__all__ = ["ImageWork", "count_image_work", "stage_precision"]

_ITEMSIZE = {"fp32": 4, "tf32": 4, "fp16": 2, "bf16": 2}


@dataclass(frozen=True)
class ImageWork:
    """Work by stage, in the names of the generator's stages, and the operations that torch counted in all."""

    stages: dict[str, Work]
    torch_flops: int

    @property
    def difference(self) -> float:
        """Relative difference of our count to torch's."""
        return sum(work.flops for work in self.stages.values()) / self.torch_flops - 1


@dataclass
class _Shapes:
    gemma: list[tuple[int, int]] = field(default_factory=list)
    text: list[tuple[int, int]] = field(default_factory=list)
    transformer: list[tuple[int, int, int, int]] = field(default_factory=list)
    decoder: list[tuple[int, int, int]] = field(default_factory=list)


def stage_precision(stage: str, variant: Variant) -> str:
    """Number format that a stage computes in: of its network's weights, or `tf32` where fp32 products are allowed to use it."""
    parts = variant.precisions
    own = {"text encoder": parts.text_encoder, "decoder": parts.autoencoder}.get(stage, parts.transformer)
    return "tf32" if own == "fp32" and variant.tf32 else str(own)


def count_image_work(
    generator: Generator, variant: Variant, request: Request, *, anew: bool = True
) -> ImageWork | None:
    """Make one image, count its work from the configuration and the shapes that occur, and let torch count too.

    Unless `anew`, a prompt that was encoded before is not encoded again: our count is the same, torch's has no text encoder.
    None for a generator that is not SANA, and for quantised or tiled variants, whose work is another.
    """
    from torch.utils.flop_counter import FlopCounterMode

    from sana_bench.generators.sana import SanaGenerator

    if not isinstance(generator, SanaGenerator) or variant.quantization != "none" or variant.model.tiling:
        return None
    pipeline = generator.pipeline
    counter = FlopCounterMode(display=False)
    if anew:
        generator.forget()
    with _watching(pipeline) as shapes, counter:
        generator.generate([request])
    config = pipeline.transformer.config
    gemma = pipeline.text_encoder.model.config
    totals = {
        "text encoder": [gemma_work(gemma, tokens=tokens, rows=rows) for rows, tokens in shapes.gemma],
        "text projection": [text_projection_work(config, text=text, rows=rows) for rows, text in shapes.text],
        "transformer step": [
            transformer_work(config, height=height, width=width, text=text, rows=rows)
            for rows, height, width, text in shapes.transformer
        ],
        "decoder": [
            decoder_work(pipeline.autoencoder.config, height=height, width=width, batch=batch)
            for batch, height, width in shapes.decoder
        ],
    }
    stages = {
        stage: sum(parts, Work()).sized(_ITEMSIZE[stage_precision(stage, variant)])
        for stage, parts in totals.items()
    }
    return ImageWork(stages, counter.get_total_flops())


@contextmanager
def _watching(pipeline: Any) -> Iterator[_Shapes]:
    """Note the shapes that reach each network."""
    shapes = _Shapes()
    project = pipeline.transformer.text_context
    encode = pipeline.text_encoder.encode

    def text_context(embeddings: Any, mask: Any) -> Any:
        shapes.text.append((embeddings.shape[0], embeddings.shape[1]))
        return project(embeddings, mask)

    def transformer(_: Any, arguments: tuple[Any, ...]) -> None:
        latents, _time, context = arguments[:3]
        rows, _, height, width = latents.shape
        shapes.transformer.append((rows, height, width, context.bias.shape[-1]))

    def text_encoder(prompts: Any, **options: Any) -> Any:
        asked = {name: options[name] for name in ("max_length", "instruction") if name in options}
        shapes.gemma.append((len(prompts), pipeline.text_encoder.padded_length(**asked)))
        return encode(prompts, **options)

    def decoder(_: Any, arguments: tuple[Any, ...]) -> None:
        batch, _, height, width = arguments[0].shape
        shapes.decoder.append((batch, height, width))

    hooks = [
        pipeline.transformer.register_forward_pre_hook(transformer),
        pipeline.autoencoder.decoder.register_forward_pre_hook(decoder),
    ]
    object.__setattr__(pipeline.transformer, "text_context", text_context)
    pipeline.text_encoder.encode = text_encoder
    try:
        yield shapes
    finally:
        object.__delattr__(pipeline.transformer, "text_context")
        del pipeline.text_encoder.encode
        for hook in hooks:
            hook.remove()
