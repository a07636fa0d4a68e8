"""Options that several commands have."""

import typer

__all__ = ["RUN_OUTPUT"]

#: Of commands on runs that may be named by their directory, which lies in the output folder.
RUN_OUTPUT = typer.Option(
    "--output",
    "-o",
    metavar="DIR",
    help="Folder of runs and of the result store; default: that of a run directory, or results.",
)
