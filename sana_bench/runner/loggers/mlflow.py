"""`--logger mlflow`: one MLflow run per variant, in the experiment of the suite's name.

Where it goes is MLflow's own setting, `MLFLOW_TRACKING_URI`.
"""

from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Run

from sana_bench.runner.loggers.record import TrackingLogger, TrainingLog, VariantLog

__all__ = ["MlflowLogger"]

_KEY = "sana_bench.key"
_STATUS = {"done": "FINISHED", "incomplete": "FINISHED", "interrupted": "KILLED", "failed": "FAILED"}


class MlflowLogger(TrackingLogger):
    """Finds the MLflow run of a variant by its tag and brings it up to date."""

    def write(self, log: VariantLog) -> None:
        """A number that is there already is not logged again; one that changed is added at its count of images."""
        client = MlflowClient()
        run = _find(client, log)
        run_id = run.info.run_id
        for name, text in log.parameters.items():
            if name not in run.data.params:
                client.log_param(run_id, name, text)
        for name, logged in log.metrics.items():
            if run.data.metrics.get(name) != logged.value:
                client.log_metric(run_id, name, logged.value, step=logged.images)
        client.set_tag(run_id, "sana_bench.state", log.state)
        report = self.directory / "report"
        for path in log.files:
            client.log_artifact(run_id, str(path), path.parent.relative_to(report.parent).as_posix())
        client.set_terminated(run_id, _STATUS[log.state])

    def open_training(self, log: TrainingLog) -> None:
        """In the experiment `sana-bench train`."""
        self._client = MlflowClient()
        run = _tagged(self._client, "sana-bench train", {_KEY: log.key}, log.name)
        self._run_id = run.info.run_id
        self._client.set_tag(self._run_id, "sana_bench.state", "running")
        for name, text in log.parameters.items():
            if name not in run.data.params:
                self._client.log_param(self._run_id, name, text)

    def on_training_row(self, row: dict[str, Any]) -> None:
        """Numbers at their step, pictures as artifacts."""
        for name, value in row["values"].items():
            self._client.log_metric(self._run_id, name, value, step=row["step"])
        for name, path in row["pictures"].items():
            self._client.log_artifact(self._run_id, path, name)

    def on_training_end(self, result: dict[str, Any]) -> None:
        """Close the run."""
        self._client.set_tag(self._run_id, "sana_bench.state", result["state"])
        self._client.set_terminated(self._run_id, _STATUS[result["state"]])


def _find(client: MlflowClient, log: VariantLog) -> Run:
    tags = {_KEY: log.key, "sana_bench.run": log.run_id, "sana_bench.variant": log.variant}
    return _tagged(client, log.suite, tags, f"{log.run_id}:{log.variant}")


def _tagged(client: MlflowClient, suite: str, tags: dict[str, str], name: str) -> Run:
    """The run of the tag, or a new one."""
    experiment = client.get_experiment_by_name(suite)
    experiment_id = client.create_experiment(suite) if experiment is None else experiment.experiment_id
    found = client.search_runs([experiment_id], f"tags.`{_KEY}` = '{tags[_KEY]}'", max_results=1)
    return found[0] if found else client.create_run(experiment_id, tags=tags, run_name=name)
