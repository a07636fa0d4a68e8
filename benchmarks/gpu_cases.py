"""What `gpu.py` checks and times: kernels, transformer step, decoder, whole pipeline; ours and diffusers on the same weights."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from sana_kernels import Backend, operations
from sana_models.config import DC_AE_F32C32, SANA_CONFIGS, DCAEConfig, SanaConfig
from sana_models.dc_ae import DCAE
from sana_models.guidance import Guidance, TextCondition, guided_velocity
from sana_models.solvers import flow_dpm_solver, flow_sigmas
from sana_models.transformer import SanaTransformer

__all__ = [
    "DISAGREEMENT",
    "KERNELS",
    "Case",
    "Run",
    "Scene",
    "config_of",
    "decoder_case",
    "kernel_case",
    "pipeline_case",
    "transformer_case",
]

#: Of the outputs' spread. bf16 keeps 8 bits, and some 10^3 of its roundings add as a random walk; fp32 sums run in another order.
DISAGREEMENT = {torch.bfloat16: 0.1, torch.float16: 0.02, torch.float32: 1e-3}

STEPS, SHIFT, GUIDANCE = 20, 3.0, 4.5
TEXT_TOKENS = 300

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
)

Run = Callable[[], Any]


@dataclass(frozen=True)
class Scene:
    """Where and in which format everything runs."""

    device: torch.device
    dtype: torch.dtype
    kernels: Backend

    def draw(self, *shape: int) -> Tensor:
        """Standard normal values."""
        return torch.randn(shape, device=self.device, dtype=torch.float32).to(self.dtype)

    def make(self, build: Callable[[], nn.Module]) -> Any:
        """Build a frozen module here, its weights drawn on the device."""
        torch.manual_seed(0)
        with torch.device(self.device):
            return build().to(self.dtype).eval().requires_grad_(False)


@dataclass
class Case:
    """Contestants that must agree with `peer` before any of them is timed.

    `late` are made after the check, because making them takes long (compilation); they must agree as well. `flops` and
    `bytes` are the least that the work takes.
    """

    what: str
    peer: str
    contestants: dict[str, Run]
    late: dict[str, Callable[[], Run]] = field(default_factory=dict)
    flops: float = 0.0
    bytes: float = 0.0


def config_of(name: str) -> tuple[SanaConfig, DCAEConfig]:
    """Shapes of a published size, or of the one for trying the script."""
    return (TINY, TINY_DC_AE) if name == "tiny" else (SANA_CONFIGS[name], DC_AE_F32C32)


def kernel_case(scene: Scene, name: str, label: str) -> Case:
    """One of `KERNELS` at the shapes of a guided step of one image: Triton against plain PyTorch and its compiled form."""
    config, _ = config_of(name)
    width, side, hidden = config.width, config.sample_size, int(config.mlp_ratio * config.width)
    tokens = lambda: scene.draw(2, side * side, width)  # noqa: E731
    row, weight = scene.draw(2, 1, width), scene.draw(width)
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
    }  # fmt: skip
    arguments = inputs[label]()
    operation = label.partition(" ")[0]
    plain = getattr(operations("torch"), operation)
    contestants: dict[str, Run] = {"torch": _bind(plain, arguments)}
    if scene.kernels == "triton":
        contestants["triton"] = _bind(getattr(operations("triton"), operation), arguments)
    return Case(
        f"{label}, {name}",
        "torch",
        contestants,
        _compiled({"torch compiled": (plain, arguments)}) if scene.device.type == "cuda" else {},
        bytes=sum(t.nbytes for t in {id(t): t for t in arguments}.values()) + plain(*arguments).nbytes,
    )


def transformer_case(scene: Scene, name: str, batch: int) -> Case:
    """One network call on `batch` rows; a guided step of one image has two."""
    from diffusers import SanaTransformer2DModel

    config, _ = config_of(name)
    theirs = scene.make(lambda: SanaTransformer2DModel.from_config(config.to_dict()))
    ours = _ours(config, theirs, scene)
    latents = scene.draw(batch, config.in_channels, config.sample_size, config.sample_size)
    text, mask = (
        scene.draw(batch, TEXT_TOKENS, config.caption_channels),
        torch.ones(batch, TEXT_TOKENS, device=scene.device),
    )
    times = torch.full((batch,), 500.0, device=scene.device)
    context = ours.text_context(text, mask)

    def run_theirs(network: Any = theirs) -> Tensor:
        out = network(latents, text, times, encoder_attention_mask=mask.to(scene.dtype), return_dict=False)[0]
        return torch.as_tensor(out)

    def run_ours() -> Tensor:
        return torch.as_tensor(ours(latents, times[:1], context))

    case = Case(
        f"transformer, {name}, {batch} rows", "diffusers", {"ours": run_ours, "diffusers": run_theirs}
    )
    if scene.device.type == "cuda":
        case.late = {
            "ours, CUDA graph": lambda: graphed(run_ours),
            "diffusers compiled": lambda: _partial(run_theirs, torch.compile(theirs)),
            "diffusers compiled, CUDA graph": lambda: _partial(
                run_theirs, torch.compile(theirs, mode="reduce-overhead")
            ),
        }
    case.flops, case.bytes = _work(run_ours, ours)
    return case


def decoder_case(scene: Scene, name: str) -> Case:
    """Latents of one image to pixels."""
    from diffusers import AutoencoderDC

    config, shapes = config_of(name)
    theirs = scene.make(lambda: AutoencoderDC.from_config(shapes.to_dict()))
    with torch.device("meta"):
        ours = DCAE(shapes)
    ours.load_state_dict(theirs.state_dict(), assign=True)
    latents = scene.draw(1, shapes.latent_channels, config.sample_size, config.sample_size)

    def run_ours() -> Tensor:
        return ours.decode(latents)

    def run_theirs(network: Any = None) -> Tensor:
        return torch.as_tensor((network or theirs.decode)(latents, return_dict=False)[0])

    case = Case(f"DC-AE decoder, {name}", "diffusers", {"ours": run_ours, "diffusers": run_theirs})
    if scene.device.type == "cuda":
        case.late = {
            "ours, CUDA graph": lambda: graphed(run_ours),
            "diffusers compiled": lambda: _partial(run_theirs, torch.compile(theirs.decode)),
        }
    case.flops, case.bytes = _work(run_ours, ours.decoder)
    return case


def pipeline_case(scene: Scene, name: str) -> Case:
    """One image from noise and text embeddings: 20 guided steps and the decoder, without the text encoder that both share."""
    from diffusers import AutoencoderDC, SanaTransformer2DModel

    config, shapes = config_of(name)
    network = scene.make(lambda: SanaTransformer2DModel.from_config(config.to_dict()))
    autoencoder = scene.make(lambda: AutoencoderDC.from_config(shapes.to_dict()))
    ours = _ours(config, network, scene)
    with torch.device("meta"):
        decoder = DCAE(shapes)
    decoder.load_state_dict(autoencoder.state_dict(), assign=True)
    theirs = _diffusers_pipeline(network, autoencoder)
    noise = scene.draw(1, config.in_channels, config.sample_size, config.sample_size).float()
    text, null = (scene.draw(1, TEXT_TOKENS, config.caption_channels) for _ in range(2))
    mask = torch.ones(1, TEXT_TOKENS, device=scene.device)
    sigmas = flow_sigmas(STEPS, SHIFT)
    side = config.sample_size * shapes.spatial_compression

    def run_ours() -> Tensor:
        velocity = guided_velocity(
            ours, TextCondition(text, mask), TextCondition(null, mask), Guidance(scale=GUIDANCE)
        )
        latents = flow_dpm_solver(velocity, noise, sigmas)
        return decoder.decode(decoder.denormalise(latents).to(scene.dtype)).float().clamp(-1, 1)

    def run_theirs(pipeline: Any = theirs) -> Tensor:
        images = pipeline(
            prompt_embeds=text,
            prompt_attention_mask=mask.to(scene.dtype),
            negative_prompt=None,
            negative_prompt_embeds=null,
            negative_prompt_attention_mask=mask.to(scene.dtype),
            latents=noise.clone(),
            height=side,
            width=side,
            use_resolution_binning=False,
            num_inference_steps=STEPS,
            guidance_scale=GUIDANCE,
            output_type="pt",
        ).images
        return torch.as_tensor(images).float() * 2 - 1

    def compiled() -> Run:
        with torch.device("meta"):
            twin = AutoencoderDC.from_config(shapes.to_dict())
        twin.load_state_dict(autoencoder.state_dict(), assign=True)
        twin.decode = torch.compile(twin.eval().decode)
        return _partial(run_theirs, _diffusers_pipeline(torch.compile(network), twin))

    case = Case(f"pipeline, {name}, {STEPS} steps", "diffusers", {"ours": run_ours, "diffusers": run_theirs})
    if scene.device.type == "cuda":
        case.late = {"ours, CUDA graph": lambda: graphed(run_ours), "diffusers compiled": compiled}
    return case


def graphed(run: Run) -> Run:
    """Record the device work of a call once; the returned function replays it into the same output."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            run()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        output = run()

    def replay() -> Any:
        graph.replay()
        return output

    return replay


def _ours(config: SanaConfig, theirs: nn.Module, scene: Scene) -> SanaTransformer:
    with torch.device("meta"):
        ours = SanaTransformer(config)
    ours.load_state_dict(theirs.state_dict(), assign=True)
    ours.use_kernels(scene.kernels)
    return ours.eval()


def _diffusers_pipeline(network: Any, autoencoder: Any) -> Any:
    from diffusers import DPMSolverMultistepScheduler, SanaPipeline

    scheduler = DPMSolverMultistepScheduler(
        algorithm_type="dpmsolver++",
        solver_order=2,
        prediction_type="flow_prediction",
        use_flow_sigmas=True,
        flow_shift=SHIFT,
    )
    pipeline = SanaPipeline(None, None, autoencoder, network, scheduler)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _bind(function: Callable[..., Tensor], arguments: tuple[Any, ...]) -> Run:
    return lambda: function(*arguments)


def _partial(function: Callable[..., Tensor], network: Any) -> Run:
    return lambda: function(network)


def _compiled(
    named: dict[str, tuple[Callable[..., Tensor], tuple[Any, ...]]],
) -> dict[str, Callable[[], Run]]:
    return {
        label: (lambda function=function, arguments=arguments: _bind(torch.compile(function), arguments))
        for label, (function, arguments) in named.items()
    }


def _work(run: Run, module: nn.Module) -> tuple[float, float]:
    """Floating-point operations of a call, counted by torch, and the bytes of weights, which are read at least once."""
    with FlopCounterMode(display=False) as counter:
        run()
    return float(counter.get_total_flops()), float(sum(p.nbytes for p in module.parameters()))
