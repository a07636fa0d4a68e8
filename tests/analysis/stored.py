"""A run whose images the renderer made."""

from pathlib import Path

from sana_bench.results.reader import RunResults, load_run
from tests.suite_files import write_suite

VARIANT = """schema_version: 1
name: drawn
tier: micro
generator: rendered
model: {weights: none, height: 64, width: 64}
"""


def rendered_run(folder: Path, benchmark: str = "geneval@12", metrics: str = "geneval") -> RunResults:
    """Run one benchmark on four images a prompt of the renderer, and read it back."""
    from sana_bench.runner.run import RunOptions, run_suite

    suite = write_suite(
        folder, f"{{name: {benchmark}, images_per_prompt: 4, metrics: [{metrics}]}}", ["drawn"], tier="micro"
    )
    (folder / "variants").mkdir()
    (folder / "variants/drawn.yaml").write_text(VARIANT)
    assert run_suite(RunOptions(suite=suite, output=folder / "results", tier="micro")) == 0
    return load_run(folder / "results", "latest")
