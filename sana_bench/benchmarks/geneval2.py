"""GenEval 2's prompts: 800, of three to ten atoms, each with questions about its parts (Kamath et al. 2025, arXiv 2512.16853)."""

from pathlib import Path

from sana_bench.assets.required import asset_file
from sana_bench.benchmarks.prompt_file import read_prompts
from sana_bench.core.errors import AssetError, UsageError
from sana_bench.core.fields import field, whole_number
from sana_bench.core.samples import Prompt
from sana_bench.core.tiers import unknown_tier
from sana_bench.metrics.geneval2.rules import questions

__all__ = ["GenEval2", "read_geneval2"]

_N_PROMPTS = 800


class GenEval2:
    """The published prompts in their order, one image each as in the published evaluation."""

    name = "geneval2"
    default_images_per_prompt = 1
    metric_names: tuple[str, ...] = ("geneval2", "clip_score")

    def prompts(self, tier: str) -> list[Prompt]:
        """The 800 published prompts, or the micro world's 72; the tag is the number of atoms, such as `03_atoms`.

        Raises `AssetError` where the published file is missing or not what it should be.
        """
        if tier == "micro":
            return _micro_prompts()
        if tier == "full":
            return read_geneval2(asset_file("geneval2_prompts"), _N_PROMPTS)
        raise unknown_tier("geneval2", tier)


def read_geneval2(path: Path, count: int) -> list[Prompt]:
    """The prompts of `geneval2_data.jsonl`, with `vqa_list` and `skills` as metadata; the id is the line's number from 0.

    Raises `AssetError` for another number of prompts than `count`, or one whose questions cannot be scored.
    """
    prompts = read_prompts(path).prompts
    if len(prompts) != count:
        raise AssetError(f"{path}: {len(prompts)} prompts, the benchmark has {count}")
    try:
        return [_prompt(f"{path}: prompt {prompt.id}", prompt) for prompt in prompts]
    except UsageError as error:
        raise AssetError(str(error)) from None


def _prompt(where: str, prompt: Prompt) -> Prompt:
    atoms = whole_number(field(prompt.metadata, where, "atom_count"), f"{where}: atom_count", at_least=1)
    questions(prompt.metadata, where)
    kept = {name: prompt.metadata[name] for name in ("atom_count", "vqa_list", "skills")}
    return Prompt(prompt.id, prompt.text, _tag(atoms), kept)


def _micro_prompts() -> list[Prompt]:
    from sana_bench.micro.reading_prompts import atom_prompts

    found = []
    for index, one in enumerate(atom_prompts()):
        asked = one.questions()
        metadata = {
            "atom_count": one.atom_count,
            "vqa_list": [[question.text, question.answer] for question in asked],
            "skills": [question.skill for question in asked],
        }
        found.append(Prompt(f"{index:05d}", one.prompt.text, _tag(one.atom_count), metadata))
    return found


def _tag(atoms: int) -> str:
    return f"{atoms:02d}_atoms"
