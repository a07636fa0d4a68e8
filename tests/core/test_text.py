"""Text as lines: a line ends at a line feed, whatever else the text holds."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sana_bench.assets.download import SUMS, read_sums
from sana_bench.cli.doctor import changed_files
from sana_bench.cli.reshape import calibration_prompts
from sana_bench.core.samples import Prompt
from sana_bench.core.text import difference, lines, lone_surrogate, look_alike, read_text
from sana_bench.generators.image_folder import MANIFEST, ImageName, read_folder
from sana_bench.results.run_folder import RunFiles

# What str.splitlines takes for the end of a line, beside line feed.
SEPARATORS = "\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("\n", [""]),
        ("a", ["a"]),
        ("a\nb\n", ["a", "b"]),
        ("a\r\nb\r\n", ["a", "b"]),
        ("a\n\nb", ["a", "", "b"]),
        (f"a{SEPARATORS}b\n", [f"a{SEPARATORS}b"]),
        ("a\r\r\n", ["a\r"]),
    ],
)
def test_lines_end_at_line_feeds_alone(text: str, expected: list[str]) -> None:
    assert lines(text) == expected


@given(st.lists(st.text(st.characters(exclude_characters="\n", exclude_categories=["Cs"]))))
def test_lines_that_were_written_come_back(found: list[str]) -> None:
    kept = [line for line in found if not line.endswith("\r")]
    assert lines("".join(f"{line}\n" for line in kept)) == kept


def test_a_file_is_read_as_it_is_but_for_a_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes("\ufeffone\r\ntwo\rthree\ufeff".encode())
    assert read_text(tmp_path / "a") == "one\r\ntwo\rthree\ufeff"


@pytest.mark.parametrize("separator", SEPARATORS)
def test_prompts_of_a_run_come_back(tmp_path: Path, separator: str) -> None:
    prompt = Prompt("0", f"a cat{separator}on a mat", f"t{separator}", {"key": [separator]})
    RunFiles(tmp_path).write_prompts("b", [prompt])
    assert RunFiles(tmp_path).read_prompts("b") == {"0": prompt}


@pytest.mark.parametrize("separator", SEPARATORS)
def test_both_layouts_of_an_image_folder(tmp_path: Path, separator: str) -> None:
    text = f"a cat{separator}on a mat"
    folder = tmp_path / "layout" / "00000"
    (folder / "samples").mkdir(parents=True)
    (folder / "samples" / "00000.png").touch()
    record = json.dumps({"prompt": text}, ensure_ascii=False)
    (folder / "metadata.jsonl").write_bytes(f"\ufeff{record}\r\n".encode())
    assert list(read_folder(tmp_path / "layout")) == [ImageName("00000", text, 0)]
    record = json.dumps({"prompt": text, "file": "a.png"}, ensure_ascii=False)
    (tmp_path / MANIFEST).write_bytes(f"\ufeff{record}\r\n".encode())
    assert list(read_folder(tmp_path)) == [ImageName(None, text, 0)]


def test_sums_of_files_with_unusual_names(tmp_path: Path) -> None:
    name = "a\u2028b\x85c"
    (tmp_path / name).write_bytes(b"")
    for file in (SUMS, "SHA256SUMS"):
        (tmp_path / file).write_text(f"{'0' * 64}  {name}\n", encoding="utf-8")
    assert read_sums(tmp_path) == {name: "0" * 64}
    assert changed_files(tmp_path) == [name]


def test_calibration_prompts_are_lines(tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_bytes("\ufeffa\u2028b\r\nc\x85d\n".encode())
    assert calibration_prompts(tmp_path, tmp_path / "prompts.txt", 9) == ["a\u2028b", "c\x85d"]


ALIKE = [
    ("cafe\u0301", "caf\u00e9", "character 4 is U+0065 U+0301 here and U+00E9 there"),
    ("a\r\nb", "a\nb", "character 2 is U+000D here and nothing there"),
    ("a b", "a\u00a0b", "character 2 is U+0020 here and U+00A0 there"),
    ("\ufeffa", "a", "character 1 is U+FEFF here and nothing there"),
    ("a", "a ", "character 2 is nothing here and U+0020 there"),
    ("\uff21b", "Ab", "character 1 is U+FF21 here and U+0041 there"),
]


@pytest.mark.parametrize(("found", "expected", "told"), ALIKE)
def test_texts_that_look_alike_are_told_apart_by_code_points(found: str, expected: str, told: str) -> None:
    assert look_alike(found) == look_alike(expected)
    assert difference(found, expected) == told


def test_texts_that_look_different_are_not_taken_for_one() -> None:
    assert len({look_alike(text) for text in ("a cat", "a cats", "A cat", "a  bat", "")}) == 5


@given(st.text(), st.text(min_size=1), st.text(), st.text())
def test_a_difference_stands_where_the_texts_part(start: str, one: str, other: str, end: str) -> None:
    if one != other:
        place = int(difference(start + one + end, start + other + end).split()[1]) - 1
        assert place >= len(start)
        assert (start + one + end)[:place] == (start + other + end)[:place]


def test_half_of_a_pair_is_found() -> None:
    assert lone_surrogate("a\udc80b\ud800") == "U+DC80"
    assert lone_surrogate("a \U0001f431 is a pair in UTF-16 alone") is None
