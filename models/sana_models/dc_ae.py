"""DC-AE, the deep-compression autoencoder of SANA (arXiv 2410.10733), without a full-resolution detour.

Shapes: images (B, 3, H, W) in [-1, 1], latents (B, latent_channels, H/f, W/f) with f the compression. Inside, activations are
channels-first tensors in channels-last memory, so that 1x1 products and norms over channels read contiguous rows.
Parameter names are the public diffusers names.
"""

import math
from itertools import product

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import register_flop_formula

from sana_kernels import Backend, check_sizes
from sana_models.config import DCAEConfig
from sana_models.layers import (
    TORCH_OPERATIONS,
    GatedConvFeedForward,
    Linear,
    RMSNorm,
    in_plain_fp32,
    linear,
    set_operations,
)

__all__ = ["DCAE"]

# What the rows of a 3x3 filter add up to where rows are doubled: the upper of two sees the row before and its own, the lower
# its own and the next. By rows and columns that makes four filters of 2x2 of one of 3x3.
_ROWS = torch.tensor([[[1, 0, 0], [0, 1, 1]], [[1, 1, 0], [0, 0, 1]]], dtype=torch.float32, device="cpu")
_QUARTERS = torch.einsum("atk,bul->abkltu", _ROWS, _ROWS).reshape(4, 9, 4)
# Pixels of one image from which four filters of 2x2 save more than adding them up costs.
_MANY_PIXELS = 1024


def _tokens_last(x: Tensor) -> Tensor:
    return x.permute(0, 2, 3, 1)


def _channels_first(x: Tensor) -> Tensor:
    return x.permute(0, 3, 1, 2)


class ResBlock(nn.Module):
    """Two 3x3 convolutions, channel RMS norm, residual."""

    operations = TORCH_OPERATIONS

    def __init__(self, width: int, activation: str = "silu") -> None:
        super().__init__()
        self.activation = getattr(F, activation)
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm = RMSNorm(width, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.conv2(self._activated(x))
        return _channels_first(self.norm.added(_tokens_last(x), _tokens_last(hidden)))

    def _activated(self, x: Tensor) -> Tensor:
        if self.operations.backend == "torch" or self.activation is not F.silu:
            return self.activation(self.conv1(x), inplace=not torch.is_grad_enabled())
        # A GPU's convolution adds its bias in a pass of its own.
        mixed = F.conv2d(x, self.conv1.weight, padding=1)
        return _channels_first(self.operations.bias_silu(_tokens_last(mixed), self.conv1.bias))


class _MultiscaleProjection(nn.Module):
    def __init__(self, channels: int, kernel: int, head_dim: int) -> None:
        super().__init__()
        self.proj_in = nn.Conv2d(channels, channels, kernel, padding=kernel // 2, groups=channels, bias=False)
        self.proj_out = nn.Conv2d(channels, channels, 1, groups=channels // head_dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) to groups of channels, (B, groups, h w, head_dim).

        A GPU's convolutions run groups one after the other, products of a batch together.
        """
        groups = self.proj_out.groups
        weight = self.proj_out.weight.flatten(1).unflatten(0, (groups, -1))
        tokens = _tokens_last(self.proj_in(x)).flatten(0, 2).unflatten(1, (groups, -1)).transpose(0, 1)
        return (tokens @ weight.transpose(1, 2)).unflatten(1, (len(x), -1)).transpose(0, 1)


class MultiscaleLinearAttention(nn.Module):
    """EfficientViT's ReLU linear attention over the input and its locally aggregated copies.

    Heads are consecutive groups of three times `head_dim` channels of the concatenation, so `to_q`, `to_k` and `to_v` are
    thirds of a packed matrix, not queries, keys and values.
    """

    operations = TORCH_OPERATIONS

    def __init__(self, width: int, head_dim: int, scales: tuple[int, ...]) -> None:
        super().__init__()
        self.head_dim = head_dim
        self.to_q = Linear(width, width, bias=False)
        self.to_k = Linear(width, width, bias=False)
        self.to_v = Linear(width, width, bias=False)
        self.to_qkv_multiscale = nn.ModuleList(_MultiscaleProjection(3 * width, k, head_dim) for k in scales)
        self.to_out = Linear(width * (1 + len(scales)), width, bias=False)
        self.norm_out = RMSNorm(width, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        tokens = _tokens_last(x)
        packed = linear(tokens, torch.cat([self.to_q.weight, self.to_k.weight, self.to_v.weight]))
        image = _channels_first(packed)
        groups = packed.flatten(1, 2).unflatten(2, (-1, self.head_dim)).transpose(1, 2)
        groups = torch.cat([groups, *(scale(image) for scale in self.to_qkv_multiscale)], dim=1)
        # (B, heads, N, D) each; heads are rows of the batch from here on.
        parts = groups.unflatten(1, (-1, 3)).unbind(2)
        rows = self.operations.linear_attention(
            *(part.flatten(0, 1) for part in parts), head_dim=self.head_dim
        )
        merged = rows.unflatten(0, (len(x), -1)).transpose(1, 2).flatten(2).unflatten(1, tokens.shape[1:3])
        return _channels_first(self.norm_out.added(tokens, self.to_out(merged)))


class NormedFeedForward(GatedConvFeedForward):
    """Gated convolution with a channel norm at the end and a residual."""

    def __init__(self, width: int) -> None:
        super().__init__(width, 4 * width)
        self.norm = RMSNorm(width, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        tokens = _tokens_last(x)
        return _channels_first(self.norm.added(tokens, super().forward(tokens)))


class EfficientViTBlock(nn.Module):
    """Multi-scale linear attention followed by the gated convolution."""

    def __init__(self, width: int, head_dim: int, scales: tuple[int, ...]) -> None:
        super().__init__()
        self.attn = MultiscaleLinearAttention(width, head_dim, scales)
        self.conv_out = NormedFeedForward(width)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv_out(self.attn(x))


class DownBlock(nn.Module):
    """Halves height and width: strided (or unshuffled) convolution plus a parameter-free averaging shortcut."""

    def __init__(self, in_width: int, out_width: int, *, unshuffle: bool, shortcut: bool = True) -> None:
        super().__init__()
        self.unshuffle = unshuffle
        self.group = 4 * in_width // out_width if shortcut else 0
        stride, width = (1, out_width // 4) if unshuffle else (2, out_width)
        self.conv = nn.Conv2d(in_width, width, 3, stride=stride, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv(x)
        if self.unshuffle:
            out = F.pixel_unshuffle(out, 2)
        if not self.group:
            return out
        return out + F.pixel_unshuffle(x, 2).unflatten(1, (-1, self.group)).mean(2)


class UpBlock(nn.Module):
    """Doubles height and width: nearest (or shuffled) convolution plus a parameter-free repeating shortcut."""

    def __init__(self, in_width: int, out_width: int, *, interpolate: bool, shortcut: bool = True) -> None:
        super().__init__()
        self.interpolate = interpolate
        self.repeats = 4 * out_width // in_width if shortcut else 0
        self.conv = nn.Conv2d(in_width, out_width if interpolate else 4 * out_width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        tokens = _tokens_last(x)
        if self.interpolate and x.shape[2] * x.shape[3] >= _MANY_PIXELS and in_plain_fp32(x):
            return _convolve_doubled(x, self.conv.weight, self.conv.bias, self.repeats)
        if self.interpolate:
            # torch's own nearest neighbours take a GPU ten times as long as their memory does.
            fourfold = tokens[:, :, None, :, None].expand(-1, -1, 2, -1, 2, -1).flatten(3, 4).flatten(1, 2)
            out = self.conv(_channels_first(fourfold))
        else:
            # On a GPU the shuffle leaves channels-last memory.
            out = F.pixel_shuffle(self.conv(x), 2).contiguous(memory_format=torch.channels_last)
        if self.repeats:
            shortcut = _repeated(tokens, self.repeats)
            _tokens_last(out).unflatten(2, (-1, 2)).unflatten(1, (-1, 2)).add_(shortcut)
        return out


def _repeated(tokens: Tensor, repeats: int) -> Tensor:
    """The shuffle of the repeated channels is a view of them, (B, h, 2, w, 2, C): nothing is written but the sum."""
    repeated = tokens.unsqueeze(-1).expand(*tokens.shape, repeats)
    return repeated.reshape(*tokens.shape[:3], -1, 2, 2).permute(0, 1, 4, 2, 5, 3)


@torch.library.custom_op("sana_models::convolve_doubled", mutates_args=())
def _convolve_doubled(x: Tensor, weight: Tensor, bias: Tensor | None, repeats: int) -> Tensor:
    """The 3x3 convolution of the doubled image as four of 2x2 of the image itself, 4/9 of the products, and the shortcut."""
    batch, channels, height, width = x.shape
    quarter_weights = (weight.reshape(1, -1, 9) @ _QUARTERS).view(-1, channels, 2, 2)
    mixed = F.conv2d(x, quarter_weights, None if bias is None else bias.repeat(4), padding=1)
    quarters = _tokens_last(mixed).unflatten(3, (2, 2, -1))
    shortcut = _repeated(_tokens_last(x), repeats) if repeats else None
    out = x.new_empty(batch, height, 2, width, 2, quarters.shape[-1])
    for row, column in product(range(2), range(2)):
        quarter = quarters[:, row : row + height, column : column + width, row, column]
        if shortcut is None:
            out[:, :, row, :, column] = quarter
        else:
            torch.add(quarter, shortcut[:, :, row, :, column], out=out[:, :, row, :, column])
    return _channels_first(out.flatten(3, 4).flatten(1, 2))


_convolve_doubled.register_fake(
    lambda x, weight, *_: _channels_first(
        x.new_empty(x.shape[0], 2 * x.shape[2], 2 * x.shape[3], weight.shape[0])
    )
)
# What is counted is the network's own convolution: the same on every device.
register_flop_formula(torch.ops.sana_models.convolve_doubled)(
    lambda x, weight, *_, **__: 8 * x[0] * x[2] * x[3] * math.prod(weight)
)


def _block(
    kind: str, width: int, head_dim: int, scales: tuple[int, ...], activation: str = "silu"
) -> nn.Module:
    return ResBlock(width, activation) if kind == "ResBlock" else EfficientViTBlock(width, head_dim, scales)


class Encoder(nn.Module):
    """Stages from fine to coarse; each ends with its down-block, the last with a convolution and averaging shortcut.

    A first stage without blocks is skipped altogether: the input convolution then halves the size itself.
    """

    def __init__(self, config: DCAEConfig) -> None:
        super().__init__()
        widths, depths = config.encoder_block_out_channels, config.encoder_layers_per_block
        unshuffle = config.downsample_block_type == "pixel_unshuffle"
        if depths[0] > 0:
            self.conv_in: nn.Module = nn.Conv2d(3, widths[0], 3, padding=1)
        else:
            self.conv_in = DownBlock(3, widths[1], unshuffle=unshuffle, shortcut=False)
        stages = []
        for i, (width, depth) in enumerate(zip(widths, depths, strict=True)):
            kind, scales = config.encoder_block_types[i], config.encoder_qkv_multiscales[i]
            blocks = [_block(kind, width, config.attention_head_dim, scales) for _ in range(depth)]
            if i + 1 < len(widths) and depth > 0:
                blocks.append(DownBlock(width, widths[i + 1], unshuffle=unshuffle))
            stages.append(nn.Sequential(*blocks))
        self.down_blocks = nn.ModuleList(stages)
        self.conv_out = nn.Conv2d(widths[-1], config.latent_channels, 3, padding=1)
        self.shortcut = config.encoder_out_shortcut

    def forward(self, images: Tensor) -> Tensor:
        x = self.conv_in(images)
        for stage in self.down_blocks:
            x = stage(x)
        if not self.shortcut:
            return self.conv_out(x)
        return self.conv_out(x) + x.unflatten(1, (self.conv_out.out_channels, -1)).mean(2)


class Decoder(nn.Module):
    """Stages stored fine to coarse and run coarse to fine; each starts with its up-block."""

    def __init__(self, config: DCAEConfig) -> None:
        super().__init__()
        widths, depths = config.decoder_block_out_channels, config.decoder_layers_per_block
        interpolate = config.upsample_block_type == "interpolate"
        self.repeats = widths[-1] // config.latent_channels if config.decoder_in_shortcut else 0
        self.activation = getattr(F, config.decoder_conv_act_fn)
        self.conv_in = nn.Conv2d(config.latent_channels, widths[-1], 3, padding=1)
        stages = []
        for i, (width, depth) in enumerate(zip(widths, depths, strict=True)):
            kind, scales = config.decoder_block_types[i], config.decoder_qkv_multiscales[i]
            activation = config.stage_activations[i]
            blocks = [
                _block(kind, width, config.attention_head_dim, scales, activation) for _ in range(depth)
            ]
            if i + 1 < len(widths) and depth > 0:
                blocks.insert(0, UpBlock(widths[i + 1], width, interpolate=interpolate))
            stages.append(nn.Sequential(*blocks))
        self.up_blocks = nn.ModuleList(stages)
        finest = widths[0] if depths[0] > 0 else widths[1]
        self.norm_out = RMSNorm(finest, bias=True)
        if depths[0] > 0:
            self.conv_out: nn.Module = nn.Conv2d(finest, 3, 3, padding=1)
        else:
            self.conv_out = UpBlock(finest, 3, interpolate=interpolate, shortcut=False)

    def forward(self, latents: Tensor) -> Tensor:
        x = self.conv_in(latents)
        if self.repeats:
            repeated = _tokens_last(latents).repeat_interleave(self.repeats, dim=3)
            x = x + _channels_first(repeated)
        for stage in reversed(self.up_blocks):
            x = stage(x)
        return self.conv_out(self.activation(_channels_first(self.norm_out(_tokens_last(x)))))


class DCAE(nn.Module):
    """Deterministic autoencoder on raw latents; `normalise` maps them to the scale the diffusion model works at."""

    def __init__(self, config: DCAEConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)

    def use_kernels(self, backend: Backend) -> None:
        """As `SanaTransformer.use_kernels`."""
        config = self.config
        if backend == "triton":
            widths = (*config.encoder_block_out_channels, *config.decoder_block_out_channels)
            check_sizes(max(widths), config.attention_head_dim)
        set_operations(self, backend)

    def encode(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) in [-1, 1] to raw latents; raises ValueError unless H and W are multiples of the compression."""
        factor = self.config.spatial_compression
        if images.ndim != 4 or images.shape[1] != 3 or images.shape[2] % factor or images.shape[3] % factor:
            raise ValueError(
                f"images are {tuple(images.shape)}; expected (B, 3, H, W) with H and W multiples of {factor}"
            )
        return self.encoder(images.contiguous(memory_format=torch.channels_last))

    def decode(self, latents: Tensor) -> Tensor:
        """Raw latents (B, latent_channels, h, w) to images around [-1, 1], not clamped."""
        if latents.ndim != 4 or latents.shape[1] != self.config.latent_channels:
            raise ValueError(
                f"latents are {tuple(latents.shape)}; expected (B, {self.config.latent_channels}, h, w)"
            )
        return self.decoder(latents.contiguous(memory_format=torch.channels_last))

    def normalise(self, latents: Tensor) -> Tensor:
        """Raw latents to the scale the diffusion model sees."""
        if self.config.latents_mean is None or self.config.latents_std is None:
            return latents * self.config.scaling_factor
        mean, std = self._statistics(latents)
        return (latents - mean) / std

    def denormalise(self, latents: Tensor) -> Tensor:
        """Inverse of `normalise`."""
        if self.config.latents_mean is None or self.config.latents_std is None:
            return latents / self.config.scaling_factor
        mean, std = self._statistics(latents)
        return latents * std + mean

    def _statistics(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        mean, std = latents.new_tensor(self.config.latents_mean), latents.new_tensor(self.config.latents_std)
        return mean[:, None, None], std[:, None, None]
