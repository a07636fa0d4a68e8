"""The notebook to copy runs from its first cell to its last, and is kept without outputs.

Without, because outputs are numbers and pictures of one machine on one day: they would be wrong after the next change of a
protocol, and every execution would change the file. This test sees that they come.
"""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tests import ROOT

NOTEBOOK = ROOT / "docs/notebook/compare_two_variants.ipynb"


@pytest.fixture(scope="module")
def executed(unpacked: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[nbformat.NotebookNode, Path]:
    """The notebook after its cells have run with the wheel in an empty folder, and that folder."""
    folder = tmp_path_factory.mktemp("notebook")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(unpacked))
        patch.setenv("JUPYTER_PLATFORM_DIRS", "1")  # what jupyter's libraries otherwise warn of
        patch.setenv("IPYTHONDIR", str(folder / ".ipython"))
        notebook = nbformat.read(NOTEBOOK, as_version=4)
        client = NotebookClient(
            notebook, timeout=500, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
        )
        return client.execute(), folder


def shown(executed: tuple[nbformat.NotebookNode, Path], source: str) -> dict[str, str]:
    """What the last value of the cell that ends with `source` is shown as, by kind."""
    (cell,) = [cell for cell in executed[0].cells if cell.source.endswith(source)]
    return {
        kind: text
        for output in cell.outputs
        if output.output_type in ("execute_result", "display_data")
        for kind, text in output.data.items()
    }


def test_it_is_kept_without_outputs() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert len(cells) >= 8
    assert [cell.outputs for cell in cells] == [[]] * len(cells)
    assert {cell.execution_count for cell in cells} == {None}


def test_results_show_themselves(executed) -> None:
    run = shown(executed, "\nrun")["text/html"]
    assert "do not compare with published ones" in run
    assert "sana-micro-8-steps" in run
    assert "verdict" in shown(executed, "\ncomparison")["text/html"]
    assert "gate: " in shown(executed, "\ngate")["text/html"]
    assert "rank_best" in shown(executed, "sana_bench.leaderboard()")["text/html"]
    assert "contrast" in shown(executed, '"n_samples"]]')["text/html"]


def test_pictures_are_drawn_once(executed) -> None:
    pictures = [
        [output for output in cell.outputs if "image/png" in output.get("data", {})]
        for cell in executed[0].cells
        if "plot" in cell.source and cell.cell_type == "code"
    ]
    assert [len(found) for found in pictures] == [1, 1]


def test_progress_is_plain_lines_and_nothing_goes_to_standard_error(executed) -> None:
    streams = [
        output
        for cell in executed[0].cells
        for output in cell.get("outputs", ())
        if output.output_type == "stream"
    ]
    assert {output.name for output in streams} == {"stdout"}
    text = "".join(output.text for output in streams)
    assert text.startswith("tier: micro (asked for with --tier micro)\n")
    assert not {"\r", "\x1b"} & set(text)


def test_what_it_leaves_behind(executed) -> None:
    folder = executed[1]
    assert {path.name for path in folder.iterdir()} >= {"results", "my_images", "my_metric.py", "prompts.csv"}
    assert len(list((folder / "results/runs").iterdir())) == 2
