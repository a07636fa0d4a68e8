"""The building blocks of mPLUG: CLIP's vision transformer and post-norm BERT layers.

Module names are those of the published weights. BERT's layers are written here because mPLUG's differ from
transformers': fusion layers have two kinds, and cross-attention keys have their own width. Masks are boolean,
True where attention may go; the reference adds -10,000 instead, whose exponential is zero in float32 too.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sana_bench.judges.mplug.config import MPlugConfig

__all__ = ["Attention", "BertEmbeddings", "BertLayer", "FusionLayer", "PredictionHead", "VisionTransformer"]

KeysValues = tuple[Tensor, Tensor]


class _QuickGELU(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        # x times sigmoid(1.702 x), by the one function that has a fused gradient.
        return F.silu(1.702 * x) / 1.702


class _VisionBlock(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.ln_1 = nn.LayerNorm(width)
        self.mlp = nn.Sequential()
        self.mlp.add_module("c_fc", nn.Linear(width, 4 * width))
        self.mlp.add_module("gelu", _QuickGELU())
        self.mlp.add_module("c_proj", nn.Linear(4 * width, width))
        self.ln_2 = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        normed = self.ln_1(x)
        x = x + self.attn(normed, normed, normed, need_weights=False)[0]
        return x + self.mlp(self.ln_2(x))


class VisionTransformer(nn.Module):
    """OpenAI CLIP's ViT up to its last normalisation, all tokens, no projection."""

    def __init__(self, config: MPlugConfig) -> None:
        super().__init__()
        width, patch = config.clip_vision_width, config.clip_vision_patch_size
        self.conv1 = nn.Conv2d(3, width, kernel_size=patch, stride=patch, bias=False)
        self.class_embedding = nn.Parameter(width**-0.5 * torch.randn(width))
        self.positional_embedding = nn.Parameter(width**-0.5 * torch.randn(config.image_tokens, width))
        self.ln_pre = nn.LayerNorm(width)
        blocks = [_VisionBlock(width, config.vision_heads) for _ in range(config.clip_vision_layers)]
        self.transformer = nn.ModuleDict({"resblocks": nn.Sequential(*blocks)})
        self.ln_post = nn.LayerNorm(width)

    def forward(self, pixels: Tensor) -> Tensor:
        """Pixels (B, 3, R, R) to tokens (B, 1 + (R / patch)^2, width)."""
        patches = self.conv1(pixels).flatten(2).transpose(1, 2)
        first = self.class_embedding.expand(len(patches), 1, -1)
        x = self.ln_pre(torch.cat([first, patches], dim=1) + self.positional_embedding)
        return self.ln_post(self.transformer["resblocks"](x))


class BertEmbeddings(nn.Module):
    """Sum of word, position and (first) type vectors, normalised."""

    def __init__(self, config: MPlugConfig) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(config.vocab_size, config.hidden_size, padding_idx=0)
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.token_type_embeddings = nn.Embedding(config.type_vocab_size, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, ids: Tensor) -> Tensor:
        """Ids (B, T) to vectors (B, T, D)."""
        positions = self.position_embeddings.weight[: ids.shape[1]]
        words = self.word_embeddings(ids) + self.token_type_embeddings.weight[0]
        return self.LayerNorm(words + positions)


class _Projections(nn.Module):
    def __init__(self, width: int, context_width: int) -> None:
        super().__init__()
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(context_width, width)
        self.value = nn.Linear(context_width, width)


class _Output(nn.Module):
    """A projection, added to what came before and normalised after."""

    def __init__(self, width_in: int, width: int, eps: float) -> None:
        super().__init__()
        self.dense = nn.Linear(width_in, width)
        self.LayerNorm = nn.LayerNorm(width, eps=eps)

    def forward(self, x: Tensor, before: Tensor) -> Tensor:
        return self.LayerNorm(self.dense(x) + before)


class _Intermediate(nn.Module):
    def __init__(self, config: MPlugConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.intermediate_size)

    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(self.dense(x))


class Attention(nn.Module):
    """Multi-head attention with residual and post-normalisation; keys and values may come from elsewhere."""

    def __init__(self, config: MPlugConfig, *, cross: bool = False) -> None:
        super().__init__()
        width = config.hidden_size
        self.heads = config.num_attention_heads
        self.self = _Projections(width, config.encoder_width if cross else width)
        self.output = _Output(width, width, config.layer_norm_eps)

    def keys_values(self, context: Tensor) -> KeysValues:
        """Keys and values (B, heads, S, d) of a context (B, S, D)."""
        return self._split(self.self.key(context)), self._split(self.self.value(context))

    def forward(
        self, x: Tensor, mask: Tensor | None, context: KeysValues | None = None, *, causal: bool = False
    ) -> Tensor:
        """Attend from `x` (B, T, D) over `context`, or over itself; `mask` (B, 1, 1, S) is True where allowed."""
        keys, values = self.keys_values(x) if context is None else context
        queries = self._split(self.self.query(x))
        mixed = F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask, is_causal=causal)
        return self.output(mixed.transpose(1, 2).flatten(2), x)

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(2, (self.heads, -1)).transpose(1, 2)


class _FeedForward(nn.Module):
    def __init__(self, config: MPlugConfig) -> None:
        super().__init__()
        self.intermediate = _Intermediate(config)
        self.output = _Output(config.intermediate_size, config.hidden_size, config.layer_norm_eps)

    def feed_forward(self, x: Tensor) -> Tensor:
        return self.output(self.intermediate(x), x)


class BertLayer(_FeedForward):
    """Self-attention, cross-attention if asked for, feed-forward."""

    def __init__(self, config: MPlugConfig, *, cross: bool = False) -> None:
        super().__init__(config)
        self.attention = Attention(config)
        if cross:
            self.crossattention = Attention(config, cross=True)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """An encoder layer over (B, T, D)."""
        return self.feed_forward(self.attention(x, mask))

    def decode(self, x: Tensor, context: KeysValues, mask: Tensor) -> Tensor:
        """A decoder layer over (B, K, T, D): K sequences share each context, and none sees its own future.

        Folding the K sequences into one cross-attention changes no value: queries do not see each other.
        """
        n, beams, length, _ = x.shape
        x = self.attention(x.flatten(0, 1), None, causal=True)
        x = self.crossattention(x.reshape(n, beams * length, -1), mask, context)
        return self.feed_forward(x).reshape(n, beams, length, -1)


class FusionLayer(_FeedForward):
    """One of mPLUG's two kinds of fusion: text that looks at the image, or both as one sequence ("connected")."""

    def __init__(self, config: MPlugConfig, *, connected: bool) -> None:
        super().__init__(config)
        self.connected = connected
        self.attention = Attention(config)
        if not connected:
            self.crossattention = Attention(config, cross=True)

    def forward(self, text: Tensor, text_mask: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
        """Return text (B, T, D) and image; a connected layer adds its image half to the image.

        The image (I, N, D) serves B / I questions each, which stand together. Folding them into one cross-attention
        changes no value: queries do not see each other. A connected layer returns an image for each question.
        """
        if not self.connected:
            x = self.attention(text, text_mask)
            folded = x.reshape(len(image), -1, x.shape[2])
            x = self.crossattention(folded, None, self.crossattention.keys_values(image)).reshape(x.shape)
            return self.feed_forward(x), image
        if len(image) != len(text):
            image = image.repeat_interleave(len(text) // len(image), dim=0)
        seen = text_mask.new_ones(*text_mask.shape[:-1], image.shape[1])
        x = self.attention(torch.cat([image, text], dim=1), torch.cat([seen, text_mask], dim=-1))
        change, text = self.feed_forward(x).split([image.shape[1], text.shape[1]], dim=1)
        return text, image + change


class _Transform(nn.Module):
    def __init__(self, config: MPlugConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, x: Tensor) -> Tensor:
        return self.LayerNorm(F.gelu(self.dense(x)))


class PredictionHead(nn.Module):
    """BERT's head over the vocabulary."""

    def __init__(self, config: MPlugConfig) -> None:
        super().__init__()
        self.transform = _Transform(config)
        self.decoder = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))

    def forward(self, x: Tensor) -> Tensor:
        return self.decoder(self.transform(x)) + self.bias
