"""Tokenizer, token selection, instruction and prompt cleaning."""

import hashlib

import pytest
import torch

from sana_models.text import TextEncoder, complex_human_instruction, make_word_tokenizer

WORDS = ("red", "circle", "blue", "square")


@pytest.fixture
def tokenizer():
    return make_word_tokenizer(WORDS, model_max_length=6)


class PositionModel(torch.nn.Module):
    """Stands in for the decoder: the hidden state says which token sat at which position."""

    def __init__(self) -> None:
        super().__init__()
        self.anchor = torch.nn.Parameter(torch.zeros(1))

    def forward(self, input_ids, attention_mask):
        positions = torch.arange(input_ids.shape[1]).expand_as(input_ids)
        hidden = torch.stack([positions, input_ids], dim=-1).float()
        return type("Output", (), {"last_hidden_state": hidden})


def test_special_tokens_come_first(tokenizer):
    ids = tokenizer.convert_tokens_to_ids(["<pad>", "<eos>", "<bos>", "<unk>", "red"])
    assert ids == [0, 1, 2, 3, 4]
    assert len(tokenizer) == 4 + len(WORDS)


def test_start_token_padding_case_and_unknown_words(tokenizer):
    encoded = tokenizer(["Red  CIRCLE", "purple", ""], padding="max_length", max_length=5, truncation=True)
    assert encoded["input_ids"] == [[2, 4, 5, 0, 0], [2, 3, 0, 0, 0], [2, 0, 0, 0, 0]]
    assert encoded["attention_mask"] == [[1, 1, 1, 0, 0], [1, 1, 0, 0, 0], [1, 0, 0, 0, 0]]


def test_tokenizer_survives_its_files(tokenizer, tmp_path):
    from transformers import AutoTokenizer

    tokenizer.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path, local_files_only=True)
    options = {"padding": "max_length", "max_length": 5, "truncation": True}
    assert dict(again(["red square"], **options)) == dict(tokenizer(["red square"], **options))
    assert again.padding_side == "right"
    assert again.model_max_length == 6


def test_without_instruction_every_position_is_kept(tokenizer):
    hidden, mask = TextEncoder(tokenizer, PositionModel()).encode(["red circle", ""], max_length=4)
    assert hidden[..., 0].tolist() == [[0, 1, 2, 3]] * 2
    assert hidden[..., 1].tolist() == [[2, 4, 5, 0], [2, 0, 0, 0]]
    assert mask.tolist() == [[1, 1, 1, 0], [1, 0, 0, 0]]


def test_the_instructions_own_positions_are_dropped(tokenizer):
    """`<bos>`, then the last three of (4 instruction tokens with `<bos>`) + 4 - 2 = 6 positions."""
    encoder = TextEncoder(tokenizer, PositionModel())
    hidden, mask = encoder.encode(["circle"], max_length=4, instruction="blue square red ")
    assert hidden[0, :, 0].tolist() == [0, 3, 4, 5]
    # The published rule counts on a trailing space that is a token of its own; here it is not, so one word
    # stays.
    assert hidden[0, :, 1].tolist() == [2, 4, 5, 0]
    assert mask.tolist() == [[1, 1, 1, 0]]


def test_long_prompts_are_cut_to_the_length(tokenizer):
    hidden, mask = TextEncoder(tokenizer, PositionModel()).encode(["red " * 50], max_length=5)
    assert hidden.shape == (1, 5, 2)
    assert mask.tolist() == [[1] * 5]


def test_left_padding_tokenizers_are_turned_round(tokenizer):
    tokenizer.padding_side = "left"
    _, mask = TextEncoder(tokenizer, PositionModel()).encode(["red"], max_length=4)
    assert mask.tolist() == [[1, 1, 0, 0]]


@pytest.mark.parametrize(
    ("conditioning", "digest"), [("diffusers", "48290080bb4fd4a2"), ("official", "62b9ab89eebb0ac5")]
)
def test_instruction_is_the_published_one(conditioning, digest):
    text = complex_human_instruction(conditioning)
    assert len(text) == 1057
    assert hashlib.sha256(text.encode()).hexdigest().startswith(digest)
