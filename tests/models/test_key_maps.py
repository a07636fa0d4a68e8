"""Official single files: every parameter found, in the right part of the packed matrices, against diffusers'
converters.
"""

import re
from dataclasses import replace

import pytest
import torch

from sana_models import DCAE, SanaTransformer, load_autoencoder, load_pipeline, load_transformer
from sana_models.checkpoints import CheckpointError, read_config
from sana_models.config import DC_AE_F32C32, SANA_CONFIGS, DCAEConfig, SanaConfig
from sana_models.key_maps import autoencoder_pieces, transformer_pieces
from tests.small_parts import small_sana

SMALL = small_sana()


def official_transformer(config: SanaConfig, device: str = "cpu") -> dict[str, torch.Tensor]:
    """A state dictionary in the official names and shapes, written down from the official module tree."""
    width, hidden = config.width, int(config.mlp_ratio * config.width)
    shapes: dict[str, tuple[int, ...]] = {
        "pos_embed": (1, 16, width),
        "x_embedder.proj.weight": (width, config.in_channels, 1, 1),
        "x_embedder.proj.bias": (width,),
        "t_embedder.mlp.0.weight": (width, 256),
        "t_embedder.mlp.0.bias": (width,),
        "t_embedder.mlp.2.weight": (width, width),
        "t_embedder.mlp.2.bias": (width,),
        "t_block.1.weight": (6 * width, width),
        "t_block.1.bias": (6 * width,),
        "y_embedder.y_embedding": (300, config.caption_channels),
        "y_embedder.y_proj.fc1.weight": (width, config.caption_channels),
        "y_embedder.y_proj.fc1.bias": (width,),
        "y_embedder.y_proj.fc2.weight": (width, width),
        "y_embedder.y_proj.fc2.bias": (width,),
        "attention_y_norm.weight": (width,),
        "final_layer.scale_shift_table": (2, width),
        "final_layer.linear.weight": (config.out_channels, width),
        "final_layer.linear.bias": (config.out_channels,),
    }
    if config.guidance_embeds:
        shapes |= {"logvar_linear.weight": (1, width), "logvar_linear.bias": (1,)}
        for layer, inner in (("0", 256), ("2", width)):
            shapes |= {
                f"cfg_embedder.mlp.{layer}.weight": (width, inner),
                f"cfg_embedder.mlp.{layer}.bias": (width,),
            }
    for i in range(config.num_layers):
        block = {
            "scale_shift_table": (6, width),
            "attn.qkv.weight": (3 * width, width),
            "attn.proj.weight": (width, width),
            "attn.proj.bias": (width,),
            "cross_attn.q_linear.weight": (width, width),
            "cross_attn.q_linear.bias": (width,),
            "cross_attn.kv_linear.weight": (2 * width, width),
            "cross_attn.kv_linear.bias": (2 * width,),
            "cross_attn.proj.weight": (width, width),
            "cross_attn.proj.bias": (width,),
            "mlp.inverted_conv.conv.weight": (2 * hidden, width, 1, 1),
            "mlp.inverted_conv.conv.bias": (2 * hidden,),
            "mlp.depth_conv.conv.weight": (2 * hidden, 1, 3, 3),
            "mlp.depth_conv.conv.bias": (2 * hidden,),
            "mlp.point_conv.conv.weight": (width, hidden, 1, 1),
        }
        if config.qk_norm:
            norms = [f"{part}.{name}_norm.weight" for part in ("attn", "cross_attn") for name in "qk"]
            block |= dict.fromkeys(norms, (width,))
        shapes |= {f"blocks.{i}.{name}": shape for name, shape in block.items()}
    return draw(shapes, device)


def official_autoencoder(config: DCAEConfig) -> dict[str, torch.Tensor]:
    """The names of the EfficientViT code base, made from ours by its module tree rather than by the map under
    test.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    with torch.device("meta"):
        ours = {key: tuple(value.shape) for key, value in DCAE(config).state_dict().items()}
    for key, shape in ours.items():
        if ".to_q." in key:
            c = shape[0]
            shapes[_official_stage(key, "context_module.main.qkv.conv.weight")] = (3 * c, c, 1, 1)
        elif ".to_k." in key or ".to_v." in key:
            continue
        elif ".to_out." in key:
            shapes[_official_stage(key, "context_module.main.proj.conv.weight")] = (*shape, 1, 1)
        else:
            shapes[_official_name(key)] = shape
    return draw(shapes)


def _official_stage(key: str, inner: str) -> str:
    side, _, stage, index = key.split(".")[:4]
    return f"{side}.stages.{stage}.op_list.{index}.{inner}"


def _official_name(key: str) -> str:
    ends = {
        "encoder.conv_in.": "encoder.project_in.conv.",
        "encoder.conv_out.": "encoder.project_out.main.op_list.0.conv.",
        "decoder.conv_in.": "decoder.project_in.main.conv.",
        "decoder.norm_out.": "decoder.project_out.op_list.0.",
        "decoder.conv_out.": "decoder.project_out.op_list.2.conv.",
    }
    for ours, theirs in ends.items():
        if key.startswith(ours):
            return key.replace(ours, theirs)
    _, _, inner = re.match(r"(encoder|decoder)\.(?:down|up)_blocks\.\d+\.\d+\.(.*)", key).group(0, 1, 2)
    leaf = inner.rpartition(".")[2]
    module = inner.rpartition(".")[0]
    official = {
        "conv": "main.conv.conv",
        "conv1": "main.conv1.conv",
        "conv2": "main.conv2.conv",
        "norm": "main.conv2.norm",
        "attn.to_qkv_multiscale.0.proj_in": "context_module.main.aggreg.0.0",
        "attn.to_qkv_multiscale.0.proj_out": "context_module.main.aggreg.0.1",
        "attn.norm_out": "context_module.main.proj.norm",
        "conv_out.conv_inverted": "local_module.main.inverted_conv.conv",
        "conv_out.conv_depth": "local_module.main.depth_conv.conv",
        "conv_out.conv_point": "local_module.main.point_conv.conv",
        "conv_out.norm": "local_module.main.point_conv.norm",
    }[module]
    return _official_stage(key, f"{official}.{leaf}")


def draw(shapes: dict[str, tuple[int, ...]], device: str = "cpu") -> dict[str, torch.Tensor]:
    if device == "meta":
        return {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}
    generator = torch.Generator().manual_seed(13)
    return {key: torch.randn(shape, generator=generator) for key, shape in shapes.items()}


def small_dc_ae() -> DCAEConfig:
    kinds = ("ResBlock", "EfficientViTBlock")
    return DCAEConfig(
        latent_channels=4,
        attention_head_dim=8,
        encoder_block_types=kinds,
        decoder_block_types=kinds,
        encoder_block_out_channels=(16, 32),
        decoder_block_out_channels=(16, 32),
        encoder_layers_per_block=(1, 2),
        decoder_layers_per_block=(2, 1),
        encoder_qkv_multiscales=((), (5,)),
        decoder_qkv_multiscales=((), (5,)),
    )


@pytest.mark.parametrize(
    "name",
    [
        "sana-0.6b-1024",
        "sana-1.6b-1024",
        "sana1.5-1.6b-1024",
        "sana1.5-4.8b-1024",
        "sana-sprint-0.6b-1024",
        "sana-sprint-1.6b-1024",
    ],
)
def test_published_sizes_map_completely(name):
    """Every parameter has a source and every source is used, at the real depth and width."""
    config = SANA_CONFIGS[name]
    official = official_transformer(config, "meta")
    pieces = transformer_pieces(official)
    with torch.device("meta"):
        expected = SanaTransformer(config).state_dict()
    assert pieces.keys() == expected.keys()
    unused = {"pos_embed", "y_embedder.y_embedding"}
    if config.guidance_embeds:
        unused |= {"logvar_linear.weight", "logvar_linear.bias"}
    assert official.keys() - {p.source for p in pieces.values()} == unused
    for key, piece in pieces.items():
        rows = official[piece.source].shape[0] // piece.count
        assert (rows, *official[piece.source].shape[1:]) == expected[key].shape


def test_the_published_autoencoder_maps_completely():
    with torch.device("meta"):
        expected = DCAE(DC_AE_F32C32).state_dict()
    assert autoencoder_pieces(official_autoencoder_names(DC_AE_F32C32)).keys() == expected.keys()


def official_autoencoder_names(config: DCAEConfig) -> list[str]:
    small = replace(
        config,
        latent_channels=4,
        attention_head_dim=4,
        encoder_block_out_channels=(4,) * 6,
        decoder_block_out_channels=(4,) * 6,
    )
    return list(official_autoencoder(small))


def test_official_transformer_file_equals_diffusers_conversion(tmp_path):
    single_file = pytest.importorskip("diffusers.loaders.single_file_utils")
    official = official_transformer(SMALL)
    torch.save({"state_dict": official, "epoch": 3}, tmp_path / "sana.pth")
    ours = load_transformer(tmp_path / "sana.pth", config=SMALL).state_dict()
    # diffusers' converter knows no query-key norms; the four names of each block are checked by hand.
    plain = {key: value.clone() for key, value in official.items() if not re.search(r"[qk]_norm", key)}
    expected = single_file.convert_sana_transformer_to_diffusers(plain)
    for i in range(SMALL.num_layers):
        for part, target in (("attn", "attn1"), ("cross_attn", "attn2")):
            for norm in "qk":
                source = official[f"blocks.{i}.{part}.{norm}_norm.weight"]
                expected[f"transformer_blocks.{i}.{target}.norm_{norm}.weight"] = source
    assert ours.keys() == expected.keys()
    for key, value in expected.items():
        assert torch.equal(ours[key], value), key


def test_official_sprint_file_puts_time_and_guidance_where_diffusers_has_them(tmp_path):
    """diffusers' converter of single files knows no SANA-Sprint; its script names these."""
    config = small_sana(guidance_embeds=True)
    official = official_transformer(config)
    torch.save({"state_dict": official}, tmp_path / "sprint.pth")
    ours = load_transformer(tmp_path / "sprint.pth", config=config).state_dict()
    for source, target in (("t_embedder", "timestep_embedder"), ("cfg_embedder", "guidance_embedder")):
        for layer, number in ((0, 1), (2, 2)):
            for leaf in ("weight", "bias"):
                found = ours[f"time_embed.{target}.linear_{number}.{leaf}"]
                assert torch.equal(found, official[f"{source}.mlp.{layer}.{leaf}"])


def test_official_autoencoder_file_equals_diffusers_conversion(tmp_path):
    single_file = pytest.importorskip("diffusers.loaders.single_file_utils")
    official = official_autoencoder(small_dc_ae())
    torch.save(official, tmp_path / "dc_ae.pth")
    ours = load_autoencoder(tmp_path / "dc_ae.pth", config=small_dc_ae()).state_dict()
    expected = single_file.convert_autoencoder_dc_checkpoint_to_diffusers(dict(official))
    assert ours.keys() == expected.keys()
    for key, value in expected.items():
        assert torch.equal(ours[key], value), key


def test_official_files_need_a_known_configuration(tmp_path):
    torch.save(official_transformer(SMALL), tmp_path / "sana.pth")
    with pytest.raises(ValueError, match="needs a config"):
        load_transformer(tmp_path / "sana.pth")
    with pytest.raises(ValueError, match=r"config is 'sana-9b'.*sana-0\.6b-512"):
        load_transformer(tmp_path / "sana.pth", config="sana-9b")


def test_official_file_of_another_depth_is_one_line(tmp_path):
    torch.save(official_transformer(SMALL), tmp_path / "sana.pth")
    with pytest.raises(CheckpointError, match=r"23 missing \(transformer_blocks\.2\.") as error:
        load_transformer(tmp_path / "sana.pth", config=replace(SMALL, num_layers=3))
    assert "\n" not in str(error.value)


def test_unknown_official_entries_are_named(tmp_path):
    torch.save(official_transformer(SMALL) | {"logvar_linear.weight": torch.zeros(3)}, tmp_path / "sana.pth")
    with pytest.raises(CheckpointError, match=r"1 unexpected \(logvar_linear\.weight\)"):
        load_transformer(tmp_path / "sana.pth", config=SMALL)


def test_official_file_in_a_pipeline(tmp_path, tiny_pipeline_dir):
    path = tmp_path / "sana.pth"
    config = SanaConfig.from_dict(read_config(tiny_pipeline_dir / "transformer"))
    torch.save(official_transformer(config), path)
    pipeline = load_pipeline(tiny_pipeline_dir, transformer=path, config=config)
    alone = load_transformer(path, config=config)
    for key, value in pipeline.transformer.state_dict().items():
        assert torch.equal(value, alone.state_dict()[key]), key
    assert pipeline(["a red circle"], seeds=[0], height=64, width=64, steps=2).shape == (1, 64, 64, 3)
    with pytest.raises(CheckpointError, match=r"sana.pth: holds a transformer only; give the folder"):
        load_pipeline(path)
