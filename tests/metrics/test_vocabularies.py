"""Vocabulary files: one word a line, where only a line feed ends a line; and the special tokens of the networks beside them."""

import dataclasses
import json
import logging

import pytest

from sana_bench.core.errors import AssetError
from sana_bench.judges.mplug.config import read_config
from sana_bench.judges.mplug.files import read_vocabulary
from sana_bench.metrics.image_reward.network import WordPieces
from sana_bench.metrics.selfcheck.encoders import write_reward_files
from sana_bench.metrics.selfcheck.judges import write_mplug
from sana_bench.metrics.selfcheck.recipes import image_reward, mplug

# What str.splitlines takes for the end of a line, beside line feed and carriage return.
ODD = ["a\u2028b", "\u2029", "\u0085", "\x0b", "\x0c", "\x1c", "\x1d", "\x1e"]


@pytest.mark.parametrize("end", ["", "\n"])
def test_the_reward_networks_words_end_at_line_feeds_alone(tmp_path, end):
    words = [*ODD, *image_reward.vocabulary()]
    path = tmp_path / "vocab.txt"
    path.write_text("\n".join(words) + end, encoding="utf-8")
    pieces = WordPieces(path)
    assert pieces.size == len(words)
    ids, _ = pieces(["cat"])
    assert ids[0, :3].tolist() == [words.index(word) for word in ("[CLS]", "cat", "[SEP]")]


def test_a_vocabulary_of_another_encoding_is_refused(tmp_path):
    (tmp_path / "vocab.txt").write_bytes("[PAD]\ncafé\n".encode("latin-1"))
    with pytest.raises(AssetError, match=r"vocab\.txt: not a vocabulary of BERT \(.*utf-8"):
        WordPieces(tmp_path / "vocab.txt")


@pytest.mark.parametrize("end", ["", "\n"])
def test_mplugs_words_end_at_line_feeds_alone(tmp_path, end):
    write_mplug(tmp_path, "stride3")
    words = [*mplug.VOCABULARY, *ODD]
    (tmp_path / "vocab.txt").write_text("\n".join(words) + end, encoding="utf-8")
    config = dataclasses.replace(read_config(tmp_path), vocab_size=len(words))
    assert read_vocabulary(tmp_path, config) == words


def test_a_small_text_tower_is_built_without_a_warning(tmp_path, caplog):
    """transformers warns of token numbers that a vocabulary lacks; those of BLIP's decoder begin at 30522."""
    files = write_reward_files(tmp_path)
    assert json.loads((tmp_path / "med_config.json").read_text())["vocab_size"] < 102
    logger = logging.getLogger("transformers")
    logger.addHandler(caplog.handler)
    try:
        assert files.network
    finally:
        logger.removeHandler(caplog.handler)
    assert caplog.messages == []
