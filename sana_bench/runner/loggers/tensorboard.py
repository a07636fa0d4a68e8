"""`--logger tensorboard`: event files in `tensorboard/VARIANT` of the run directory, of a training in its `tensorboard`."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.tensorboard import SummaryWriter

from sana_bench.core import atomic
from sana_bench.core.text import read_text
from sana_bench.runner.loggers.record import TrackingLogger, TrainingLog, VariantLog
from sana_models.files import plain

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

    def open_training(self, log: TrainingLog) -> None:
        """Steps that a continued training makes again take the place of those from before."""
        self._writer = SummaryWriter(str(self.directory / "tensorboard"), purge_step=log.step)
        self._writer.add_text("configuration", "\n".join(f"- {k}: {v}" for k, v in log.parameters.items()))

    def on_training_row(self, row: dict[str, Any]) -> None:
        """Numbers as scalars, pictures as images."""
        from PIL import Image

        for name, value in row["values"].items():
            self._writer.add_scalar(name, value, row["step"])
        for name, path in row["pictures"].items():
            with Image.open(plain(Path(path))) as picture:
                self._writer.add_image(name, np.asarray(picture), row["step"], dataformats="HWC")
        self._writer.flush()

    def on_training_end(self, result: dict[str, Any]) -> None:
        """Close the file."""
        self._writer.close()
