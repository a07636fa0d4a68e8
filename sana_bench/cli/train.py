"""`sana-bench train`: hand a training configuration to the code that trains that kind of model."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sana_bench.cli.options import CpuDeviceOption
from sana_bench.core.errors import BenchError, SuiteError, UsageError, nearest
from sana_bench.core.progress import say
from sana_bench.core.stopping import caught

if TYPE_CHECKING:
    from sana_models.training.curve import Observer

__all__ = ["register"]

_KINDS = ("dc_ae", "sana", "clip", "vqa", "reading", "reward")


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog="Example: sana-bench train configs/train/sana_micro.yaml")(train)


def train(
    config: Annotated[
        Path, typer.Argument(metavar="CONFIG", help="Training configuration, such as configs/train/*.yaml.")
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="DIR",
            help="Folder of checkpoints; default: results/train/NAME of the configuration.",
        ),
    ] = None,
    device: CpuDeviceOption = "cpu",
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Start anew: remove the states that an earlier run left there.")
    ] = False,
    logger: Annotated[
        list[str] | None,
        typer.Option(
            "--logger",
            metavar="NAME",
            help="Tell the numbers and samples of kind sana or dc_ae to tensorboard, wandb or mlflow; may be given again.",
        ),
    ] = None,
    encode: Annotated[
        bool,
        typer.Option(
            "--encode", help="Only fill data.cache with latents and text embeddings, and train nothing."
        ),
    ] = False,
    check: Annotated[
        bool,
        typer.Option(
            "--check",
            help="Only check a configuration of kind sana or dc_ae, and the images it names; train nothing.",
        ),
    ] = False,
) -> int:
    """Train weights; the same command again continues."""
    from sana_bench.runner.loggers import Loggers, check_loggers
    from sana_bench.suites.config_files import read_yaml

    document = read_yaml(config)
    kind = document.data.get("kind")
    if kind not in _KINDS:
        where = document.origin(("kind",))
        hint = nearest(str(kind), _KINDS) if kind is not None else ""
        found = "kind is missing" if kind is None else f"unknown kind {kind!r}{hint}"
        raise SuiteError(f"{where}: {found}; one of {', '.join(_KINDS)}")
    folder = output or Path("results/train") / config.stem
    if check:
        _check(config, kind, document.data, folder)
        return 0
    _check_device(kind, device)
    if logger and kind not in ("sana", "dc_ae"):
        raise UsageError(f"--logger knows the kinds sana and dc_ae, not {kind}")
    check_loggers(logger or [])
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--output {folder}: cannot be created: {error.strerror}") from None
    try:
        with Loggers(logger or [], folder).observe_training(
            {"name": str(document.data.get("name")), "config": document.data}
        ) as observer:
            if encode:
                _encode(document.data, folder, device)
            else:
                _train(kind, document.data, folder, device, observer, fresh=fresh)
    except ValueError as error:
        raise SuiteError(f"{config}: {error}") from error
    except FloatingPointError as error:
        raise BenchError(f"{config}: {error}") from error
    except KeyboardInterrupt:
        caught()
        say(f"interrupted: run the same command again to continue from the last checkpoint in {folder}")
        return 3
    return 0


def _check(config: Path, kind: str, data: dict[str, Any], folder: Path) -> None:
    """Say that a configuration is valid and what it asks for, and what the images it names are; raises `SuiteError`."""
    from sana_bench.micro.captions import VOCABULARY
    from sana_models.training.data_settings import ImageDataSettings
    from sana_models.training.settings import AutoencoderSettings, TextToImageSettings

    known: dict[str, type[TextToImageSettings] | type[AutoencoderSettings]] = {
        "sana": TextToImageSettings,
        "dc_ae": AutoencoderSettings,
    }
    if kind not in known:
        raise UsageError(f"--check knows the kinds sana and dc_ae, not {kind}")
    try:
        settings = known[kind].from_dict(_resolved(data))
    except ValueError as error:
        raise SuiteError(f"{config}: {error}") from None
    start = data.get("start")
    from_ = f", from {start}" if start is not None else ""
    loop = settings.loop
    say(f"{config}: valid: {settings.name}, {loop.steps} steps of {loop.batch_size} samples{from_}")
    if not isinstance(settings, TextToImageSettings) or not isinstance(settings.data, ImageDataSettings):
        return
    from sana_models.training.checking import check_images

    try:
        for line in check_images(settings, settings.data, folder, VOCABULARY):
            say(line)
    except ValueError as error:
        raise SuiteError(f"{config}: {error}") from None


def _resolved(config: dict[str, Any]) -> dict[str, Any]:
    """Return a configuration with the folders of `micro://NAME` in place of these."""
    from sana_bench.assets.locate import MICRO_SCHEME, resolve_folder
    from sana_models.training.reading import read_path

    sources = {key: config.get(key) for key in ("start", "autoencoder")}
    return config | {
        key: str(resolve_folder(source, Path()))
        for key, source in sources.items()
        if isinstance(source, str) and source.startswith(MICRO_SCHEME) and read_path(key, source)
    }


def _encode(config: dict[str, Any], folder: Path, device: str) -> None:
    from sana_bench.micro.captions import VOCABULARY
    from sana_models.training.run import run_encoding

    latents, captions = run_encoding(_resolved(config), folder, vocabulary=VOCABULARY, device=device)
    say(f"{latents:,} latents and {captions:,} captions encoded: {config['data']['cache']} has all")


def _check_device(kind: str, device: str) -> None:
    if device == "cuda":
        import torch

        if kind in ("clip", "vqa", "reading", "reward"):
            raise UsageError(f"--device cuda: kind {kind}, of the micro tier, trains on the CPU only")
        if not torch.cuda.is_available():
            raise UsageError("--device cuda: no CUDA device found")


def _train(
    kind: str, config: dict[str, Any], folder: Path, device: str, observer: "Observer", *, fresh: bool
) -> None:
    if kind == "clip":
        from sana_bench.metrics.clip.training import run_clip_training

        run_clip_training(config, folder, fresh=fresh)
        return
    if kind in ("vqa", "reading"):
        from sana_bench.metrics.dpg.training import run_vqa_training

        run_vqa_training(config, folder, fresh=fresh)
        return
    if kind == "reward":
        from sana_bench.metrics.image_reward.training import run_reward_training

        run_reward_training(config, folder, fresh=fresh)
        return
    from sana_bench.micro.captions import VOCABULARY, sample_training_batch
    from sana_models.training.run import run_training

    result = run_training(
        _resolved(config),
        folder,
        source=sample_training_batch,
        vocabulary=VOCABULARY,
        device=device,
        fresh=fresh,
        observer=observer,
    )
    if result.bad_records:
        say(f"{result.bad_records} bad training records were left out: {folder / 'bad_records.csv'}")
    if result.skipped_steps:
        say(f"{result.skipped_steps} steps were skipped: their loss or gradient was not finite")
    say(
        f"{result.steps} steps in {result.seconds / 60:.1f} min, final loss {result.final_loss:.4f}: {folder}"
    )
