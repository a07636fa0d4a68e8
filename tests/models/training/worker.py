"""A training process of its own, for tests: `worker.py CONFIG.json OUT [KILL_STEP | encode]`; dies by SIGKILL at that step."""

import json
import os
import signal
import sys
from pathlib import Path

from sana_models.training.run import run_encoding, run_training
from sana_models.training.text_to_image import TextToImageTask

WORDS = ("a", "photo", "of", "red", "blue", "dot")


def no_source(seed: int, index: int, n: int):
    raise AssertionError("this data set is not rendered")


def main() -> None:
    config = json.loads(Path(sys.argv[1]).read_text())
    if sys.argv[3:] == ["encode"]:
        # Flushed as one line, so that those of two processes do not mix.
        os.write(1, "MADE {} {}\n".format(*run_encoding(config, Path(sys.argv[2]))).encode())
        return
    kill_step = int(sys.argv[3]) if len(sys.argv) > 3 else None
    loss = TextToImageTask.loss

    def killed(self, step, *arguments):
        if step == kill_step:
            os.kill(os.getpid(), signal.SIGKILL)
        return loss(self, step, *arguments)

    TextToImageTask.loss = killed
    run_training(config, Path(sys.argv[2]), source=no_source, vocabulary=WORDS)


if __name__ == "__main__":
    main()
