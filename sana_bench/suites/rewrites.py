"""Prompts as a rewriter or an upsampler made them: what a variant's model is given instead of the benchmark's texts."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sana_bench.core.errors import SuiteError
from sana_bench.core.fingerprint import fingerprint
from sana_bench.core.text import lines, lone_surrogate, read_text
from sana_bench.suites.schema import source_of
from sana_models.files import first_line, parse_json

__all__ = ["PromptRewrites", "read_rewrites"]

# Prompt ids that one message names; the rest is counted.
_NAMED = 5


@dataclass(frozen=True)
class PromptRewrites:
    """Texts by benchmark and prompt id; an empty benchmark stands for all that do not have the id themselves.

    What is said of `geneval` holds for its part `geneval@24` too.
    """

    texts: Mapping[tuple[str, str], str]

    def text(self, benchmark: str, prompt_id: str) -> str | None:
        """What the model is given for a prompt; None where the file does not say."""
        places = ((name, prompt_id) for name in (benchmark, source_of(benchmark), ""))
        return next((self.texts[place] for place in places if place in self.texts), None)

    def lacking(self, benchmark: str, prompt_ids: Iterable[str]) -> str:
        """The prompts of a benchmark without a text, for a message; empty when there is none."""
        found = [prompt_id for prompt_id in prompt_ids if self.text(benchmark, prompt_id) is None]
        if not found:
            return ""
        more = f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
        return f"{', '.join(found[:_NAMED])}{more} of benchmark {benchmark!r}"

    @property
    def sha256(self) -> str:
        """Identity of the texts, whatever file they came from and in which order."""
        return fingerprint(sorted([*place, text] for place, text in self.texts.items()))


def read_rewrites(path: Path) -> PromptRewrites:
    """Read `.json`, an object of texts by prompt id, or `.jsonl`, a line `{"id": .., "text": ..}` a prompt.

    A line may name a `benchmark`, where prompts of several have the same id. Raises `SuiteError` with file and line for a file
    that cannot be read, a text that is empty or no UTF-8, and an id that stands twice.
    """
    try:
        content = read_text(path)
    except FileNotFoundError:
        raise SuiteError(f"{path}: no such file of rewritten prompts") from None
    except (OSError, ValueError) as error:
        raise SuiteError(f"{path}: unreadable rewritten prompts ({first_line(error)})") from None
    if path.suffix not in (".json", ".jsonl"):
        raise SuiteError(f"{path}: rewritten prompts are a .json or .jsonl file")
    rows = _rows_of_object(path, content) if path.suffix == ".json" else _rows_of_lines(path, content)
    texts: dict[tuple[str, str], str] = {}
    for where, row in rows:
        place, text = _checked(where, row)
        if place in texts:
            raise SuiteError(f"{where}: prompt {place[1]!r} stands twice")
        texts[place] = text
    return PromptRewrites(texts)


def _rows_of_object(path: Path, content: str) -> Sequence[tuple[str, Any]]:
    # As pairs: in a dict the last of two equal ids would win without a word.
    try:
        pairs = parse_json(content, object_pairs_hook=list)
    except ValueError as error:
        raise SuiteError(f"{path}: no JSON ({error})") from None
    if not content.lstrip().startswith("{"):
        raise SuiteError(f"{path}: expected one object with a text for each prompt id")
    return [(str(path), {"id": name, "text": text}) for name, text in pairs]


def _rows_of_lines(path: Path, content: str) -> Sequence[tuple[str, Any]]:
    rows = []
    for number, line in enumerate(lines(content), start=1):
        if line.strip():
            try:
                rows.append((f"{path}:{number}", parse_json(line)))
            except ValueError as error:
                raise SuiteError(f"{path}:{number}: no JSON ({error})") from None
    return rows


def _checked(where: str, row: Any) -> tuple[tuple[str, str], str]:
    if not isinstance(row, dict) or not {"id", "text"} <= set(row) <= {"id", "text", "benchmark"}:
        raise SuiteError(f"{where}: expected an object with id, text and, if needed, benchmark")
    for key, value in row.items():
        if not isinstance(value, str) or not value.strip():
            raise SuiteError(f"{where}: {key} of prompt {row['id']!r} is no text")
        if lone_surrogate(value) is not None:
            raise SuiteError(f"{where}: {key} of prompt {row['id']!r} holds half of a surrogate pair")
    return (row.get("benchmark", ""), row["id"]), row["text"]
