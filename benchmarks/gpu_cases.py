"""What `gpu.py` checks and times, but pipelines: kernels, transformer step, decoder; ours and diffusers on the same weights."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from sana_bench.generators.base import Stage
from sana_bench.profiling.flops import Work, decoder_work, transformer_work
from sana_kernels import Backend, operations
from sana_models.compilation import Compile, compile_autoencoder, compile_transformer
from sana_models.config import DC_AE_F32C32, SANA_CONFIGS, DCAEConfig, SanaConfig
from sana_models.dc_ae import DCAE
from sana_models.libraries import without_torchao
from sana_models.quantization import Quantization, quantize
from sana_models.transformer import SanaTransformer

__all__ = [
    "DISAGREEMENT",
    "GRAPHS",
    "ITEMSIZE",
    "KERNELS",
    "MADE_LATE",
    "TEXT_TOKENS",
    "Case",
    "Run",
    "Scene",
    "Short",
    "Staged",
    "config_of",
    "decoder_case",
    "kernel_case",
    "our_decoder",
    "our_transformer",
    "transformer_case",
]

#: Of a value and the outputs' spread together: large values round coarsely. bf16 keeps 8 bits, and some 10^3 of its roundings add
#: as a random walk; fp32 sums run in another order.
DISAGREEMENT = {torch.bfloat16: 0.1, torch.float16: 0.02, torch.float32: 1e-3}
# Root mean square, of the spread: the largest of millions of differences says less. A hundred layers lie behind a decoded image.
_DECODED = {torch.bfloat16: 0.05, torch.float16: 0.01, torch.float32: 1e-3}
# A step with eight bits: 0.6 % a product, twice, which some hundred products add as a random walk.
_EIGHT_BITS = 0.2

TEXT_TOKENS = 300
ITEMSIZE = {torch.bfloat16: 2, torch.float16: 2, torch.float32: 4}

#: For trying the script where there is no GPU.
TINY = SanaConfig(
    num_layers=2,
    num_attention_heads=2,
    num_cross_attention_heads=2,
    cross_attention_head_dim=32,
    caption_channels=32,
    sample_size=16,
)
TINY_DC_AE = DCAEConfig(
    attention_head_dim=16,
    encoder_block_types=("ResBlock", "EfficientViTBlock"),
    decoder_block_types=("ResBlock", "EfficientViTBlock"),
    encoder_block_out_channels=(16, 32),
    decoder_block_out_channels=(16, 32),
    encoder_layers_per_block=(1, 1),
    decoder_layers_per_block=(1, 1),
    encoder_qkv_multiscales=((), (5,)),
    decoder_qkv_multiscales=((), (5,)),
)
#: What is measured by itself: operations of the kernels, of one of them two forms.
KERNELS = (
    "linear_attention",
    "linear_attention with norm",
    "gated_depthwise",
    "layer_norm_modulate",
    "gated_residual",
    "rms_norm",
    "rms_norm with bias and residual",
    "bias_silu",
)

#: Ours beside its eager form: what a variant's `compile` and `cuda_graphs` make of the transformer's steps.
MADE_LATE: dict[str, tuple[Compile, bool]] = {
    "ours compiled, CUDA graphs": ("default", True),
    "ours compiled": ("default", False),
}
#: Made in seconds, so that there is time for it.
GRAPHS = "ours, CUDA graphs"

Run = Callable[[], Any]


@dataclass
class Staged:
    """A contestant whose time can be split; `taken` is the seconds of each stage, of every call that was timed."""

    run: Run
    stages: tuple[Stage, ...]
    taken: list[dict[str, float]] = field(default_factory=list)

    def medians(self) -> dict[str, float]:
        """Of each stage over all calls."""
        return {stage: median(one[stage] for one in self.taken) for stage in self.taken[0]}

    def __call__(self) -> Any:
        return self.run()


@dataclass
class Short:
    """A contestant that runs shorter than its launch takes, so that its time is that of `calls` calls in a CUDA graph."""

    run: Run
    calls: int = 20
    recording: Any = None

    def record(self) -> None:
        """Make the graph, once; all that is compiled at a first call has been compiled."""
        if self.recording is None:
            self.recording = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self.recording):
                for _ in range(self.calls):
                    self.run()

    def __call__(self) -> Any:
        return self.run()


@dataclass(frozen=True)
class Scene:
    """Where and in which format everything runs."""

    device: torch.device
    dtype: torch.dtype
    kernels: Backend

    @property
    def wide(self) -> torch.dtype:
        """Of text encoder and autoencoder, which overflow in fp16."""
        return torch.float32 if self.dtype == torch.float16 else self.dtype

    def draw(self, *shape: int) -> Tensor:
        """Standard normal values."""
        return torch.randn(shape, device=self.device, dtype=torch.float32).to(self.dtype)

    def make(self, build: Callable[[], nn.Module], dtype: torch.dtype | None = None) -> Any:
        """Build a frozen module here, its weights drawn on the device."""
        torch.manual_seed(0)
        with torch.device(self.device):
            return build().to(dtype or self.dtype).eval().requires_grad_(False)


@dataclass
class Case:
    """Contestants that must agree with `peer` before any of them is timed.

    `late` are made after the check, because making them takes long (compilation) or may fail; they must agree as well. The
    root mean square of a difference must be within `bounds`; for a contestant that has none there, every difference within
    `DISAGREEMENT`. `work` is the least that a call takes; those of `eight_bits` do its products with integers.
    """

    what: str
    peer: str
    contestants: dict[str, Run]
    late: dict[str, Callable[[], Run]] = field(default_factory=dict)
    bounds: dict[str, float] = field(default_factory=dict)
    work: Work = field(default_factory=Work)
    eight_bits: tuple[str, ...] = ()


def config_of(name: str) -> tuple[SanaConfig, DCAEConfig]:
    """Shapes of a published size, or of the one for trying the script."""
    return (TINY, TINY_DC_AE) if name == "tiny" else (SANA_CONFIGS[name], DC_AE_F32C32)


def kernel_case(scene: Scene, name: str, label: str) -> Case:
    """One of `KERNELS` at the shapes of a guided step, or of decoding, of one image: Triton, plain PyTorch and that compiled."""
    config, _ = config_of(name)
    width, side, hidden = config.width, config.sample_size, int(config.mlp_ratio * config.width)
    tokens = lambda: scene.draw(2, side * side, width)  # noqa: E731
    row, weight = scene.draw(2, 1, width), scene.draw(width)
    # Of a decoder's stage at half the image's size.
    channels = min(256, width)
    pixels = lambda: scene.draw(1, 16 * side, 16 * side, channels)  # noqa: E731
    # By name: only what one kernel needs is drawn.
    inputs: dict[str, Callable[[], tuple[Any, ...]]] = {
        "linear_attention": lambda: (tokens(), tokens(), tokens()),
        "linear_attention with norm": lambda: (tokens(), tokens(), tokens(), weight, weight),
        "gated_depthwise": lambda: (
            scene.draw(2, side, side, 2 * hidden), scene.draw(2 * hidden, 1, 3, 3), scene.draw(2 * hidden)
        ),
        "layer_norm_modulate": lambda: (tokens(), row, row),
        "gated_residual": lambda: (tokens(), row, tokens()),
        "rms_norm": lambda: (tokens(), weight),
        "rms_norm with bias and residual": lambda: (pixels(), weight[:channels], weight[:channels], pixels()),
        "bias_silu": lambda: (pixels(), weight[:channels]),
    }  # fmt: skip
    arguments = inputs[label]()
    operation = label.partition(" ")[0]
    plain = getattr(operations("torch"), operation)
    contestants: dict[str, Run] = {"torch": Short(partial(plain, *arguments))}
    if scene.kernels == "triton":
        contestants["triton"] = Short(partial(getattr(operations("triton"), operation), *arguments))
    case = Case(f"{label}, {name}", "torch", contestants)
    if scene.device.type == "cuda":
        case.late = {"torch compiled": lambda: Short(partial(torch.compile(plain), *arguments))}
    values = sum(t.numel() for t in {id(t): t for t in arguments}.values()) + plain(*arguments).numel()
    case.work = Work(activations=values, itemsize=ITEMSIZE[scene.dtype])
    return case


def transformer_case(scene: Scene, name: str, batch: int) -> Case:
    """One network call of a guided step of `batch` images, which has two rows for each."""
    with without_torchao():
        from diffusers import SanaTransformer2DModel

    config, _ = config_of(name)
    rows, side = 2 * batch, config.sample_size
    theirs = scene.make(lambda: SanaTransformer2DModel.from_config(config.to_dict()))
    latents = scene.draw(rows, config.in_channels, side, side)
    text, mask = (
        scene.draw(rows, TEXT_TOKENS, config.caption_channels),
        torch.ones(rows, TEXT_TOKENS, device=scene.device),
    )
    times = torch.full((rows,), 500.0, device=scene.device)

    def run_theirs(network: Any = theirs) -> Tensor:
        out = network(latents, text, times, encoder_attention_mask=mask.to(scene.dtype), return_dict=False)[0]
        return torch.as_tensor(out)

    def ours(
        compile: Compile = "none",
        cuda_graphs: bool = False,
        kernels: Backend = scene.kernels,
        quantization: Quantization = "none",
    ) -> Run:
        network = quantize(our_transformer(config, theirs, kernels), quantization)
        context = network.text_context(text, mask)
        return partial(
            compile_transformer(network, compile, cuda_graphs=cuda_graphs), latents, times[:1], context
        )

    case = Case(
        f"transformer, {name}, batch {batch}", "diffusers", {"ours": ours(), "diffusers": run_theirs},
        eight_bits=("ours W8A8", "ours W8A8 compiled"),
    )  # fmt: skip
    if scene.device.type != "cuda":
        case.late["ours W8A8"] = partial(ours, quantization="w8a8")
    else:
        case.late = {
            GRAPHS: partial(ours, cuda_graphs=True),
            "diffusers compiled": lambda: partial(run_theirs, torch.compile(theirs)),
            **{made: partial(ours, *how) for made, how in MADE_LATE.items()},
            # Operation by operation, torchao's eight bits take many times as long as bf16.
            "ours W8A8 compiled": partial(ours, "default", quantization="w8a8"),
            "diffusers compiled, CUDA graphs": lambda: partial(
                run_theirs, torch.compile(theirs, mode="reduce-overhead")
            ),
        }
    if scene.kernels == "triton":
        case.late |= {
            "ours, PyTorch kernels": partial(ours, kernels="torch"),
            "ours compiled, PyTorch kernels": partial(ours, "default", kernels="torch"),
        }
    case.bounds = dict.fromkeys(case.eight_bits, _EIGHT_BITS)
    case.work = transformer_work(config, height=side, width=side, text=TEXT_TOKENS, rows=rows).sized(
        ITEMSIZE[scene.dtype]
    )
    return case


def decoder_case(scene: Scene, name: str, batch: int) -> Case:
    """Latents of `batch` images to pixels."""
    with without_torchao():
        from diffusers import AutoencoderDC

    config, shapes = config_of(name)
    side = config.sample_size
    theirs = scene.make(lambda: AutoencoderDC.from_config(shapes.to_dict()), scene.wide)
    ours = our_decoder(shapes, theirs, scene.kernels)
    latents = scene.draw(batch, shapes.latent_channels, side, side).to(scene.wide)

    def run_theirs(decode: Any = theirs.decode) -> Tensor:
        return torch.as_tensor(decode(latents, return_dict=False)[0])

    contestants: dict[str, Run] = {"ours": partial(ours.decode, latents), "diffusers": run_theirs}
    case = Case(f"decoder, {name}, batch {batch}", "diffusers", contestants)
    if scene.device.type == "cuda":
        case.late = {
            "diffusers compiled": lambda: partial(run_theirs, torch.compile(theirs.decode)),
            "ours compiled": lambda: partial(
                our_decoder(shapes, theirs, scene.kernels, "default").decode, latents
            ),
        }
    case.bounds = dict.fromkeys((*contestants, *case.late), _DECODED[scene.wide])
    case.work = decoder_work(shapes, height=side, width=side, batch=batch).sized(ITEMSIZE[scene.wide])
    return case


def our_transformer(config: SanaConfig, theirs: nn.Module, kernels: Backend) -> SanaTransformer:
    """Ours, on the weights of theirs."""
    with torch.device("meta"):
        ours = SanaTransformer(config)
    ours.load_state_dict(theirs.state_dict(), assign=True)
    ours.use_kernels(kernels)
    return ours.eval().requires_grad_(False)


def our_decoder(shapes: DCAEConfig, theirs: nn.Module, kernels: Backend, compile: Compile = "none") -> DCAE:
    with torch.device("meta"):
        ours = DCAE(shapes)
    ours.load_state_dict(theirs.state_dict(), assign=True)
    ours.use_kernels(kernels)
    device = next(theirs.parameters()).device
    return compile_autoencoder(ours.eval().requires_grad_(False), compile, device)
