"""Makes `numbers.json`, `pixels.npz`, `networks.npz` and `micro.npz` of sana_bench/metrics/selfcheck/golden.

Run in the project's own environment with its test extra, of which the references are part:

    python tests/golden/selfcheck/make.py

Distances come from scipy and clean-fid, resizes from clean-fid, torchvision and torch, features from pytorch-fid and
transformers. The micro world's values are its own: scenes as drawn, and the scores of the weights that are shipped. So
are the seeded intervals.

With `--micro` only the micro world's values are made again, after its CLIP was trained anew.
"""

import json
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import scipy.linalg
import scipy.stats
import torch
from PIL import Image

ROOT = Path(__file__).resolve().parents[3]
sys.path[:0] = [str(ROOT), *(str(ROOT / name) for name in ("models", "kernels", "reports"))]

from sana_bench.assets.locate import micro_weights_root  # noqa: E402
from sana_bench.metrics.clip.micro_features import ClipFeatures  # noqa: E402
from sana_bench.metrics.selfcheck import chains, encoders, sums  # noqa: E402
from sana_bench.metrics.selfcheck.golden_files import FOLDER  # noqa: E402
from sana_bench.metrics.selfcheck.recipes.plain import (  # noqa: E402
    CLIP,
    CLIP_TOKENS,
    inception_weight,
    picture,
    uniform,
    vectors,
)
from sana_bench.micro.captions import sample_training_pair  # noqa: E402
from sana_bench.micro.claims import sample_claim  # noqa: E402
from sana_bench.micro.renderer import render  # noqa: E402
from sana_bench.micro.truth import detections_of  # noqa: E402

N_SCENES = 12
QUESTIONS = 4


def frechet(n):
    first, second = (vectors(name, n, sums.WIDTH) for name in ("first", "second"))
    covariances = np.cov(first, rowvar=False), np.cov(second, rowvar=False)
    product = covariances[0] @ covariances[1]
    if n <= sums.WIDTH:
        # scipy's root of a singular product is not real; the trace by the nuclear norm of the factors' product.
        factors = [(rows - rows.mean(0)) / np.sqrt(n - 1) for rows in (first, second)]
        trace = scipy.linalg.svdvals(factors[0] @ factors[1].T).sum()
    else:
        trace = np.trace(scipy.linalg.sqrtm(product).real)
    offset = first.mean(0) - second.mean(0)
    return float(offset @ offset + np.trace(covariances[0]) + np.trace(covariances[1]) - 2 * trace)


def kernel():
    from cleanfid.fid import kernel_distance

    first, second = (vectors(name, sums.N_VECTORS, sums.WIDTH) for name in ("first", "second"))
    # One subset of everything: the order it is drawn in does not matter.
    return float(kernel_distance(first, second, num_subsets=1, max_subset_size=sums.N_VECTORS))


def kernel_mean():
    """clean-fid's own mean over random subsets, and one of its largest size; drawn from a seed, not NumPy's global state."""
    from unittest.mock import patch

    from cleanfid.fid import kernel_distance

    def distance(n_first, n_second, **options):
        first, second = vectors("first", n_first, sums.WIDTH), vectors("second", n_second, sums.WIDTH)
        with patch("numpy.random.choice", np.random.default_rng(sums.SEED).choice):
            return float(kernel_distance(first, second, **options))

    return {
        "subsets": distance(sums.SHORT, sums.N_VECTORS),
        "largest": distance(sums.LONG, sums.LONG, num_subsets=1),
    }


def pixels():
    from cleanfid.resize import build_resizer
    from torch.nn.functional import interpolate
    from torchvision.transforms import CenterCrop, Compose, Resize, ToTensor

    image = picture("resize", *chains.SIZE)
    picture_ = Image.fromarray(image)
    path = Path(sys.argv[0]).with_suffix(".jpg")
    picture_.save(path)
    jpeg = np.asarray(Image.open(path))
    path.unlink()
    crop = Compose([Resize(chains.SANA_SIZE), CenterCrop(chains.SANA_SIZE), ToTensor()])(picture_)

    def legacy(planes):
        large = interpolate(planes[None], (299, 299), mode="bilinear", align_corners=False)[0]
        return chains.thin(255 * large.numpy())

    clean = build_resizer("clean")(image).transpose(2, 0, 1)
    return {
        "clean": chains.thin(clean).astype(np.float32),
        "legacy": legacy(ToTensor()(picture_)).astype(np.float32),
        "sana": legacy(crop).astype(np.float32),
        "jpeg": jpeg[::11, ::13],
    }


def inception():
    from pytorch_fid import inception as module

    def draw(model):
        return {
            name: tensor
            if name.endswith("num_batches_tracked")
            else torch.from_numpy(inception_weight(name, tuple(tensor.shape)))
            for name, tensor in model.state_dict().items()
        }

    original = torch.nn.Module.load_state_dict
    module.load_state_dict_from_url = lambda *_, **__: None
    torch.nn.Module.load_state_dict = lambda model, state: original(model, draw(model))
    network = module.InceptionV3([3], resize_input=False, normalize_input=False).eval()
    torch.nn.Module.load_state_dict = original
    with torch.inference_mode():
        features = network(torch.from_numpy(uniform("inception", (1, 3, 299, 299))))[0][0, :, 0, 0]
    return features.numpy()[::8]


def _to_transformers(state):
    """open_clip's tensors under the names of transformers' CLIPModel."""
    out = {}

    def block(source, target):
        for part in ("weight", "bias"):
            q, k, v = state[f"{source}.attn.in_proj_{part}"].chunk(3)
            for letter, tensor in zip("qkv", (q, k, v), strict=True):
                out[f"{target}.self_attn.{letter}_proj.{part}"] = tensor
            out[f"{target}.self_attn.out_proj.{part}"] = state[f"{source}.attn.out_proj.{part}"]
            out[f"{target}.layer_norm1.{part}"] = state[f"{source}.ln_1.{part}"]
            out[f"{target}.layer_norm2.{part}"] = state[f"{source}.ln_2.{part}"]
            out[f"{target}.mlp.fc1.{part}"] = state[f"{source}.mlp.c_fc.{part}"]
            out[f"{target}.mlp.fc2.{part}"] = state[f"{source}.mlp.c_proj.{part}"]

    for layer in range(2):
        block(f"visual.transformer.resblocks.{layer}", f"vision_model.encoder.layers.{layer}")
        block(f"transformer.resblocks.{layer}", f"text_model.encoder.layers.{layer}")
    for part in ("weight", "bias"):
        out[f"vision_model.pre_layrnorm.{part}"] = state[f"visual.ln_pre.{part}"]
        out[f"vision_model.post_layernorm.{part}"] = state[f"visual.ln_post.{part}"]
        out[f"text_model.final_layer_norm.{part}"] = state[f"ln_final.{part}"]
    return out | {
        "vision_model.embeddings.class_embedding": state["visual.class_embedding"],
        "vision_model.embeddings.position_embedding.weight": state["visual.positional_embedding"],
        "vision_model.embeddings.patch_embedding.weight": state["visual.conv1.weight"],
        "text_model.embeddings.token_embedding.weight": state["token_embedding.weight"],
        "text_model.embeddings.position_embedding.weight": state["positional_embedding"],
        "visual_projection.weight": state["visual.proj"].T,
        "text_projection.weight": state["text_projection"].T,
        "logit_scale": state["logit_scale"],
    }


def clip():
    from transformers import CLIPConfig, CLIPModel

    vision, text = CLIP["vision_cfg"], CLIP["text_cfg"]
    shared = {"hidden_act": "quick_gelu", "projection_dim": CLIP["embed_dim"], "num_hidden_layers": 2}
    config = CLIPConfig(
        projection_dim=CLIP["embed_dim"],
        vision_config={
            **shared, "hidden_size": vision["width"], "intermediate_size": 4 * vision["width"],
            "num_attention_heads": vision["width"] // vision["head_width"], "image_size": vision["image_size"],
            "patch_size": vision["patch_size"],
        },
        text_config={
            **shared, "hidden_size": text["width"], "intermediate_size": 4 * text["width"],
            "num_attention_heads": text["heads"], "vocab_size": text["vocab_size"],
            "max_position_embeddings": text["context_length"], "eos_token_id": 49, "bos_token_id": 48, "pad_token_id": 0,
        },
    )  # fmt: skip
    model = CLIPModel(config).eval()
    state = dict(encoders.clip_network().state_dict())
    missing, unexpected = model.load_state_dict(_to_transformers(state), strict=False)
    assert not unexpected, unexpected
    assert all(name.endswith("position_ids") for name in missing), missing
    with torch.inference_mode():
        images = model.get_image_features(pixel_values=torch.from_numpy(uniform("clip", (2, 3, 32, 32))))
        texts = model.get_text_features(input_ids=torch.tensor(CLIP_TOKENS))
    images, texts = (getattr(found, "pooler_output", found) for found in (images, texts))
    unit = [found / found.norm(dim=-1, keepdim=True) for found in (images, texts)]
    return {"clip_images": unit[0].numpy(), "clip_texts": unit[1].numpy()}


def micro():
    rng = np.random.default_rng(2024)
    scenes, images = [], []
    while len(scenes) < N_SCENES:
        scene, caption = sample_training_pair(rng)
        claims = [sample_claim(scene, rng, truth=turn % 2 == 0) for turn in range(QUESTIONS)]
        images.append(render(scene))
        objects = [{key: one[key] for key in ("label", "color", "box")} for one in detections_of(scene)]
        questions = [[claim.question, "yes" if claim.holds(scene) else "no"] for claim in claims]
        scenes.append({"caption": caption, "objects": objects, "questions": questions})
    features = ClipFeatures(micro_weights_root() / "clip")
    pictures = features.network.encode_images(np.stack(images)).astype(np.float64)
    texts = features.of_texts([scene["caption"] for scene in scenes]).astype(np.float64)
    np.savez_compressed(FOLDER / "micro.npz", images=np.stack(images))
    scores = (100 * pictures @ texts.T).round(6).tolist()
    return {"clip_sha256": features.weights_sha256, "clip_scores": scores, "scenes": scenes}


def everything():
    wilson = scipy.stats.binomtest(8, 10).proportion_ci(0.95, method="wilson")
    np.savez_compressed(FOLDER / "pixels.npz", **pixels())
    np.savez_compressed(FOLDER / "networks.npz", inception=inception(), **clip())
    names = ("numpy", "scipy", "torch", "torchvision", "clean-fid", "pytorch-fid", "transformers", "pillow")
    return {
        "made_with": {name: version(name) for name in names},
        "frechet": {"full": frechet(sums.N_VECTORS), "singular": frechet(sums.SHORT)},
        "kernel": kernel(),
        "kernel_mean": kernel_mean(),
        "intervals": {
            name: {"value": one.value, "low": one.low, "high": one.high}
            for name, one in sums.bootstrap_intervals().items()
        },
        "quantiles": {
            "wilson_low": float(wilson.low), "wilson_high": float(wilson.high),
            "t": float(scipy.stats.t.ppf(0.975, 19)),
        },
    }  # fmt: skip


def main():
    torch.set_num_threads(1)
    path = FOLDER / "numbers.json"
    rest = json.loads(path.read_text()) if "--micro" in sys.argv[1:] else everything()
    path.write_text(json.dumps({**rest, "micro": micro()}, indent=1) + "\n")


if __name__ == "__main__":
    main()
