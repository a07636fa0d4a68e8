"""Any text may be given where a name or a path is asked for: too long for a path, of no user, or a link in a circle."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

import sana_bench
from sana_bench.cli.main import execute
from sana_bench.core.errors import UsageError
from sana_models.files import is_there, path_of
from tests import suite_files

# Names of 255 bytes and paths of 4096 are the longest that Linux takes.
LONG_NAME, LONG_PATH = "a" * 5000, "/".join(["b" * 200] * 30)
TEXTS = {
    "a long name": LONG_NAME,
    "a long path": LONG_PATH,
    "no user": "~no-such-user/x",
    "a circle": "circle",
    "below a circle": "circle/x",
}
COMMANDS: dict[str, Sequence[str]] = {
    "compare": ("compare", "{}", "x"),
    "compare a variant": ("compare", "{}:v", "x"),
    "compare in a run": ("compare", "x", "y", "--run", "{}"),
    "gate": ("gate", "{}", "--baseline", "{}"),
    "policy of a gate": ("gate", "x", "--baseline", "y", "--policy", "{}"),
    "baseline set": ("baseline", "set", "name", "{}"),
    "baseline export": ("baseline", "export", "{}", "--to", "file"),
    "report": ("report", "{}"),
    "agreement": ("agreement", "{}"),
    "run": ("run", "{}"),
    "a file to run": ("run", "{}.yaml"),
    "plan": ("plan", "{}"),
    "validate": ("validate", "{}"),
    "fetch": ("fetch", "{}"),
    "import": ("import", "{}"),
    "score": ("score", "{}", "--prompts", "prompts.csv"),
    "prompts": ("score", "images", "--prompts", "{}"),
    "function": ("score", "images", "--prompts", "prompts.csv", "--metrics", "{}/f.py:g"),
    "reference": ("score", "images", "--prompts", "prompts.csv", "--reference", "{}"),
    "generate": ("generate", "--prompt", "a cat", "--model", "{}"),
    "lora": ("generate", "--prompt", "a cat", "--model", "sana-micro", "--lora", "{}"),
}
# Of a suite or a variant, with what YAML alone can hold, and without what is longer than a file's keys may be.
IN_FILES = {name: text for name, text in TEXTS.items() if len(text) < 500} | {
    "a long name": "c" * 300,
    "a zero byte": "./a\\0b",
}
KEYS = ("weights", "autoencoder", "lora", "prompt_rewrites", "judge", "reference", "prompts", "function")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("circle").symlink_to("circle")
    Path("prompts.csv").write_text("id,prompt\n0,a photo of a red circle\n")
    image = np.zeros((16, 16, 3), np.uint8)
    suite_files.write_images(
        Path("images"), [({"file": "0.png", "prompt": "a photo of a red circle"}, image)]
    )
    return tmp_path


def told(capsys: pytest.CaptureFixture[str], arguments: Sequence[str]) -> str:
    """The one line with which a command ends that cannot be done."""
    code = execute(list(arguments))
    (line,) = (one for one in capsys.readouterr().err.splitlines() if one.startswith("sana-bench: "))
    assert code == 2, line
    return line


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("text", TEXTS)
def test_a_text_that_is_no_path_is_answered_as_one_that_is_not_there(capsys, command, text) -> None:
    given = TEXTS[text]
    line = told(capsys, [one.replace("{}", given) for one in COMMANDS[command]])
    assert "shorter path" not in line, "it would not help"
    assert given in line or path_of(given).name in line


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("text", IN_FILES)
def test_a_text_of_a_file_too(tmp_path, capsys, key, text) -> None:
    given = f'"{IN_FILES[text]}"'
    lines, benchmark = [suite_files.FEW_STEPS], "{name: geneval, metrics: [geneval]}"
    weights = given if key == "weights" else "micro://sana-micro"
    search = f"{{generator: sana, candidates: 2, judge: {{name: vision_language, weights: {given}}}}}"
    more = {
        "lora": f"lora: {{weights: {given}}}",
        "prompt_rewrites": f"prompt_rewrites: {given}",
        "judge": f"generator: best_of_n\nbest_of_n: {search}",
    }
    benchmarks = {
        "reference": f"{{name: geneval, metrics: [{{name: fid, reference: {given}}}]}}",
        "prompts": f"{{name: mine, prompts: {given}, metrics: [clip_score]}}",
        "function": f'{{name: geneval, metrics: [{{name: own, function: "{IN_FILES[text]}/f.py:own"}}]}}',
    }
    lines += [more[key]] if key in more else []
    path = suite_files.write_variant(tmp_path / "suite", "mine", *lines, tier="micro", weights=weights)
    if key == "autoencoder":
        path.write_text(path.read_text().replace("model: {", f"model: {{autoencoder: {given}, "))
    suite = suite_files.write_suite(tmp_path / "suite", benchmarks.get(key, benchmark), tier="micro")
    line = told(capsys, ["run", str(suite), "--tier", "micro", "--dry-run"])
    assert "shorter path" not in line
    assert "crashed" not in line


@pytest.mark.parametrize("text", [LONG_NAME, LONG_PATH, "circle", "x\0"])
def test_python_is_told_the_same(text: str) -> None:
    for call in (
        lambda: sana_bench.compare(text, "x"),
        lambda: sana_bench.load_run(text),
        lambda: sana_bench.run(text, tier="micro"),
        lambda: sana_bench.score(text, prompts="prompts.csv", tier="micro"),
    ):
        with pytest.raises(UsageError):
            call()


def test_what_the_system_does_not_tell_is_no_absence(tmp_path, monkeypatch) -> None:
    def forbidden(path: Path) -> bool:
        raise PermissionError(13, "Permission denied", str(path))

    assert is_there(tmp_path)
    assert not is_there(tmp_path, Path.is_file)
    with pytest.raises(PermissionError):
        is_there(tmp_path, forbidden)


def test_the_path_of_a_text(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "link").symlink_to(tmp_path / "images")
    assert (
        path_of("~/link/0.png")
        == path_of("images/0.png", tmp_path)
        == tmp_path.resolve() / "images" / "0.png"
    )
