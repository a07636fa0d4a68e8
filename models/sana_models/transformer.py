"""SANA's linear diffusion transformer: one class for every published size and the micro tier.

Shape suffixes: B batch, N image tokens (h*w), T text tokens, C width, H heads, D channels a head.
Parameter names are the public diffusers names. Sources: SANA (arXiv 2410.10629) section 2.2 and appendix; SANA-1.5
(arXiv 2501.18427) section 2.1 for the query-key norm; SANA-Sprint (arXiv 2503.09641) for the guidance embedding.
"""

import math
from functools import partial
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from sana_kernels import Backend, check_sizes
from sana_models.config import FP16_MAX, SanaConfig
from sana_models.layers import (
    TORCH_OPERATIONS,
    GatedConvFeedForward,
    Linear,
    RMSNorm,
    set_operations,
    softmax_attention,
)

__all__ = ["SanaTransformer", "TextContext", "sincos_position_table", "timestep_features"]


class TextContext(NamedTuple):
    """What the blocks attend to, which does not change from one sampling step to the next.

    `keys_values` holds one pair of (B, H, T, D) tensors a block; `bias` is the additive (B, 1, 1, T) mask.
    """

    keys_values: tuple[tuple[Tensor, Tensor], ...]
    bias: Tensor


def timestep_features(timestep_B: Tensor, *, width: int = 256, max_period: float = 10000.0) -> Tensor:
    """Return the fp32 (B, width) sinusoid features of timesteps in [0, 1000]: cosines first, then sines."""
    half = width // 2
    exponent = (
        -math.log(max_period) * torch.arange(half, dtype=torch.float32, device=timestep_B.device) / half
    )
    angles = timestep_B.float()[:, None] * exponent.exp()[None]
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


def sincos_position_table(
    height: int,
    width: int,
    *,
    channels: int,
    base_size: int,
    scale: float,
    device: torch.device | str | None = None,
) -> Tensor:
    """Return the fp32 (height*width, channels) position table of the 2K and 4K models, column part first.

    `base_size` is the latent side the model was trained for and `scale` its interpolation scale.
    """
    numbers = partial(torch.arange, dtype=torch.float64, device=device)
    omega = 10000.0 ** (-numbers(channels // 4) / (channels // 4))
    row_angles = (numbers(height) * (base_size / height) / scale)[:, None] * omega
    column_angles = (numbers(width) * (base_size / width) / scale)[:, None] * omega
    # One row and one column of the image first: all others are copies of these.
    of_rows = torch.cat([row_angles.sin(), row_angles.cos()], dim=-1).float()[:, None]
    of_columns = torch.cat([column_angles.sin(), column_angles.cos()], dim=-1).float()[None]
    parts = [of_columns.expand(height, width, -1), of_rows.expand(height, width, -1)]
    return torch.cat(parts, dim=-1).reshape(height * width, channels)


class PatchEmbed(nn.Module):
    """Latent image to tokens by a strided convolution."""

    def __init__(self, in_channels: int, width: int, patch_size: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_channels, width, patch_size, stride=patch_size)

    def forward(self, latents: Tensor) -> Tensor:
        tokens = self.proj(latents).flatten(2).transpose(1, 2)
        # Whole in memory: every sum with them keeps their layout, and norms would copy each. In bf16 that rounds otherwise, and
        # trainings are to go on as they began.
        return tokens if torch.is_grad_enabled() else tokens.contiguous()


class TwoLayerMLP(nn.Module):
    """Linear, activation, linear."""

    def __init__(self, in_width: int, width: int, activation: nn.Module) -> None:
        super().__init__()
        self.linear_1 = Linear(in_width, width)
        self.activation = activation
        self.linear_2 = Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear_2(self.activation(self.linear_1(x)))


class _TimestepEmbedding(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.timestep_embedder = TwoLayerMLP(256, width, nn.SiLU())


class TimeEmbed(nn.Module):
    """Timestep to the shared modulation (B, 6, C) of all blocks and the embedding (B, C) that the output layer reuses.

    With `guided`, a guidance scale is embedded too, and added.
    """

    def __init__(self, width: int, *, guided: bool = False) -> None:
        super().__init__()
        self.guided = guided
        if guided:
            self.timestep_embedder = TwoLayerMLP(256, width, nn.SiLU())
            self.guidance_embedder = TwoLayerMLP(256, width, nn.SiLU())
        else:
            self.emb = _TimestepEmbedding(width)
        self.linear = Linear(width, 6 * width)

    @property
    def embedders(self) -> tuple[TwoLayerMLP, ...]:
        """What embeds the timestep, and the guidance scale where it is told."""
        if self.guided:
            return self.timestep_embedder, self.guidance_embedder
        return (self.emb.timestep_embedder,)

    def forward(self, told: tuple[Tensor, ...], dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """`told` has one (B,) or (1,) tensor for each of `embedders`."""
        embedded = [
            embed(timestep_features(value).to(dtype))
            for embed, value in zip(self.embedders, told, strict=True)
        ]
        embedding_BC = embedded[0] if len(embedded) == 1 else embedded[0] + embedded[1]
        modulation = self.linear(F.silu(embedding_BC))
        return modulation.unflatten(-1, (6, -1)), embedding_BC


class LinearSelfAttention(nn.Module):
    """ReLU linear attention over all image tokens; the query-key norm spans the whole width, before the head split."""

    operations = TORCH_OPERATIONS

    def __init__(self, config: SanaConfig) -> None:
        super().__init__()
        width = config.width
        self.head_dim = config.attention_head_dim
        self.clip = config.attention_clip
        self.to_q = Linear(width, width, bias=False)
        self.to_k = Linear(width, width, bias=False)
        self.to_v = Linear(width, width, bias=False)
        self.norm_q = RMSNorm(width) if config.qk_norm else nn.Identity()
        self.norm_k = RMSNorm(width) if config.qk_norm else nn.Identity()
        self.to_out = nn.ModuleList([Linear(width, width)])

    def forward(self, x_BNC: Tensor, identity_rows: int = 0) -> Tensor:
        """In the last `identity_rows` of the batch every token attends to itself alone."""
        q, k, v = self.to_q(x_BNC), self.to_k(x_BNC), self.to_v(x_BNC)
        weights: tuple[Tensor | None, ...] = (None, None)
        norm_eps = 0.0
        if isinstance(self.norm_q, RMSNorm) and isinstance(self.norm_k, RMSNorm):
            weights, norm_eps = (self.norm_q.weight, self.norm_k.weight), self.norm_q.eps
        attended = self.operations.linear_attention(
            q, k, v, *weights, head_dim=self.head_dim, norm_eps=norm_eps
        )
        if identity_rows:
            attended = torch.cat([attended[:-identity_rows], v[-identity_rows:]])
        out = self.to_out[0](attended)
        clip = self.clip
        if out.dtype == torch.float16:
            clip = FP16_MAX if clip is None else min(clip, FP16_MAX)
        return out if clip is None else out.clamp(-clip, clip)


class CrossAttention(nn.Module):
    """Softmax attention from image tokens to text tokens."""

    def __init__(self, config: SanaConfig) -> None:
        super().__init__()
        width = config.width
        self.head_dim = config.cross_attention_head_dim
        self.to_q = Linear(width, width)
        self.to_k = Linear(width, width)
        self.to_v = Linear(width, width)
        self.norm_q = RMSNorm(width) if config.qk_norm else nn.Identity()
        self.norm_k = RMSNorm(width) if config.qk_norm else nn.Identity()
        self.to_out = nn.ModuleList([Linear(width, width)])

    def keys_values(self, text_BTC: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of the text, (B, H, T, D) each."""
        k, v = self.norm_k(self.to_k(text_BTC)), self.to_v(text_BTC)
        return self._heads(k).contiguous(), self._heads(v).contiguous()

    def forward(self, x_BNC: Tensor, keys_values: tuple[Tensor, Tensor], bias_B11T: Tensor) -> Tensor:
        q = self._heads(self.norm_q(self.to_q(x_BNC)))
        attended = softmax_attention(q, *keys_values, bias_B11T.to(q.dtype))
        return self.to_out[0](attended.transpose(1, 2).flatten(2))

    def _heads(self, x_BNC: Tensor) -> Tensor:
        return x_BNC.unflatten(-1, (-1, self.head_dim)).transpose(1, 2)


class SanaBlock(nn.Module):
    """Modulated linear attention, plain cross-attention, modulated gated convolution; all residual."""

    operations = TORCH_OPERATIONS

    def __init__(self, config: SanaConfig) -> None:
        super().__init__()
        width = config.width
        self.eps = config.norm_eps
        self.attn1 = LinearSelfAttention(config)
        self.attn2 = CrossAttention(config)
        self.ff = GatedConvFeedForward(width, int(config.mlp_ratio * width))
        self.scale_shift_table = nn.Parameter(torch.randn(6, width) / width**0.5)

    def forward(
        self,
        x_BNC: Tensor,
        keys_values: tuple[Tensor, Tensor],
        bias_B11T: Tensor,
        modulation_B6C: Tensor,
        grid: tuple[int, int],
        identity_rows: int = 0,
    ) -> Tensor:
        table = self.scale_shift_table + modulation_B6C
        shift_a, scale_a, gate_a, shift_f, scale_f, gate_f = table.chunk(6, dim=1)
        fused = self.operations
        normed = fused.layer_norm_modulate(x_BNC, shift_a, scale_a, eps=self.eps)
        x_BNC = fused.gated_residual(x_BNC, gate_a, self.attn1(normed, identity_rows))
        x_BNC = x_BNC + self.attn2(x_BNC, keys_values, bias_B11T)
        hidden = fused.layer_norm_modulate(x_BNC, shift_f, scale_f, eps=self.eps).unflatten(1, grid)
        return fused.gated_residual(x_BNC, gate_f, self.ff(hidden).flatten(1, 2))


class SanaTransformer(nn.Module):
    """Predicts the flow-matching velocity `noise - data` of a noisy latent, given a timestep and text embeddings."""

    operations = TORCH_OPERATIONS

    def __init__(self, config: SanaConfig) -> None:
        super().__init__()
        width = config.width
        self.config = config
        self.gradient_checkpointing = False
        self.patch_embed = PatchEmbed(config.in_channels, width, config.patch_size)
        self.time_embed = TimeEmbed(width, guided=config.guidance_embeds)
        self.caption_projection = TwoLayerMLP(config.caption_channels, width, nn.GELU(approximate="tanh"))
        self.caption_norm = RMSNorm(width)
        self.transformer_blocks = nn.ModuleList(SanaBlock(config) for _ in range(config.num_layers))
        self.scale_shift_table = nn.Parameter(torch.randn(2, width) / width**0.5)
        self.proj_out = Linear(width, config.patch_size**2 * config.out_channels)

    def forward(
        self,
        latents: Tensor,
        timestep: Tensor,
        text_embeddings: Tensor | TextContext,
        text_mask: Tensor | None = None,
        *,
        guidance: Tensor | None = None,
        identity_rows: int = 0,
        identity_blocks: tuple[int, ...] = (),
    ) -> Tensor:
        """Return the velocity, shaped like `latents` (B, C, h, w).

        `timestep`, (B,) or one for all, is 1000 times the noise level, already shifted; SANA-Sprint is told the noise level
        itself, and needs `guidance`, the scale, (B,) or one for all. `text_embeddings` is
        (B, T, caption_channels); `text_mask` (B, T) is 1 for tokens that take part, None for all. Sampling gives
        `text_context(...)` in their place, computed once for all steps. h and w must be multiples of the patch size.
        For perturbed-attention guidance, the last `identity_rows` of the batch run with identity self-attention in
        `identity_blocks`.
        Raises ValueError on a wrong rank, channel count or size, and for guidance that is missing or has no use.
        """
        if (guidance is not None) != self.config.guidance_embeds:
            need = "needs a" if guidance is None else "takes no"
            raise ValueError(f"this transformer {need} guidance scale, by its guidance_embeds")
        if latents.ndim != 4 or latents.shape[1] != self.config.in_channels:
            raise ValueError(
                f"latents are {tuple(latents.shape)}; expected (B, {self.config.in_channels}, h, w)"
            )
        patch = self.config.patch_size
        if latents.shape[-2] % patch or latents.shape[-1] % patch:
            raise ValueError(
                f"latents are {tuple(latents.shape)}; height and width must be multiples of {patch}"
            )
        grid = (latents.shape[-2] // patch, latents.shape[-1] // patch)
        x_BNC = self._add_positions(self.patch_embed(latents), grid)
        told: tuple[Tensor, ...] = (timestep.reshape(-1) * self.config.timestep_scale,)
        if guidance is not None:
            told += (guidance.reshape(-1) * self.config.guidance_embeds_scale,)
        modulation_B6C, embedding_BC = self.time_embed(told, x_BNC.dtype)
        if not isinstance(text_embeddings, TextContext):
            text_embeddings = self.text_context(text_embeddings, text_mask)
        keys_values, bias_B11T = text_embeddings
        for index, block in enumerate(self.transformer_blocks):
            rows = identity_rows if index in identity_blocks else 0
            arguments = (x_BNC, keys_values[index], bias_B11T, modulation_B6C, grid, rows)
            if self.gradient_checkpointing and torch.is_grad_enabled():
                x_BNC = checkpoint(block, *arguments, use_reentrant=False)
            else:
                x_BNC = block(*arguments)
        shift, scale = (self.scale_shift_table + embedding_BC[:, None]).chunk(2, dim=1)
        out_BNP = self.proj_out(self.operations.layer_norm_modulate(x_BNC, shift, scale, eps=1e-6))
        tiles = out_BNP.unflatten(1, grid).unflatten(-1, (patch, patch, self.config.out_channels))
        return tiles.permute(0, 5, 1, 3, 2, 4).flatten(4, 5).flatten(2, 3)

    @property
    def kernels(self) -> Backend:
        """Which kernels the blocks run on: "torch", or "triton" after `use_kernels`."""
        return self.operations.backend

    def use_kernels(self, backend: Backend) -> None:
        """Run on another backend from now on; see `sana_kernels.resolve_backend` for what a device allows.

        Raises KernelError, before anything is changed, for sizes that the Triton kernels have no configuration for.
        """
        if backend == "triton":
            check_sizes(self.config.width, self.config.attention_head_dim)
        set_operations(self, backend)

    def text_context(self, text_embeddings: Tensor, text_mask: Tensor | None) -> TextContext:
        """Project the text for every block, once for all sampling steps; arguments as in `forward`.

        Holds 2 C T values a block and batch row. Raises ValueError on a wrong rank or channel count.
        """
        if text_embeddings.ndim != 3 or text_embeddings.shape[-1] != self.config.caption_channels:
            found = tuple(text_embeddings.shape)
            raise ValueError(f"text embeddings are {found}; expected (B, T, {self.config.caption_channels})")
        dtype = self.proj_out.weight.dtype
        text_BTC = self.caption_norm(self.caption_projection(text_embeddings.to(dtype)))
        keys_values = tuple(
            cast(SanaBlock, block).attn2.keys_values(text_BTC) for block in self.transformer_blocks
        )
        return TextContext(keys_values, _mask_bias(text_mask, text_BTC))

    def _add_positions(self, x_BNC: Tensor, grid: tuple[int, int]) -> Tensor:
        scale = self.config.interpolation_scale
        if scale is None:
            return x_BNC
        base = self.config.sample_size // self.config.patch_size
        table = sincos_position_table(
            *grid, channels=self.config.width, base_size=base, scale=scale, device=x_BNC.device
        )
        return x_BNC + table.to(x_BNC.dtype)

    @torch.no_grad()
    def initialise(self, *, caption_norm: float = 0.01) -> None:
        """Draw the starting weights of training from scratch, as the official implementation does.

        Xavier-uniform linears with zero bias; standard deviation 0.02 in the timestep, modulation and caption layers; the
        feed-forward convolutions keep PyTorch's own start. `caption_norm` is 0.01 for a frozen language model, whose large
        embeddings make training diverge otherwise; an encoder trained along needs a start near 1, or text stays unread.
        """
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        nn.init.xavier_uniform_(self.patch_embed.proj.weight.flatten(1))
        nn.init.normal_(self.time_embed.linear.weight, std=0.02)
        for embedder in (*self.time_embed.embedders, self.caption_projection):
            for layer in (embedder.linear_1, embedder.linear_2):
                nn.init.normal_(layer.weight, std=0.02)
        nn.init.constant_(self.caption_norm.weight, caption_norm)


def _mask_bias(text_mask: Tensor | None, text_BTC: Tensor) -> Tensor:
    """Additive (B, 1, 1, T) attention bias; -10000 keeps masked tokens out without the NaN of a fully masked row."""
    if text_mask is None:
        return text_BTC.new_zeros(text_BTC.shape[0], 1, 1, text_BTC.shape[1])
    return ((1.0 - text_mask.to(text_BTC.dtype)) * -10000.0)[:, None, None]
