"""A report as a real micro run would make it: 64x64 scenes of shapes, verdicts, detections and intervals."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from sana_reports import (
    Gain,
    Latency,
    LookCell,
    ReportData,
    SampleCell,
    SequenceCell,
    SequenceTask,
    SummaryCell,
    VariantInfo,
    Verdict,
)

TASKS = ("single_object", "two_object", "counting", "colors", "position", "color_attr")
SHAPES = ("circle", "square", "triangle", "diamond")
COLORS = {
    "red": (214, 48, 49),
    "orange": (241, 143, 1),
    "yellow": (250, 216, 60),
    "green": (38, 166, 91),
    "blue": (41, 98, 255),
    "purple": (125, 60, 152),
    "pink": (244, 143, 177),
}
ACCURACY = {
    "single_object": 0.97,
    "two_object": 0.72,
    "counting": 0.61,
    "colors": 0.9,
    "position": 0.48,
    "color_attr": 0.42,
}


def draw_scene(path: Path, rng: np.random.Generator, n_objects: int) -> list[dict[str, Any]]:
    """Save a scene of up to four shapes, one in each quarter of the image; return its detections."""
    image = Image.new("RGB", (64, 64), tuple(int(value) for value in rng.integers(225, 250, 3)))
    canvas = ImageDraw.Draw(image)
    detections = []
    for quarter in rng.permutation(4)[:n_objects]:
        shape = SHAPES[rng.integers(len(SHAPES))]
        color = list(COLORS)[rng.integers(len(COLORS))]
        size = int(rng.integers(15, 24))
        x1, y1 = (
            int(edge + rng.integers(2, 31 - size)) for edge in (32 * (quarter % 2), 32 * (quarter // 2))
        )
        box = (x1, y1, x1 + size, y1 + size)
        middle_x, middle_y = x1 + size / 2, y1 + size / 2
        if shape == "circle":
            canvas.ellipse(box, fill=COLORS[color])
        elif shape == "square":
            canvas.rectangle(box, fill=COLORS[color])
        elif shape == "triangle":
            canvas.polygon([(middle_x, y1), (x1, box[3]), (box[2], box[3])], fill=COLORS[color])
        else:
            corners = [(middle_x, y1), (box[2], middle_y), (middle_x, box[3]), (x1, middle_y)]
            canvas.polygon(corners, fill=COLORS[color])
        score = float(rng.uniform(0.85, 1.0))
        exact = [float(x1), float(y1), float(x1 + size + 1), float(y1 + size + 1)]
        detections.append({"label": shape, "score": score, "box": exact, "color": color})
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)
    return detections


def make_prompt(tag: str, rng: np.random.Generator) -> str:
    """A caption in the wording of its task."""
    one, two = rng.choice(SHAPES, 2, replace=False)
    first, second = rng.choice(list(COLORS), 2, replace=False)
    relation = rng.choice(("left of", "right of", "above", "below"))
    return {
        "single_object": f"a photo of a {one}",
        "two_object": f"a photo of a {one} and a {two}",
        "counting": f"a photo of {rng.choice(('two', 'three', 'four'))} {one}s",
        "colors": f"a photo of a {first} {one}",
        "position": f"a photo of a {one} {relation} a {two}",
        "color_attr": f"a photo of a {first} {one} and a {second} {two}",
    }[tag]


def make_samples(
    folder: Path, variants: Sequence[str], *, prompts_per_task: int = 25, images_per_prompt: int = 4
) -> list[SampleCell]:
    """Samples of every variant on the same prompts and seeds; earlier variants are right more often."""
    rng = np.random.default_rng(7)
    samples = []
    for number, (tag, _) in enumerate(itertools.product(TASKS, range(prompts_per_task))):
        prompt = make_prompt(tag, rng)
        for index, (rank, variant) in itertools.product(range(images_per_prompt), enumerate(variants)):
            path = folder / "images" / f"variant{rank}" / f"{number:05d}" / f"{index:05d}.png"
            found = draw_scene(path, rng, int(rng.integers(1, 5)))
            correct = bool(rng.random() < ACCURACY[tag] - 0.08 * rank)
            reason = f"expected {found[0]['color']} {found[0]['label']}>=1, found 0 {found[0]['color']}"
            samples.append(
                SampleCell(
                    variant=variant,
                    benchmark="geneval",
                    prompt_id=f"{number:05d}",
                    index=index,
                    prompt=prompt,
                    tag=tag,
                    image_path=path,
                    correct=correct,
                    reasons=() if correct else (reason,),
                    detections=found,
                    scores={"clip_score": float(rng.normal(27 - rank, 2))},
                )
            )
    return samples


def make_summaries(samples: Sequence[SampleCell], variants: Sequence[str]) -> list[SummaryCell]:
    """GenEval (overall and by task), CLIP score and FID; the intervals are normal approximations."""
    cells = []
    for rank, variant in enumerate(variants):
        mine = [sample for sample in samples if sample.variant == variant]
        tasks = {tag: [bool(s.correct) for s in mine if s.tag == tag] for tag in TASKS}
        rates = {tag: float(np.mean(found)) for tag, found in tasks.items() if found}
        common = {"variant": variant, "benchmark": "geneval", "n_prompts": len({s.prompt_id for s in mine})}
        total = {"n_samples": len(mine), "n_expected": len(mine), "key": "overall"}
        geneval = {
            "metric": "geneval",
            "protocol": "geneval/micro@1",
            "unit": "fraction",
            "higher_is_better": True,
        }
        value = float(np.mean(list(rates.values())))
        half = 1.96 * math.sqrt(value * (1 - value) / len(mine)) * 1.6
        bounds = {"value": value, "low": value - half, "high": min(value + half, 1.0)}
        cells.append(SummaryCell(**common, **total, **geneval, **bounds))
        for tag, rate in rates.items():
            n = len(tasks[tag])
            half = 1.96 * math.sqrt(rate * (1 - rate) / n) * 1.6
            own = common | {"n_prompts": len({s.prompt_id for s in mine if s.tag == tag})}
            bounds = {"value": rate, "low": max(rate - half, 0.0), "high": min(rate + half, 1.0)}
            cells.append(SummaryCell(**own, **geneval, **bounds, key=tag, n_samples=n, n_expected=n))
        clip = float(np.mean([sample.scores["clip_score"] for sample in mine]))
        cells.append(
            SummaryCell(
                **common, **total, metric="clip_score", protocol="clip_score/micro@1", unit="100 x cosine",
                higher_is_better=True, value=clip, low=clip - 0.3, high=clip + 0.3,
            )
        )  # fmt: skip
        cells.append(
            SummaryCell(
                **common, **total, metric="fid", protocol="fid/clip-micro@1", unit="", higher_is_better=False,
                value=12.4 + 3.1 * rank, low=11.2 + 3.1 * rank, high=13.9 + 3.1 * rank,
                note="2,048 reference scenes",
            )
        )  # fmt: skip
    return cells


def make_report(folder: Path, n_variants: int = 2, **sizes: int) -> ReportData:
    """A complete report over `n_variants` solver settings, with its images under `folder`."""
    steps = (20, 8, 4, 50, 12, 6)[:n_variants]
    names = [f"sana-micro-{count}-steps" for count in steps]
    samples = make_samples(folder, names, **sizes)
    variants = [
        VariantInfo(
            name=name,
            fingerprint=f"{count:02x}" * 32,
            description=f"{count} solver steps",
            settings={
                "model": {"kind": "sana", "weights": "builtin:sana-micro", "dtype": "float32"},
                "sampler": {"name": "flow_dpm_solver", "steps": count, "guidance_scale": 4.5, "shift": None},
                "seed": 0,
                "images_per_prompt": 4,
            },
            latency=Latency(
                value_ms=4.1 * count,
                low_ms=4.0 * count,
                high_ms=4.3 * count,
                n_images=600,
                device="cpu, 2 cores",
            ),
        )
        for name, count in zip(names, steps, strict=True)
    ]
    return ReportData(
        title="GenEval on the micro world",
        suite_name="geneval",
        tier="micro",
        tier_reason="no CUDA device found",
        created="2025-11-03 14:05 UTC",
        fingerprint="9f2c" * 16,
        complete=True,
        variants=variants,
        summaries=make_summaries(samples, names),
        samples=samples,
        provenance={
            "seed": 0,
            "command": "sana-bench run suites/geneval.yaml",
            "code": {"revision": "1f0c2d7e", "dirty": False},
            "machine": {"device": "cpu", "processor": "x86_64", "threads": 2, "precision": "float32"},
            "packages": {"torch": "2.15.0", "transformers": "5.23.0", "open_clip_torch": "3.3.0"},
            "weights_sha256": {"transformer/diffusion_pytorch_model.safetensors": "ab" * 32},
        },
    )


def with_sequences(data: ReportData) -> ReportData:
    """The report with two questions that were looked at while images were made: a difference, decided, and an interval."""
    first, second = (variant.name for variant in data.variants[:2])
    narrowing = [
        LookCell(
            n_images=24 * look, value=-0.12, low=max(-0.12 - 0.9 / look, -1), high=min(-0.12 + 0.9 / look, 1)
        )
        for look in range(1, 9)
    ]
    alone = [
        replace(look, value=0.6, low=max(look.low + 0.72, 0), high=min(look.high + 0.72, 1))
        for look in narrowing
    ]
    shared = {"benchmark": "geneval", "metric": "geneval", "n_expected": 600}
    return replace(
        data,
        sequences=[
            SequenceCell(
                **shared, variant=second, against=first, effect=0.02, answered=True, verdict="worse",
                rule=f"until {second} against {first} is decided, effect 0.02, error 5 %",
                finding=f"{second} is worse than {first}: geneval -0.12 [-0.2325, -0.0075] at every look, "
                "after 192 of 600 images of each",
                looks=narrowing,
                tasks=[
                    SequenceTask(key="counting", n_prompts=12, value=-0.3, p_value=0.004),
                    SequenceTask(key="colors", n_prompts=9, value=0.0, p_value=1.0),
                ],
            ),
            SequenceCell(
                **shared, variant=first, against="", effect=None, answered=False, verdict="all prompts used",
                rule=f"until the interval of {first} is 0.01 wide, error 5 %",
                finding=f"{first}: geneval 0.6 [0.4875, 0.7125] at every look, after 192 of 600 images", looks=alone,
            ),
        ],
    )  # fmt: skip


TIMES = "these times were not taken in turns"


def with_verdicts(data: ReportData) -> ReportData:
    """The report with what a comparison with its first variant found: GenEval worse, FID better, CLIP score neither."""
    first, *others = data.variants
    found = {
        ("geneval", "geneval", "overall", "fraction", True): ("worse", (-0.031, -0.05, -0.01)),
        ("geneval", "geneval", "counting", "fraction", True): ("worse", (-0.12, -0.21, -0.03)),
        ("geneval", "geneval", "colors", "fraction", True): ("no evidence", (0.01, -0.03, 0.05)),
        ("geneval", "clip_score", "overall", "100 x cosine", True): ("no evidence", (0.2, -0.4, 0.8)),
        ("geneval", "fid", "overall", "", False): ("better", (-3.1, -4.0, -2.2)),
        ("", "latency", "overall", "share", False): ("not measured", None),
    }
    verdicts = [
        Verdict(
            variant=variant.name,
            benchmark=benchmark,
            metric=metric,
            key=key,
            unit=unit,
            higher_is_better=higher,
            outcome=outcome,
            reason="" if numbers else TIMES,
            gain=Gain(over=first.name, difference=numbers[0], low=numbers[1], high=numbers[2])
            if numbers
            else None,
        )
        for (benchmark, metric, key, unit, higher), (outcome, numbers) in found.items()
        for variant in others
    ]
    return replace(data, compared_with=first.name, verdicts=verdicts)
