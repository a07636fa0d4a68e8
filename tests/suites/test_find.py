"""Names of suites, variants and policies: a path, then `./suites`, then what is shipped."""

from pathlib import Path

import pytest

from sana_bench.cli.main import execute
from sana_bench.core.errors import SuiteError
from sana_bench.suites.find import find_policy, find_suite, suite_files, variant_files
from sana_bench.suites.load import load_suite
from tests import ROOT
from tests.suite_files import GENEVAL_ALONE, write_suite, write_variant

SHIPPED = ROOT / "suites"


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


def test_a_name_is_a_shipped_suite() -> None:
    assert find_suite(Path("geneval")) == find_suite(Path("geneval.yaml")) == SHIPPED / "geneval.yaml"
    assert set(variant_files()) == {path.stem for path in (SHIPPED / "variants").glob("*.yaml")}


def test_the_suites_of_the_folder_hide_the_shipped_ones() -> None:
    own = write_suite(Path("suites"), GENEVAL_ALONE, name="geneval")
    variant = write_variant(Path("suites"), "sana-micro")
    assert find_suite(Path("geneval")) == own
    assert find_suite(Path("demo")) == SHIPPED / "demo.yaml"
    assert suite_files()["geneval"] == own
    assert variant_files()["sana-micro"] == variant


def test_a_path_is_that_file() -> None:
    write_suite(Path("suites"), GENEVAL_ALONE, name="geneval")
    path = write_suite(Path("elsewhere"), GENEVAL_ALONE, name="geneval")
    assert find_suite(path) == path


def test_the_checkouts_own_suites_are_named_by_their_short_path(monkeypatch) -> None:
    monkeypatch.chdir(ROOT)
    assert suite_files()["geneval"] == Path("suites/geneval.yaml")


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ("genevl", "genevl: no such suite file (did you mean 'geneval'?)"),
        ("suites/geneval.yaml", "suites/geneval.yaml: no such suite file (did you mean 'geneval'?)"),
        (
            "elsewhere/min.yaml",
            "elsewhere/min.yaml: no such suite file (did you mean 'elsewhere/mine.yaml'?)",
        ),
        (
            "geneval@24",
            "geneval@24: no such suite file; a part of its prompts: geneval --set benchmarks.0.prompts=24",
        ),
        # A name, not a way to it.
        ("../geneval", "../geneval: no such suite file (did you mean 'geneval'?)"),
    ],
)
def test_a_miss_names_the_nearest(asked, message) -> None:
    write_suite(Path("elsewhere"), GENEVAL_ALONE, name="mine")
    with pytest.raises(SuiteError) as caught:
        find_suite(Path(asked))
    assert str(caught.value) == message


def test_policies() -> None:
    assert find_policy(Path("default")) == SHIPPED / "policies" / "default.yaml"
    own = Path("suites/policies/default.yaml")
    own.parent.mkdir(parents=True)
    own.write_text("")
    assert find_policy(Path("default")) == own
    with pytest.raises(SuiteError, match=r"^defalt: no such policy \(did you mean 'default'\?\)$"):
        find_policy(Path("defalt"))


def test_a_suite_lists_shipped_variants_without_a_copy(capsys) -> None:
    """Each variant's weights start from its own file, and what lies elsewhere is said."""
    mine = Path("mine")
    names = ("sana-micro", "sana-micro-8-steps")
    path = write_suite(mine, GENEVAL_ALONE, names, tier="micro")
    own = write_variant(mine, "sana-micro-8-steps", "generator: images", tier="micro", weights="./pictures")
    suite = load_suite(path, "micro")
    shipped, copied = suite.variants
    assert suite.files == (SHIPPED / "variants" / "sana-micro.yaml", own)
    assert (suite.folder(shipped), suite.folder(copied)) == (SHIPPED / "variants", own.parent)
    assert suite.borrowed == [f"variant sana-micro: the shipped one, {SHIPPED}/variants/sana-micro.yaml"]
    assert execute(["validate", str(path)]) == 0
    valid, borrowed, note = capsys.readouterr().out.splitlines()
    assert valid == f"{path}: micro tier is valid: sana-micro, sana-micro-8-steps"
    assert [borrowed] == suite.borrowed
    assert note.startswith("note: the weights of sana-micro-8-steps, ./pictures, are not on this machine")


def test_a_shipped_suite_borrows_nothing() -> None:
    assert load_suite(Path("geneval"), "micro").borrowed == []


def test_an_own_variant_may_come_from_a_shipped_one() -> None:
    write_variant(Path("mine"), "smaller", "kind: pruned", "derived_from: sana-micro", tier="micro")
    path = write_suite(Path("mine"), GENEVAL_ALONE, ["smaller", "sana-micro"], tier="micro")
    assert load_suite(path, "micro").variants[0].derived_from == "sana-micro"


def test_an_unknown_variant_names_the_nearest_shipped_one() -> None:
    path = write_suite(Path("mine"), GENEVAL_ALONE, ["sana-mikro"], tier="micro")
    with pytest.raises(SuiteError) as caught:
        load_suite(path, "micro")
    assert str(caught.value).endswith(
        "unknown variant 'sana-mikro' (did you mean 'sana-micro'?); neither mine/variants nor sana-bench has it"
    )
