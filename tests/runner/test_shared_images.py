"""A run with several metrics: each image is read and decoded once, and scores are those of metrics that read for themselves."""

from collections import Counter, OrderedDict
from contextlib import nullcontext

import numpy as np
import pytest
from PIL import Image

from sana_bench.core import images
from sana_bench.core.images import ImageError, SharedImages, load_image
from sana_bench.results.store import Store
from sana_bench.runner.run import RunOptions, execute_suite
from tests.suite_files import write_images, write_suite

_OWN = """
def brightness(image, prompt):
    return float(image.mean())

def redness(image, prompt):
    return float(image[..., 0].mean())
"""


@pytest.fixture
def decoded(monkeypatch) -> Counter[str]:
    """How often each file is decoded."""
    counts: Counter[str] = Counter()
    plain = images._read

    def counted(path):
        counts[str(path)] += 1
        return plain(path)

    monkeypatch.setattr(images, "_read", counted)
    return counts


def _run(tmp_path, name: str):
    options = RunOptions(suite=tmp_path / "suites" / "s.yaml", output=tmp_path / name, tier="micro")
    outcome = execute_suite(options)
    assert outcome.exit_code == 0
    with Store.open(options.output) as store:
        return [
            (row.metric, row.key, row.value, row.low, row.high) for row in store.summaries(outcome.run_id)
        ]


def test_a_run_with_five_metrics_decodes_each_image_once(tmp_path, decoded, monkeypatch):
    folder = tmp_path / "suites"
    folder.mkdir()
    (folder / "own.py").write_text(_OWN)
    write_suite(
        folder,
        "{name: geneval, prompts: 70, images_per_prompt: 1, "
        "metrics: [geneval, clip_score, fid, own.py:brightness, own.py:redness]}",
        ["micro-rendered"],
        tier="micro",
    )
    shared = _run(tmp_path, "shared")
    made = {path: count for path, count in decoded.items() if str(tmp_path / "shared" / "runs") in path}
    assert len(made) == 70  # more than a chunk
    assert set(made.values()) == {1}
    assert {row[0] for row in shared} == {"geneval", "clip_score", "fid", "brightness", "redness"}

    # To the last bit: the same pixels go through the same networks in the same chunks.
    decoded.clear()
    monkeypatch.setattr(SharedImages, "over", lambda self, paths: nullcontext())
    assert _run(tmp_path, "alone") == shared
    made = {path: count for path, count in decoded.items() if str(tmp_path / "alone" / "runs") in path}
    assert set(made.values()) == {4}  # clip_score and fid share features


def _files(folder, count, side=16):
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 256, (side, side, 3), dtype=np.uint8) for _ in range(count)]
    write_images(folder, [({"file": f"{n}.png"}, picture) for n, picture in enumerate(pictures)])
    return [folder / f"{n}.png" for n in range(count)], pictures


def test_what_is_held_is_bounded_and_the_oldest_goes_first(tmp_path, decoded):
    paths, pictures = _files(tmp_path, 6)
    shared = SharedImages(3 * pictures[0].nbytes)
    with shared.over([]):
        for path in paths:
            load_image(path)
        for path in paths[3:]:
            load_image(path)
        assert set(decoded.values()) == {1}
        load_image(paths[0])
        load_image(paths[3])
    assert [decoded[str(path)] for path in paths] == [2, 1, 1, 2, 1, 1]


def test_threads_decode_ahead_and_readers_get_the_same_pixels(tmp_path, decoded):
    paths, pictures = _files(tmp_path, 40)
    shared = SharedImages(1 << 20)
    with shared.over(paths):
        for path, picture in zip(paths, pictures, strict=True):
            assert np.array_equal(load_image(path), picture)
            assert not load_image(path).flags.writeable
    assert set(decoded.values()) == {1}
    # Outside of the block every reader reads for itself.
    load_image(paths[0])
    assert decoded[str(paths[0])] == 2


def test_a_damaged_file_is_told_to_every_reader(tmp_path, decoded):
    paths, _ = _files(tmp_path, 3)
    paths[1].write_bytes(paths[1].read_bytes()[:60])
    with SharedImages(1 << 20).over(paths):
        for _ in range(2):
            with pytest.raises(ImageError, match="damaged image"):
                load_image(paths[1])
        with pytest.raises(ImageError, match="no such image"):
            load_image(tmp_path / "none.png")
        assert load_image(paths[2]).shape == (16, 16, 3)


def test_a_file_that_was_replaced_is_read_again(tmp_path):
    paths, pictures = _files(tmp_path, 2)
    with SharedImages(1 << 20).over(paths[:1]):
        load_image(paths[0])
        paths[1].replace(paths[0])
        assert np.array_equal(load_image(paths[0]), pictures[1])


def test_many_small_images_are_not_all_looked_at_for_each(tmp_path):
    """Until there are too many none is, and then those that go: the work grows with the images, not with their square."""

    class Counting(OrderedDict):
        looked_at = 0

        def items(self):
            for item in super().items():
                Counting.looked_at += 1
                yield item

    n, kept = 60, 20
    paths = [tmp_path / f"{number}.png" for number in range(n)]
    for path in paths:
        Image.fromarray(np.zeros((2, 2, 3), np.uint8)).save(path)
    shared = SharedImages(kept * 12)
    shared._images = Counting()
    for path in paths:
        shared.read(path)
    assert len(shared._images) == kept
    # One that goes and the one after it, of each that comes.
    assert Counting.looked_at <= 2 * n
