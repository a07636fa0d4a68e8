"""Captions and scenes that belong together: the endless, seeded training stream of the micro world."""

from typing import TYPE_CHECKING, Any

from sana_bench.micro import templates
from sana_bench.micro.evaluation_set import held_out_captions
from sana_bench.micro.renderer import render
from sana_bench.micro.world import COLORS, IMAGE_SIZE, SHAPES, Scene, SceneObject

if TYPE_CHECKING:
    import numpy as np

__all__ = [
    "TASK_WEIGHTS",
    "VOCABULARY",
    "background_color",
    "is_held_out",
    "jittered",
    "sample_record",
    "sample_scene",
    "sample_training_batch",
    "sample_training_pair",
    "scene_for",
]

#: Share of each caption kind in training. `dense` names colours and relation at once ("a red circle left of
#: a blue square").
TASK_WEIGHTS = {
    "single_object": 0.06,
    "two_object": 0.14,
    "counting": 0.20,
    "colors": 0.08,
    "position": 0.18,
    "color_attr": 0.17,
    "dense": 0.17,
}

_PLURALS = tuple(templates.plural(shape) for shape in SHAPES)
VOCABULARY = (
    *("a", "an", "photo", "of", "and", "left", "right", "above", "below"),
    *templates.NUMBER_WORDS.values(),
    *COLORS,
    *SHAPES,
    *_PLURALS,
)

_COLOR_JITTER = 10
_GAP_PX = 2.0
# Captions go up to four; five stand only in scenes that show one too many.
_RADIUS_PX = {1: (9.0, 14.0), 2: (8.5, 12.5), 3: (8.0, 10.5), 4: (8.0, 10.0), 5: (7.5, 8.5)}


def is_held_out(caption: str) -> bool:
    """Whether the caption is an evaluation prompt (or its mirror image) that training must not show."""
    return caption in held_out_captions()


def sample_training_batch(seed: int, index: int, n: int) -> "tuple[np.ndarray, list[str]]":
    """Return batch `index` of the stream `seed`, always the same: uint8 images (n, 64, 64, 3), captions."""
    import numpy as np

    rng = np.random.default_rng([seed, index])
    pairs = [sample_training_pair(rng) for _ in range(n)]
    return np.stack([render(scene) for scene, _ in pairs]), [caption for _, caption in pairs]


def sample_training_pair(rng: "np.random.Generator") -> tuple[Scene, str]:
    """Draw a caption that is not held out and a scene that shows exactly what it names."""
    tasks = list(TASK_WEIGHTS)
    while True:
        record = sample_record(tasks[rng.choice(len(tasks), p=list(TASK_WEIGHTS.values()))], rng)
        if not is_held_out(record["prompt"]):
            return scene_for(record, rng), record["prompt"]


def sample_scene(rng: "np.random.Generator") -> Scene:
    """Draw a scene of the training distribution."""
    return sample_training_pair(rng)[0]


def scene_for(record: dict[str, Any], rng: "np.random.Generator") -> Scene:
    """Draw a scene with exactly the objects of a GenEval record; whatever the record leaves open is random.

    Objects of one counting record share a colour. A position holds by a wide margin along one axis.
    """
    wanted: list[tuple[str, str]] = []
    for clause in record["include"]:
        color = clause.get("color") or _pick(rng, tuple(COLORS))
        wanted += [(clause["class"], color)] * clause["count"]
    relation = next((c["position"][0] for c in record["include"] if "position" in c), None)
    centres, radii = _place_related(rng, relation) if relation else _place_apart(rng, len(wanted))
    objects = [
        SceneObject(shape, color, x, y, radius, jittered(rng, COLORS[color]))
        for (shape, color), (x, y), radius in zip(wanted, centres, radii, strict=True)
    ]
    return Scene(tuple(objects), background_color(rng))


def sample_record(task: str, rng: "np.random.Generator") -> dict[str, Any]:
    """Draw a record of one caption kind (a key of `TASK_WEIGHTS`), held out or not."""
    shapes = [SHAPES[i] for i in rng.choice(len(SHAPES), size=2, replace=False)]
    palette = list(COLORS)
    colors = [palette[i] for i in rng.choice(len(palette), size=2, replace=False)]
    relation = _pick(rng, templates.RELATIONS)
    match task:
        case "single_object":
            return templates.single_object_record(shapes[0])
        case "two_object":
            return templates.two_object_record(shapes[0], shapes[1])
        case "counting":
            return templates.counting_record(shapes[0], int(rng.integers(2, 5)))
        case "colors":
            return templates.colors_record(colors[0], shapes[0])
        case "position":
            return templates.position_record(shapes[0], relation, shapes[1])
        case "color_attr":
            return templates.color_attr_record((colors[0], shapes[0]), (colors[1], shapes[1]))
    return _dense_record((colors[0], shapes[0]), relation, (colors[1], shapes[1]))


def _dense_record(subject: tuple[str, str], relation: str, anchor: tuple[str, str]) -> dict[str, Any]:
    record = templates.position_record(subject[1], relation, anchor[1])
    record["include"][0]["color"], record["include"][1]["color"] = anchor[0], subject[0]
    text = f"{templates.article(' '.join(subject))} {relation} {templates.article(' '.join(anchor))}"
    return record | {"tag": "dense", "prompt": f"a photo of {text}"}


def _place_related(
    rng: "np.random.Generator", relation: str
) -> tuple[list[tuple[float, float]], list[float]]:
    """Centres and radii of (anchor, subject): far apart along the named axis, less so along the other."""
    low, high = _RADIUS_PX[2]
    radii = [float(r) for r in rng.uniform(low, high, size=2)]
    reach = IMAGE_SIZE - 2.0 - sum(radii)
    distance = float(rng.uniform(sum(radii) + _GAP_PX, reach))
    largest = max(radii)
    aside = float(rng.uniform(-1, 1)) * min(0.45 * distance, IMAGE_SIZE - 2.0 - 2 * largest)
    dx, dy = (distance, aside) if relation in ("left of", "right of") else (aside, distance)
    if relation in ("left of", "above"):
        dx, dy = -dx, -dy
    x = _inside(rng, radii, dx)
    y = _inside(rng, radii, dy)
    return [(x, y), (x + dx, y + dy)], radii


def _inside(rng: "np.random.Generator", radii: list[float], offset: float) -> float:
    """Draw the anchor's coordinate so that it and the subject `offset` away both stay in the image."""
    anchor, subject = radii
    first = max(anchor, subject - offset) + 1.0
    last = min(IMAGE_SIZE - anchor, IMAGE_SIZE - subject - offset) - 1.0
    return float(rng.uniform(first, max(first, last)))


def _place_apart(rng: "np.random.Generator", count: int) -> tuple[list[tuple[float, float]], list[float]]:
    """Centres and radii of `count` objects whose frames keep a gap; starts over when a draw gets stuck."""
    low, high = _RADIUS_PX[count]
    while True:
        radii = [float(r) for r in rng.uniform(low, high, size=count)]
        centres: list[tuple[float, float]] = []
        for radius in radii:
            spots = rng.uniform(radius + 1, IMAGE_SIZE - radius - 1, size=(24, 2))
            free = (s for s in spots if _is_free(s, radius, centres, radii))
            spot = next(free, None)
            if spot is None:
                break
            centres.append((float(spot[0]), float(spot[1])))
        if len(centres) == count:
            return centres, radii


def _is_free(
    spot: "np.ndarray", radius: float, centres: list[tuple[float, float]], radii: list[float]
) -> bool:
    return all(
        max(abs(spot[0] - x), abs(spot[1] - y)) >= radius + other + _GAP_PX
        for (x, y), other in zip(centres, radii, strict=False)
    )


def _pick(rng: "np.random.Generator", items: tuple[str, ...]) -> str:
    return items[int(rng.integers(len(items)))]


def jittered(rng: "np.random.Generator", rgb: tuple[int, int, int]) -> tuple[int, int, int]:
    """Draw a colour near `rgb`, as every object is painted."""
    import numpy as np

    r, g, b = np.clip(np.asarray(rgb) + rng.integers(-_COLOR_JITTER, _COLOR_JITTER + 1, size=3), 0, 255)
    return int(r), int(g), int(b)


def background_color(rng: "np.random.Generator") -> tuple[int, int, int]:
    """Draw a light grey with a slight tint, dark enough for white and light enough for black shapes."""
    grey = rng.integers(172, 203)
    r, g, b = grey + rng.integers(-8, 9, size=3)
    return int(r), int(g), int(b)
