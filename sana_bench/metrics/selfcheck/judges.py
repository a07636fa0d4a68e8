"""Checks of DPG-Bench: mPLUG against modelscope's values, and the scoring rules."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from sana_bench.metrics.dpg.rules import score_official, score_strict
from sana_bench.metrics.selfcheck import golden_files
from sana_bench.metrics.selfcheck.check import Bench, Check, SkippedError, Tolerance, user_judge
from sana_bench.metrics.selfcheck.recipes import mplug as recipe

__all__ = ["CHECKS", "write_mplug"]

_FULL = ("dpg/official@1", "dpg/strict@1", "dpg/sana-grid@1")
_NETWORK = "stride3"
_WRONG_SHARE = 0.1

# Question 2 depends on 3, which comes later in the file, and 4 on 2.
_QUESTIONS = [
    {"proposition_id": 1, "dependency": [0], "tuple": "entity - whole (cat)"},
    {"proposition_id": 2, "dependency": [3], "tuple": "attribute - color (cat, red)"},
    {"proposition_id": 3, "dependency": [1], "tuple": "relation - spatial (cat, table, on)"},
    {"proposition_id": 4, "dependency": [2], "tuple": "attribute - size (cat, large)"},
]
_ALL_YES = {"1": "yes", "2": "yes", "3": "yes", "4": "yes"}
# Answers of one prompt's images; image scores by the published script, and as corrected.
_SCORED: tuple[tuple[list[dict[str, str]], list[float], list[float]], ...] = (
    ([_ALL_YES], [1.0], [1.0]),
    # In file order 2 looks at 3 before 1 has cancelled it, so 2 and 4 stay; in graph order everything falls.
    ([{**_ALL_YES, "1": "no"}], [0.5], [0.0]),
    ([{**_ALL_YES, "3": "no"}, _ALL_YES], [0.25, 1.0], [0.25, 1.0]),
    # Only the exact word counts.
    ([{**_ALL_YES, "2": "Yes"}], [0.5], [0.5]),
)


def _rules(_: Bench) -> float:
    wrong = 0
    for answers, official, strict in _SCORED:
        wrong += score_official(_QUESTIONS, answers).image_scores != official
        wrong += score_strict(_QUESTIONS, answers).image_scores != strict
    # Categories: the last image's bare answers, or every image's after dependencies.
    two = [{**_ALL_YES, "3": "no"}, {**_ALL_YES, "1": "no"}]
    wrong += score_official(_QUESTIONS, two).category_inputs != {"1": 0.0, "2": 1.0, "3": 1.0, "4": 1.0}
    wrong += score_strict(_QUESTIONS, two).category_inputs != {"1": 0.5, "2": 0.0, "3": 0.0, "4": 0.0}
    return float(wrong)


def _grid(_: Bench) -> float:
    """SANA's grid, cut as if it had no separators: where the corners of the four cells come to lie."""
    from sana_bench.metrics.dpg.grid import SanaGrid

    image = np.arange(22 * 22 * 3, dtype=np.uint32).reshape(22, 22, 3)
    cells = SanaGrid().cells((image % 251).astype(np.uint8), Path("grid"))
    corners = [(0, 0), (0, 8), (8, 0), (8, 8)]
    expected = [(image % 251).astype(np.uint8)[y : y + 8, x : x + 8] for y, x in corners]
    return float(sum(not np.array_equal(*pair) for pair in zip(cells, expected, strict=True)))


def write_mplug(folder: Path, name: str) -> Path:
    """The published layout with the recipe's weights of configuration `name`."""
    import torch

    network, bert, end_bias = recipe.CONFIGS[name]
    (folder / "configuration.json").write_text(json.dumps({"task": network["task"]}))
    (folder / "config.yaml").write_text(yaml.safe_dump(network))
    (folder / "config_bert.json").write_text(json.dumps(bert))
    (folder / "vocab.txt").write_text("".join(f"{word}\n" for word in recipe.VOCABULARY))
    shapes = golden_files.mplug()[name]["tensors"]
    state = {key: torch.from_numpy(recipe.draw(key, tuple(s), end_bias)) for key, s in shapes.items()}
    torch.save({"model": state}, folder / "pytorch_model.bin")
    return folder


def _judge(bench: Bench, name: str, device: str) -> Any:
    from sana_bench.judges.mplug.judge import MPlugJudge

    return MPlugJudge(write_mplug(bench.folder(name), _NETWORK), device)


def _states(bench: Bench) -> float:
    import torch

    from sana_bench.judges.mplug.judge import MAX_QUESTION_TOKENS, image_to_pixels

    judge = _judge(bench, "mplug-states", bench.device)
    errors = []
    for record in golden_files.mplug()[_NETWORK]["records"]:
        asked = judge.tokenizer(
            record["question"].lower(),
            padding="max_length",
            truncation=True,
            max_length=MAX_QUESTION_TOKENS,
            return_tensors="pt",
        ).to(bench.device)
        if asked["input_ids"][0].tolist() != record["ids"]:
            return float("inf")
        pixels = image_to_pixels(recipe.image(record["image"]), judge.network.config.image_res)
        with torch.inference_mode():
            tokens = judge.network.encode_images(pixels[None].to(bench.device))
            states = torch.cat(judge.network.fuse(tokens, asked["input_ids"], asked["attention_mask"]), dim=1)
        for found, stored in ((tokens, "vision"), (states, "states")):
            errors.append(float(np.abs(found[0, ::7, ::13].cpu().numpy() - np.array(record[stored])).max()))
    return max(errors)


def _answers(bench: Bench) -> float:
    judge = _judge(bench, "mplug-answers", "cpu")
    records = golden_files.mplug()[_NETWORK]["records"]
    wrong = 0
    for index in sorted({record["image"] for record in records}):
        of_image = [record for record in records if record["image"] == index]
        answers = judge.answers(recipe.image(index), [record["question"] for record in of_image])
        pairs = zip(answers, of_image, strict=True)
        wrong += sum(answer.text != record["answer"] for answer, record in pairs)
    return float(wrong)


def _micro(bench: Bench) -> float:
    """Share of wrong answers about the drawn scenes, whose truth is stored."""
    from sana_bench.judges.mplug.judge import MPlugJudge

    folder = bench.weights / "vqa"
    if not folder.is_dir():
        raise SkippedError(f"{folder} is not there: the micro judge's weights")
    judge = MPlugJudge(folder)
    right = []
    stored = golden_files.numbers()["micro"]["scenes"]
    for image, scene in zip(golden_files.arrays("micro")["images"], stored, strict=True):
        answers = judge.answers(image, [question for question, _ in scene["questions"]])
        pairs = zip(answers, scene["questions"], strict=True)
        right += [answer.text == truth for answer, (_, truth) in pairs]
    return 1 - sum(right) / len(right)


CHECKS = (
    Check(
        "DPG: the published and the corrected rules",
        ("dpg/micro@1", *_FULL, user_judge("dpg")),
        _rules,
        Tolerance(0, "scores that differ", "fractions that float64 holds exactly"),
        quick=True,
    ),
    Check(
        "DPG: SANA's grid",
        ("dpg/sana-grid@1",),
        _grid,
        Tolerance(0, "cells that differ", "integers"),
        quick=True,
    ),
    Check(
        "mPLUG: modelscope's states",
        _FULL,
        _states,
        Tolerance(2e-5, "absolute", "float32 sums in another order, through a dozen layers"),
        Tolerance(
            5e-3, "absolute", "patches embedded in TF32, torch's default; not measured on every device"
        ),
    ),
    Check(
        "mPLUG: modelscope's answers",
        _FULL,
        _answers,
        Tolerance(0, "answers that differ", "stored beams lie further apart than rounding reaches"),
    ),
    Check(
        "DPG: micro judge on drawn scenes",
        ("dpg/micro@1",),
        _micro,
        Tolerance(_WRONG_SHARE, "share of wrong answers", "a trained judge errs; a broken one does in half"),
    ),
)
