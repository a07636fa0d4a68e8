"""Make mask2former.npz and mask2former_keys.json.gz of sana_bench/metrics/selfcheck/golden, and masks.npz beside this file, with
mmdet 2.28.2 and mmcv 1.7.2.

The README says how to install them. mmcv without compiled operators is enough: deformable attention has a path in plain PyTorch.
"""
# ruff: noqa: E402

import gzip
import hashlib
import json
import sys
import types
from pathlib import Path

import cv2
import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[3]
GOLDEN = ROOT / "sana_bench/metrics/selfcheck/golden"
MASKS = Path(__file__).resolve().parent / "masks.npz"
sys.path.insert(0, str(ROOT))
from sana_bench.metrics.selfcheck.recipes import mask2former as recipe


class _Missing(types.ModuleType):
    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)

        def refuse(*_args, **_kwargs):
            raise RuntimeError(f"mmcv was built without operators, {name} was called")

        return refuse


sys.modules["mmcv._ext"] = _Missing("mmcv._ext")

import mmdet
from mmcv import Config
from mmdet.datasets.pipelines import Compose
from mmdet.models import build_detector

CONFIG = "mask2former/mask2former_swin-s-p4-w7-224_lsj_8x2_50e_coco.py"
RESIZES = ((1024, 1024), (512, 512), (768, 1344), (1333, 700), (400, 400), (37, 61))


def official():
    config = Config.fromfile(str(Path(mmdet.__file__).parent / ".mim/configs" / CONFIG))
    config.model.backbone.init_cfg = None
    return config


def small(config):
    model = config.model
    model.backbone.update(embed_dims=16, depths=[1, 1, 2, 1], num_heads=[1, 2, 4, 4], window_size=7)
    head = model.panoptic_head
    head.update(in_channels=[16, 32, 64, 128], feat_channels=64, out_channels=64, num_queries=20)
    encoder = head.pixel_decoder.encoder
    encoder.num_layers = 2
    encoder.transformerlayers.attn_cfgs.embed_dims = 64
    encoder.transformerlayers.ffn_cfgs.update(embed_dims=64, feedforward_channels=96)
    head.pixel_decoder.positional_encoding.num_feats = 32
    head.positional_encoding.num_feats = 32
    decoder = head.transformer_decoder
    decoder.num_layers = 3
    decoder.transformerlayers.attn_cfgs.embed_dims = 64
    decoder.transformerlayers.ffn_cfgs.update(embed_dims=64, feedforward_channels=80)
    decoder.transformerlayers.feedforward_channels = 80
    return config


def shapes(model):
    return {name: list(tensor.shape) for name, tensor in model.state_dict().items()}


def fill(model):
    state = {
        name: tensor
        if "relative_position_index" in name or "class_weight" in name
        else torch.from_numpy(recipe.weight(name, tuple(tensor.shape)))
        for name, tensor in model.state_dict().items()
    }
    model.load_state_dict(state)
    return model.eval()


def pipeline(config, scale):
    steps = config.test_pipeline[1:]
    steps[0].img_scale = scale
    return Compose(steps)


def prepared(steps, rgb):
    bgr = np.ascontiguousarray(rgb[..., ::-1])
    data = steps({
        "img": bgr, "img_shape": bgr.shape, "ori_shape": bgr.shape, "img_fields": ["img"],
        "filename": None, "ori_filename": None,
    })  # fmt: skip
    pixels, meta = data["img"][0], data["img_metas"][0].data
    # As the detector's own test loop does.
    return pixels, {**meta, "batch_input_shape": tuple(pixels.shape[-2:])}


@torch.no_grad()
def main():
    torch.set_num_threads(1)
    config = official()
    everything = build_detector(config.model)
    keys = {"official": shapes(everything)}
    del everything
    config = small(config)
    model = fill(build_detector(config.model))
    keys["small"] = shapes(model)
    golden, whole = {}, {}
    for index, size in enumerate(recipe.SIZES):
        rgb = recipe.image(index, size)
        pixels, meta = prepared(pipeline(config, recipe.SCALE), rgb)
        features = model.extract_feat(pixels[None])
        classes, masks = model.panoptic_head(features, [meta])
        ((boxes, binary),) = model.simple_test(pixels[None], [meta], rescale=True)
        found = [
            (label, *box, *_digest(mask))
            for label in range(80)
            for box, mask in zip(boxes[label], binary[label], strict=True)
        ]
        golden[f"{index}/pixels"] = pixels.numpy()[:, ::16, ::16]
        golden[f"{index}/classes"] = classes[-1][0].numpy()
        golden[f"{index}/masks"] = masks[-1][0].numpy()[:, ::4, ::4]
        # Too many for the package; the tests compare all of them.
        whole[str(index)] = masks[-1][0].numpy()
        golden[f"{index}/found"] = np.array(found, dtype=np.float64)
        print(index, rgb.shape, tuple(pixels.shape), len(found), golden[f"{index}/found"][:3])
    resized = {}
    for height, width in RESIZES:
        _, meta = prepared(pipeline(official(), (1333, 800)), recipe.image(0, (height, width)))
        new_height, new_width = meta["img_shape"][:2]
        out = cv2.resize(recipe.image(0, (height, width)), (new_width, new_height))
        resized[f"{height}x{width}"] = [new_height, new_width, hashlib.sha256(out.tobytes()).hexdigest()]
    np.savez_compressed(GOLDEN / "mask2former.npz", **golden)
    np.savez_compressed(MASKS, **whole)
    with gzip.GzipFile(GOLDEN / "mask2former_keys.json.gz", "wb", mtime=0) as file:
        file.write(json.dumps({**keys, "resized": resized}).encode())


def _digest(mask):
    """Two numbers that two different masks hardly share: the area, and a sum weighted by place."""
    places = np.arange(mask.size).reshape(mask.shape)
    return float(mask.sum()), float((places * mask).sum())


if __name__ == "__main__":
    main()
