"""The built-in loggers against the real packages, without a network; resuming a run logs nothing twice."""

import json
import os
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from sana_bench.cli.main import execute
from sana_bench.results.store import Store
from sana_bench.runner.run import RunOptions, run_suite
from tests.runner import fakes

SERVICES = ("mlflow", "tensorboard", "wandb")


class Run:
    """A suite of two variants that is run in three commands: a part, the rest, and again with nothing to do."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.suite = fakes.write_suite(folder)
        self.output = folder / "results"

    def go(self, name: str) -> None:
        for limit, code in ((5, 3), (None, 0), (None, 0)):
            options = RunOptions(self.suite, self.output, tier="micro", limit=limit, loggers=(name,))
            assert run_suite(options) == code

    @property
    def directory(self) -> Path:
        (found,) = (self.output / "runs").iterdir()
        return found

    def summaries(self, variant: str):
        store = Store.open_existing(self.output)
        assert store is not None
        with store:
            return [row for row in store.summaries(self.directory.name) if row.variant == variant]

    def metrics(self, variant: str) -> dict[str, float]:
        """What has to be logged of a variant, from the store."""
        expected = {}
        for row in self.summaries(variant):
            name = f"{row.benchmark}/{row.metric}/{row.key}"
            expected |= {name: row.value, f"{name}.low": row.low, f"{name}.high": row.high}
            expected[f"{name}.n_samples"] = row.n_samples
        return expected

    def parameters(self, variant: str) -> dict[str, str]:
        from sana_bench.results.reader import load_run

        loaded = load_run(self.output, self.directory.name)
        return {
            "fingerprint": loaded.variants[variant].described.fingerprint,
            "run_fingerprint": loaded.row["fingerprint"],
            "tier": "micro",
            "protocol/shapes/redness": "redness/test@1",
            "sampler.steps": variant.removeprefix("fake-"),
        }


@pytest.fixture
def run(tmp_path: Path):
    with fakes.installed():
        yield Run(tmp_path)


def test_mlflow_keeps_one_run_per_variant(run, monkeypatch) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{run.folder}/mlflow.db")
    monkeypatch.chdir(run.folder)  # the artifacts of a local store lie in the working directory
    run.go("mlflow")
    client = mlflow.MlflowClient()
    experiment = client.get_experiment_by_name("shapes")
    found = client.search_runs([experiment.experiment_id])
    assert sorted(one.data.tags["sana_bench.variant"] for one in found) == ["fake-2", "fake-4"]
    for one in found:
        variant = one.data.tags["sana_bench.variant"]
        assert one.info.status == "FINISHED"
        assert one.data.tags["sana_bench.state"] == "done"
        assert run.parameters(variant).items() <= one.data.params.items()
        assert one.data.metrics == run.metrics(variant)
        # The first command logged five images, the second all 24, the third nothing.
        history = client.get_metric_history(one.info.run_id, "shapes/redness/overall.n_samples")
        assert [(entry.step, entry.value) for entry in history] == [(5, 5), (24, 24)]
        assert len(client.get_metric_history(one.info.run_id, "shapes/redness/overall")) == 2
        names = {entry.path for entry in client.list_artifacts(one.info.run_id, "report")}
        assert {"report/report.html", "report/report.md"} <= names


def test_wandb_keeps_one_offline_run_per_variant(run) -> None:
    pytest.importorskip("wandb")
    run.go("wandb")
    folders = sorted((run.directory / "wandb").glob("offline-run-*"))
    assert len(folders) == 2
    seen = {}
    for folder in folders:
        found = read_offline_run(folder)
        variant = found["config"]["name"]
        assert run.parameters(variant).items() <= found["config"].items()
        assert found["history"] == [pytest.approx(run.metrics(variant), rel=1e-15)]  # decimal text and back
        assert {"report/report.html", "report/report.md"} <= found["files"]
        seen[variant] = found["id"]
    assert set(seen) == {"fake-2", "fake-4"}
    assert len(set(seen.values())) == 2


def transaction_log(path: Path) -> Iterator[bytes]:
    """Yield the records of an offline run: after 7 bytes, LevelDB's log format in blocks of 32 KiB."""
    content, place, record = path.read_bytes(), 7, b""
    while place + 7 <= len(content):
        room = 32768 - place % 32768
        if room < 7:
            place += room
            continue
        length, kind = struct.unpack("<HB", content[place + 4 : place + 7])
        record += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield record
            record = b""


def read_offline_run(folder: Path) -> dict:
    """Read what `wandb sync` would send, once wandb's own process has written the end of the run."""
    (log,) = folder.glob("run-*.wandb")
    for _ in range(300):
        if (found := _records_of(log))["ended"]:
            break
        time.sleep(0.1)
    return found


def _records_of(log: Path) -> dict:
    from wandb.proto import wandb_internal_pb2

    found: dict = {"config": {}, "history": [], "files": set(), "id": "", "ended": False}
    for data in transaction_log(log):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        kind = record.WhichOneof("record_type")
        if kind == "run":
            found["id"] = record.run.run_id
            found["config"] |= {item.key: json.loads(item.value_json) for item in record.run.config.update}
        elif kind == "history":
            row = {
                item.key or "/".join(item.nested_key): json.loads(item.value_json)
                for item in record.history.item
            }
            found["history"].append({key: value for key, value in row.items() if not key.startswith("_")})
        elif kind == "files":
            found["files"] |= {entry.path for entry in record.files.files}
        elif kind == "exit":
            found["ended"] = True
    return found


def test_tensorboard_keeps_one_folder_per_variant(run) -> None:
    accumulators = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    run.go("tensorboard")
    folders = sorted((run.directory / "tensorboard").iterdir())
    assert [folder.name for folder in folders] == ["fake-2", "fake-4"]
    for folder in folders:
        events = accumulators.EventAccumulator(str(folder)).Reload()
        expected = run.metrics(folder.name)
        assert set(events.Tags()["scalars"]) == set(expected)
        for name, value in expected.items():
            (entry,) = events.Scalars(name)
            assert entry.value == pytest.approx(value, rel=2**-23)  # TensorBoard stores float32
        content = events.PluginTagToContent("hparams")["_hparams_/session_start_info"]
        for name, text in run.parameters(folder.name).items():
            assert name.encode() in content
            assert text.encode() in content
        texts = events.PluginTagToContent("text")
        assert any(name.startswith("report/report.md") for name in texts)


AWKWARD = (
    "颜色",
    "位置",
    "color (A)",
    "color [A]",
    "light",
    "light_low",
    "light.low",
    "contrast_low",
    "a/b",
    "a_b",
    "v 1.0",
)


def awkward_run(name: str, folder: Path) -> dict[str, float]:
    """Tell a logger of one number for each awkward tag; return what it should have kept, by a part of the metric's name."""
    from sana_bench.core.registry import LOGGERS
    from sana_bench.runner.loggers.record import _metrics

    folder.mkdir()
    run = {
        "run_id": "r",
        "fingerprint": "f",
        "name": "awkward",
        "tier": "micro",
        "seed": 0,
        "variants": [{"name": "v"}],
    }
    logger = LOGGERS.build(name, folder)
    logger.on_run_start(run)
    rows = []
    for place, key in enumerate(AWKWARD):
        value = 10.0 * (place + 1)
        row = {"variant": "v", "benchmark": "b", "metric": "m", "key": key, "protocol": "m@1", "value": value}
        rows.append({**row, "low": value - 1, "high": value + 2, "n_samples": 1000 + place})
        logger.on_summary(rows[-1])
    logger.on_run_end({"state": "done"})
    kept = _metrics(rows)
    assert len(kept) == 4 * len(AWKWARD)
    assert sorted(logged.value for logged in kept.values()) == sorted(
        float(row[part]) for row in rows for part in ("value", "low", "high", "n_samples")
    )
    return {metric: logged.value for metric, logged in kept.items()}


def read_back(name: str, folder: Path) -> dict[str, float]:
    """Every number that a service was given of the only variant."""
    if name == "mlflow":
        import mlflow

        client = mlflow.MlflowClient()
        experiment = client.get_experiment_by_name("awkward")
        (found,) = client.search_runs([experiment.experiment_id])
        return dict(found.data.metrics)
    if name == "wandb":
        (offline,) = (folder / "wandb").glob("offline-run-*")
        # Another process writes it, and on a busy machine it is not done when the logger is.
        for _ in range(60):
            if histories := read_offline_run(offline)["history"]:
                break
            time.sleep(0.5)
        (history,) = histories
        return history
    from tensorboard.backend.event_processing import event_accumulator

    events = event_accumulator.EventAccumulator(str(folder / "tensorboard" / "v")).Reload()
    return {tag: events.Scalars(tag)[0].value for tag in events.Tags()["scalars"]}


@pytest.mark.parametrize("name", SERVICES)
def test_every_number_of_an_awkward_tag_is_kept(name, tmp_path, monkeypatch) -> None:
    """Tags in other scripts, with brackets, with slashes, and that end as a bound's name does."""
    pytest.importorskip(name)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.chdir(tmp_path)
    expected = awkward_run(name, tmp_path / "run")
    assert read_back(name, tmp_path / "run") == pytest.approx(
        expected, rel=2**-23
    )  # TensorBoard stores float32


def test_no_service_is_imported_unless_asked_for(tmp_path) -> None:
    script = (
        "import sys\nfrom pathlib import Path\nfrom tests.runner import fakes\n"
        "from sana_bench.cli.main import execute\nworld = fakes.installed()\nworld.__enter__()\n"
        "suite = fakes.write_suite(Path(sys.argv[1]))\n"
        "output = str(Path(sys.argv[1]) / 'results')\n"
        "def loaded():\n    return sorted({'mlflow', 'wandb', 'tensorboard'} & sys.modules.keys())\n"
        "common = ['run', str(suite), '--tier', 'micro', '--output', output]\n"
        "assert execute(['list', 'loggers']) == 0\n"
        "assert execute(common) == 0\nprint('LOADED', loaded())\n"
        "assert execute([*common, '--logger', 'tensorboard']) == 0\nprint('LOADED', loaded())\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300, env={**os.environ})
    assert result.returncode == 0, result.stderr
    lines = [line for line in result.stdout.splitlines() if line.startswith("LOADED")]
    assert lines == ["LOADED []", "LOADED ['tensorboard']"]
    assert {"mlflow", "tensorboard", "wandb"} <= set(result.stdout.splitlines())


@pytest.mark.parametrize("name", SERVICES)
@pytest.mark.parametrize("folder_in_the_way", [False, True])
def test_a_missing_package_is_one_line_with_the_extra(
    run, name, folder_in_the_way, monkeypatch, capsys
) -> None:
    import importlib.machinery

    class Hidden:
        @staticmethod
        def find_spec(wanted, path=None, target=None):
            if wanted != name:
                return None
            if folder_in_the_way:
                return importlib.machinery.ModuleSpec(wanted, None, is_package=True)
            raise ModuleNotFoundError(f"No module named {wanted!r}", name=wanted)

    for module in [key for key in sys.modules if key.partition(".")[0] == name]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setattr(sys, "meta_path", [Hidden, *sys.meta_path])
    arguments = ["run", str(run.suite), "--tier", "micro", "-o", str(run.output), "--logger", name]
    assert execute(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"--logger {name}: the package {name} is not installed: pip install 'sana-bench[{name}]'" in line
    assert not run.output.exists()


def train_twice(name: str, folder: Path) -> None:
    """A training of five steps, interrupted after the third and continued from the second."""
    from PIL import Image

    from sana_bench.runner.loggers import Loggers

    folder.mkdir()
    Image.new("RGB", (4, 4), "red").save(folder / "samples.png")
    training = {"name": "mine", "config": {"training": {"steps": 5}}}
    with suppress(KeyboardInterrupt), Loggers([name], folder).observe_training(training) as hear:
        for step in (1, 2, 3):
            hear(step, {"loss": step / 4}, {})
        raise KeyboardInterrupt
    with Loggers([name], folder).observe_training(training) as hear:
        for step in (3, 4, 5):
            hear(step, {"loss": step / 8}, {"samples": folder / "samples.png"} if step == 4 else {})


def test_tensorboard_shows_a_training(tmp_path) -> None:
    accumulators = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    train_twice("tensorboard", tmp_path / "out")
    events = accumulators.EventAccumulator(str(tmp_path / "out/tensorboard")).Reload()
    # The step that was made again is there once.
    found = {entry.step: entry.value for entry in events.Scalars("loss")}
    assert found == {1: 0.25, 2: 0.5, 3: 0.375, 4: 0.5, 5: 0.625}
    assert [entry.step for entry in events.Images("samples")] == [4]


def test_mlflow_keeps_one_run_of_a_training(tmp_path, monkeypatch) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.chdir(tmp_path)
    train_twice("mlflow", tmp_path / "out")
    client = mlflow.MlflowClient()
    (found,) = client.search_runs([client.get_experiment_by_name("sana-bench train").experiment_id])
    assert found.info.status == "FINISHED"
    assert found.data.params == {"training.steps": "5"}
    history = client.get_metric_history(found.info.run_id, "loss")
    assert {entry.step for entry in history} == {1, 2, 3, 4, 5}
    assert [entry.path for entry in client.list_artifacts(found.info.run_id, "samples")] == [
        "samples/samples.png"
    ]


def test_wandb_writes_a_training_offline(tmp_path) -> None:
    pytest.importorskip("wandb")
    train_twice("wandb", tmp_path / "out")
    folders = sorted((tmp_path / "out/wandb").glob("offline-run-*"))
    found = [read_offline_run(folder) for folder in folders]
    assert len({one["id"] for one in found}) == 1
    losses = [row["loss"] for one in found for row in one["history"]]
    assert sorted(losses) == [0.25, 0.375, 0.5, 0.5, 0.625, 0.75]


def test_a_logger_of_runs_only_is_refused_before_a_training(tmp_path, monkeypatch) -> None:
    from sana_bench.core.errors import UsageError
    from sana_bench.core.registry import LOGGERS
    from sana_bench.runner.loggers import Loggers

    pytest.importorskip("tensorboard")
    monkeypatch.setattr(type(LOGGERS), "build", lambda registry, name, directory: object())
    with (
        pytest.raises(UsageError, match="'tensorboard' hears of runs, not of training"),
        Loggers(["tensorboard"], tmp_path).observe_training({}),
    ):
        pass
