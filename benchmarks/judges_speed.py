"""Questions about an image, side by side on what they share, beside one whole forward pass a question.

    python benchmarks/judges_speed.py [--questions 12] [--side 448] [--repetitions 5] [--to reports/benchmarks]

Random Qwen2.5-VL and Qwen3-VL of small size, on the CPU in fp32, see the same picture and are asked the same questions. The peer
is what published scripts do: the processor and the network of transformers once a question, the image with it. A time is reported
only after all probabilities agreed to 1e-5 in this very run. Writes `judges_speed.{json,md}`.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from side_by_side import environment, interleave, table

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from sana_bench.judges.vlm import VisionLanguageModel
from tests.tiny_qwen import write_qwen

REPORTS = Path(__file__).resolve().parents[1] / "reports" / "benchmarks"
AIM = 4.0
_FAMILIES = {"Qwen2.5-VL": "qwen2_5_vl", "Qwen3-VL": "qwen3_vl"}
_ASKED = (
    "How many cats are there?",
    "Is the dog red?",
    "Is there a large red circle left of a small blue square?",
    "Are the two blue squares small?",
)
_SPELLINGS = ("Yes", "yes", " yes", " Yes")
_TOLERANCE = 1e-5


def one_by_one(judge: VisionLanguageModel, picture: Image.Image, questions: list[str]) -> np.ndarray:
    """Probabilities (questions, spellings) by transformers' processor and network alone, once a question."""
    ids = [judge.processor.tokenizer.encode(spelling)[0] for spelling in _SPELLINGS]
    found = []
    with torch.inference_mode():
        for question in questions:
            inputs = judge.processor(text=[judge.turn(question)], images=[picture], return_tensors="pt")
            logits = judge.network(**inputs, logits_to_keep=1).logits[0, -1]
            found.append(logits.double().softmax(-1)[ids].numpy())
    return np.stack(found)


def side_by_side(judge: VisionLanguageModel, image: np.ndarray, questions: list[str]) -> np.ndarray:
    """The same by the judge."""
    found = judge.probabilities(image, questions, [_SPELLINGS] * len(questions))
    return np.array([[token.probability for token in tokens] for tokens in found])


def measure(name: str, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Time both ways for one family and print what was found."""
    judge = VisionLanguageModel(write_qwen(folder, _FAMILIES[name], width=options.width))
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (options.side, options.side, 3), dtype=np.uint8)
    picture = Image.fromarray(image)
    questions = [
        f"{_ASKED[place % len(_ASKED)]} {place} Answer in one word." for place in range(options.questions)
    ]
    difference = float(
        np.abs(side_by_side(judge, image, questions) - one_by_one(judge, picture, questions)).max()
    )
    print(f"check: {name}: probabilities differ by {difference:.1e} (at most {_TOLERANCE:.0e})", flush=True)
    if not difference <= _TOLERANCE:
        sys.exit(f"{name}: results differ; no time is reported")
    sides = {
        "shared": lambda: side_by_side(judge, image, questions),
        "one by one": lambda: one_by_one(judge, picture, questions),
    }
    found = interleave(sides, options.repetitions)
    ratio = found["one by one"].median / found["shared"].median
    for side, timing in found.items():
        print(f"  {side:10s} {timing}  {options.questions / timing.median:.1f} questions/s", flush=True)
    print(f"  {ratio:.2f} times the questions a second (aim {AIM:.0f})")
    return {
        "model": name,
        "questions": options.questions,
        "side": options.side,
        "width": options.width,
        "difference": difference,
        "ratio": ratio,
        "aim": AIM,
        "seconds": {side: list(timing.seconds) for side, timing in found.items()},
        "questions_per_second": {side: options.questions / timing.median for side, timing in found.items()},
    }


def write(results: list[dict[str, Any]], folder: Path) -> None:
    """Write the report as JSON and Markdown."""
    folder.mkdir(parents=True, exist_ok=True)
    report = folder / "judges_speed.json"
    where = environment()
    document = {"environment": where, "results": results}
    report.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    rows = [
        (
            result["model"],
            f"{result['questions']} about {result['side']}x{result['side']}",
            f"{result['questions_per_second']['one by one']:.1f}",
            f"{result['questions_per_second']['shared']:.1f}",
            f"{result['ratio']:.2f} (aim {result['aim']:.0f})",
            f"{result['difference']:.0e}",
        )
        for result in results
    ]
    header = (
        "model",
        "questions",
        "one by one, questions/s",
        "shared, questions/s",
        "times",
        "probabilities differ by",
    )
    about = ", ".join(f"{name}: {value}" for name, value in where.items())
    text = f"# Questions a second of a judge\n\n{table(header, rows)}\n\n{about}\n"
    report.with_suffix(".md").write_text(text, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--questions", type=int, default=12)
    parser.add_argument("--side", type=int, default=448, help="pixels of the picture's side")
    parser.add_argument("--width", type=int, default=64, help="of the random networks")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--to", type=Path, default=REPORTS)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = [measure(name, Path(folder) / _FAMILIES[name], options) for name in _FAMILIES]
    write(found, options.to)


if __name__ == "__main__":
    main()
