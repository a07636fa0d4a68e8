"""`--logger wandb`: one offline Weights & Biases run per variant below the run directory, for `wandb sync`."""

import shutil

import wandb

from sana_bench.runner.loggers.record import TrackingLogger, VariantLog

__all__ = ["WandbLogger"]


class WandbLogger(TrackingLogger):
    """Writes nothing to the network."""

    def write(self, log: VariantLog) -> None:
        """The offline run of an earlier command is replaced; both have the same id, so a sync updates one run."""
        for folder in (self.directory / "wandb").glob(f"offline-run-*-{log.key}"):
            shutil.rmtree(folder)
        settings = wandb.Settings(
            show_warnings=False,
            console="off",
            disable_git=True,
            save_code=False,
            silent=True,
            x_disable_stats=True,
        )
        run = wandb.init(
            project="sana-bench",
            group=log.run_id,
            name=f"{log.run_id}:{log.variant}",
            id=log.key,
            dir=str(self.directory),
            config={**log.parameters, "state": log.state},
            mode="offline",
            settings=settings,
        )
        with run:
            if log.metrics:
                run.log({name: logged.value for name, logged in log.metrics.items()})
            for path in log.files:
                run.save(str(path), base_path=str(self.directory), policy="now")
