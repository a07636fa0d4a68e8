"""What runs on each device of a distributed run: a workshop that first shows that it is the driver's equal."""

import os
import platform
import secrets
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from sana_bench.assets.locate import data_places, take_data_places
from sana_bench.core.errors import BenchError
from sana_bench.core.fingerprint import FileHashes, FileKey
from sana_bench.core.provenance import code_sha256, describe_worker
from sana_bench.metrics.base import FeatureMetric, Metric, metric_key
from sana_bench.runner.checks import load_metrics
from sana_bench.runner.resolve import resolve_suite
from sana_bench.runner.workshop import ImageBatch, ScoreChunk, Scored, Workplace, Workshop, WrittenBatch
from sana_bench.suites.cells import ResolvedSuite
from sana_models.files import TEMPORARY_PREFIX, read_bytes

__all__ = ["Bench", "Hello", "Worker", "differences", "identity_of"]

_WRITERS = 4


@dataclass(frozen=True)
class Bench:
    """What a worker needs to know once: the suite, the driver's place, and how to find out whether it sees the driver's files.

    `folder` is where relative paths start, `data_places` say where weights and data are. `hashes` are of files that need not be
    read again where they are the same, and `token` is what the file `probe` holds.
    """

    resolved: ResolvedSuite
    place: Workplace
    protocols: Sequence[str]
    folder: Path
    data_places: Mapping[str, str]
    hashes: Mapping[FileKey, str]
    probe: Path
    token: bytes

    @classmethod
    def of(
        cls, resolved: ResolvedSuite, place: Workplace, protocols: Sequence[str], hashes: FileHashes
    ) -> Self:
        """What workers of this process need to know."""
        place = replace(
            place,
            output=place.output.absolute(),
            directory=place.directory.absolute(),
            cache=place.cache.absolute(),
        )
        token = secrets.token_hex(16)
        probe = place.directory / f"{TEMPORARY_PREFIX}{token}"
        return cls(resolved, place, protocols, Path.cwd(), data_places(), hashes.known, probe, token.encode())


@dataclass(frozen=True)
class Hello:
    """What a worker says of itself: what its numbers depend on, where it is, and whether it sees the driver's files.

    `problem` is why it cannot work at all.
    """

    identity: Mapping[str, str]
    machine: Mapping[str, Any]
    shared: bool
    problem: str = ""


def identity_of(
    resolved: ResolvedSuite, metrics: Mapping[str, Metric | FeatureMetric], packages: Mapping[str, str]
) -> dict[str, str]:
    """Everything that numbers depend on and that may differ between two machines, by what to call it."""
    return {
        "sana-bench": code_sha256(),
        "Python": platform.python_version(),
        **{f"package {name}": version for name, version in packages.items()},
        **{f"weights of {one.name}": one.spec.weights_sha256 for one in resolved.variants},
        **{f"variant {one.name}": one.fingerprint for one in resolved.variants},
        **{f"prompts of {one.name}": one.describe()["prompts_sha256"] for one in resolved.benchmarks},
        **{f"metric {one.name} ({number})": metric_key(one) for number, one in enumerate(metrics.values())},
    }


def differences(here: Mapping[str, str], there: Mapping[str, str]) -> list[str]:
    """What differs between the driver and a worker, in words."""
    return [
        f"{name} is {there.get(name, 'not')[:12]} there and {here.get(name, 'not')[:12]} here"
        for name in {**here, **there}
        if here.get(name) != there.get(name)
    ]


class Worker:
    """Does units of work on one device. Its methods are called from several threads, and the device has one of its own."""

    def __init__(self, bench: Bench) -> None:
        take_data_places(bench.data_places)
        self._bench = bench
        self._device = ThreadPoolExecutor(1)
        self._writers = ThreadPoolExecutor(_WRITERS)
        self._workshop: Workshop
        self._shared = False

    def hello(self) -> Hello:
        """Find weights, prompts and metrics as the driver did, and tell."""
        return self._device.submit(self._hello).result()

    def images(self, batch: ImageBatch) -> WrittenBatch | BenchError:
        """Make a batch; while it is written, the device is free for the next one. An error meant for users is returned."""
        try:
            computed = self._device.submit(self._workshop.compute, batch).result()
        except BenchError as error:
            return error
        return self._workshop.start_writing(computed, self._writers).finish()

    def scores(self, chunk: ScoreChunk, contents: Sequence[bytes] | None = None) -> Scored | BenchError:
        """Score a chunk, of files that come with it where the driver's cannot be seen. An error meant for users is returned."""
        folder = nullcontext("") if contents is None else tempfile.TemporaryDirectory()
        with folder as name:
            if contents is not None:
                paths = [Path(name) / f"{number}.png" for number in range(len(contents))]
                for path, content in zip(paths, contents, strict=True):
                    path.write_bytes(content)
                placed = zip(chunk.samples, paths, strict=True)
                chunk = replace(chunk, samples=tuple(replace(one, image_path=path) for one, path in placed))
            try:
                return self._device.submit(self._workshop.score, chunk).result()
            except BenchError as error:
                return error

    def check(self) -> dict[str, Any]:
        """How far this device's numbers can be trusted, as `check_run` says."""
        from sana_bench.metrics.selfcheck.session import check_run

        place = self._place()
        return self._device.submit(check_run, self._bench.protocols, place.device, place.output).result()

    def release(self) -> None:
        """Drop loaded generators."""
        self._device.submit(self._workshop.release).result()

    def _place(self) -> Workplace:
        """The driver's place, or one of this machine's own where the driver's files cannot be seen."""
        place = replace(self._bench.place, delivers=True)
        if self._shared:
            return place
        own = Path(tempfile.gettempdir()) / "sana-bench" / self._bench.token.decode()
        return replace(place, writes=False, cache=own / "cache")

    def _hello(self) -> Hello:
        bench = self._bench
        try:
            os.chdir(bench.folder)  # where relative paths of suites and variants start
            self._shared = read_bytes(bench.probe) == bench.token
        except OSError:
            self._shared = False
        place, hashes = self._place(), FileHashes(bench.hashes)
        if place.device.startswith("cuda"):
            import torch  # noqa: F401  (so that the machine's description knows the device)
        machine = describe_worker(place.device)
        try:
            resolved = resolve_suite(bench.resolved.suite, bench.resolved.tier, hashes)
            metrics = load_metrics(resolved, place.cache, hashes)
        except BenchError as error:
            return Hello({}, machine, self._shared, str(error))
        by_key = {metric_key(metric): metric for metric in metrics.values()}
        self._workshop = Workshop(place, resolved.cells(), by_key)
        return Hello(identity_of(resolved, metrics, machine["packages"]), machine, self._shared)
