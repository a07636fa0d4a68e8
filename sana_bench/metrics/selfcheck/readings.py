"""Checks of the metrics whose judge reads: a judge that recites, through the metrics, to numbers worked out by hand."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import sqrt
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sana_bench.core.samples import Prompt, Sample
from sana_bench.judges.base import FirstToken
from sana_bench.metrics.geneval2.metric import PROTOCOLS as GENEVAL2
from sana_bench.metrics.geneval2.metric import GenEval2Metric
from sana_bench.metrics.geneval2.rules import OFFICIAL
from sana_bench.metrics.longtext.metric import PROTOCOLS as LONGTEXT
from sana_bench.metrics.longtext.metric import LongTextMetric
from sana_bench.metrics.oneig.alignment import PROTOCOLS as ALIGNMENT
from sana_bench.metrics.oneig.alignment import AlignmentMetric
from sana_bench.metrics.oneig.diversity import PROTOCOLS as DIVERSITY
from sana_bench.metrics.oneig.diversity import by_prompt
from sana_bench.metrics.oneig.style import PROTOCOLS as STYLE
from sana_bench.metrics.oneig.style import Judged, StyleMetric
from sana_bench.metrics.oneig.text import PROTOCOLS as TEXT
from sana_bench.metrics.oneig.text import TextMetric
from sana_bench.metrics.read_text import REQUEST
from sana_bench.metrics.selfcheck import golden_files
from sana_bench.metrics.selfcheck.check import Bench, Check, SkippedError, Tolerance, user_judge
from sana_bench.metrics.selfcheck.recipes import dreamsim
from sana_bench.metrics.selfcheck.recipes.plain import CLIP, uniform
from sana_bench.micro.reading_prompts import text_prompts
from sana_bench.micro.text_world import render_text, text_scene_for

if TYPE_CHECKING:
    from sana_bench.metrics.oneig.dreamsim import Files

__all__ = ["CHECKS", "Reciter", "write_dreamsim"]


@dataclass(frozen=True)
class Reciter:
    """A judge that looks at nothing and knows what to say: first tokens by spelling, answers by question, one text."""

    tokens: Mapping[str, FirstToken] = field(default_factory=dict)
    answers: Mapping[str, str] = field(default_factory=dict)
    text: str = ""

    def load(self) -> None:
        """Nothing to load."""

    def identity(self) -> dict[str, Any]:
        return {"network": "reciter"}

    def probabilities(
        self, image: NDArray[np.uint8], questions: Sequence[str], spellings: Sequence[Sequence[str]]
    ) -> list[list[FirstToken]]:
        return [[self.tokens[spelling] for spelling in asked] for asked in spellings]

    def answer(
        self, image: NDArray[np.uint8], questions: Sequence[str], *, max_tokens: int = 16
    ) -> list[str]:
        return [self.answers[question] for question in questions]

    def read_text(self, image: NDArray[np.uint8], request: str, *, max_tokens: int = 1024) -> str:
        return self.text


def _sample(folder: Path, prompt_id: str, metadata: dict[str, Any]) -> Sample:
    """A grey image of a prompt."""
    path = folder / f"{prompt_id}.png"
    Image.new("RGB", (8, 8), (128, 128, 128)).save(path)
    return Sample("self-check", "self-check", Prompt(prompt_id, prompt_id, "tag", metadata), 0, path)


# A tokenizer that drops the blank in front of a word, so that two spellings begin with one token.
_TOKENS = {
    **dict.fromkeys(("three", " three"), FirstToken(1, 0.125)),
    **dict.fromkeys(("Three", " Three"), FirstToken(2, 0.0625)),
    "3": FirstToken(3, 0.125),
    " 3": FirstToken(4, 0.0),
    **dict.fromkeys(("Yes", " Yes"), FirstToken(5, 0.03125)),
    **dict.fromkeys(("yes", " yes"), FirstToken(6, 0.03125)),
}
_COWS = {
    "vqa_list": [["How many cows are in the image?", "three"], ["Are the cows red?", "Yes"]],
    "skills": ["count", "attribute"],
}
# Scores of the two questions: 1/2 and 1/8 with tokens counted for each spelling, 5/16 and 1/16 with each counted once.
_ONCE = 100 * sqrt(5) / 16
_EACH_ONCE = {"overall": _ONCE, "am": 18.75, "count": 31.25, "attribute": 6.25, "tag": _ONCE}
_SOFT = {
    OFFICIAL: {"overall": 25, "am": 31.25, "count": 50, "attribute": 12.5, "tag": 25},
    GENEVAL2[1]: _EACH_ONCE,
    "geneval2/micro@1": _EACH_ONCE,
}


def _geneval2(bench: Bench) -> float:
    sample = _sample(bench.folder("geneval2"), "cows", _COWS)
    errors = []
    for protocol, expected in _SOFT.items():
        metric = GenEval2Metric(protocol, Reciter(tokens=_TOKENS))
        found = {row.key: row.value for row in metric.summarise(metric.score([sample]), 1, seed=0)}
        if found.keys() != expected.keys():
            return float("inf")
        errors += [abs(found[key] - value) / value for key, value in expected.items()]
    return max(errors)


# Asked for, read, and how many words or characters of how many that are.
_READ = (
    ("en", ["Open daily:", "5-7 PM"], "No text recognized.OPEN 57, daily", 3, 4),
    ("en", ["no no yes"], "yes yes no addCriterion", 2, 3),
    ("zh", ["\u6bcf\u65e5 5", "\u5f00"], "\u5f00\u65e5\u65e5", 2, 4),
)


def _longtext(bench: Bench) -> float:
    folder = bench.folder("longtext")
    rows = []
    for place, (language, texts, read, _, _) in enumerate(_READ):
        sample = _sample(folder, f"prompt-{place}", {"text": texts, "language": language})
        rows += LongTextMetric(LONGTEXT[0], Reciter(text=read)).score([sample])
    wrong = sum(
        (row.details["matched"], row.details["words"]) != case[3:]
        for row, case in zip(rows, _READ, strict=True)
    )
    overall = LongTextMetric(LONGTEXT[0], Reciter()).summarise(rows, len(rows), seed=0)[0]
    return float(wrong + (overall.value != 7 / 11))


# Question 3 depends on 2, which depends on 1: only own answers of parents matter, and only the exact word.
_GRAPH: dict[str, dict[str, Any]] = {
    "questions": {"1": "Is there a cat?", "2": "Is it red?", "3": "Is it on a mat?", "4": "Is there a dog?"},
    "dependency": {"1": [0], "2": [1], "3": [1, 2], "4": [0]},
}
_SAID = ("Yes", "No", "Yes", "yes")


def _alignment(bench: Bench) -> float:
    folder = bench.folder("alignment")
    asked = [f"{question}. Please answer 'Yes' or 'No' only." for question in _GRAPH["questions"].values()]
    wrong = 0.0
    for answers, expected in ((_SAID, 0.25), (("Yes",) * 4, 1.0), (("No", "Yes", "Yes", "Yes"), 0.25)):
        metric = AlignmentMetric(ALIGNMENT[0], Reciter(answers=dict(zip(asked, answers, strict=True))))
        (row,) = metric.score([_sample(folder, "cat", _GRAPH)])
        wrong += row.value != expected
    return wrong


# Asked for, read, edit distance, words matched and asked for.
_RENDERED = (
    ("['Happy Hour 5-7 PM']", "Happy hour, 5-7!\naddCriterion", 4, 2, 4),
    ("['One']", "One", 0, 1, 1),
)


def _text(bench: Bench) -> float:
    folder = bench.folder("text")
    rows = []
    for place, (wanted, read, *_) in enumerate(_RENDERED):
        sample = _sample(folder, f"prompt-{place}", {"text_content": wanted})
        rows += TextMetric(TEXT[0], Reciter(text=read)).score([sample])
    fields = ("edit_distance", "matched", "words")
    counted = [tuple(row.details[name] for name in fields) for row in rows]
    found = {row.key: row.value for row in TextMetric(TEXT[0], Reciter()).summarise(rows, 2, seed=0)}
    expected = {"overall": 1 - 2 * 0.5 * (1 - 0.6) / 100, "CR": 0.5, "WAC": 0.6}
    return float(counted != [case[2:] for case in _RENDERED]) + float(found != expected)


def _pairwise(_: Bench) -> float:
    """Three vectors at 0, 60 and 90 degrees to the first, of any length."""
    vectors = np.array([[2.0, 0.0], [0.5, sqrt(0.75)], [0.0, 3.0]])
    found = by_prompt(["a", "a", "a", "b", "b"], np.concatenate([vectors, vectors[:2]]))
    expected = {"a": (0.5 + 1 + 1 - sqrt(0.75)) / 3, "b": 0.5}
    return max(abs(found[name] - value) for name, value in expected.items())


def _dreamsim(bench: Bench) -> float:
    """Largest difference of an embedding's number from the package's."""
    from sana_bench.metrics.oneig.dreamsim import load_dreamsim, square_pixels

    network = load_dreamsim(write_dreamsim(bench.folder("dreamsim"))).to(bench.device)
    pixels = np.stack([square_pixels(image, network.side) for image in dreamsim.images()])
    return _largest(network, pixels, golden_files.arrays("dreamsim")["embeddings"], bench.device)


def _csd(bench: Bench) -> float:
    """The small CLIP's image side as a checkpoint of CSD, against transformers' features."""
    import torch

    from sana_bench.metrics.oneig.style_encoders import CSDEncoder
    from sana_bench.metrics.selfcheck.encoders import clip_network

    state: dict[str, Any] = clip_network().get_submodule("visual").state_dict()
    style = state.pop("proj")
    stored = {f"module.backbone.{name}": tensor for name, tensor in state.items()}
    stored |= {"module.last_layer_style": style, "module.last_layer_content": torch.zeros_like(style)}
    path = bench.folder("csd") / "pytorch_model.bin"
    torch.save({"model_state_dict": stored}, path)
    vision: Any = CLIP["vision_cfg"]
    network = CSDEncoder(path, bench.device, vision["head_width"]).network
    return _largest(
        network, uniform("clip", (2, 3, 32, 32)), golden_files.arrays("networks")["clip_images"], bench.device
    )


def _largest(network: Any, pixels: NDArray[np.float32], stored: NDArray[Any], device: str) -> float:
    """Largest difference of unit vectors from stored ones."""
    import torch

    with torch.inference_mode():
        found = network(torch.from_numpy(pixels).to(device)).float().cpu().numpy()
    found = found / np.linalg.norm(found, axis=1, keepdims=True)
    return float(np.abs(found - stored).max())


@dataclass(frozen=True)
class _FixedEncoder:
    """An encoder of style that gives every image one vector."""

    name: str
    vector: tuple[float, float]

    def identity(self) -> dict[str, Any]:
        return {"network": self.name}

    def encode(self, images: Sequence[NDArray[np.uint8]]) -> NDArray[np.float64]:
        return np.array([self.vector] * len(images))


def _style(bench: Bench) -> float:
    references = {"clay": np.array([[1.0, 0.0], [0.6, 0.8]]), "comic": np.array([[0.0, -1.0]])}
    judged = [
        Judged(_FixedEncoder("csd", (0.0, 1.0)), references),
        Judged(_FixedEncoder("oneig", (1.0, 0.0)), references),
    ]
    folder = bench.folder("style")
    samples = [_sample(folder, style, {"style": style}) for style in references]
    rows = StyleMetric(STYLE[0], judged, "").score(samples)
    # Of clay the largest are 0.8 and 1; of comic -1, which counts as 0, and 0.
    return max(abs(row.value - expected) for row, expected in zip(rows, (0.9, 0.0), strict=True))


def write_dreamsim(folder: Path) -> "Files":
    """The published layout with the recipe's weights."""
    import torch
    from safetensors.torch import save_file

    from sana_bench.metrics.oneig.dreamsim import Files

    files = Files(
        folder / "dino.pth",
        folder / "clip_vitb16_pretrain.pth.tar",
        folder / "open_clip_vitb16_pretrain.pth.tar",
        folder / "ensemble_lora",
    )
    for name, path in (("dino", files.dino), ("clip", files.clip), ("open_clip", files.open_clip)):
        state = {key: torch.from_numpy(value) for key, value in dreamsim.tower(name).items()}
        torch.save(state if name == "dino" else {"state_dict": state}, path)
    files.adapter.mkdir()
    settings = {
        "peft_type": "LORA",
        "r": dreamsim.RANK,
        "lora_alpha": dreamsim.ALPHA,
        "lora_dropout": 0.3,
        "bias": "none",
        "target_modules": ["qkv"],
    }
    (files.adapter / "adapter_config.json").write_text(json.dumps(settings))
    matrices = {name: torch.from_numpy(value) for name, value in dreamsim.adapter().items()}
    save_file(matrices, files.adapter / "adapter_model.safetensors")
    return files


_ROUNDING = "float64 logarithms and sums"


def _micro(bench: Bench) -> float:
    """Share of wrong answers and readings of the micro tier's judge, about stored scenes and drawn texts."""
    from sana_bench.judges.mplug.reading import ReadingMPlug

    folder = bench.weights / "reading"
    if not folder.is_dir():
        raise SkippedError(f"{folder} is not there: the micro tier's reading judge")
    judge = ReadingMPlug(folder)
    right = []
    stored = golden_files.numbers()["micro"]["scenes"]
    for image, scene in zip(golden_files.arrays("micro")["images"], stored, strict=True):
        answers = judge.answer(image, [question for question, _ in scene["questions"]])
        pairs = zip(answers, scene["questions"], strict=True)
        right += [answer.lower() == truth for answer, (_, truth) in pairs]
    rng = np.random.default_rng(0)
    for prompt in text_prompts():
        shown = text_scene_for([(word, prompt.color) for word in prompt.words], rng)
        right.append(judge.read_text(render_text(shown), REQUEST) == prompt.text)
    return 1 - sum(right) / len(right)


_WRONG_SHARE = 0.1

CHECKS = (
    Check(
        "GenEval 2: soft scores and their means",
        ("geneval2/micro@1", *GENEVAL2, user_judge("geneval2")),
        _geneval2,
        Tolerance(1e-12, "relative", _ROUNDING),
        quick=True,
    ),
    Check(
        "LongText-Bench: words and characters",
        ("longtext/micro@1", *LONGTEXT, user_judge("longtext")),
        _longtext,
        Tolerance(0, "numbers that differ", "counts, and one division"),
        quick=True,
    ),
    Check(
        "OneIG-Bench: alignment through a graph of questions",
        ("oneig_alignment/micro@1", *ALIGNMENT, user_judge("oneig_alignment")),
        _alignment,
        Tolerance(0, "scores that differ", "fractions that float64 holds exactly"),
        quick=True,
    ),
    Check(
        "OneIG-Bench: text",
        ("oneig_text/micro@1", *TEXT, user_judge("oneig_text")),
        _text,
        Tolerance(0, "numbers that differ", "counts, and the formula as it is written"),
        quick=True,
    ),
    Check(
        "The micro tier's reading judge on drawn scenes",
        tuple(f"{name}/micro@1" for name in ("geneval2", "longtext", "oneig_alignment", "oneig_text")),
        _micro,
        Tolerance(_WRONG_SHARE, "share of wrong answers", "a trained judge errs; a broken one reads nothing"),
    ),
    Check(
        "OneIG-Bench: distances of pairs",
        (*DIVERSITY["full"], *DIVERSITY["micro"]),
        _pairwise,
        Tolerance(1e-12, "absolute", "float64 sums of numbers up to 1"),
        quick=True,
    ),
    Check(
        "OneIG-Bench: nearest references of two encoders",
        STYLE,
        _style,
        Tolerance(1e-12, "absolute", "float64 sums of numbers up to 1"),
        quick=True,
    ),
    Check(
        "DreamSim: the package's embeddings of a small ensemble",
        DIVERSITY["full"],
        _dreamsim,
        Tolerance(5e-6, "absolute", "float32 sums in another order, through twelve layers; 3e-7 here"),
        Tolerance(
            5e-3, "absolute", "patches embedded in TF32, torch's default; not measured on every device"
        ),
    ),
    Check(
        "CSD: transformers' features of a small CLIP",
        STYLE,
        _csd,
        Tolerance(1e-5, "absolute", "float32 sums in another order"),
        Tolerance(
            5e-3, "absolute", "patches embedded in TF32, torch's default; not measured on every device"
        ),
    ),
)
