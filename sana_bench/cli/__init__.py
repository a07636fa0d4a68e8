"""Commands that live outside `cli.py`, one module each; a module has `register(app)` and imports nothing heavy."""

from importlib import import_module

import typer

__all__ = ["register_all"]

_MODULES: tuple[str, ...] = (
    "generate",
    "compare",
    "gate",
    "leaderboard",
    "history",
    "export",
    "fetch",
    "rescore",
    "import_",
    "grow",
    "prune",
    "profile",
    "selfcheck",
)


def register_all(app: typer.Typer) -> None:
    """Add every command of this package to the application."""
    for name in _MODULES:
        import_module(f"{__name__}.{name}").register(app)
