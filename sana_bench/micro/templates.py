"""GenEval's six tasks as records in its metadata format, with its articles, plurals and sentence forms."""

from typing import Any

__all__ = [
    "NUMBER_WORDS",
    "RELATIONS",
    "article",
    "color_attr_record",
    "colors_record",
    "counting_record",
    "plural",
    "position_record",
    "single_object_record",
    "two_object_record",
]

Record = dict[str, Any]

RELATIONS = ("left of", "right of", "above", "below")
NUMBER_WORDS = {2: "two", 3: "three", 4: "four"}


def article(phrase: str) -> str:
    """Prefix `a` or `an` by the first letter, as GenEval does."""
    return f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}"


def plural(noun: str) -> str:
    """GenEval's plural: `es` after an s, otherwise `s`."""
    return noun + ("es" if noun.endswith("s") else "s")


def _record(tag: str, include: list[Record], text: str, exclude: list[Record] | None = None) -> Record:
    record: Record = {"tag": tag, "include": include}
    if exclude is not None:
        record["exclude"] = exclude
    return record | {"prompt": f"a photo of {text}"}


def single_object_record(shape: str) -> Record:
    return _record("single_object", [{"class": shape, "count": 1}], article(shape))


def two_object_record(first: str, second: str) -> Record:
    include = [{"class": first, "count": 1}, {"class": second, "count": 1}]
    return _record("two_object", include, f"{article(first)} and {article(second)}")


def counting_record(shape: str, count: int) -> Record:
    include, exclude = [{"class": shape, "count": count}], [{"class": shape, "count": count + 1}]
    return _record("counting", include, f"{NUMBER_WORDS[count]} {plural(shape)}", exclude)


def colors_record(color: str, shape: str) -> Record:
    return _record("colors", [{"class": shape, "count": 1, "color": color}], article(f"{color} {shape}"))


def position_record(subject: str, relation: str, anchor: str) -> Record:
    include = [{"class": anchor, "count": 1}, {"class": subject, "count": 1, "position": [relation, 0]}]
    return _record("position", include, f"{article(subject)} {relation} {article(anchor)}")


def color_attr_record(first: tuple[str, str], second: tuple[str, str]) -> Record:
    """`first` and `second` are (colour, shape)."""
    include = [{"class": shape, "count": 1, "color": color} for color, shape in (first, second)]
    text = f"{article(' '.join(first))} and {article(' '.join(second))}"
    return _record("color_attr", include, text)
