"""Folders of images scored without a suite file: a suite is made of what is given, and run as any other."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from sana_bench.benchmarks.prompt_file import PromptSet, read_geneval_prompts, read_prompts
from sana_bench.core.engines import EngineRequest
from sana_bench.core.errors import UsageError
from sana_bench.core.progress import listed, say
from sana_bench.core.provenance import command_line
from sana_bench.core.registry import BENCHMARKS, MEASURED, METRICS, SET_METRICS
from sana_bench.core.samples import FoundImages, Prompt
from sana_bench.core.tiers import Tier, TierRequest
from sana_bench.generators.image_folder import MANIFEST, is_geneval_layout
from sana_bench.generators.image_match import Match, image_files, match_images, number_images
from sana_bench.runner.run import RunOptions, execute_suite
from sana_bench.runner.session import Outcome
from sana_bench.suites.config_files import parse_override
from sana_bench.suites.schema import (
    FUNCTION_PATTERN,
    NAMED_REFERENCES,
    OWN_METRICS,
    BenchmarkSpec,
    MetricSpec,
    ModelSpec,
    Suite,
    SuiteFile,
    Variant,
    check_name,
)
from sana_bench.suites.stop import StopRequest
from sana_bench.suites.tiers import choose_tier
from sana_models.files import is_there, open_plain, path_of
from sana_models.image_files import upright_size

__all__ = ["ScoreOptions", "score_folders"]

# Asked for by people who come from other tools.
_ABSENT = {
    "diversity": "between images of a prompt it has oneig_diversity",
}
# Pairs of image and prompt that are shown before work begins.
_SHOWN = 3
_LONGEST = 60


@dataclass(frozen=True)
class ScoreOptions:
    """What `sana-bench score` is given; `folders` are compared with the first of them.

    `metrics` are names, protocols (`fid/clean@1`) and functions (`./file.py:name`); empty for those that fit. `overrides` set
    parameters of theirs, `METRIC.PARAMETER=VALUE`. `prompts` is a file of prompts, or None where the folder says them or there
    are none; `command` is how it is asked for.
    """

    folders: tuple[Path, ...]
    prompts: Path | None = None
    metrics: tuple[str, ...] = ()
    overrides: tuple[str, ...] = ()
    reference: str | None = None
    names: tuple[str, ...] = ()
    images_per_prompt: int | None = None
    output: Path = Path("results")
    tier: TierRequest = "auto"
    batch_size: int | None = None
    limit: int | None = None
    dry_run: bool = False
    fetch: bool = False
    allow_incomplete: bool = False
    stop: StopRequest = field(default_factory=StopRequest)
    engine: EngineRequest = field(default_factory=EngineRequest)
    command: str = field(default_factory=command_line)


def score_folders(options: ScoreOptions) -> Outcome:
    """Match the images of folders to prompts, say what was matched, and score them.

    Raises `UsageError` or `AssetError` for files that cannot be read, images that cannot be matched and metrics that do not fit,
    before anything is written; else as `execute_suite` does.
    """
    tier = choose_tier(options.tier).tier
    given = _prompts(options)
    metrics = _metrics(options, has_prompts=given is not None)
    if given is not None:
        prompts = given.prompts
        matches = [
            match_images(
                folder,
                prompts,
                given.files,
                numbered=given.numbered,
                images_per_prompt=options.images_per_prompt,
            )
            for folder in options.folders
        ]
    else:
        matches = [Match(number_images(folder), "in the order of names") for folder in options.folders]
        most = max(len(match.found.files) for match in matches)
        prompts = tuple(Prompt(f"{place:05d}", "", "all") for place in range(most))
    names = _names(options)
    for folder, name, match in zip(options.folders, names, matches, strict=True):
        _tell(folder, name, match, prompts, has_prompts=given is not None)
    if tier == "micro":
        say("micro tier: its small networks know coloured shapes alone; for other images use --tier full")
    suite = _suite(options, tier, names, matches, prompts, metrics)
    run = RunOptions(
        suite=suite.path,
        output=options.output,
        tier=options.tier,
        batch_size=options.batch_size,
        limit=options.limit,
        dry_run=options.dry_run,
        fetch=options.fetch,
        allow_incomplete=options.allow_incomplete,
        stop=options.stop,
        engine=options.engine,
        command=options.command,
    )
    return execute_suite(run, suite)


def _prompts(options: ScoreOptions) -> PromptSet | None:
    """The prompts of the file, or those that the first folder says itself; None where there are none."""
    if options.prompts is not None:
        return read_prompts(options.prompts)
    folder = options.folders[0]
    image_files(folder)
    if (folder / MANIFEST).is_file():
        return read_prompts(folder / MANIFEST)
    return read_geneval_prompts(folder) if is_geneval_layout(folder) else None


def _metrics(options: ScoreOptions, *, has_prompts: bool) -> tuple[MetricSpec, ...]:
    """The metrics to apply, each checked to exist and to fit what there is."""
    asked = [_metric(text) for text in options.metrics] or [
        MetricSpec(name=name) for name in OWN_METRICS if has_prompts
    ]
    if options.reference is not None and not any(metric.name in SET_METRICS for metric in asked):
        asked.append(MetricSpec(name="fid"))
    if not asked:
        raise UsageError(
            "without prompts images are held against others: --reference FOLDER, or --prompts FILE"
        )
    asked = _with_parameters(asked, options.overrides)
    reference = _reference(options.reference)
    found = []
    for metric in asked:
        if metric.name in SET_METRICS:
            if reference is None:
                raise UsageError(
                    f"{metric.name} holds images against others: --reference FOLDER, or a file of statistics"
                )
            metric = metric.model_copy(update={"reference": reference})
        elif not has_prompts and metric.function is None and METRICS.entry(metric.name).reads:
            raise UsageError(f"{metric.name} judges images by their prompts: --prompts FILE")
        found.append(metric)
    repeated = [name for name, count in Counter(metric.name for metric in found).items() if count > 1]
    if repeated:
        raise UsageError(f"--metrics: {repeated[0]!r} appears twice")
    return tuple(found)


def _metric(text: str) -> MetricSpec:
    if re.fullmatch(FUNCTION_PATTERN, text):
        file, _, name = text.rpartition(":")
        if name in METRICS or name in MEASURED:
            raise UsageError(f"--metrics {text}: {name!r} is the name of a metric already")
        path = path_of(file)
        if not is_there(path, Path.is_file):
            raise UsageError(f"--metrics {text}: there is no file {path}")
        return MetricSpec(name=name, function=f"{path}:{name}")
    name, slash, _ = text.partition("/")
    if name in _ABSENT:
        raise UsageError(f"--metrics {name}: sana-bench has no {name}; {_ABSENT[name]}")
    if name in MEASURED:
        raise UsageError(f"--metrics {name}: is measured while images are made, not of images that exist")
    if name not in METRICS:
        METRICS.refuse(name, "--metrics")
    return MetricSpec(name=name, protocol=text if slash else None)


def _with_parameters(metrics: Sequence[MetricSpec], overrides: Sequence[str]) -> list[MetricSpec]:
    """The metrics with the parameters that `METRIC.PARAMETER=VALUE` set; what a metric does not know it refuses itself."""
    parameters: dict[str, dict[str, int | float | str | bool]] = {metric.name: {} for metric in metrics}
    for text in overrides:
        key, value = parse_override(text)
        name, dot, parameter = key.partition(".")
        if name not in parameters or not dot:
            raise UsageError(
                f"--set {text}: expected METRIC.PARAMETER=VALUE with a metric of --metrics: {', '.join(parameters)}"
            )
        if not isinstance(value, int | float | str | bool):
            raise UsageError(f"--set {text}: expected a number, a text, true or false")
        parameters[name][parameter] = value
    return [metric.model_copy(update={"parameters": parameters[metric.name]}) for metric in metrics]


def _reference(given: str | None) -> str | None:
    if given is None or given in NAMED_REFERENCES:
        return given
    path = path_of(given)
    if not is_there(path):
        raise UsageError(f"--reference {given}: there is no such folder or file")
    return str(path)


def _names(options: ScoreOptions) -> list[str]:
    """A name for each folder: the one given, or made of the folder's own."""
    given = [*options.names, *[""] * len(options.folders)]
    names: list[str] = []
    for folder, name in zip(options.folders, given, strict=False):
        try:
            check_name(name or "images")
        except ValueError as error:
            raise UsageError(f"--name {name}: {error}") from None
        wanted = name or _slug(folder.resolve().name, "images")
        same = sum(re.fullmatch(rf"{re.escape(wanted)}(-[0-9]+)?", other) is not None for other in names)
        names.append(f"{wanted}-{same + 1}" if same else wanted)
    return names


def _slug(name: str, otherwise: str) -> str:
    found = re.sub(r"[^a-z0-9_-]+", "-", name.lower()).strip("-_")[:40]
    return found if found and found not in ("micro", "full") else otherwise


def _tell(folder: Path, name: str, match: Match, prompts: Sequence[Prompt], *, has_prompts: bool) -> None:
    """Say what will be scored as what."""
    files = match.found.files
    say(f"{name}: {len(files) + len(match.found.surplus)} images in {folder}; {_sizes(files)}")
    if not has_prompts:
        return
    texts = {prompt.id: prompt.text for prompt in prompts}
    covered = {prompt_id for prompt_id, _ in files}
    say(f"  {len(covered)} of {len(prompts)} prompts have images ({len(files)}, found {match.how}), such as")
    for (prompt_id, index), path in list(files.items())[:_SHOWN]:
        text = (
            texts[prompt_id]
            if len(texts[prompt_id]) <= _LONGEST
            else f"{texts[prompt_id][: _LONGEST - 3]}..."
        )
        say(f"    {path.relative_to(folder)}: image {index} of prompt {prompt_id}, {text!r}")
    without = [f"{prompt.id}: {prompt.text}" for prompt in prompts if prompt.id not in covered]
    if without:
        for line in listed({f"{name} has no image for {len(without)} prompts:": without}):
            say(line)


def _sizes(files: Mapping[tuple[str, int], Path]) -> str:
    """The sizes of images as width x height, the most frequent first, read from the heads of the files."""
    counts: Counter[str] = Counter()
    for path in files.values():
        try:
            with open_plain(path) as file, Image.open(file) as image:
                height, width = upright_size(image)
                counts[f"{width}x{height}"] += 1
        except (OSError, SyntaxError, ValueError, UnidentifiedImageError, Image.DecompressionBombError):
            counts["unreadable"] += 1
    shown = [f"{count} of {size}" for size, count in counts.most_common(5)]
    return ", ".join([*shown, *([f"and {len(counts) - 5} more sizes"] if len(counts) > 5 else [])])


def _suite(
    options: ScoreOptions,
    tier: Tier,
    names: Sequence[str],
    matches: Sequence[Match],
    prompts: tuple[Prompt, ...],
    metrics: tuple[MetricSpec, ...],
) -> Suite:
    """A suite of one benchmark, with a variant for each folder."""
    given = options.prompts
    benchmark = _slug(given.resolve().stem, "prompts") if given is not None else "images"
    benchmark = f"{benchmark}-prompts" if benchmark in BENCHMARKS else benchmark
    per_prompt = options.images_per_prompt or 1 + max(
        index for match in matches for _, index in match.found.files
    )
    file = SuiteFile(
        name=f"score-{benchmark}",
        benchmarks=(BenchmarkSpec(name=benchmark, images_per_prompt=per_prompt, metrics=metrics),),
        variants={tier: tuple(names)},
    )
    found: dict[str, FoundImages] = {name: match.found for name, match in zip(names, matches, strict=True)}
    variants = tuple(
        Variant(
            name=name,
            tier=tier,
            description=f"{len(match.found.files)} images of {folder.name}: {_sizes(match.found.files)}",
            generator="images",
            model=ModelSpec(weights=str(folder.resolve())),
        )
        for folder, name, match in zip(options.folders, names, matches, strict=True)
    )
    # No file holds them; these are the places beside the suite that they would have.
    files = tuple(Path("variants", f"{name}.yaml") for name in names)
    return Suite(file, Path("score"), tier, variants, files, {benchmark: prompts}, found)
