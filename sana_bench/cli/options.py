"""Options that several commands have."""

from enum import StrEnum

import typer

__all__ = ["RUN_OUTPUT", "WEIGHTS_VARIANT", "Precision"]


class Precision(StrEnum):
    """Number formats that a model runs in or is stored in, by the names of variant files."""

    fp32 = "fp32"
    bf16 = "bf16"
    fp16 = "fp16"


#: Of commands that load a checkpoint.
WEIGHTS_VARIANT = typer.Option(
    metavar="NAME", help="Weight files to read, such as fp16 for *.fp16.safetensors; plain ones if left out."
)
#: Of commands on runs that may be named by their directory, which lies in the output folder.
RUN_OUTPUT = typer.Option(
    "--output",
    "-o",
    metavar="DIR",
    help="Folder of runs and of the result store; default: that of a run directory, or results.",
)
