"""Names of parameters in the official checkpoints and in the public diffusers layout, as data.

Official files pack query, key and value (or key and value) rows in one matrix; a name on the left that maps
to several on the right is cut into that many equal parts along its first axis, in the order given. Sources:
the public conversion scripts of SANA and DC-AE.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

__all__ = ["Piece", "autoencoder_pieces", "transformer_pieces"]

#: Module outside the blocks, official -> diffusers; weight and bias follow.
TRANSFORMER_MODULES = {
    "x_embedder.proj": "patch_embed.proj",
    "t_embedder.mlp.0": "time_embed.emb.timestep_embedder.linear_1",
    "t_embedder.mlp.2": "time_embed.emb.timestep_embedder.linear_2",
    "t_block.1": "time_embed.linear",
    "y_embedder.y_proj.fc1": "caption_projection.linear_1",
    "y_embedder.y_proj.fc2": "caption_projection.linear_2",
    "attention_y_norm": "caption_norm",
    "final_layer.linear": "proj_out",
}

#: Module inside `blocks.N`, official -> diffusers names inside `transformer_blocks.N`.
BLOCK_MODULES = {
    "attn.qkv": ("attn1.to_q", "attn1.to_k", "attn1.to_v"),
    "attn.q_norm": ("attn1.norm_q",),
    "attn.k_norm": ("attn1.norm_k",),
    "attn.proj": ("attn1.to_out.0",),
    "cross_attn.q_linear": ("attn2.to_q",),
    "cross_attn.kv_linear": ("attn2.to_k", "attn2.to_v"),
    "cross_attn.q_norm": ("attn2.norm_q",),
    "cross_attn.k_norm": ("attn2.norm_k",),
    "cross_attn.proj": ("attn2.to_out.0",),
    "mlp.inverted_conv.conv": ("ff.conv_inverted",),
    "mlp.depth_conv.conv": ("ff.conv_depth",),
    "mlp.point_conv.conv": ("ff.conv_point",),
}

#: In place of these, where the guidance scale is embedded (SANA-Sprint).
GUIDED_MODULES = {
    "t_embedder.mlp.0": "time_embed.timestep_embedder.linear_1",
    "t_embedder.mlp.2": "time_embed.timestep_embedder.linear_2",
    "cfg_embedder.mlp.0": "time_embed.guidance_embedder.linear_1",
    "cfg_embedder.mlp.2": "time_embed.guidance_embedder.linear_2",
}

#: Official entries that the network does not need: the null caption and the position table are recomputed.
TRANSFORMER_DROPPED = frozenset({"y_embedder.y_embedding", "pos_embed"})
#: Beside these, what weighs SANA-Sprint's training loss.
GUIDED_DROPPED = frozenset({"logvar_linear.weight", "logvar_linear.bias"})

#: Substrings of DC-AE keys, official -> diffusers, applied in this order.
AUTOENCODER_RENAMES = (
    ("main.", ""),
    ("op_list.", ""),
    ("context_module", "attn"),
    ("local_module", "conv_out"),
    ("aggreg.0.0", "to_qkv_multiscale.0.proj_in"),
    ("aggreg.0.1", "to_qkv_multiscale.0.proj_out"),
    ("depth_conv.conv", "conv_depth"),
    ("inverted_conv.conv", "conv_inverted"),
    ("point_conv.conv", "conv_point"),
    ("point_conv.norm", "norm"),
    ("conv.conv.", "conv."),
    ("conv1.conv", "conv1"),
    ("conv2.conv", "conv2"),
    ("conv2.norm", "norm"),
    ("proj.norm", "norm_out"),
    ("encoder.project_in.conv", "encoder.conv_in"),
    ("encoder.project_out.0.conv", "encoder.conv_out"),
    ("encoder.stages", "encoder.down_blocks"),
    ("decoder.project_in.conv", "decoder.conv_in"),
    ("decoder.project_out.0", "decoder.norm_out"),
    ("decoder.project_out.2.conv", "decoder.conv_out"),
    ("decoder.stages", "decoder.up_blocks"),
)

#: 1x1 convolutions that are plain matrices in diffusers: official suffix -> diffusers suffixes.
AUTOENCODER_MATRICES = {
    ".qkv.conv.weight": (".to_q.weight", ".to_k.weight", ".to_v.weight"),
    ".proj.conv.weight": (".to_out.weight",),
}


@dataclass(frozen=True, slots=True)
class Piece:
    """Where a parameter lives in an official file: part `index` of `count` of the rows of `source`.

    `matrix` says that trailing 1x1 kernel axes are dropped.
    """

    source: str
    index: int = 0
    count: int = 1
    matrix: bool = False


def transformer_pieces(official: Iterable[str]) -> dict[str, Piece]:
    """Map diffusers names to pieces of an official transformer file; unknown names stay as they are."""
    pieces: dict[str, Piece] = {}
    official = list(official)
    guided = any(key.startswith("cfg_embedder.") for key in official)
    modules = TRANSFORMER_MODULES | (GUIDED_MODULES if guided else {})
    dropped = TRANSFORMER_DROPPED | (GUIDED_DROPPED if guided else frozenset())
    for key in official:
        if key in dropped:
            continue
        targets = _transformer_targets(key, modules)
        pieces |= {name: Piece(key, index, len(targets)) for index, name in enumerate(targets)}
    return pieces


def autoencoder_pieces(official: Iterable[str]) -> dict[str, Piece]:
    """Map diffusers names to pieces of an official DC-AE file; unknown names stay as they are."""
    pieces: dict[str, Piece] = {}
    for key in official:
        renamed = key
        for old, new in AUTOENCODER_RENAMES:
            renamed = renamed.replace(old, new)
        for suffix, parts in AUTOENCODER_MATRICES.items():
            if renamed.endswith(suffix):
                stem = renamed.removesuffix(suffix)
                pieces |= {
                    stem + part: Piece(key, i, len(parts), matrix=True) for i, part in enumerate(parts)
                }
                break
        else:
            pieces[renamed] = Piece(key)
    return pieces


def _transformer_targets(key: str, modules: Mapping[str, str]) -> tuple[str, ...]:
    if key == "final_layer.scale_shift_table":
        return ("scale_shift_table",)
    module, _, leaf = key.rpartition(".")
    if module in modules:
        return (f"{modules[module]}.{leaf}",)
    family, _, rest = key.partition(".")
    number, _, inner = rest.partition(".")
    if family != "blocks" or not number.isdecimal():
        return (key,)
    prefix = f"transformer_blocks.{number}"
    if inner == "scale_shift_table":
        return (f"{prefix}.{inner}",)
    inner_module, _, leaf = inner.rpartition(".")
    targets = BLOCK_MODULES.get(inner_module)
    return tuple(f"{prefix}.{target}.{leaf}" for target in targets) if targets else (key,)
