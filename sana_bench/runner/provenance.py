"""Where the numbers of a run come from: code, machine, weights, plug-ins, protocols."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from sana_bench.analysis.model_size import model_size
from sana_bench.assets.table import prompt_licences
from sana_bench.core import atomic
from sana_bench.core.provenance import code_revision, describe_machine, now, package_versions
from sana_bench.core.registry import used_plugins
from sana_bench.profiling.image_flops import known_flops
from sana_bench.results.run_folder import RunFiles
from sana_bench.results.store import Store
from sana_bench.suites.cells import ResolvedSuite
from sana_bench.suites.plan import asked_rows
from sana_bench.suites.schema import source_of

__all__ = ["record_provenance"]


def record_provenance(
    store: Store, files: RunFiles, resolved: ResolvedSuite, selfcheck: Mapping[str, Any]
) -> dict[str, Any]:
    """Record where the numbers of a run come from, in the store and beside its images, and return it.

    `selfcheck` says how far this machine's numbers can be trusted; see `sana_bench.metrics.selfcheck.session.check_run`.
    """
    provenance = {**_describe(store, resolved), "selfcheck": selfcheck}
    store.set_provenance(files.directory.name, provenance)
    atomic.write_text(files.provenance, json.dumps(provenance, indent=2, ensure_ascii=False) + "\n")
    return provenance


def _describe(store: Store, resolved: ResolvedSuite) -> dict[str, Any]:
    """Everything that an auditor needs beside the suite: what code, on what machine, with what weights."""
    tier, sessions = resolved.tier, store.sessions(resolved.run_id)
    known = store.protocols()
    judged = {
        look.metric: look.metric_key for look in store.looks(resolved.run_id) if look.metric_key in known
    }
    protocols = {metric: known[key][1] for metric, key in judged.items()}
    for row in store.summaries(resolved.run_id):
        judged[row.metric], protocols[row.metric] = row.metric_key, row.protocol
    # Counted as they are read: of many thousand images the rows are not kept.
    images, sha256s = Counter[tuple[str, str | None, str | None]](), set[str]()
    for cell in resolved.cells():
        for image in asked_rows(cell, store):
            images[image.status, image.device, image.worker] += 1
            sha256s.update([image.sha256] if image.sha256 else ())
    return {
        "run": resolved.run_id,
        "fingerprint": resolved.fingerprint,
        "tier": tier.tier,
        "tier_reason": tier.reason,
        "seed": resolved.seed,
        "command": sessions[-1]["command"],
        "updated": now(),
        "code": code_revision(),
        "packages": package_versions(),
        **describe_machine(tier.device),
        "workers": _workers(store, images, sha256s),
        "devices_of_images": sorted({device for _, device, _ in images if device}),
        "n_images": sum(count for (status, _, _), count in images.items() if status == "ok"),
        "n_expected": sum(cell.benchmark.n_samples for cell in resolved.cells()),
        "weights": {
            variant.name: {
                "source": variant.variant.model.weights,
                "sha256": variant.spec.weights_sha256,
                "precision": variant.variant.plain_precision,
                "quantization": variant.variant.quantization,
                "kernels": variant.kernels,
            }
            for variant in resolved.variants
        },
        "models": _models(store, resolved),
        "prompt_licences": {
            benchmark.name: licences
            for benchmark in resolved.benchmarks
            if tier.tier == "full" and (licences := prompt_licences(source_of(benchmark.name)))
        },
        "plugins": used_plugins(
            {
                "generators": [variant.variant.generator for variant in resolved.variants],
                "benchmarks": [source_of(benchmark.name) for benchmark in resolved.benchmarks],
                "metrics": [name for benchmark in resolved.benchmarks for name in benchmark.metrics],
                "judges": [
                    variant.variant.best_of_n.judge.name
                    for variant in resolved.variants
                    if variant.variant.best_of_n is not None
                ],
            }
        ),
        "protocols": protocols,
        "metrics": {metric: store.metric_identity(key) for metric, key in judged.items()},
        "sessions": sessions,
        "events": store.events(resolved.run_id),
    }


def _workers(
    store: Store, images: Mapping[tuple[str, str | None, str | None], int], sha256s: Iterable[str]
) -> dict[str, dict[str, Any]]:
    """Who made images, and scores of them: by key, with how many of each. Those of earlier versions do not say who made them."""
    n_images = Counter[str | None]()
    for (_, _, worker), count in images.items():
        n_images[worker] += count
    n_scores = store.scores_by_worker(sha256s)
    return {
        key: {**described, "n_images": n_images[key], "n_scores": n_scores[key]}
        for key, described in store.workers().items()
        if n_images[key] or n_scores[key]
    }


def _models(store: Store, resolved: ResolvedSuite) -> dict[str, dict[str, Any]]:
    """Size and work of each variant's model."""
    counted = known_flops(store, resolved.run_id)
    return {
        variant.name: {
            "fingerprint": variant.fingerprint,
            **model_size(variant),
            **({"image_flops": counted[variant.fingerprint]} if variant.fingerprint in counted else {}),
        }
        for variant in resolved.variants
    }
