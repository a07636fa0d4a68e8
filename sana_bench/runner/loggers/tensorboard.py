"""`--logger tensorboard`: one folder of event files per variant, `tensorboard/VARIANT` in the run directory."""

import shutil

from torch.utils.tensorboard import SummaryWriter

from sana_bench.core import atomic
from sana_bench.core.text import read_text
from sana_bench.runner.loggers.record import TrackingLogger, VariantLog

__all__ = ["TensorboardLogger"]


class TensorboardLogger(TrackingLogger):
    """Parameters and numbers as TensorBoard's hyperparameters, the report's text files as texts."""

    def write(self, log: VariantLog) -> None:
        """The folder of an earlier command is replaced."""
        folder = self.directory / "tensorboard" / log.variant
        shutil.rmtree(folder, ignore_errors=True)
        atomic.make_folder(folder)
        with SummaryWriter(str(folder)) as writer:
            # `run_name` keeps torch from putting the numbers into a folder named by the time.
            values = {name: logged.value for name, logged in log.metrics.items()}
            writer.add_hparams({**log.parameters, "state": log.state}, values, run_name=".")
            for path in log.files:
                if path.suffix in (".md", ".csv"):
                    name = path.relative_to(self.directory).as_posix()
                    writer.add_text(name, read_text(path))
