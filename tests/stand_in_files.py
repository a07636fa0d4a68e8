"""Random stand-ins for the files of the full tier: published names, layouts and formats; a writer for each asset of the table.

Networks whose size a format fixes (Swin-S, ViT-L, ViT-H, Inception) have it, all others are small.
"""

import json
import math
import string
import zipfile
from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

#: What the stand-ins' prompts are made of.
WORDS = (
    "a",
    "photo",
    "of",
    "the",
    "red",
    "green",
    "blue",
    "cup",
    "wooden",
    "table",
    "old",
    "man",
    "soft",
    "light",
)
_N_MJHQ = 12


def draw(shapes: Mapping[str, Sequence[int]], seed: int = 0) -> dict[str, Tensor]:
    """Random float16 tensors by name: norms near one, biases near zero, matrices by fan-in."""
    generator = torch.Generator().manual_seed(seed)
    found = {}
    for name, shape in shapes.items():
        if len(shape) < 2:
            is_norm = name.endswith("weight")
            tensor = 0.05 * torch.randn(tuple(shape), generator=generator) + is_norm
        else:
            tensor = torch.randn(tuple(shape), generator=generator) / math.sqrt(math.prod(shape[1:]))
        found[name] = tensor.half()
    return found


# Evaluators


def _geneval_detector(data: Path) -> None:
    """MMDetection's checkpoint: its names, beside the settings of a training."""
    from sana_bench.metrics.selfcheck import golden_files

    shapes = golden_files.mask2former_keys()["official"]
    weights = draw({name: shape for name, shape in shapes.items() if "relative_position_index" not in name})
    content = {"meta": {"mmdet_version": "2.28.2", "epoch": 50}, "state_dict": weights}
    _save(content, data / "geneval/mask2former_swin-s-p4-w7-224_lsj_8x2_50e_coco.pth")


def _geneval_detector_hub(data: Path) -> None:
    """The hub's repository of the detector, small, as the configuration in it says."""
    from sana_bench.metrics.selfcheck.detectors import save_hub, small_config
    from sana_models.libraries import without_torchao

    with without_torchao():
        from transformers import Mask2FormerForUniversalSegmentation
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = Mask2FormerForUniversalSegmentation(small_config())
    save_hub(network, data / "geneval/mask2former-swin-small-coco-instance")


def _open_clip(model: str) -> dict[str, Tensor]:
    """The tensors of a network that open_clip knows, at its size."""
    from sana_models.libraries import without_torchao

    with without_torchao():
        import open_clip
    with torch.device("meta"):
        network = open_clip.CLIP(**open_clip.get_model_config(model))
    shapes = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    return draw(shapes) | {"logit_scale": torch.tensor(math.log(100)).half()}


def _openai_clip(model: str) -> Callable[[Path], None]:
    """OpenAI's CLIP as timm publishes it for open_clip."""

    def write(data: Path) -> None:
        from safetensors.torch import save_file

        path = data / f"clip/{model}-openai.safetensors"
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(_open_clip(model), path)

    return write


def _hps(file: str) -> Callable[[Path], None]:
    return lambda data: _save({"state_dict": _open_clip("ViT-H-14")}, data / "hpsv2" / file)


def _inception_pytorch(data: Path) -> None:
    from tests.metrics.fid.inception_cases import random_state

    _save(random_state(), data / "inception/pt_inception-2015-12-05-6726825d.pth")


def _inception_torchscript(data: Path) -> None:
    from tests.metrics.fid.inception_cases import random_state, torchscript_file

    path = data / "inception/inception-2015-12-05.pt"
    path.parent.mkdir(parents=True, exist_ok=True)
    torchscript_file(path, random_state())


def _dinov2(data: Path) -> None:
    write_dinov2(data / "dinov2-large")


def write_dinov2(folder: Path) -> Path:
    """DINOv2 at small size, saved as it is published."""
    from sana_models.libraries import without_torchao

    with without_torchao():
        from transformers import Dinov2Config, Dinov2Model
    config = Dinov2Config(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, image_size=70, patch_size=14
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = Dinov2Model(config)
    network.save_pretrained(folder)
    return folder / "model.safetensors"


def _reward_config() -> dict[str, Any]:
    from sana_bench.metrics.selfcheck.encoders import reward_config

    return dict(reward_config())


def _image_reward_weights(data: Path) -> None:
    """ImageReward's own names: its ViT-L/16 at its size, its text side small, as `med_config.json` beside it says."""
    from sana_bench.metrics.image_reward.network import RewardNetwork, VisionSize, published_name

    with torch.device("meta"):
        network = RewardNetwork(VisionSize(), _reward_config())
    shapes = {
        published_name(name): tuple(tensor.shape)
        for name, tensor in network.state_dict().items()
        if not name.endswith("position_ids")
    }
    _save(draw(shapes), data / "image_reward/ImageReward.pt")


def _image_reward_config(data: Path) -> None:
    _text(data / "image_reward/med_config.json", json.dumps(_reward_config()))


def _bert_vocabulary(data: Path) -> None:
    from sana_bench.metrics.selfcheck.recipes.image_reward import vocabulary

    _text(data / "image_reward/vocab.txt", "".join(f"{word}\n" for word in vocabulary()))


def _mplug(data: Path) -> None:
    """ModelScope's folder: configurations, vocabulary, and the weights as a pickle under `model`."""
    from safetensors.torch import load_file

    from sana_bench.judges.mplug.config import PICKLE_FILE, SAFETENSORS_FILE
    from tests.tiny_weights import write_tiny_vqa

    folder = write_tiny_vqa(data / "mplug")
    _save({"model": load_file(folder / SAFETENSORS_FILE)}, folder / PICKLE_FILE)
    (folder / SAFETENSORS_FILE).unlink()


def _pickscore(data: Path) -> None:
    from sana_bench.metrics.selfcheck.preference import write_pick

    write_pick(_made(data / "pickscore"))


def _aesthetic_head(data: Path) -> None:
    from sana_bench.metrics.selfcheck.preference import write_head

    folder = _made(data / "aesthetic")
    write_head(folder).rename(folder / "sac+logos+ava1-l14-linearMSE.pth")


#: A file as that of HPSv3's authors: other code stands around the two texts.
HPSV3_REQUEST = '''"""A file as the authors': other code stands around the texts."""
import nothing_that_is_installed

INSTRUCTION = """
Rate it {{twice}}. Textual prompt - {text_prompt}
"""

prompt_with_special_token = """
The rating: <|Reward|>

END
"""

raise RuntimeError("run")
'''


def write_hpsv3_files(folder: Path) -> tuple[Path, Path, Path, Path]:
    """HPSv3's weights, configuration, tokenizer and request, small."""
    from sana_bench.metrics.selfcheck.preference import write_hpsv3
    from sana_bench.metrics.selfcheck.recipes.preference import HPSV3
    from tests.tiny_qwen import small_tokenizer

    tokenizer = small_tokenizer()
    tokenizer.backend_tokenizer.save(str(folder / "tokenizer.json"))
    place = tokenizer.convert_tokens_to_ids("<|image_pad|>")
    weights, described = write_hpsv3(
        folder, HPSV3 | {"vocab_size": len(tokenizer) + 1, "image_token_id": place}
    )
    request = folder / "data_collator_qwen.py"
    request.write_text(HPSV3_REQUEST)
    return weights, described, folder / "tokenizer.json", request


def _hpsv3(data: Path) -> None:
    write_hpsv3_files(_made(data / "hpsv3"))


def _csd(data: Path) -> None:
    from tests.metrics.oneig.tiny_encoders import write_csd

    write_csd(data / "csd/pytorch_model.bin")


def _dreamsim(data: Path) -> None:
    """DINO's file, the archive of the other two towers and the adapter, and what is unpacked of it."""
    from sana_bench.metrics.selfcheck.readings import write_dreamsim

    folder = _made(data / "dreamsim")
    if (folder / "ensemble_lora").is_dir():
        return
    write_dreamsim(folder)
    (folder / "dino.pth").rename(folder / "dino_vitbase16_pretrain.pth")
    members = [path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("dino")]
    with zipfile.ZipFile(folder / "dreamsim_ensemble_checkpoint.zip", "w") as archive:
        for path in sorted(members):
            archive.write(path, path.relative_to(folder))


# Prompts and reference images


def _prompt(place: int) -> str:
    first, second, third = (WORDS[4 + (place * step) % (len(WORDS) - 4)] for step in (1, 3, 7))
    return f"a photo of the {first} {second} with {third} {place}"


def _mjhq30k(data: Path) -> None:
    """`meta_data.json` and the archive of images, a folder a category."""
    categories = ("animals", "art", "people")
    rng = np.random.default_rng(0)
    entries, archive = {}, data / "mjhq30k/mjhq30k_imgs.zip"
    archive.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(archive, "w") as members:
        for place in range(_N_MJHQ):
            name, category = f"{place:040x}", categories[place % len(categories)]
            entries[name] = {"category": category, "prompt": f"{_prompt(place)} --ar 1:1"}
            picture = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).resize((256, 256))
            content = BytesIO()
            picture.save(content, "JPEG")
            members.writestr(f"{category}/{name}.jpg", content.getvalue())
    _text(data / "mjhq30k/meta_data.json", json.dumps(entries))


def _mjhq30k_images(data: Path) -> None:
    _mjhq30k(data)
    with zipfile.ZipFile(data / "mjhq30k/mjhq30k_imgs.zip") as members:
        members.extractall(data / "mjhq30k/mjhq30k_imgs")


def _dpg_bench_questions(data: Path) -> None:
    """The published table's columns; the question that the published script never asks has no child."""
    lines = [
        "item_id,text,keywords,proposition_id,dependency,category_broad,category_detailed,tuple,question_natural_language"
    ]
    for place in range(8):
        item, text = f"stand-in-{place}", _prompt(place)
        lines += [
            f'{item},{text},,1,0,global,,"global - (photo)",Is it a photo?',
            f'{item},,,2,0,entity,whole,"entity - whole (ring)",Is there a ring?',
            f'{item},,,3,2,attribute,color,"attribute - color (ring, red)",Is the ring red?',
        ]
    _text(data / "dpg_bench/dpg_bench.csv", "\n".join(lines) + "\n")


def _image_reward_prompts(data: Path) -> None:
    entries = [{"id": f"{place:06d}-0000", "prompt": _prompt(place)} for place in range(100)]
    _text(data / "image_reward/benchmark-prompts.json", json.dumps(entries))


def _hpdv2_prompts(data: Path) -> None:
    from sana_bench.benchmarks.hpdv2 import STYLES

    for style in STYLES:
        _text(
            data / f"hpdv2/{style}.json", json.dumps([f"{_prompt(place)}, {style}" for place in range(800)])
        )


def _geneval2_prompts(data: Path) -> None:
    lines = [
        {
            "prompt": f"{number} red cats",
            "atom_count": 3 + number % 8,
            "vqa_list": [["How many cats are there?", "two"], ["Are the cats red?", "Yes"]],
            "skills": ["count", "attribute"],
        }
        for number in range(800)
    ]
    _lines(data / "geneval2/geneval2_data.jsonl", lines)


def _longtext_prompts(data: Path) -> None:
    """In English and in Chinese."""
    for name, text in (
        ("text_prompts", ["Open", "daily"]),
        ("text_prompts_zh", [f"每日 {string.ascii_letters}"]),
    ):
        lines = [
            {"category": f"c{number % 2}", "prompt": f"a sign {number}", "text": text, "prompt_id": number}
            for number in range(160)
        ]
        _lines(data / f"longtext/{name}.jsonl", lines)


def _oneig_prompts(data: Path) -> None:
    from sana_bench.benchmarks.oneig import CATEGORIES

    rows = ["category,id,prompt_en,type,prompt_length,class\n"]
    for category, count in CATEGORIES.items():
        styled = category == "Anime_Stylization"
        rows += [
            f"{category},{n:03d},{category} {n},NP,long,{'Line Art' if styled else ''}\n"
            for n in range(count)
        ]
    _text(data / "oneig/OneIG-Bench.csv", "".join(rows))
    asked = {"question": '{"1": "Is there a cat?", "2": "Is it red?"}', "dependency": '{"1": [0], "2": [1]}'}
    for name, category in (
        ("anime", "Anime_Stylization"),
        ("human", "Portrait"),
        ("object", "General_Object"),
    ):
        questions = {f"{n:03d}": asked for n in range(CATEGORIES[category])}
        _text(data / f"oneig/{name}.json", json.dumps(questions))
    texts = [f"{n:03d},{string.ascii_lowercase}\n" for n in range(CATEGORIES["Text_Rendering"])]
    _text(data / "oneig/text_content.csv", "id,text_content\n" + "".join(texts))


def _oneig_style_references(data: Path) -> None:
    for name, width in (("CSD_embed", 16), ("SE_embed", 12)):
        _save({"line_art": torch.randn(3, width)}, data / f"oneig/{name}.pt")


#: A writer for each asset, given the data folder; of assets that lie in one folder it may write all.
ASSETS: dict[str, Callable[[Path], None]] = {
    "geneval_detector": _geneval_detector,
    "geneval_detector_hub": _geneval_detector_hub,
    "clip_vit_l_14": _openai_clip("ViT-L-14-quickgelu"),
    "clip_vit_l_14_336": _openai_clip("ViT-L-14-336-quickgelu"),
    "inception_pytorch": _inception_pytorch,
    "inception_torchscript": _inception_torchscript,
    "dinov2_large": _dinov2,
    "image_reward_weights": _image_reward_weights,
    "image_reward_config": _image_reward_config,
    "bert_vocabulary": _bert_vocabulary,
    "image_reward_prompts": _image_reward_prompts,
    "mplug": _mplug,
    "dpg_bench_questions": _dpg_bench_questions,
    "mjhq30k_prompts": _mjhq30k,
    "mjhq30k_images": _mjhq30k_images,
    "geneval2_prompts": _geneval2_prompts,
    "longtext_prompts": _longtext_prompts,
    "longtext_zh_prompts": _longtext_prompts,
    "hpdv2_prompts": _hpdv2_prompts,
    "hpsv2_weights": _hps("HPS_v2_compressed.pt"),
    "hpsv2_1_weights": _hps("HPS_v2.1_compressed.pt"),
    "hpsv3_weights": _hpsv3,
    "hpsv3_config": _hpsv3,
    "hpsv3_tokenizer": _hpsv3,
    "hpsv3_request": _hpsv3,
    "pickscore_weights": _pickscore,
    "pickscore_config": _pickscore,
    "pickscore_tokenizer": _pickscore,
    "aesthetic_head": _aesthetic_head,
    "oneig_prompts": _oneig_prompts,
    "oneig_style_references": _oneig_style_references,
    "csd_vit_l_14": _csd,
    "dino_vit_b_16": _dreamsim,
    "dreamsim_ensemble": _dreamsim,
}


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _save(content: Any, path: Path) -> None:
    torch.save(content, _made(path.parent) / path.name)


def _text(path: Path, text: str) -> None:
    (_made(path.parent) / path.name).write_text(text, encoding="utf-8")


def _lines(path: Path, records: Sequence[Mapping[str, Any]]) -> None:
    _text(path, "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records))
