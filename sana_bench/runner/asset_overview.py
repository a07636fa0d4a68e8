"""The one table of what the full tier reads: size, licence, whether it is here, and how to get it. No server is asked."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sana_bench.assets.checks import weights_to_read
from sana_bench.assets.hub import check_repository
from sana_bench.assets.locate import data_root, hub_cache, resolve_folder
from sana_bench.assets.mjhq30k import Mjhq30k
from sana_bench.assets.needs import Needs, needs_of_variants
from sana_bench.assets.table import (
    Asset,
    Repository,
    find_asset,
    published_judges,
    read_assets,
    repository_facts,
)
from sana_bench.core.errors import AssetError
from sana_bench.core.progress import size_text
from sana_bench.core.storage import existing_part
from sana_bench.judges.mplug.config import (
    BERT_FILE,
    CONFIGURATION_FILE,
    NETWORK_FILE,
    PICKLE_FILE,
    SAFETENSORS_FILE,
    VOCABULARY_FILE,
)
from sana_bench.judges.mplug.judge import find_mplug
from sana_bench.suites.cells import NO_WEIGHTS
from sana_bench.suites.schema import Variant
from sana_reports.terminal import text_lines
from sana_reports.text_table import TextTable

__all__ = ["Item", "all_items", "item_lines", "items_of"]

_HEADER = ("item", "needed for", "size", "licence", "here", "how to get it")
_PAGE = "https://huggingface.co"


@dataclass(frozen=True)
class Item:
    """Something that the full tier reads.

    `size` is in bytes: of the files that are here, else as published (then `about`), None where nobody says. `terms` is where
    terms of use beside the licence are read. `problem` says what is lacking of a thing that is here in part.
    """

    name: str
    needed_for: str
    size: int | None
    about: bool
    licence: str
    is_here: bool
    how: str
    problem: str = ""
    terms: str = ""

    @property
    def row(self) -> tuple[str, ...]:
        """Its cells."""
        size = "unknown" if self.size is None else f"{'about ' if self.about else ''}{size_text(self.size)}"
        state = "yes" if self.is_here else "partly" if self.problem else "no"
        licence = self.licence or "not stated"
        return self.name, self.needed_for, size, licence, state, "" if self.is_here else self.how


def items_of(needs: Needs) -> list[Item]:
    """What a suite or a variant needs, evaluators and data first."""
    # An asset whose files all belong to another one as well needs no line of its own.
    assets = [find_asset(name) for name in needs.assets]
    covered = [one for one in assets if not any(set(one.files) < set(other.files) for other in assets)]
    return [
        *map(_asset_item, covered),
        *(
            _repository_item(repository, folder, users, needs.suite)
            for repository, (folder, users) in needs.repositories.items()
        ),
        *(_folder_item(name, weights, folder) for name, (weights, folder) in needs.folders.items()),
    ]


def all_items(variants: Sequence[tuple[Variant, Path]]) -> list[Item]:
    """Every asset of the full tier, and the weights of these variants, each with the folder that it was read from."""
    assets = tuple(name for name, asset in read_assets().items() if asset.needed_for)
    full = [
        (one, folder) for one, folder in variants if one.tier == "full" and one.model.weights != NO_WEIGHTS
    ]
    own = needs_of_variants(full)
    known = tuple(name for name in own.assets if name not in assets)
    judges = {Repository(name): (data_root(), ()) for name in published_judges().values()}
    return items_of(Needs((*assets, *known), {**judges, **own.repositories}, own.folders))


def item_lines(items: Sequence[Item], title: str) -> list[str]:
    """The table, what is only partly here, what there is to load and where, and which licences to accept first."""
    lines = text_lines(TextTable(title=title, header=_HEADER, rows=[item.row for item in items]))
    lines += [f"! {item.name}: {item.problem}" for item in items if item.problem]
    lines += [
        f"terms of use beside the licence: {place}"
        for place in dict.fromkeys(item.terms for item in items)
        if place
    ]
    lacking = [item for item in items if not item.is_here]
    if not lacking:
        return [*lines, "all of it is here"]
    known = sum(item.size or 0 for item in lacking)
    unknown = sum(item.size is None for item in lacking)
    more = f", and {unknown} of unknown size" if unknown else ""
    places = dict.fromkeys((data_root(), hub_cache()))
    free = ", ".join(
        f"{size_text(shutil.disk_usage(existing_part(place)).free)} free in {place}" for place in places
    )
    return [*lines, f"to get: {len(lacking)} of {len(items)} items, about {size_text(known)}{more}; {free}"]


def _asset_item(asset: Asset) -> Item:
    is_here, problem = _asset_state(asset)
    paths = [data_root() / file.path for file in asset.files]
    here = sum(path.stat().st_size for path in paths if path.is_file()) if is_here else 0
    return Item(
        name=asset.name,
        needed_for=asset.needed_for.replace(" (full tier)", ""),
        size=here or asset.bytes,
        about=not here,
        licence=asset.licence,
        is_here=is_here,
        how=asset.command,
        problem=problem,
    )


def _asset_state(asset: Asset) -> tuple[bool, str]:
    """Whether an asset's readers find what they look for, and what it lacks where only a part of it is here."""
    path = asset.path
    if asset.name == "mplug":
        return _mplug_state()
    if asset.name == "dpg_bench_questions" and len(list(path.parent.rglob("*.parquet"))) == 1:
        return True, ""
    if not path.is_file():
        begun = any((data_root() / file.path).exists() for file in asset.files)
        return False, f"lacks {path}" if begun else ""
    if asset.name == "mjhq30k_images":
        try:
            Mjhq30k(path).require_images()
        except AssetError as error:
            return False, str(error)
    return True, ""


def _mplug_state() -> tuple[bool, str]:
    try:
        folder = find_mplug("mplug")
    except AssetError:
        return False, ""
    names = [CONFIGURATION_FILE, NETWORK_FILE, BERT_FILE, VOCABULARY_FILE]
    if not (folder / SAFETENSORS_FILE).is_file():
        names.append(PICKLE_FILE)
    lacking = [str(folder / name) for name in names if not (folder / name).is_file()]
    return not lacking, f"lacks {', '.join(lacking)}" if lacking else ""


def _repository_item(repository: Repository, relative_to: Path, users: Sequence[str], suite: str) -> Item:
    facts = repository_facts(repository.name)
    size, problem = facts.bytes.get(repository.weights_variant or "plain"), ""
    try:
        folder = resolve_folder(repository.name, relative_to)
    except AssetError:
        folder = None
    is_here = folder is not None
    if folder is not None:
        try:
            check_repository(folder, repository)
            size = sum(
                path.stat().st_size for path in weights_to_read(folder, repository.weights_variant).values()
            )
        except AssetError as error:
            is_here, problem = False, str(error)
    judged = [metric for metric, judge in published_judges().items() if judge == repository.name]
    who = ", ".join(users) or f"the judge of {', '.join(judged) or 'a metric'}"
    how = f"sana-bench fetch {next(filter(None, (*users, suite, *judged)))}"
    if facts.gated:
        page = f"{_PAGE}/{repository.name.partition('@')[0]}"
        how = f"accept its licence at {page}, log in with `hf auth login`, then {how}"
    return Item(
        name=repository.label,
        needed_for=who,
        size=size,
        about=not is_here,
        licence=facts.licence,
        is_here=is_here,
        how=how,
        problem=problem,
        terms=facts.terms,
    )


def _folder_item(name: str, weights: str, relative_to: Path) -> Item:
    try:
        folder = resolve_folder(weights, relative_to)
    except AssetError:
        return Item(
            weights,
            name,
            None,
            False,
            "",
            False,
            "nobody publishes it; the variant's file says how it is made",
        )
    size = sum(path.stat().st_size for path in weights_to_read(folder).values())
    return Item(weights, name, size, False, "", True, "")
