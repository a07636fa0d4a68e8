"""From what a suite or a variant needs to files on this machine."""

from sana_bench.assets.download import Say, carry_out, planned_files
from sana_bench.assets.hub import planned_repositories
from sana_bench.assets.locate import data_root
from sana_bench.assets.needs import Needs, needs_named, needs_of_suite
from sana_bench.assets.table import files_for
from sana_bench.core.errors import AssetError
from sana_bench.suites.schema import Suite

__all__ = ["MICRO", "fetch", "fetch_suite"]

#: What is said of a suite or variant of the micro tier.
MICRO = "the micro tier fetches nothing"


def fetch(what: str, say: Say, mirror: str | None = None) -> None:
    """Fetch what a suite or a variant, named or as a file, needs on the full tier.

    All sizes are said, and the free space is checked, before anything is fetched.

    Raises:
        SuiteError: there is no such file or name.
        AssetError: a variant's weights are a local folder that is not there, or as `sana_bench.assets.download.carry_out`.
    """
    _fetch(needs_named(what), say, mirror)


def fetch_suite(suite: Suite, say: Say, mirror: str | None = None) -> None:
    """Fetch the evaluators and the variants' weights of a suite of the full tier; of the micro tier, nothing."""
    _fetch(needs_of_suite(suite), say, mirror)


def _fetch(needs: Needs | None, say: Say, mirror: str | None) -> None:
    if needs is None:
        say(MICRO)
        return
    if needs.unlisted:
        say(f"not fetched: what {', '.join(needs.unlisted)} may need; docs/ has a page for each metric")
    if needs.suite:
        for line in needs.missing_folders:
            say(f"not fetched: {line}")
    root = data_root()
    carry_out(
        [
            *planned_files(files_for(needs.assets), root, say, mirror),
            *(
                download
                for repository, (folder, _) in needs.repositories.items()
                for download in planned_repositories([repository], folder, say)
            ),
        ],
        say,
    )
    if not needs.suite and (unpublished := needs.missing_folders):
        raise AssetError(unpublished[0])
