"""Embeddings on disk: equal to fresh ones, encoded once, never those of another encoder."""

import os

import torch

from sana_models.text_cache import CachedTextEncoder, encoder_identity
from tests.float64 import assert_as_exact, in_float64
from tests.small_parts import small_text_encoder

PROMPTS = ["a red circle", "two blue square left of the green circle", ""]


def cached(folder, **options):
    return CachedTextEncoder(small_text_encoder(**options), folder)


def test_stored_embeddings_are_the_fresh_ones(tmp_path, monkeypatch):
    """One prompt at a time sums in another order than a batch: it may be no further from float64."""
    encoder = cached(tmp_path)
    for options in (
        {},
        {"keep_padding": False},
        {"instruction": "a photo of the "},
        {"conditioning": "official"},
    ):
        first = encoder.encode(PROMPTS, max_length=12, **options)
        again = cached(tmp_path).encode(PROMPTS[::-1], max_length=12, **options)
        for stored, fresh in zip(again, first, strict=True):
            assert torch.equal(stored.flip(0), fresh)
        whole = small_text_encoder()
        plain = whole.encode(PROMPTS, max_length=12, **options)
        assert torch.equal(first[1], plain[1])
        exact = in_float64(lambda: whole.encode(PROMPTS, max_length=12, **options)[0])
        assert_as_exact(first[0], plain[0], exact)


def test_embeddings_of_another_precision_are_not_used(tmp_path):
    plain = cached(tmp_path / "a").encode(PROMPTS, max_length=12)[0]
    encoder = cached(tmp_path / "b")
    with torch.autocast("cpu", torch.bfloat16):
        assert not torch.equal(encoder.encode(PROMPTS, max_length=12)[0], plain)
    assert torch.equal(encoder.encode(PROMPTS, max_length=12)[0], plain)


def test_each_prompt_is_encoded_once(tmp_path):
    encoder = cached(tmp_path)
    calls: list[int] = []
    encoder.model.register_forward_pre_hook(
        lambda _, args, kwargs: calls.append(len(kwargs["input_ids"])), with_kwargs=True
    )
    encoder.encode(PROMPTS, max_length=12)
    encoder.encode(PROMPTS[:2], max_length=12)
    assert calls == [1, 1, 1]
    encoder.encode(["a red circle "], max_length=12)
    encoder.encode(PROMPTS[:1], max_length=10)
    assert calls == [1] * 5


def test_padding_is_stored_only_where_it_is_kept(tmp_path):
    for keep in (True, False):
        cached(tmp_path / str(keep)).encode(PROMPTS[:1], max_length=12, keep_padding=keep)
    sizes = [next((tmp_path / str(keep)).glob("*/*.safetensors")).stat().st_size for keep in (True, False)]
    assert sizes[0] - sizes[1] == (12 - 4) * 24 * 4


def test_another_encoder_has_embeddings_of_its_own(tmp_path):
    one, same, other = cached(tmp_path), cached(tmp_path), cached(tmp_path, seed=22)
    assert one.identity == same.identity != other.identity
    assert encoder_identity(one) == one.identity
    first = one.encode(PROMPTS, max_length=12)[0]
    assert not torch.equal(first, other.encode(PROMPTS, max_length=12)[0])
    shorter = CachedTextEncoder(small_text_encoder(max_length=11), tmp_path)
    shorter.model.to(torch.bfloat16)
    assert shorter.identity != one.identity


def test_a_damaged_file_is_made_again(tmp_path):
    first = cached(tmp_path).encode(PROMPTS, max_length=12)[0]
    for path in tmp_path.glob("*/*.safetensors"):
        path.write_bytes(path.read_bytes()[:-5])
    assert torch.equal(cached(tmp_path).encode(PROMPTS, max_length=12)[0], first)
    assert not list(tmp_path.glob("*/.*"))


def test_a_changed_bit_or_no_file_is_made_again(tmp_path):
    """The format has no checksum: without one of its own, a stored embedding would be a little wrong."""
    first = cached(tmp_path).encode(PROMPTS[:1], max_length=12)
    (path,) = tmp_path.glob("*/*.safetensors")
    whole = path.read_bytes()
    for place in range(8, len(whole), 97):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        for stored, fresh in zip(cached(tmp_path).encode(PROMPTS[:1], max_length=12), first, strict=True):
            assert torch.equal(stored, fresh)
    path.unlink()
    os.mkfifo(path)
    assert torch.equal(cached(tmp_path).encode(PROMPTS[:1], max_length=12)[0], first[0])
    assert path.is_file()
