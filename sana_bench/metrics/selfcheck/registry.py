"""Every check, found by the protocols that rest on it."""

from collections.abc import Collection, Iterable

from sana_bench.core.errors import UsageError, nearest
from sana_bench.core.registry import METRICS
from sana_bench.metrics.selfcheck import (
    chains,
    detectors,
    encoders,
    image_questions,
    judges,
    micro_scores,
    preference,
    readings,
    sums,
)
from sana_bench.metrics.selfcheck.check import Check, stored_name

__all__ = ["all_checks", "checks_for", "metrics_of", "select", "unchecked_metrics"]


def all_checks() -> list[Check]:
    """All checks, the cheap ones first."""
    modules = (sums, chains, micro_scores, detectors, judges, readings, image_questions, encoders, preference)
    found = [check for module in modules for check in module.CHECKS]
    return sorted(found, key=lambda check: not check.quick)


def checks_for(protocols: Collection[str]) -> list[Check]:
    """The checks that numbers of any of `protocols` rest on."""
    names = {stored_name(protocol) for protocol in protocols}
    return [check for check in all_checks() if set(check.protocols) & names]


def metrics_of(protocols: Iterable[str]) -> list[str]:
    """The metrics' names of protocols, each once."""
    return list(dict.fromkeys(protocol.partition("/")[0] for protocol in protocols))


def select(chosen: Collection[str]) -> list[Check]:
    """The checks of metrics or protocols by name, all without names; raises `UsageError` with the nearest name."""
    everything = all_checks()
    if not chosen:
        return everything
    protocols = list(dict.fromkeys(name for check in everything for name in check.protocols))
    known = [*metrics_of(protocols), *protocols]
    names = {stored_name(name) for name in chosen}
    for name in chosen:
        if stored_name(name) not in known:
            raise UsageError(
                f"no stored cases of {name!r}{nearest(name, known)}; there are {', '.join(known)}"
            )
    wanted = {name for name in protocols if name in names or name.partition("/")[0] in names}
    return [check for check in everything if wanted & set(check.protocols)]


def unchecked_metrics() -> list[str]:
    """Installed metrics without stored cases, such as those of plug-ins."""
    covered = metrics_of(name for check in all_checks() for name in check.protocols)
    return [name for name in METRICS.names() if name not in covered]
