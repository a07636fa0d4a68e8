"""Workers on a cluster of this machine: the same numbers for any number of them, whatever happens to them.

The cluster, with all its processes, is started once.
"""

import re
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sana_bench.core.engines import EngineRequest
from sana_bench.core.errors import UsageError
from sana_bench.core.fingerprint import directory_sha256
from sana_bench.core.registry import REGISTRIES
from sana_bench.generators.best_of_n.files import total_cost
from sana_bench.results.store import Store
from sana_bench.runner import scoring
from sana_bench.runner.engines import ray as ray_engine
from sana_bench.runner.engines import seats
from sana_bench.runner.engines.seats import Seats
from sana_bench.runner.run import RunOptions, execute_suite
from sana_bench.suites.stop import StopRequest
from tests import ROOT, suite_files
from tests.runner import numbers_of_runs as numbers
from tests.runner.engines import crowd

ray = pytest.importorskip(
    "ray", reason="the package ray is not installed: pip install 'sana-bench[distributed]'"
)

PATIENCE_SECONDS = 300.0  # a busy machine starts Python slowly
N = crowd.N_IMAGES


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder with the plug-in, which this process and its children find."""
    folder = crowd.install(tmp_path_factory.mktemp("installed"))
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        patch.setenv("PYTHONPATH", crowd.search_path(folder))
        patch.setenv(crowd.STARTS, str(folder))
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        for registry in REGISTRIES.values():
            registry.forget()
        yield folder
    for registry in REGISTRIES.values():
        registry.forget()


@pytest.fixture(scope="module")
def cluster(installed: Path) -> Iterator[Any]:
    from ray.cluster_utils import Cluster

    head = {"num_cpus": 3, "include_dashboard": False, "object_store_memory": 200 * 2**20}
    before = signal.getsignal(signal.SIGTERM)  # nodes take it
    found = Cluster(initialize_head=True, head_node_args=head)
    yield found
    found.shutdown()
    signal.signal(signal.SIGTERM, before)


@pytest.fixture(scope="module")
def local(installed: Path, tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """What the run gives in one process."""
    folder = tmp_path_factory.mktemp("local")
    return outcome(crowd.write_suite(folder), folder / "results")


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    return crowd.write_suite(tmp_path)


def outcome(suite: Path, output: Path, **engine: Any) -> SimpleNamespace:
    """Run a suite, and return all that must not depend on who did the work."""
    return outcome_of(suite, output, EngineRequest(**engine))


def outcome_of(suite: Path, output: Path, engine: EngineRequest, **options: Any) -> SimpleNamespace:
    given = RunOptions(suite, output, "micro", batch_size=crowd.BATCH, engine=engine, **options)
    found = execute_suite(given)
    return result_of(output, found.exit_code)


def result_of(output: Path, code: int) -> SimpleNamespace:
    store = Store.open_existing(output)
    assert store is not None
    with store:
        (run_id,) = numbers.run_ids(output)
        events = store.events(run_id)
        provenance = (store.run(run_id) or {})["provenance"]
        looks = store.looks(run_id)
    return SimpleNamespace(
        code=code,
        numbers=(numbers.summaries(output), numbers.image_bytes(output)),
        sessions=numbers.sessions(output),
        events=events,
        kinds=[event["kind"] for event in events],
        provenance=provenance,
        looks=looks,
    )


def watching(reached: Callable[[], bool], act: Callable[[], object]) -> threading.Thread:
    """Do something as soon as something is so, beside a run."""

    def wait() -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not reached() and time.monotonic() < deadline:
            time.sleep(0.01)
        act()

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


def n_images(output: Path) -> int:
    return sum(1 for _ in output.glob("runs/*/images/**/*.png"))


def n_recorded(output: Path) -> int:
    try:
        with closing(sqlite3.connect(f"file:{output / 'store.sqlite'}?mode=ro", uri=True)) as connection:
            return int(connection.execute("SELECT count(*) FROM images").fetchone()[0])
    except sqlite3.OperationalError:
        return 0


@pytest.mark.parametrize("workers", [1, 3])
def test_numbers_do_not_depend_on_the_number_of_workers(cluster, local, suite, tmp_path, workers) -> None:
    found = outcome(suite, tmp_path / "results", address=cluster.address, workers=workers)
    assert (found.code, local.code) == (0, 0)
    assert found.numbers == local.numbers
    assert found.sessions[0]["images_generated"] == found.sessions[0]["scores_computed"] == 2 * N
    made = found.provenance["workers"].values()
    assert 1 <= len(made) <= workers
    assert {one["device_name"] for one in made} == {
        one["device_name"] for one in local.provenance["workers"].values()
    }
    assert sum(one["n_images"] for one in made) == sum(one["n_scores"] for one in made) == 2 * N
    assert found.provenance["selfcheck"]["summary"] == local.provenance["selfcheck"]["summary"]
    assert not list(tmp_path.rglob(".tmp-*"))


def test_a_command_with_a_cluster_of_its_own_one_worker_of_which_is_killed(local, suite, tmp_path) -> None:
    crowd.ask_for(suite, "kill", of=1)
    output = tmp_path / "results"
    process = start_command(suite, output)
    # Nobody holds on to the pipe: all processes that were started are gone.
    out, _ = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 0, out
    found = result_of(output, 0)
    assert found.numbers == local.numbers
    assert found.kinds.count("worker_lost") == 1
    assert "is lost" in out
    assert "48/48 images" in out
    assert found.sessions[0]["images_generated"] == 2 * N, "nothing is counted twice"


def test_a_batch_that_kills_every_worker_fails_by_name(cluster, local, suite, tmp_path, capsys) -> None:
    crowd.ask_for(suite, "kill-on-00005-1")
    output = tmp_path / "results"
    found = outcome(suite, output, address=cluster.address, workers=2)
    assert found.code == 3
    assert found.kinds.count("worker_lost") == 3
    told = capsys.readouterr().out
    assert "crowd / painter-0 00005/00001: crowd / painter-0: 3 workers were lost with it" in told
    assert found.sessions[0]["images_failed"] == crowd.BATCH
    assert n_images(output) == 2 * N - crowd.BATCH, "whoever was beside it is made by another worker"
    (suite.parent / "variants" / "weights-0" / crowd.FAULTS / "kill-on-00005-1").unlink()
    assert outcome(suite, output).numbers == local.numbers, "without the fault the same command ends"


def test_a_worker_that_hangs_and_has_little_memory(cluster, local, suite, tmp_path, monkeypatch) -> None:
    """The driver's clock runs ahead from when the worker hangs to when it is replaced: nothing depends on how fast it is here."""
    crowd.ask_for(suite, "memory", of=0)
    crowd.ask_for(suite, "hang", of=1)
    faults, ahead, replace, workers = (
        suite.parent / "variants" / "weights-1" / crowd.FAULTS,
        [0.0],
        Seats.replace,
        [],
    )

    def monotonic() -> float:
        if len(workers) == 1 and list(faults.glob("hang-taken-by-*")):
            ahead[0] += 600.0
        return time.monotonic() + ahead[0]

    for module in (seats, ray_engine):
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=monotonic))
    monkeypatch.setattr(Seats, "replace", lambda self, seat: (workers.append(seat), replace(self, seat)))
    found = outcome(suite, tmp_path / "results", address=cluster.address, workers=1, timeout_s=1000.0)
    assert (found.code, found.numbers) == (0, local.numbers)
    (lost,) = [event for event in found.events if event["kind"] == "worker_lost"]
    assert lost["reason"] == "did not finish a batch in 1000 s"
    halved = [event["variant"] for event in found.events if event["kind"] == "batch_halved"]
    assert halved == ["painter-0"], "the batch is halved there alone"


@pytest.mark.parametrize("fault", ["hang-before-hello", "hang-in-check"])
def test_a_worker_that_hangs_while_it_starts(
    cluster, local, suite, tmp_path, monkeypatch, capsys, fault
) -> None:
    """The driver's clock leaps as soon as the worker hangs; whoever comes after it has all the time of that clock."""
    taken, leap, hear = crowd.ask_for_start(fault), [0.0], Seats.hear
    clock = SimpleNamespace(monotonic=lambda: time.monotonic() + leap[0])
    monkeypatch.setattr(seats, "time", clock)

    def hear_and_leap(self: Seats, seat: seats.Seat, ref: Any) -> bool:
        awaited = seat.process if fault == "hang-before-hello" else seat.hello
        heard = hear(self, seat, ref)
        if ref == awaited and not leap[0]:
            deadline = time.monotonic() + PATIENCE_SECONDS
            while not taken.exists() and time.monotonic() < deadline:
                time.sleep(0.01)
            leap[0] = 1000.0
        return heard

    monkeypatch.setattr(Seats, "hear", hear_and_leap)
    found = outcome(suite, tmp_path / "results", address=cluster.address, workers=1)
    assert taken.exists()
    assert (found.code, found.numbers) == (0, local.numbers)
    (lost,) = [event for event in found.events if event["kind"] == "worker_lost"]
    assert lost["reason"] == "was not ready in 600 s"
    assert found.provenance["selfcheck"]["summary"] == local.provenance["selfcheck"]["summary"]
    assert "was not ready in 600 s; a new one is started" in capsys.readouterr().out


def test_a_node_that_leaves(cluster, local, suite, tmp_path) -> None:
    leaving = cluster.add_node(num_cpus=1, object_store_memory=100 * 2**20)
    cluster.wait_for_nodes()
    crowd.ask_for(suite, "slow", of=0)
    crowd.ask_for(suite, "slow", of=1)
    output = tmp_path / "results"
    # As many workers as all nodes have processors: each node has some.
    watcher = watching(
        lambda: n_images(output) > 0, lambda: cluster.remove_node(leaving, allow_graceful=False)
    )
    found = outcome(suite, output, address=cluster.address, workers=4)
    watcher.join()
    assert (found.code, found.numbers) == (0, local.numbers)


def test_nodes_with_other_packages_and_other_weights(
    cluster, local, suite, installed, tmp_path, monkeypatch
) -> None:
    info = tmp_path / "foreign" / "pillow-0.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: pillow\nVersion: 0.0\n")
    for place, last in (("here", 1), ("there", 2)):
        for number, content in enumerate((0, last)):
            weights = tmp_path / place / "models" / "crowd" / f"painter-{number}"
            weights.mkdir(parents=True)
            (weights / "model.bin").write_bytes(bytes([content]))
    for name in ("painter-0", "painter-1"):
        model = {"tier": "micro", "weights": f"crowd/{name}", "height": crowd.SIZE, "width": crowd.SIZE}
        suite_files.write_variant(suite.parent, name, "generator: painter", **model)
    monkeypatch.setenv("SANA_BENCH_DATA", str(tmp_path / "here"))
    hold = tmp_path / "here" / "models" / "crowd" / "painter-0" / crowd.FAULTS / "hold"
    hold.parent.mkdir()
    hold.touch()
    # The run does not end before both are refused, whoever starts first.
    close, refused = Seats._close_seat, dict[str, str]()

    def close_and_go(self: Seats, seat: seats.Seat, why: str) -> None:
        close(self, seat, why)
        refused[seat.name] = why
        if len(refused) == 2:
            hold.unlink()

    monkeypatch.setattr(Seats, "_close_seat", close_and_go)
    others = [
        cluster.add_node(num_cpus=1, env_vars=variables, object_store_memory=100 * 2**20)
        for variables in (
            {"PYTHONPATH": crowd.search_path(tmp_path / "foreign", installed)},
            {"SANA_BENCH_DATA": str(tmp_path / "there")},
        )
    ]
    try:
        cluster.wait_for_nodes()
        found = outcome(suite, tmp_path / "results", address=cluster.address, workers=5)
    finally:
        hold.unlink(missing_ok=True)
        for node in others:
            cluster.remove_node(node, allow_graceful=False)
    assert (found.code, found.numbers) == (0, local.numbers)
    packages, weights = sorted(refused.values())
    assert re.fullmatch(r"is refused: package pillow is 0\.0 there and \S+ here", packages)
    folders = (tmp_path / place / "models" / "crowd" / "painter-1" for place in ("there", "here"))
    there, here = (directory_sha256(folder)[:12] for folder in folders)
    assert weights.startswith(f"is refused: weights of painter-1 is {there} there and {here} here; ")
    assert sorted(e["reason"] for e in found.events if e["kind"] == "worker_refused") == [packages, weights]


def test_workers_that_cannot_write_or_see_the_files_hand_them_over(
    cluster, local, suite, tmp_path, monkeypatch
) -> None:
    crowd.ask_for(suite, "disk", of=0)
    found = outcome(suite, tmp_path / "results", address=cluster.address, workers=2)
    assert (found.code, found.numbers) == (0, local.numbers)

    start = Seats._start

    def apart(self: Seats) -> None:
        start(self)
        # Gone before a process has started: as on a machine with other disks.
        self._bench.probe.unlink(missing_ok=True)

    monkeypatch.setattr(Seats, "_start", apart)
    found = outcome(suite, tmp_path / "apart", address=cluster.address, workers=2)
    assert (found.code, found.numbers) == (0, local.numbers)


def start_command(suite: Path, output: Path, *more: str) -> subprocess.Popen[str]:
    command = [
        sys.executable,
        "-m",
        "sana_bench",
        "run",
        str(suite),
        "--tier",
        "micro",
        "--output",
        str(output),
    ]
    return subprocess.Popen(
        [*command, "--batch-size", str(crowd.BATCH), "--workers", "2", *more],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        # A test run started in a shell's background ignores SIGINT, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


@pytest.mark.parametrize("stop", [signal.SIGKILL, signal.SIGINT])
def test_a_driver_that_is_stopped_goes_on_where_it_was(cluster, local, suite, tmp_path, stop) -> None:
    crowd.ask_for(suite, "slow", of=0)
    crowd.ask_for(suite, "slow", of=1)
    output = tmp_path / "results"
    process = start_command(suite, output, "--address", cluster.address)
    deadline = time.monotonic() + PATIENCE_SECONDS
    while n_recorded(output) < 2 * crowd.BATCH:
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(stop)
    out, _ = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == (3 if stop == signal.SIGINT else -stop), out
    if stop == signal.SIGINT:
        assert "run the same command again to continue" in out
    for variant in (0, 1):
        (suite.parent / "variants" / f"weights-{variant}" / crowd.FAULTS / "slow").unlink()
    found = outcome(suite, output)  # by one process: who goes on makes no difference either
    assert (found.code, found.numbers) == (0, local.numbers)
    first, second = found.sessions
    assert second["images_generated"] < 2 * N
    assert first["images_generated"] + second["images_generated"] == 2 * N


def test_rounds_until_the_question_is_answered(cluster, suite, tmp_path) -> None:
    stop = StopRequest("decided", ("painter-0", "painter-1"), effect=20.0)
    here = outcome_of(suite, tmp_path / "here", EngineRequest(), stop=stop)
    there = outcome_of(suite, tmp_path / "there", EngineRequest("ray", 2, cluster.address), stop=stop)
    assert here.looks
    assert (there.code, there.looks, there.numbers) == (here.code, here.looks, here.numbers)


def test_searches_of_several_winners_while_a_worker_is_killed(cluster, tmp_path) -> None:
    suite = crowd.write_suite(tmp_path, "redness", crowd.SEARCH)
    here = outcome(suite, tmp_path / "here")
    crowd.ask_for(suite, "kill", of=1)
    there = outcome(suite, tmp_path / "there", address=cluster.address, workers=2)
    assert (there.code, there.numbers) == (here.code, here.numbers)
    assert (there.code, there.kinds.count("worker_lost")) == (0, 1)
    assert total_cost(tmp_path / "there" / "cache" / "search").images == 2 * crowd.N_PROMPTS * 4


def test_nothing_is_started_where_nothing_is_to_be_done(installed, tmp_path, monkeypatch) -> None:
    suite = crowd.write_suite(tmp_path, "redness")
    output = tmp_path / "results"
    first = outcome(suite, output)
    monkeypatch.setattr(ray, "init", lambda *_, **__: pytest.fail("Ray was started"))
    again = outcome(suite, output, engine="ray", workers=2)
    assert (again.code, again.numbers) == (0, first.numbers)
    assert again.provenance["selfcheck"] == first.provenance["selfcheck"]


def test_small_judges_share_a_device_once_all_images_are_made(
    cluster, local, suite, tmp_path, monkeypatch
) -> None:
    """With GPUs that are only pretended: their shares are counted, and nothing is computed on them."""
    node = cluster.add_node(num_cpus=2, num_gpus=1, object_store_memory=100 * 2**20)
    cluster.wait_for_nodes()
    init, shares = Seats.__init__, []

    def on_gpus(self: Seats, *given: Any) -> None:
        init(self, *given)
        self.on_gpus = True

    replace = Seats.replace
    monkeypatch.setattr(Seats, "__init__", on_gpus)
    monkeypatch.setattr(
        Seats, "replace", lambda self, one: (shares.append(self.share), replace(self, one))[1]
    )
    monkeypatch.setattr(scoring, "_gpu_share", lambda metric: 0.5)
    try:
        found = outcome(suite, tmp_path / "results", address=cluster.address, workers=1)
        too_many = pytest.raises(UsageError, match="--workers 2: the cluster has 1 GPUs")
        with too_many:
            outcome(suite, tmp_path / "many", address=cluster.address, workers=2)
    finally:
        cluster.remove_node(node, allow_graceful=False)
    assert (found.code, found.numbers) == (0, local.numbers)
    assert shares == [1.0, 0.5, 0.5]
