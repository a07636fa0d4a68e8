"""Writes `sana_bench/metrics/selfcheck/golden/mplug.json.gz` with modelscope's own mPLUG.

Run it in an environment of its own, not in the project's.

Made with Python 3.11, modelscope 1.9.5, transformers 4.30.2, numpy 1.26.4, torch 2.15 (CPU); modelscope needs
no change but one: it hard-codes the width of CLIP's position table, which small configurations replace.

    python make_golden.py
"""

import ast
import gzip
import itertools
import json
import os.path
import sys
import tempfile
from pathlib import Path
from typing import Any, Union

import modelscope
import torch
import yaml
from modelscope.models.multi_modal.mplug import modeling_mplug
from modelscope.models.multi_modal.mplug.modeling_mplug import MPlug
from modelscope.utils.config import Config
from modelscope.utils.constant import ModeKeys, ModelFile, Tasks
from PIL import Image

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT))
from sana_bench.metrics.selfcheck.recipes import mplug as cases  # noqa: E402


def _preprocessor_class():
    """modelscope's class from its source file: importing that module would need video and data set packages."""
    path = Path(modelscope.__file__).parent / "preprocessors" / "multi_modal.py"
    text = path.read_text()
    node = next(n for n in ast.parse(text).body if getattr(n, "name", "") == "MPlugPreprocessor")
    names = {
        "Any": Any,
        "Dict": dict,
        "Tuple": tuple,
        "Union": Union,
        "Preprocessor": object,
        "Image": Image,
        "torch": torch,
        "osp": os.path,
        "Config": Config,
        "ModeKeys": ModeKeys,
        "ModelFile": ModelFile,
        "Tasks": Tasks,
    }
    node.decorator_list = []
    exec(compile(ast.Module([node], []), str(path), "exec"), names)
    return names["MPlugPreprocessor"]


_initialize_clip = MPlug._initialize_clip


def _small_clip(config):
    clip = _initialize_clip(config)
    tokens = (config.image_res // config.clip_vision_patch_size) ** 2 + 1
    clip.visual.positional_embedding = torch.nn.Parameter(torch.zeros(tokens, config.clip_vision_width))
    return clip


def _write_directory(folder, network, bert):
    (folder / "configuration.json").write_text(json.dumps({"task": network["task"], "framework": "pytorch"}))
    (folder / "config.yaml").write_text(yaml.safe_dump(network))
    (folder / "config_bert.json").write_text(json.dumps(bert))
    (folder / "vocab.txt").write_text("".join(f"{word}\n" for word in cases.VOCABULARY))


def _shorten(tensor):
    """Every seventh position, a few features of each: enough to see any difference."""
    return [[float(f"{x:.8g}") for x in row] for row in tensor[0, ::7, ::13].tolist()]


def golden(name):
    network, bert, end_bias = cases.CONFIGS[name]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        _write_directory(folder, network, bert)
        fresh = MPlug.from_pretrained(temporary, load_checkpoint=False)
        shapes = {key: list(value.shape) for key, value in fresh.state_dict().items()}
        state = {
            key: torch.from_numpy(cases.draw(key, tuple(shape), end_bias)) for key, shape in shapes.items()
        }
        torch.save(
            {"module": {f"model.{key}": value for key, value in state.items()}}, folder / "pytorch_model.bin"
        )
        model = MPlug.from_pretrained(temporary).eval()
        preprocess = _preprocessor_class()(temporary)
        records = [_record(model, preprocess, i, q) for i in range(2) for q in cases.QUESTIONS]
    return {"tensors": shapes, "records": records}


@torch.no_grad()
def _record(model, preprocess, index, question):
    data = preprocess((Image.fromarray(cases.image(index)), question))
    ids, mask = data["question"].input_ids, data["question"].attention_mask
    image = model.visual_encoder.visual(data["image"], skip_last_layer=True)
    if model.large:
        image = model.visn_layer_norm(model.visn_fc(image))
    vision = _shorten(image)
    text = model.text_encoder(ids, attention_mask=mask, return_dict=True).last_hidden_state
    seen = torch.ones(image.shape[:2], dtype=torch.long)
    fused = model.fusion_encoder(
        encoder_embeds=text,
        attention_mask=mask,
        encoder_hidden_states=image,
        encoder_attention_mask=seen,
        return_dict=False,
    )
    states = torch.cat(fused, dim=1)
    states_mask = torch.cat([seen, mask], dim=1)
    beams, scores = model.beam_generator.translate_batch([states, states_mask], out_size=5)
    whole, _ = model(data["image"], data["question"], train=False)
    assert whole[0][0].tolist() == beams[0][0].tolist()
    values = [float(score) for score in scores[0]]
    # The order of beams must be decided by more than rounding.
    assert all(a - b > 2e-4 for a, b in itertools.pairwise(values)), (index, question, values)
    return {
        "image": index,
        "question": question,
        "ids": ids[0].tolist(),
        "pixels": [float(f"{x:.8g}") for x in data["image"].flatten()[::977].tolist()],
        "vision": vision,
        "states": _shorten(states),
        "beams": [beam.tolist() for beam in beams[0]],
        "scores": [float(f"{value:.8g}") for value in values],
        "answer": model.tokenizer.decode(beams[0][0], skip_special_tokens=True),
    }


def main():
    modeling_mplug.MPlug._initialize_clip = staticmethod(_small_clip)
    content = {name: golden(name) for name in cases.CONFIGS}
    text = json.dumps(content, separators=(",", ":")) + "\n"
    (ROOT / "sana_bench/metrics/selfcheck/golden/mplug.json.gz").write_bytes(
        gzip.compress(text.encode(), mtime=0)
    )
    for name, case in content.items():
        for record in case["records"]:
            print(name, record["image"], repr(record["answer"]), [len(beam) for beam in record["beams"]])


if __name__ == "__main__":
    main()
