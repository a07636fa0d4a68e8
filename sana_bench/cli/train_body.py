"""`sana-bench train`: hand a training configuration to the code that trains that kind of model."""

from pathlib import Path
from typing import Any

from sana_bench.assets.locate import MICRO_SCHEME, resolve_folder
from sana_bench.core.errors import BenchError, SuiteError, UsageError, nearest
from sana_bench.core.progress import say
from sana_bench.suites.config_files import read_yaml

__all__ = ["KINDS", "train_from_config"]

KINDS = ("dc_ae", "sana", "clip", "vqa", "reward")


def train_from_config(path: Path, output: Path | None, device: str = "cpu", *, fresh: bool = False) -> int:
    """Train as the configuration says; return the exit code.

    `fresh` starts anew where an earlier run left states. Raises `SuiteError` for a bad configuration or a state of another
    one, `UsageError` for a device that is not there, and `BenchError` for a training that cannot go on.
    """
    document = read_yaml(path)
    kind = document.data.get("kind")
    if kind not in KINDS:
        where = document.origin(("kind",))
        hint = nearest(str(kind), KINDS) if kind is not None else ""
        found = "kind is missing" if kind is None else f"unknown kind {kind!r}{hint}"
        raise SuiteError(f"{where}: {found}; one of {', '.join(KINDS)}")
    _check_device(kind, device)
    folder = output or Path("results/train") / path.stem
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--output {folder}: cannot be created: {error.strerror}") from None
    try:
        _train(kind, document.data, folder, device, fresh=fresh)
    except ValueError as error:
        raise SuiteError(f"{path}: {error}") from error
    except FloatingPointError as error:
        raise BenchError(f"{path}: {error}") from error
    except KeyboardInterrupt:
        say(f"interrupted: run the same command again to continue from the last checkpoint in {folder}")
        return 3
    return 0


def _check_device(kind: str, device: str) -> None:
    if device not in ("cpu", "cuda"):
        raise UsageError(f"--device {device}: unknown{nearest(device, ('cpu', 'cuda'))}; one of cpu, cuda")
    if device == "cuda":
        import torch

        if kind in ("clip", "vqa", "reward"):
            raise UsageError(f"--device cuda: kind {kind}, of the micro tier, trains on the CPU only")
        if not torch.cuda.is_available():
            raise UsageError("--device cuda: no CUDA device found")


def _train(kind: str, config: dict[str, Any], folder: Path, device: str, *, fresh: bool) -> None:
    if fresh and kind in ("clip", "vqa", "reward"):
        from sana_models.training.state import StateFolder

        StateFolder(folder, {}).clear()
    if kind == "clip":
        from sana_bench.metrics.clip.training import run_clip_training

        run_clip_training(config, folder)
        return
    if kind == "vqa":
        from sana_bench.metrics.dpg.training import run_vqa_training

        run_vqa_training(config, folder)
        return
    if kind == "reward":
        from sana_bench.metrics.image_reward.training import run_reward_training

        run_reward_training(config, folder)
        return
    from sana_bench.micro.captions import VOCABULARY, sample_training_batch
    from sana_models.training.run import run_training

    for key in ("start", "autoencoder"):
        source = config.get(key)
        if isinstance(source, str) and source.startswith(MICRO_SCHEME):
            config = {**config, key: str(resolve_folder(source, Path()))}
    result = run_training(
        config, folder, source=sample_training_batch, vocabulary=VOCABULARY, device=device, fresh=fresh
    )
    if result.bad_records:
        say(f"{result.bad_records} bad training records were left out: {folder / 'bad_records.csv'}")
    if result.skipped_steps:
        say(f"{result.skipped_steps} steps were skipped: their loss or gradient was not finite")
    say(
        f"{result.steps} steps in {result.seconds / 60:.1f} min, final loss {result.final_loss:.4f}: {folder}"
    )
