"""Text from files drives no terminal: where it is shown, what is unseen is escaped, and one value is one line."""

import ast
import json
import sys
import xml.etree.ElementTree as ElementTree

import pytest

from sana_bench.cli.main import execute
from sana_bench.core.progress import Progress
from sana_bench.core.text import escaped
from sana_bench.runner.library_log import LibraryLog
from sana_bench.runner.run import RunOptions, run_suite
from tests import ROOT, suite_files
from tests.runner import fakes

# A screen cleared, a title set, a line over-written, text turned around, a byte order mark, and a line that looks like another.
HOSTILE = "\x1b[2J\x1b]0;owned\x07\r\x9b31m\u202eesrever\u2066\ufeff\u2028\x7f<b>`|[x](y)\ngate: pass"
RAW = [character for character in set(HOSTILE) if not character.isprintable() and character != "\n"]


def test_what_is_unseen_is_escaped_and_the_rest_is_as_it_was() -> None:
    assert escaped("plain \u00e9 \u65e5 \U0001f600\n\tnext") == "plain \u00e9 \u65e5 \U0001f600\n\tnext"
    assert (
        escaped("\u0646\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645 \U0001f469\u200d\U0001f4bb").isascii()
        is False
    )
    assert (
        escaped("\x1b[0m\u202e\x7f\ud800\U000e0001\ufffe") == r"\u001b[0m\u202e\u007f\ud800\udb40\udc01\ufffe"
    )
    assert escaped("a\nb", "") == r"a\u000ab"


@pytest.mark.parametrize("text", [HOSTILE, "\U000e0001", "\x80\x9f"])
def test_an_escaped_document_says_the_same(text: str) -> None:
    document = json.dumps({"text": text}, ensure_ascii=False)
    assert json.loads(escaped(document)) == {"text": text}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory):
    """A run of two variants that describe themselves so, and the folder with their files."""
    folder = tmp_path_factory.mktemp("hostile")
    with fakes.installed():
        suite = fakes.write_suite(folder)
        for steps in (4, 2):
            sampler = f"sampler: {{name: flow_euler, steps: {steps}, guidance_scale: 4.5}}"
            suite_files.write_variant(
                folder / "suites", f"fake-{steps}", "generator: fake", sampler,
                f"description: {json.dumps(f'{steps}{HOSTILE}')}",
                tier="micro", weights="./weights", height=fakes.SIZE, width=fakes.SIZE,
            )  # fmt: skip
        output = folder / "results"
        assert run_suite(RunOptions(suite=suite, output=output, tier="micro")) == 0
        (run,) = (output / "runs").iterdir()
        (folder / "policy.yaml").write_text(
            "schema_version: 1\nmetrics:\n  redness: {worse_by: 1}\n"
            + f"  {json.dumps('x' + HOSTILE)}: {{worse_by: 1}}\n"
        )
        assert execute(["baseline", "set", "known", f"{run.name}:fake-4", "-o", str(output)]) == 0
        yield folder, run.name


FILES = ["--junit", "TO/junit.xml", "--markdown", "TO/gate.md"]
COMMANDS = {
    "compare": ["compare", "RUN:fake-4", "RUN:fake-2", "-o", "OUT"],
    "compare --format markdown": ["compare", "RUN:fake-4", "RUN:fake-2", "-o", "OUT", "--format", "markdown"],
    "compare --format json": ["compare", "RUN:fake-4", "RUN:fake-2", "-o", "OUT", "--format", "json"],
    "gate": ["gate", "RUN:fake-2", "--baseline", "known", "-o", "OUT", "--policy", "POLICY", *FILES],
    "report": ["report", "RUN", "-o", "OUT"],
    "leaderboard": ["leaderboard", "-o", "OUT", "--to", "TO"],
    "history": ["history", "OUT"],
    "export": ["export", "RUN", "-o", "OUT", "--to", "TO/exported", "--format", "csv"],
    "an unknown run": ["report", HOSTILE, "-o", "OUT"],
    "an unknown variant": ["compare", f"RUN:{HOSTILE}", "RUN:fake-2", "-o", "OUT"],
}  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_no_command_prints_it_raw(made, tmp_path, capsys, command) -> None:
    folder, run = made
    words = {
        "RUN": run,
        "OUT": str(folder / "results"),
        "POLICY": str(folder / "policy.yaml"),
        "TO": str(tmp_path),
    }
    arguments = COMMANDS[command]
    for name, word in words.items():
        arguments = [argument.replace(name, word) for argument in arguments]
    execute(arguments)
    out, err = capsys.readouterr()
    assert out + err
    assert not [character for character in RAW if character in out + err]
    assert "\ngate: pass" not in out.replace("\ngate: pass; ", "").removesuffix("\ngate: pass\n")
    for path in tmp_path.rglob("*"):
        if path.suffix in (".xml", ".md", ".tex"):
            text = path.read_text(encoding="utf-8")
            assert not [character for character in RAW if character in text], path
        if path.suffix == ".xml":
            assert "x" in path.read_text()
            ElementTree.parse(path)


def test_markdown_is_text(made, capsys) -> None:
    folder, run = made
    execute(
        ["compare", f"{run}:fake-4", f"{run}:fake-2", "-o", str(folder / "results"), "--format", "markdown"]
    )
    text = capsys.readouterr().out
    assert "\\[x](y)" in text
    assert "<b>" not in text


def test_completion_offers_no_such_name(tmp_path, monkeypatch) -> None:
    import typer

    from sana_bench.cli.options import complete_runs

    (tmp_path / "runs" / "good").mkdir(parents=True)
    (tmp_path / "runs" / "bad\x1b[2J").mkdir()
    context = typer.Context(typer.main.get_command(typer.Typer(callback=lambda: None)))
    context.params = {"output": str(tmp_path)}
    assert complete_runs(context, "") == ["good", "latest"]


def test_the_log_and_progress_hold_it_escaped(tmp_path, capsys) -> None:
    with LibraryLog("sana-bench run") as log:
        print(f"before {HOSTILE}", file=sys.stderr)
        log.keep_in(tmp_path / "log.txt")
        print("bar 1 %\rbar 2 %\r\n", end="", file=sys.stderr)
    text = (tmp_path / "log.txt").read_text(encoding="utf-8")
    assert not [character for character in RAW if character in text]
    assert text.endswith("bar 1 %\nbar 2 %\n")
    with Progress(HOSTILE, 1, "images") as progress:
        progress.advance(1)
    assert not [character for character in RAW if character in capsys.readouterr().out]


def test_only_one_function_prints() -> None:
    """What a command prints goes through `say`, which escapes it."""
    found = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "sana_bench").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
        and ast.unparse(node.func) in ("print", "typer.echo", "sys.stdout.write")
    }
    assert found == {"sana_bench/core/progress.py"}
