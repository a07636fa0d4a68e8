"""Plug-ins that are really installed, and ones that do not work."""

import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sana_bench import metrics
from sana_bench.cli.main import execute
from sana_bench.core.errors import SuiteError
from sana_bench.core.registry import BENCHMARKS, GENERATORS, MEASURED, METRICS, REGISTRIES, Entry, Limits
from tests import ROOT

EXAMPLE = ROOT / "examples" / "sana-bench-plugin-example"
SUITE = EXAMPLE / "suites" / "colours.yaml"


def install_command() -> list[str]:
    """Return the installer of this environment: its pip, or the uv that made it."""
    # Not by `find_spec`: setuptools, asked for pip, gives up its own distutils, without which torch compiles nothing here.
    if any(distribution.name == "pip" for distribution in importlib.metadata.distributions()):
        return [sys.executable, "-m", "pip"]
    uv = shutil.which("uv") or shutil.which("uv", path=str(Path(sys.prefix) / "uv" / "bin"))
    assert uv is not None, "neither pip nor uv is there to install the example with"
    return [uv, "pip"]


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the example installed into it."""
    folder = tmp_path_factory.mktemp("installed")
    source = Path(shutil.copytree(EXAMPLE, tmp_path_factory.mktemp("source") / "example"))
    command = install_command()
    python = [] if command[0] == sys.executable else ["--python", sys.executable]
    subprocess.run(
        [*command, "install", *python, "--no-deps", "--no-build-isolation", "--target", folder, source],
        check=True,
        capture_output=True,
        timeout=300,
    )
    return folder


def sana_bench(arguments: list[str], *folders: Path) -> subprocess.CompletedProcess[str]:
    """Run the command in a process that finds what is installed in `folders`."""
    known = [*map(str, folders), str(ROOT), *(str(ROOT / name) for name in ("models", "kernels", "reports"))]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(known)}
    command = [sys.executable, "-m", "sana_bench", *arguments]
    return subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=300)


def write_plugin(
    folder: Path, group: str, name: str, value: str, distribution: str = "broken-plugin"
) -> Path:
    """Write what an installer leaves of a package with one entry point."""
    info = folder / f"{distribution.replace('-', '_')}-0.1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 0.1\n")
    (info / "entry_points.txt").write_text(f"[sana_bench.{group}]\n{name} = {value}\n")
    return folder


@pytest.fixture
def on_path(monkeypatch: pytest.MonkeyPatch):
    """Make folders importable in this process for the length of a test."""

    def add(*folders: Path) -> None:
        for folder in folders:
            monkeypatch.syspath_prepend(str(folder))
        forget()

    yield add
    monkeypatch.undo()
    forget()


def forget() -> None:
    for registry in REGISTRIES.values():
        registry.forget()


def problems() -> list[str]:
    return [line for registry in REGISTRIES.values() for line in registry.problems()]


def one_line(capsys) -> str:
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    return lines[0]


def test_the_example_is_installed_and_runs(installed, tmp_path) -> None:
    output = tmp_path / "results"
    arguments = ["run", str(SUITE), "--tier", "micro", "--logger", "json-lines", "--output", str(output)]
    result = sana_bench(arguments, installed)
    assert result.returncode == 0, result.stderr
    (directory,) = (output / "runs").iterdir()
    events = [json.loads(line) for line in (directory / "log.jsonl").read_text().splitlines()]
    assert [event["event"] for event in events] == ["start", "summary", "end"]
    start, summary, end = events
    assert start["run_id"] == end["run_id"] == directory.name
    assert end["state"] == "done"
    # Two images each of 0, 128 and 255, whose blue channel may differ by one.
    assert summary["value"] == pytest.approx((0 + 128 + 255) / 3, abs=1 / 3)
    assert (summary["n_samples"], summary["n_prompts"]) == (6, 3)
    provenance = json.loads((directory / "provenance.json").read_text())
    package = "sana-bench-plugin-example 1.0.0"
    assert provenance["plugins"] == {
        "generators/solid-colours": package, "benchmarks/greys": package, "metrics/brightness": package
    }  # fmt: skip
    assert provenance["metrics"]["brightness"]["plugin"] == package


def test_list_and_doctor_show_plugins(installed, on_path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(ROOT)
    on_path(installed)
    assert execute(["list"]) == 0
    out = capsys.readouterr().out
    package = "(plug-in: sana-bench-plugin-example 1.0.0)"
    for name in ("greys: 2 images per prompt, brightness", "brightness", "solid-colours", "json-lines"):
        assert f"  {name} {package}" in out
    execute(["doctor"])
    assert "plug-in: generator solid-colours (sana-bench-plugin-example 1.0.0)" in capsys.readouterr().out


def test_the_version_of_a_judge_is_part_of_what_it_says(tmp_path, on_path) -> None:
    """A search that another version steered is never reused; sana-bench's own judges are told as they always were."""
    from sana_bench import judges
    from sana_bench.suites.schema import JudgeSpec

    (tmp_path / "redness.py").write_text(
        "class Redness:\n"
        "    def __init__(self, spec, relative_to, device): self.place = relative_to / spec.weights\n"
        "    def load(self): pass\n"
        "    def identity(self): return {'judge': 'redness', 'place': self.place.name}\n"
        "    def judge(self, prompts, images): return []\n"
    )
    on_path(write_plugin(tmp_path, "judges", "redness", "redness:Redness", "reds"))
    spec = JudgeSpec(name="redness", weights="here")
    judge = judges.build(spec, tmp_path, "cpu")
    said = {"judge": "redness", "place": "here"}
    assert judges.identity(spec, judge) == {**said, "plugin": "reds 0.1"}
    assert judges.identity(JudgeSpec(name="clip_score"), judge) == said


def test_the_version_of_a_plugin_is_part_of_every_identity(installed, tmp_path, on_path) -> None:
    """What was made with another version is never reused."""
    from sana_bench.core.fingerprint import FileHashes
    from sana_bench.metrics.base import metric_key
    from sana_bench.runner.resolve import resolve_suite
    from sana_bench.suites.load import load_suite
    from sana_bench.suites.tiers import choose_tier

    newer = Path(shutil.copytree(installed, tmp_path / "newer"))
    (metadata,) = newer.glob("*.dist-info/METADATA")
    metadata.write_text(metadata.read_text().replace("Version: 1.0.0", "Version: 1.0.1"))
    info = metadata.parent
    info.rename(info.with_name(info.name.replace("1.0.0", "1.0.1")))
    identities, plugins = [], []
    for folder in (installed, newer):
        on_path(folder)
        tier = choose_tier("micro")
        resolved = resolve_suite(load_suite(SUITE, "micro"), tier, FileHashes())
        key = metric_key(metrics.build("brightness", "micro", None))
        identities.append((resolved.fingerprint, resolved.variants[0].fingerprint, key))
        part = load_suite(SUITE, "micro", ("benchmarks.0.prompts=2",))
        (described,) = resolve_suite(part, tier, FileHashes()).describe()["benchmarks"]
        assert described["name"] == "greys@2"
        plugins.append(described["plugin"])
    assert all(old != new for old, new in zip(*identities, strict=True))
    assert plugins == [f"sana-bench-plugin-example 1.0.{patch}" for patch in (0, 1)]
    assert GENERATORS.entry("solid-colours").revision == "solid-colours (sana-bench-plugin-example 1.0.1)"


def test_help_looks_for_no_plugins(installed) -> None:
    script = (
        "import sys\nfrom sana_bench.cli.main import execute\nexecute(['--help'])\n"
        "print(sorted({'importlib.metadata', 'sana_bench.core.registry', 'sana_bench_plugin_example'} & set(sys.modules)),"
        " file=sys.stderr)\n"
    )
    before = "import sys, typer\nprint('importlib.metadata' in sys.modules)"
    has = subprocess.run([sys.executable, "-c", before], capture_output=True, text=True, check=True).stdout
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(installed), str(ROOT)])}
    result = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True
    )
    expected = ["importlib.metadata"] if has.strip() == "True" else []
    assert result.stderr.strip() == str(expected)


def test_a_broken_plugin_is_named_where_it_is_used_or_listed(tmp_path, on_path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(ROOT)
    on_path(write_plugin(tmp_path, "benchmarks", "shaky", "no_such_module:Benchmark"))
    assert execute(["validate", "suites/geneval.yaml"]) == 0
    suite = tmp_path / "suite.yaml"
    suite.write_text(
        "schema_version: 1\nname: shaky\nbenchmarks: [{name: shaky}]\nvariants: {micro: [sana-micro]}\n"
    )
    (tmp_path / "variants").symlink_to(ROOT / "suites" / "variants")
    capsys.readouterr()
    assert execute(["validate", str(suite)]) == 2
    message = "benchmark plug-in 'shaky' of broken-plugin 0.1 cannot be loaded: ModuleNotFoundError"
    assert message in one_line(capsys)
    assert execute(["list", "benchmarks"]) == 0
    out = capsys.readouterr().out
    assert f"shaky: ! {message}" in out
    assert "geneval: 4 images per prompt" in out
    assert [line for line in problems() if message in line]


ENDINGS = {
    "an exit": ("raise SystemExit(0)", "SystemExit: 0"),
    "sys.exit with words": ("import sys; sys.exit('no licence')", "SystemExit: no licence"),
    "a base exception": ("class Odd(BaseException): pass\nraise Odd('x')", "Odd: x"),
    "a loop": ("def f(): f()\nf()", "RecursionError"),
    "a syntax error": ("def", "SyntaxError"),
}


@pytest.mark.parametrize("kind", ["benchmarks", "metrics", "generators", "judges", "loggers"])
@pytest.mark.parametrize("ending", ENDINGS)
def test_a_plugin_that_ends_the_program_is_named_and_ends_nothing(
    tmp_path, on_path, capsys, monkeypatch, ending, kind
) -> None:
    monkeypatch.chdir(ROOT)
    body, told = ENDINGS[ending]
    (tmp_path / f"ending_{kind}.py").write_text(f"{body}\n")
    on_path(write_plugin(tmp_path, kind, "rude", f"ending_{kind}:Rude"))
    single = kind.removesuffix("s")
    message = f"{single} plug-in 'rude' of broken-plugin 0.1 cannot be loaded: {told}"
    assert execute(["list", kind]) == 0
    assert f"rude: ! {message}" in capsys.readouterr().out
    assert [line for line in problems() if message in line]
    assert execute(["doctor"]) in (0, 2)
    assert message in capsys.readouterr().out


def test_a_plugin_that_ends_the_program_when_it_is_built(tmp_path, on_path, capsys) -> None:
    (tmp_path / "late.py").write_text("def build():\n    raise SystemExit(0)\n")
    on_path(write_plugin(tmp_path, "benchmarks", "late", "late:build"))
    with pytest.raises(SuiteError, match=r"'late' of broken-plugin 0\.1 failed: SystemExit: 0"):
        BENCHMARKS.build("late")
    assert execute(["list", "benchmarks"]) == 0
    assert "late: ! benchmark plug-in 'late'" in capsys.readouterr().out


def test_an_exit_in_the_middle_of_a_command_is_a_crash(monkeypatch, capsys) -> None:
    """Exit code 0 would say that everything is done."""
    from sana_bench.cli import list as module

    monkeypatch.setattr(module, "_sections", lambda: sys.exit(0))
    assert execute(["list"]) == 1
    assert "crashed with SystemExit" in one_line(capsys)


def test_built_in_names_cannot_be_taken(tmp_path, on_path) -> None:
    for kind, name in (("generators", "sana"), ("metrics", "geneval"), ("benchmarks", "geneval")):
        on_path(write_plugin(tmp_path / kind, kind, name, "json:loads", f"thief-of-{kind}"))
    assert GENERATORS.entry("sana").revision == "sana@2"
    assert type(BENCHMARKS.build("geneval")).__module__ == "sana_bench.benchmarks.geneval"
    assert METRICS.plugin("geneval") is None
    refused = [line for line in problems() if "the name is sana-bench's own" in line]
    assert len(refused) == 3


@pytest.mark.parametrize("registry", REGISTRIES.values(), ids=REGISTRIES)
def test_every_built_in_name_is_protected(tmp_path, on_path, registry) -> None:
    reserved = MEASURED if registry is METRICS else ()
    names = [*registry.names(), *reserved]
    for name in names:
        on_path(write_plugin(tmp_path / name, registry.kind, name, "json:loads", f"thief-of-{name}"))
    assert registry.plugins() == []
    assert len(registry.problems()) == len(names)


@pytest.mark.parametrize("registry", REGISTRIES.values(), ids=REGISTRIES)
def test_every_built_in_name_can_be_loaded(registry) -> None:
    """What a name stands for is a string, which no import checks."""
    for name in registry.names():
        entry = registry.entry(name)
        assert callable(entry.load())
        assert entry.load_finder() is None or callable(entry.load_finder())


def test_a_process_can_add_names_of_its_own() -> None:
    with METRICS.added(Entry("mine", dict, "1")):
        assert METRICS.entry("mine").kind == "metrics"
        with pytest.raises(SuiteError, match="metric 'mine' is registered already"):
            METRICS.add(Entry("mine", dict))
    assert "mine" not in METRICS
    with pytest.raises(SuiteError, match="metric 'latency' is registered already"):
        METRICS.add(Entry("latency", dict))


def test_a_name_offered_twice_is_refused(tmp_path, on_path) -> None:
    for package in ("one", "two"):
        on_path(write_plugin(tmp_path / package, "metrics", "twin", "json:loads", package))
    with pytest.raises(SuiteError, match=r"'twin' is offered by (one 0.1 and two|two 0.1 and one) 0.1"):
        METRICS.entry("twin")


@pytest.mark.parametrize(
    ("kind", "value", "message"),
    [
        ("metrics", "builtins:dict", "failed: TypeError"),
        ("metrics", "json:__name__", "is not callable"),
        ("metrics", "builtins:divmod", "failed: TypeError"),
        ("benchmarks", "builtins:object", "has no name, default_images_per_prompt"),
        ("benchmarks", "sana_bench.benchmarks.geneval:GenEval", "calls itself 'geneval'"),
    ],
)
def test_what_a_plugin_has_to_be(tmp_path, on_path, kind, value, message) -> None:
    on_path(write_plugin(tmp_path, kind, "odd", value))
    with pytest.raises(SuiteError, match=message):
        metrics.build("odd", "micro", None) if kind == "metrics" else BENCHMARKS.build("odd")


def test_an_unknown_logger_is_refused_before_anything_is_written(
    installed, on_path, tmp_path, capsys
) -> None:
    on_path(installed)
    arguments = ["run", str(SUITE), "--tier", "micro", "--output", str(tmp_path / "results")]
    assert execute([*arguments, "--logger", "json-line"]) == 2
    assert "--logger json-line: unknown logger 'json-line' (did you mean 'json-lines'?)" in one_line(capsys)
    assert not (tmp_path / "results").exists()


def test_a_logger_that_fails_costs_no_numbers(installed, on_path, tmp_path, capsys) -> None:
    module = tmp_path / "plugin" / "fragile.py"
    write_plugin(tmp_path / "plugin", "loggers", "fragile", "fragile:Fragile")
    module.write_text(
        "class Fragile:\n"
        "    def __init__(self, run_directory): pass\n"
        "    def on_run_start(self, run): run.clear()\n"
        "    def on_summary(self, summary): raise RuntimeError('no connection')\n"
        "    def on_run_end(self, result): print('ended', result['state'])\n"
    )
    on_path(installed, tmp_path / "plugin")
    arguments = ["run", str(SUITE), "--tier", "micro", "--output", str(tmp_path / "results")]
    assert execute([*arguments, "--logger", "fragile"]) == 1
    captured = capsys.readouterr()
    assert "logger plug-in 'fragile' of broken-plugin 0.1 failed in on_summary: RuntimeError" in captured.err
    assert "ended done" in captured.out
    (directory,) = (tmp_path / "results" / "runs").iterdir()
    assert execute(["report", str(directory)]) == 0
    assert execute(arguments) == 0
    assert "0 images to generate, 6 already there" in capsys.readouterr().out


def test_a_metric_of_a_plugin_says_between_what_its_scores_lie(tmp_path, on_path) -> None:
    folder = write_plugin(tmp_path, "metrics", "limited", "limited_metric:build")
    (folder / "limited_metric.py").write_text("def build(*_): ...\n\n\nbuild.limits = (0, 100, True)\n")
    on_path(folder)
    assert METRICS.entry("limited").find_limits() == Limits(0, 100, by_task=True)
    assert METRICS.entry("geneval").find_limits() == Limits(0, 1, by_task=True)
    assert METRICS.entry("image_reward").find_limits() is None
