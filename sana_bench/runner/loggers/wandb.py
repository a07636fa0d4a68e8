"""`--logger wandb`: one offline Weights & Biases run per variant below the run directory, for `wandb sync`."""

import shutil
from typing import Any

import wandb

from sana_bench.runner.loggers.record import TrackingLogger, TrainingLog, VariantLog

__all__ = ["WandbLogger"]


class WandbLogger(TrackingLogger):
    """Writes nothing to the network."""

    def write(self, log: VariantLog) -> None:
        """The offline run of an earlier command is replaced; both have the same id, so a sync updates one run."""
        for folder in (self.directory / "wandb").glob(f"offline-run-*-{log.key}"):
            shutil.rmtree(folder)
        run = self._offline(
            log.key, f"{log.run_id}:{log.variant}", {**log.parameters, "state": log.state}, group=log.run_id
        )
        with run:
            if log.metrics:
                run.log({name: logged.value for name, logged in log.metrics.items()})
            for path in log.files:
                run.save(str(path), base_path=str(self.directory), policy="now")

    def open_training(self, log: TrainingLog) -> None:
        """A continued training is a further offline run of the same id: a sync joins them."""
        self._run_of_training = self._offline(log.key, log.name, log.parameters)

    def on_training_row(self, row: dict[str, Any]) -> None:
        """Numbers, and pictures as images."""
        pictures = {name: wandb.Image(path) for name, path in row["pictures"].items()}
        self._run_of_training.log({**row["values"], **pictures}, step=row["step"])

    def on_training_end(self, result: dict[str, Any]) -> None:
        """Close the run."""
        self._run_of_training.finish(exit_code=0 if result["state"] == "done" else 1)

    def _offline(self, key: str, name: str, config: dict[str, str], group: str | None = None) -> wandb.Run:
        settings = wandb.Settings(
            show_warnings=False,
            console="off",
            disable_git=True,
            save_code=False,
            silent=True,
            x_disable_stats=True,
        )
        return wandb.init(
            project="sana-bench",
            group=group,
            name=name,
            id=key,
            dir=str(self.directory),
            config=config,
            mode="offline",
            settings=settings,
        )
