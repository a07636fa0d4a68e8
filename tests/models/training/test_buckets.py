"""Batches by bucket: every record equally often, small buckets merged with a line, nothing repeated in silence."""

from collections import Counter
from pathlib import Path

import pytest
import torch

from sana_models.training.buckets import epoch_batches, epoch_position, merge_small_buckets
from sana_models.training.image_text import Stage
from sana_models.training.records import BadRecords
from tests.models.training.datasets import write_shards
from tests.models.training.test_training_data import autoencoder, draw, make_data

__all__ = ["autoencoder"]


def plan(counts: list[int], size: int, steps: int) -> list[tuple[tuple[int, int], list[int]]]:
    """The first batches over buckets of these sizes."""
    members, first = {}, 0
    for number, count in enumerate(counts):
        members[(number + 1, 1)] = list(range(first, first + count))
        first += count
    found = []
    for step in range(steps):
        epoch, position = epoch_position(counts, size, step)
        found.append(epoch_batches(members, size, [3, 0], epoch)[position])
    return found


@pytest.mark.parametrize(("counts", "size"), [([12], 4), ([7, 5, 64], 5), ([65, 127], 64), ([9, 8, 11], 8)])
def test_every_record_is_seen_equally_often(counts, size):
    """Over `size` epochs every bucket has made whole passes, so every record has been seen exactly `size` times."""
    batches = plan(counts, size, sum(counts))
    assert all(len(records) == size for _, records in batches)
    seen = Counter(record for _, records in batches for record in records)
    assert seen == dict.fromkeys(range(sum(counts)), size)


def test_a_step_has_one_place_and_epochs_differ():
    counts, size = [9, 8, 11], 8
    places = [epoch_position(counts, size, step) for step in range(200)]
    assert len(set(places)) == 200
    assert places == sorted(places)
    batches = plan(counts, size, 28)
    assert batches[:3] != batches[3:6]
    assert plan(counts, size, 28) == batches


def test_a_rare_ratio_goes_to_the_nearest_bucket_with_a_line():
    members = {(512, 2048): [0], (1024, 1024): list(range(1, 65)), (576, 1792): list(range(65, 130))}
    filled, lines = merge_small_buckets(members, 64)
    assert filled == {(1024, 1024): list(range(1, 65)), (576, 1792): [0, *range(65, 130)]}
    assert lines == ["bucket 2048x512 has 1 of the 64 records of a batch: its 1 images go to 1792x576"]


def test_buckets_of_one_merge_until_a_batch_is_full():
    filled, lines = merge_small_buckets({(16, 16 + number): [number] for number in range(10)}, 4)
    assert sorted(record for group in filled.values() for record in group) == list(range(10))
    assert all(len(group) >= 4 for group in filled.values())
    assert len(lines) == 10 - len(filled)


def test_stored_latents_keep_their_shape_or_are_left_out():
    filled, lines = merge_small_buckets({(4, 6): [0, 1], (8, 8): [2, 3, 4, 5]}, 4, fixed={0})
    assert filled == {(8, 8): [1, 2, 3, 4, 5]}
    assert [line.split(": ")[1] for line in lines] == [
        "its 1 images go to 8x8",
        "its 1 stored latents are left out",
    ]


def test_too_few_records_for_a_batch_are_told():
    filled, lines = merge_small_buckets({(8, 8): [0, 1]}, 4)
    assert filled == {(8, 8): [0, 1]}
    assert lines == ["bucket 8x8, the only one, has 2 records: a batch of 4 repeats them"]


def test_a_rare_image_is_not_seen_more_than_others(tmp_path: Path, autoencoder, capsys):
    """Eleven records whose last is the only tall one: it used to fill a batch of its own in every epoch."""
    folder = write_shards(tmp_path / "shards", (12,))
    data = make_data(folder, autoencoder, bad=BadRecords(max_share=0.0))
    data.records = [
        record for record in data.records if record.key[-2:] in ("00", "01", "04", "05", "08", "09", "03")
    ]
    data.stages = [Stage(until=1000, image_size=16)]
    seen = Counter(index for step in range(7) for index in data._plan(step, 4)[1])
    assert seen == dict.fromkeys(range(7), 4)
    assert "1 of the 4 records of a batch: its 1 images go to" in capsys.readouterr().err
    assert all(draw(data, step)[0].shape[0] == 4 for step in range(7))


def test_latents_and_images_of_one_size_share_a_bucket(tmp_path: Path, autoencoder):
    data = make_data(
        [write_shards(tmp_path / "a", (4,), latents=True), write_shards(tmp_path / "b", (8,))], autoencoder
    )
    shapes = {tuple(draw(data, step)[0].shape[2:]) for step in range(6)}
    assert (2, 3) in shapes
    assert all(torch.isfinite(draw(data, step)[0]).all() for step in range(6))
