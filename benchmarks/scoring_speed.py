"""Scores of images as a run makes them, each beside the published way: one image, one question, one pair after the other.

    python benchmarks/scoring_speed.py [--parts reading,geneval,dpg,image_reward] [--images 24] [--repetitions 3]

- reading: what the networks of five metrics are given of a set of files, decoded once for all of a run, against each metric
  reading image by image for itself;
- geneval: detections, masks and colours, against a loop over images with the detector of transformers and CLIP of open_clip;
- dpg: the answers of mPLUG about an image, against a loop over questions, each of which encodes the image again;
- image_reward: rewards, against a loop over pairs with BLIP of transformers.

The aim is 1.5 times each. Networks have their published sizes and random weights, the same on both sides; all sides run in one
process with the same threads, in turns, and a time is reported only after the numbers agreed in this very run. Where the loop
spends its time is measured too: what decoding and resizing take is all that can be gained by doing them beside the network.
Writes `scoring_speed.{json,md}` to `--to`; parts that were not run keep what the file has.
"""

import copy
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from metrics_speed import OURS, SIDE, Parts, agree, run_parts, timed, write_images
from PIL import Image
from torch import Tensor

from sana_bench.core.images import SharedImages, load_image
from sana_bench.core.preprocess import clip_pixels
from sana_bench.core.samples import Prompt, Sample
from sana_models.layers import with_our_products

ALONE = "one by one"
AIM = 1.5
# Deviation of the class scores: as decided as a trained detector's, and objects of many classes.
_DECIDED = 5.0
# Answers of a trained judge have one word: this much is added to the logit of the end.
_SHORT = 20.0
_QUESTIONS = 6


class Stages:
    """Seconds of the stages of a loop, over all its repetitions."""

    def __init__(self) -> None:
        self._seconds: Counter[str] = Counter()

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self._seconds[name] += time.perf_counter() - began

    def __str__(self) -> str:
        whole = sum(self._seconds.values())
        return ", ".join(f"{name} {seconds / whole:.1%}" for name, seconds in self._seconds.items())


def beside(
    title: str,
    ours: Callable[[], Any],
    loop: Callable[[Stages], Any],
    repetitions: int,
    check: Callable[[Any, Any], str],
) -> dict[str, Any]:
    """Check both ways against each other, then time them."""
    stages = Stages()
    agreed = check(ours(), loop(Stages()))
    part = timed(title, {OURS: ours, ALONE: lambda: loop(stages)}, repetitions, AIM, agreed)
    print(f"  {ALONE}: {stages}", flush=True)
    return {**part, "agreed": f"{agreed}; {ALONE}, time goes to: {stages}"}


def write_samples(folder: Path, n: int, metadata: Callable[[int], dict[str, Any]]) -> list[Sample]:
    """Samples of `n` written images, with what a metric asks about each."""
    paths = write_images(folder, n)
    prompts = [Prompt(f"{place:05d}", _text(place), "colors", metadata(place)) for place in range(n)]
    return [Sample("random", "set", prompt, 0, path) for prompt, path in zip(prompts, paths, strict=True)]


def _text(place: int) -> str:
    return f"w{place} " + " ".join(f"w{word}" for word in range(20))


def reading(n: int, repetitions: int) -> dict[str, Any]:
    """What the networks of five metrics are given of `n` files: decoded once for all of a run, or by each metric for itself."""
    from sana_bench.metrics.fid.features import CHAINS
    from sana_bench.metrics.geneval.mask2former_images import prepare

    chain = CHAINS["fid/clean@1"]
    readers: dict[str, Callable[[Path], np.ndarray]] = {
        "GenEval": lambda path: prepare(load_image(path)).pixels.numpy(),
        "CLIP score": lambda path: clip_pixels(load_image(path), 224),
        "FID": lambda path: chain.read(path, chain.parameters),
        "ImageReward": lambda path: clip_pixels(load_image(path), 224),
        "DPG-Bench": lambda path: np.asarray(
            Image.fromarray(load_image(path)).resize((504, 504), Image.Resampling.BICUBIC)
        ),
    }

    def alone() -> list[np.ndarray]:
        return [read(path) for read in readers.values() for path in paths]

    def ours() -> list[np.ndarray]:
        with SharedImages(n * 3 * SIDE * SIDE).over(paths):
            return alone()

    with tempfile.TemporaryDirectory() as name:
        paths = write_images(Path(name), n)
        if not all(np.array_equal(*pair) for pair in zip(ours(), alone(), strict=True)):
            sys.exit("reading: pixels differ; no time is reported")
        agreed = f"all {len(readers) * n} inputs equal to the last bit"
        print(f"check: {agreed}", flush=True)
        title = f"inputs of {', '.join(readers)} from {n} PNG files of {SIDE}x{SIDE}"
        return timed(title, {OURS: ours, ALONE: alone}, repetitions, 1.5, agreed)


def geneval(n: int, repetitions: int) -> dict[str, Any]:
    """Full-size Mask2Former and ViT-L/14 on `n` images, the colours of two classes asked for."""
    from sana_bench.metrics.geneval.classes import CLASSES
    from sana_bench.metrics.geneval.colors import crop_object
    from sana_bench.metrics.geneval.deformable import with_our_sampling
    from sana_bench.metrics.geneval.detector import FullDetector
    from sana_bench.metrics.geneval.mask2former_images import prepare, read_logits
    from sana_bench.metrics.geneval.metric import GenEvalMetric, colored_classes

    with tempfile.TemporaryDirectory() as name:
        example = load_image(write_images(Path(name), 1)[0])
    detector, colors = _random_detector(prepare(example).pixels), _random_colors()
    quick = FullDetector(Path("random"), _with_products(colors))
    quick.__dict__["_network"] = with_our_sampling(with_our_products(copy.deepcopy(detector)))
    metric = GenEvalMetric("geneval/official@1", quick)

    def loop(stage: Stages) -> list[list[float]]:
        scores = []
        for sample in samples:
            with stage("decoding"):
                image = load_image(sample.image_path)
            with stage("resizing"):
                prepared = prepare(image)
            with stage("detector"), torch.inference_mode():
                output = detector(pixel_values=prepared.pixels[None])
            with stage("masks"), torch.inference_mode():
                found = read_logits(output.class_queries_logits[0], output.masks_queries_logits[0], prepared)
            names = colored_classes(sample.prompt.metadata)
            with stage("colours"):
                for one in found:
                    if CLASSES[one.label] in names:
                        colors.classify([crop_object(image, one.mask, one.box, CLASSES[one.label])])
            scores.append([one.score for one in found])
        return scores

    def ours() -> list[list[float]]:
        with _shared(samples):
            rows = metric.score(samples)
        return [[one["score"] for one in row.details["detections"]] for row in rows]

    def check(ours: list[list[float]], theirs: list[list[float]]) -> str:
        # Which of the least certain are kept is decided by last bits.
        best = [[sorted(scores)[-_COMPARED:] for scores in side] for side in (ours, theirs)]
        return agree(f"scores of the {_COMPARED} surest detections of each image", *best, 1e-2)

    with tempfile.TemporaryDirectory() as name:
        first = quick.detect_many([example], [frozenset()])[0]
        # The rarest make as many crops as a real prompt does.
        rare = Counter(one["label"] for one in first).most_common()[-2:]
        clauses = [{"class": label, "count": 1, "color": "red"} for label, _ in rare]
        samples = write_samples(Path(name), n, lambda _: {"tag": "colors", "include": clauses})
        return beside(f"GenEval of {n} images of {SIDE}x{SIDE}", ours, loop, repetitions, check)


_COMPARED = 20


def dpg(n: int, repetitions: int) -> dict[str, Any]:
    """mPLUG large with random weights on `n` images, `_QUESTIONS` questions about each."""
    from sana_bench.judges.mplug.config import MPlugConfig
    from sana_bench.judges.mplug.judge import MPlugJudge, bert_tokenizer, image_to_pixels
    from sana_bench.judges.mplug.network import END, MPlugVQA

    config = MPlugConfig(
        hidden_size=768, intermediate_size=3072, num_attention_heads=12, num_hidden_layers=12, vocab_size=30522,
        text_encoder_layers=6, fusion_layers=6, text_decode_layers=12, encoder_width=768,
    )  # fmt: skip
    torch.manual_seed(0)
    network = MPlugVQA(config).eval().requires_grad_(False)
    network.text_decoder.cls["predictions"].bias[END] += _SHORT
    questions = [f"is w{place} beside w{place + 1} ?" for place in range(_QUESTIONS)]
    tokenizer = bert_tokenizer(_words(config.vocab_size))

    def judge(folder: Path, network: MPlugVQA) -> MPlugJudge:
        made = MPlugJudge(folder)
        made.__dict__.update(network=network, tokenizer=tokenizer)
        return made

    with tempfile.TemporaryDirectory() as name:
        paths = write_images(Path(name), n)
        alone = judge(Path(name), network)
        quick = judge(Path(name), with_our_products(copy.deepcopy(network)))

        def loop(stage: Stages) -> None:
            for path in paths:
                for question in questions:
                    with stage("decoding"):
                        image = load_image(path)
                    with stage("resizing"):
                        pixels = image_to_pixels(image, config.image_res)
                    with stage("network, image"), torch.inference_mode():
                        tokens = network.encode_images(pixels[None])
                    with stage("network, question"), torch.inference_mode():
                        network.answer(tokens, *alone.question_ids([question]))

        def ours() -> None:
            with SharedImages(n * 3 * SIDE * SIDE).over(paths):
                for path in paths:
                    quick.answers(load_image(path), questions)

        def check(*_: None) -> str:
            image = load_image(paths[0])
            theirs = [alone.log_odds(image, [question])[0] for question in questions]
            return agree("log-odds of yes", quick.log_odds(image, questions), theirs, 1e-3)

        title = f"answers of mPLUG to {_QUESTIONS} questions about each of {n} images of {SIDE}x{SIDE}"
        return beside(title, ours, loop, repetitions, check)


def image_reward(n: int, repetitions: int) -> dict[str, Any]:
    """ImageReward's network with random weights on `n` pairs."""
    from sana_bench.metrics.image_reward.metric import ImageReward, RewardFiles
    from sana_bench.metrics.image_reward.network import RewardNetwork, VisionSize, WordPieces

    words = _words(30524)
    text = {
        "vocab_size": len(words), "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12,
        "num_attention_heads": 12, "max_position_embeddings": 512, "hidden_act": "gelu", "layer_norm_eps": 1e-12,
    }  # fmt: skip
    torch.manual_seed(0)
    network = RewardNetwork(VisionSize(), text).eval().requires_grad_(False)

    with tempfile.TemporaryDirectory() as name:
        samples = write_samples(Path(name), n, lambda _: {})
        vocabulary = Path(name) / "vocab.txt"
        vocabulary.write_text("\n".join(words) + "\n", encoding="utf-8")
        files, tokens = RewardFiles(vocabulary, vocabulary, vocabulary), WordPieces(vocabulary)
        files.__dict__.update(network=with_our_products(copy.deepcopy(network)), tokens=tokens)
        metric = ImageReward("image_reward/official@1", files)

        def loop(stage: Stages) -> list[float]:
            rewards = []
            for sample in samples:
                with stage("decoding"):
                    image = load_image(sample.image_path)
                with stage("resizing"):
                    pixels = torch.from_numpy(clip_pixels(image, network.image_size))
                with stage("network"), torch.inference_mode():
                    rewards.append(float(network(pixels[None], *tokens([sample.prompt.text]))[0]))
            return rewards

        def ours() -> list[float]:
            with _shared(samples):
                return [row.value for row in metric.score(samples)]

        check = lambda ours, theirs: agree("rewards", ours, theirs, 1e-4)  # noqa: E731
        return beside(f"ImageReward of {n} images of {SIDE}x{SIDE}", ours, loop, repetitions, check)


def _shared(samples: Sequence[Sample]) -> Any:
    """What a run's worker has around a chunk of images."""
    return SharedImages(len(samples) * 3 * SIDE * SIDE).over([sample.image_path for sample in samples])


def _words(count: int) -> list[str]:
    """A vocabulary of BERT's shape."""
    special = {
        0: "[PAD]",
        100: "[UNK]",
        101: "[CLS]",
        102: "[SEP]",
        103: "yes",
        104: "no",
        105: "is",
        106: "beside",
        107: "?",
    }
    return [special.get(place, f"w{place}") for place in range(count)]


def _random_detector(pixels: Tensor) -> torch.nn.Module:
    """Random weights see one class everywhere: what all queries share of an image is taken out of the scores."""
    from transformers import Mask2FormerForUniversalSegmentation

    from sana_bench.metrics.geneval.mask2former import official_config

    torch.manual_seed(0)
    network = Mask2FormerForUniversalSegmentation(official_config()).eval().requires_grad_(False)
    with torch.inference_mode():
        states = network(pixel_values=pixels[None]).transformer_decoder_last_hidden_state[0]
    scores = network.class_predictor
    scores.weight *= _DECIDED / float(((states - states.mean(0)) @ scores.weight.T).std())
    scores.bias.copy_(-scores.weight @ states.mean(0))
    return network


def _random_colors() -> Any:
    import open_clip

    from sana_bench.metrics.clip.features import MODEL
    from sana_bench.metrics.geneval.colors import ColorClassifier

    torch.manual_seed(1)
    model, _, preprocess = open_clip.create_model_and_transforms(MODEL, pretrained=None, load_weights=False)
    colors = ColorClassifier(Path("random"))
    colors.__dict__["_network"] = model.eval(), preprocess, open_clip.get_tokenizer(MODEL)
    return colors


def _with_products(colors: Any) -> Any:
    """The same network by our products."""
    quick = type(colors)(Path("random"))
    model, *rest = colors.__dict__["_network"]
    quick.__dict__["_network"] = with_our_products(copy.deepcopy(model)), *rest
    return quick


def main() -> int:
    parts: Parts = {
        "reading": lambda options: reading(min(16, options.images), options.repetitions),
        "geneval": lambda options: geneval(max(2, options.images // 4), options.repetitions),
        "dpg": lambda options: dpg(max(1, options.images // 12), options.repetitions),
        "image_reward": lambda options: image_reward(options.images, options.repetitions),
    }
    return run_parts("scoring_speed", "Speed of scoring", __doc__, parts)


if __name__ == "__main__":
    sys.exit(main())
