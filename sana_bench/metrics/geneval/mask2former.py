"""GenEval's detector without mmdet: its Mask2Former checkpoint in transformers' class of the same network.

The published scores come from `mask2former_swin-s-p4-w7-224_lsj_8x2_50e_coco` of mmdet 2.x (Cheng et al., 2022). Both
implementations compute the same function; parameters differ in name, in fused or split attention projections, and in the
order of the channels that a patch merge concatenates. The hub's files differ in names alone.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from sana_bench.assets.checks import DAMAGED
from sana_bench.core.errors import AssetError
from sana_bench.core.text import read_text
from sana_models.files import parse_json, plain
from sana_models.layers import with_our_products
from sana_models.libraries import without_torchao

if TYPE_CHECKING:
    from transformers import Mask2FormerConfig, Mask2FormerForUniversalSegmentation

__all__ = ["convert_mmdet", "load_hub", "load_mmdet", "official_config"]

_SWIN = "model.pixel_level_module.encoder.swin."
_PIXELS = "model.pixel_level_module.decoder."
_QUERIES = "model.transformer_module."
_HEAD = r"panoptic_head\."
_PIXEL_LAYER = _HEAD + r"pixel_decoder\.encoder\.layers\.(\d+)\."
_QUERY_LAYER = _HEAD + r"transformer_decoder\.layers\.(\d+)\."
_BLOCK = r"backbone\.stages\.(\d+)\.blocks\.(\d+)\."
_BLOCK_TO = _SWIN + r"encoder.layers.\1.blocks.\2."

# Buffers that both sides compute from the configuration, and parameters that no output depends on.
_DROPPED = re.compile(r"backbone\..*\.relative_position_index|.*loss_cls\.class_weight")
_UNUSED = (f"{_SWIN}layernorm.weight", f"{_SWIN}layernorm.bias", "criterion.empty_weight")
# Names whose tensor stacks the projections of queries, keys and values.
_FUSED = "{qkv}"

_RULES: tuple[tuple[str, str], ...] = (
    (r"backbone\.patch_embed\.projection\.", _SWIN + "embeddings.patch_embeddings.projection."),
    (r"backbone\.patch_embed\.norm\.", _SWIN + "embeddings.norm."),
    (_BLOCK + r"norm1\.", _BLOCK_TO + "layernorm_before."),
    (_BLOCK + r"norm2\.", _BLOCK_TO + "layernorm_after."),
    (_BLOCK + r"attn\.w_msa\.qkv\.", _BLOCK_TO + f"attention.{_FUSED}_proj."),
    (_BLOCK + r"attn\.w_msa\.proj\.", _BLOCK_TO + "attention.o_proj."),
    (_BLOCK + r"attn\.w_msa\.relative_position_bias_table", _BLOCK_TO
     + "attention.relative_position_bias.relative_position_bias_table"),
    (_BLOCK + r"ffn\.layers\.0\.0\.", _BLOCK_TO + "mlp.fc1."),
    (_BLOCK + r"ffn\.layers\.1\.", _BLOCK_TO + "mlp.fc2."),
    (r"backbone\.stages\.(\d+)\.downsample\.", _SWIN + r"encoder.layers.\1.downsample."),
    (_HEAD + r"pixel_decoder\.input_convs\.(\d+)\.conv\.", _PIXELS + r"input_projections.\1.0."),
    (_HEAD + r"pixel_decoder\.input_convs\.(\d+)\.gn\.", _PIXELS + r"input_projections.\1.1."),
    (_HEAD + r"pixel_decoder\.level_encoding\.weight", _PIXELS + "level_embed"),
    (_PIXEL_LAYER + r"attentions\.0\.", _PIXELS + r"encoder.layers.\1.self_attn."),
    (_PIXEL_LAYER + r"norms\.0\.", _PIXELS + r"encoder.layers.\1.self_attn_layer_norm."),
    (_PIXEL_LAYER + r"norms\.1\.", _PIXELS + r"encoder.layers.\1.final_layer_norm."),
    (_PIXEL_LAYER + r"ffns\.0\.layers\.0\.0\.", _PIXELS + r"encoder.layers.\1.fc1."),
    (_PIXEL_LAYER + r"ffns\.0\.layers\.1\.", _PIXELS + r"encoder.layers.\1.fc2."),
    (_HEAD + r"pixel_decoder\.lateral_convs\.0\.conv\.", _PIXELS + "adapter_1.0."),
    (_HEAD + r"pixel_decoder\.lateral_convs\.0\.gn\.", _PIXELS + "adapter_1.1."),
    (_HEAD + r"pixel_decoder\.output_convs\.0\.conv\.", _PIXELS + "layer_1.0."),
    (_HEAD + r"pixel_decoder\.output_convs\.0\.gn\.", _PIXELS + "layer_1.1."),
    (_HEAD + r"pixel_decoder\.mask_feature\.", _PIXELS + "mask_projection."),
    (_QUERY_LAYER + r"attentions\.0\.attn\.", _QUERIES + r"decoder.layers.\1.cross_attn."),
    (_QUERY_LAYER + r"attentions\.1\.attn\.in_proj_",
     _QUERIES + rf"decoder.layers.\1.self_attn.{_FUSED}_proj."),
    (_QUERY_LAYER + r"attentions\.1\.attn\.out_proj\.", _QUERIES + r"decoder.layers.\1.self_attn.out_proj."),
    (_QUERY_LAYER + r"norms\.0\.", _QUERIES + r"decoder.layers.\1.cross_attn_layer_norm."),
    (_QUERY_LAYER + r"norms\.1\.", _QUERIES + r"decoder.layers.\1.self_attn_layer_norm."),
    (_QUERY_LAYER + r"norms\.2\.", _QUERIES + r"decoder.layers.\1.final_layer_norm."),
    (_QUERY_LAYER + r"ffns\.0\.layers\.0\.0\.", _QUERIES + r"decoder.layers.\1.fc1."),
    (_QUERY_LAYER + r"ffns\.0\.layers\.1\.", _QUERIES + r"decoder.layers.\1.fc2."),
    (_HEAD + r"transformer_decoder\.post_norm\.", _QUERIES + "decoder.layernorm."),
    (_HEAD + r"query_embed\.", _QUERIES + "queries_embedder."),
    (_HEAD + r"query_feat\.", _QUERIES + "queries_features."),
    (_HEAD + r"level_embed\.", _QUERIES + "level_embed."),
    (_HEAD + r"cls_embed\.", "class_predictor."),
    (_HEAD + r"mask_embed\.0\.", _QUERIES + "decoder.mask_predictor.mask_embedder.0.0."),
    (_HEAD + r"mask_embed\.2\.", _QUERIES + "decoder.mask_predictor.mask_embedder.1.0."),
    (_HEAD + r"mask_embed\.4\.", _QUERIES + "decoder.mask_predictor.mask_embedder.2.0."),
)  # fmt: skip
_COMPILED = tuple((re.compile(pattern), target) for pattern, target in _RULES)
_STAGE_NORM = re.compile(r"backbone\.norm(\d)\.")

# How files on the hub name what has another name in the class now, all of it in the backbone.
_ENCODER = "model.pixel_level_module.encoder."
_HUB_RULES = (
    (f"{_ENCODER}embeddings.", f"{_SWIN}embeddings."),
    (f"{_ENCODER}encoder.", f"{_SWIN}encoder."),
    (".attention.self.query.", ".attention.q_proj."),
    (".attention.self.key.", ".attention.k_proj."),
    (".attention.self.value.", ".attention.v_proj."),
    (".attention.self.relative_position_bias_table", ".attention.relative_position_bias.relative_position_bias_table"),
    (".attention.output.dense.", ".attention.o_proj."),
    (".intermediate.dense.", ".mlp.fc1."),
    (".output.dense.", ".mlp.fc2."),
)  # fmt: skip
# Computed from the configuration; stored by the version of transformers that made the published file.
_HUB_DROPPED = re.compile(rf"{re.escape(_ENCODER)}.*\.relative_position_index")

# Plain numbers and arrays as NumPy pickles them, by the names of 1.x and of 2.x: training settings hold some.
_SCALAR, _ARRAY = np.float64(0).__reduce__()[0], np.zeros(0).__reduce__()[0]
_NUMPY_TYPES = {type(np.dtype(code)) for code in "?bBhHiIlLqQefdUS"}
_HARMLESS: list[Any] = [
    *((_SCALAR, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
    *((_ARRAY, f"numpy.{core}.multiarray._reconstruct") for core in ("core", "_core")),
    np.ndarray,
    np.dtype,
    *_NUMPY_TYPES,
]

# What transformers raises for values of a configuration that no network has.
_BAD_CONFIG = (
    StrictDataclassError, RuntimeError, ValueError, TypeError, AttributeError, LookupError, ArithmeticError, OSError,
)  # fmt: skip


def official_config() -> "Mask2FormerConfig":
    """Swin-S with 100 queries and COCO's 80 classes, as GenEval's detector was configured."""
    with without_torchao():
        from transformers import Mask2FormerConfig, SwinConfig

    backbone = SwinConfig(
        embed_dim=96, depths=[2, 2, 18, 2], num_heads=[3, 6, 12, 24], window_size=7, image_size=224,
        patch_size=4, mlp_ratio=4.0, qkv_bias=True, out_features=["stage1", "stage2", "stage3", "stage4"],
    )  # fmt: skip
    # transformers counts the prediction before the first layer as a layer: 10 here are mmdet's 9.
    return Mask2FormerConfig(
        backbone_config=backbone, num_labels=80, num_queries=100, feature_size=256, mask_feature_size=256,
        hidden_dim=256, encoder_feedforward_dim=1024, encoder_layers=6, decoder_layers=10,
        num_attention_heads=8, dim_feedforward=2048, pre_norm=False, enforce_input_projection=False,
        feature_strides=[4, 8, 16, 32], common_stride=4,
    )  # fmt: skip


def convert_mmdet(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """mmdet's state dict under transformers' names, in transformers' layout.

    Raises:
        AssetError: a name that is no part of mmdet's Mask2Former with a Swin backbone.
    """
    converted: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if _DROPPED.fullmatch(name):
            continue
        try:
            converted |= _renamed(name, tensor)
        except (RuntimeError, ValueError, IndexError):
            # A tensor that cannot be split into projections or merged positions.
            raise AssetError(f"{name!r} has the shape {tuple(tensor.shape)}, of no such parameter") from None
    return converted


def load_mmdet(
    path: Path, config: "Mask2FormerConfig | None" = None
) -> "Mask2FormerForUniversalSegmentation":
    """The network in evaluation mode with the weights of an mmdet 2.x checkpoint, every one of them used.

    `config` is `official_config()` unless given. Nothing in the file is executed.

    Raises:
        AssetError: not such a checkpoint, or parameters are missing, unknown or of other shapes. Files of mmdet 3.x
        have other names and fail here, where mmdet itself would leave most weights random.
    """
    state = _read(path)
    try:
        converted = convert_mmdet(state)
    except AssetError as error:
        raise AssetError(f"{path}: {error}") from None
    return _network(config or official_config(), converted, path)


def load_hub(folder: Path) -> "Mask2FormerForUniversalSegmentation":
    """The network of a local copy of a hub repository with COCO's 80 classes, every weight used, none left out.

    Reads `config.json` and `model.safetensors`.

    Raises:
        AssetError: one of them is missing or damaged, the classes are not COCO's, or parameters are missing, unknown or
        of other shapes.
    """
    with without_torchao():
        from transformers import Mask2FormerConfig

    path = folder / "config.json"
    try:
        content = parse_json(read_text(path))
        if not isinstance(content, dict) or content.get("model_type") != "mask2former":
            raise ValueError("its model_type is not mask2former")
        config = Mask2FormerConfig.from_dict(content)
        names = dict(config.id2label)
    except FileNotFoundError:
        raise AssetError(f"{path} is missing") from None
    except _BAD_CONFIG as error:
        raise AssetError(f"{path}: not a configuration of the detector ({_short(error)})") from None
    if len(names) != 80 or names.get(0) != "person" or names.get(79) != "toothbrush":
        raise AssetError(f"{path}: its {len(names)} classes are not COCO's 80")
    weights = folder / "model.safetensors"
    try:
        state = load_file(plain(weights))
    except FileNotFoundError:
        raise AssetError(f"{weights} is missing") from None
    except (SafetensorError, OSError) as error:
        raise AssetError(f"{weights}: not a readable file of tensors ({_short(error)})") from None
    state = {
        _current_name(name): tensor for name, tensor in state.items() if not _HUB_DROPPED.fullmatch(name)
    }
    return _network(config, _in_float32(state), weights)


def _network(
    config: "Mask2FormerConfig", state: Mapping[str, Tensor], path: Path
) -> "Mask2FormerForUniversalSegmentation":
    """The network of `config` with exactly the weights of `state`; errors name `path`."""
    with without_torchao():
        from transformers import Mask2FormerForUniversalSegmentation

    from sana_bench.metrics.geneval.deformable import with_our_sampling

    try:
        with torch.device("meta"):
            model = Mask2FormerForUniversalSegmentation(config)
    except _BAD_CONFIG as error:
        raise AssetError(f"{path.parent}: no network has this configuration ({_short(error)})") from None
    wanted = model.state_dict()
    problems = list(_mismatches(wanted, state))
    if problems:
        raise AssetError(f"{path}: not the detector's weights: {len(problems)} problems, e.g. {problems[0]}")
    unused = {name: torch.zeros(wanted[name].shape) for name in _UNUSED}
    missing_buffers = [name for name, buffer in model.named_buffers() if name not in wanted]
    if missing_buffers:
        # Computed by the constructor, which a module on the meta device cannot have done.
        model = Mask2FormerForUniversalSegmentation(config)
    model.load_state_dict({**unused, **state}, strict=True, assign=not missing_buffers)
    return with_our_sampling(with_our_products(model.eval().requires_grad_(False)))


def _renamed(name: str, tensor: Tensor) -> Iterator[tuple[str, Tensor]]:
    stage = _STAGE_NORM.match(name)
    if stage is not None:
        number = int(stage.group(1)) + 1
        prefix = f"model.pixel_level_module.encoder.hidden_states_norms.stage{number}."
        yield prefix + name[stage.end() :], tensor
        return
    for pattern, target in _COMPILED:
        match = pattern.match(name)
        if match is None:
            continue
        full = match.expand(target) + name[match.end() :]
        if ".downsample." in full:
            yield full, _merge_order(tensor)
        elif _FUSED in full:
            for letter, part in zip("qkv", tensor.chunk(3), strict=True):
                yield full.replace(_FUSED, letter), part
        else:
            yield full, tensor
        return
    raise AssetError(f"{name!r} is not a parameter of mmdet's Mask2Former")


def _merge_order(tensor: Tensor) -> Tensor:
    """Inputs of a patch merge from channel-major, positions 00 01 10 11, to position-major, 00 10 01 11."""
    channels = tensor.shape[-1] // 4
    split = tensor.reshape(*tensor.shape[:-1], channels, 4)
    return split[..., [0, 2, 1, 3]].transpose(-1, -2).reshape(tensor.shape)


def _mismatches(wanted: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> Iterator[str]:
    for name, tensor in wanted.items():
        if name in _UNUSED:
            continue
        if name not in state:
            yield f"nothing for {name}"
        elif state[name].shape != tensor.shape:
            yield f"{name} is {tuple(state[name].shape)}, not {tuple(tensor.shape)}"
    yield from (f"{name} has no place" for name in state if name not in wanted)


def _current_name(name: str) -> str:
    """A name of the hub's files as the installed transformers has it."""
    if name.startswith(_ENCODER):
        for old, new in _HUB_RULES:
            name = name.replace(old, new)
    return name


def _read(path: Path) -> dict[str, Tensor]:
    try:
        # The settings of the training beside the weights are plain data, or the file is refused.
        with torch.serialization.safe_globals(_HARMLESS):
            content: Any = torch.load(plain(path), map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise AssetError(f"{path} is missing") from None
    except DAMAGED as error:
        raise AssetError(f"{path}: not a readable checkpoint ({_short(error)})") from None
    state = content.get("state_dict", content) if isinstance(content, dict) else None
    if not isinstance(state, dict) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in state.items()
    ):
        raise AssetError(f"{path}: holds no state dict")
    return _in_float32(state)


def _in_float32(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in state.items()}


def _short(error: Exception) -> str:
    """The beginning of a message in one line, without torch's advice to load the file unsafely."""
    message = " ".join(str(error).split())
    return message.rpartition("WeightsUnpickler error: ")[2][:160] or type(error).__name__
