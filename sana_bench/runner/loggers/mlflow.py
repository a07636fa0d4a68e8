"""`--logger mlflow`: one MLflow run per variant, in the experiment of the suite's name.

Where it goes is MLflow's own setting, `MLFLOW_TRACKING_URI`.
"""

from mlflow import MlflowClient
from mlflow.entities import Run

from sana_bench.runner.loggers.record import TrackingLogger, VariantLog

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


def _find(client: MlflowClient, log: VariantLog) -> Run:
    experiment = client.get_experiment_by_name(log.suite)
    experiment_id = client.create_experiment(log.suite) if experiment is None else experiment.experiment_id
    found = client.search_runs([experiment_id], f"tags.`{_KEY}` = '{log.key}'", max_results=1)
    if found:
        return found[0]
    tags = {_KEY: log.key, "sana_bench.run": log.run_id, "sana_bench.variant": log.variant}
    return client.create_run(experiment_id, tags=tags, run_name=f"{log.run_id}:{log.variant}")
