"""A logger: what happens in a run as lines of JSON."""

import json
from pathlib import Path
from typing import Any


class JsonLines:
    """Appends to `log.jsonl` in the run directory."""

    def __init__(self, run_directory: Path) -> None:
        self._path = run_directory / "log.jsonl"

    def on_run_start(self, run: dict[str, Any]) -> None:
        """Record what the run is."""
        self._write("start", run)

    def on_summary(self, summary: dict[str, Any]) -> None:
        """Record one number."""
        self._write("summary", summary)

    def on_run_end(self, result: dict[str, Any]) -> None:
        """Record how the run ended."""
        self._write("end", result)

    def _write(self, event: str, data: dict[str, Any]) -> None:
        with open(self._path, "a", encoding="utf-8") as file:
            file.write(json.dumps({"event": event, **data}) + "\n")
