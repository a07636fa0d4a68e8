"""The text side of SANA: Gemma-2 last hidden states, instruction handling and token selection.

Sources: SANA (arXiv 2410.10629) section 2.3; the official and the diffusers pipelines, which differ in prompt
case.
"""

import logging
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from sana_models.libraries import without_torchao

__all__ = ["Conditioning", "TextEncoder", "complex_human_instruction", "make_word_tokenizer", "tell_cut"]

# Characters of a prompt in a message.
_SHOWN = 60

#: Whose habits to follow where the two public pipelines differ.
Conditioning = Literal["official", "diffusers"]


def complex_human_instruction(conditioning: Conditioning = "diffusers") -> str:
    """Return SANA's instruction prompt, read from the installed diffusers package.

    The official text quotes the two-word phrase of its first line with double quotes, diffusers with single
    ones.
    """
    import inspect

    with without_torchao():
        from diffusers import SanaPipeline

    lines = inspect.signature(SanaPipeline.__call__).parameters["complex_human_instruction"].default
    if conditioning == "official":
        lines = [lines[0].replace("'", '"'), *lines[1:]]
    return "\n".join(lines)


def make_word_tokenizer(words: Iterable[str], *, model_max_length: int) -> Any:
    """Build a fast tokenizer with one id per lower-cased word, `<bos>` first and padding on the right, as
    Gemma pads.
    """
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    with without_torchao():
        from transformers import PreTrainedTokenizerFast

    special = ("<pad>", "<eos>", "<bos>", "<unk>")
    vocabulary = {word: index for index, word in enumerate((*special, *dict.fromkeys(words)))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A", special_tokens=[("<bos>", vocabulary["<bos>"])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="<eos>",
        bos_token="<bos>",
        unk_token="<unk>",
        padding_side="right",
        model_max_length=model_max_length,
    )


class TextEncoder:
    """Turns prompts into the embeddings that the transformer attends to.

    `model` is a transformers Gemma-2 decoder; the embedding is its last hidden state after the final norm.
    """

    def __init__(self, tokenizer: Any, model: Any) -> None:
        self.tokenizer = tokenizer
        self.model = model
        self._told: set[str] = set()
        # The selection rule below counts from the left, so left padding would silently break it.
        self.tokenizer.padding_side = "right"

    @torch.no_grad()
    def encode(
        self,
        prompts: Sequence[str],
        *,
        max_length: int = 300,
        instruction: str | None = None,
        conditioning: Conditioning = "diffusers",
        keep_padding: bool = True,
    ) -> tuple[Tensor, Tensor]:
        """Return embeddings (B, max_length, D) and the mask (B, max_length) of tokens that take part.

        Without `keep_padding` the embeddings of all other positions are zero, which changes nothing for a reader that
        respects the mask and makes them cheap to store.

        With an instruction, the prompt is encoded behind it and the instruction's own positions are dropped:
        the first token and the last `max_length - 1` are kept. The unconditional text is the empty prompt
        without instruction. A prompt that is too long is cut, and a log line says so.
        """
        texts = _whole_texts(prompts, instruction, conditioning)
        length = self.padded_length(max_length=max_length, instruction=instruction)
        encoded = self.tokenizer(
            texts,
            padding="max_length",
            max_length=length,
            truncation=True,
            add_special_tokens=True,
            return_tensors="pt",
        )
        tell_cut(self.tokenizer, texts, encoded["attention_mask"], prompts, self._told)
        device = next(self.model.parameters()).device
        mask = encoded["attention_mask"].to(device)
        hidden = self.model(input_ids=encoded["input_ids"].to(device), attention_mask=mask).last_hidden_state
        keep = [0, *range(length - max_length + 1, length)]
        hidden, mask = hidden[:, keep], mask[:, keep]
        return (hidden if keep_padding else hidden * mask[..., None].to(hidden.dtype)), mask

    def cut(
        self,
        prompts: Sequence[str],
        *,
        max_length: int = 300,
        instruction: str | None = None,
        conditioning: Conditioning = "diffusers",
    ) -> list[bool]:
        """Say of each prompt whether `encode` with the same options drops its end."""
        length = self.padded_length(max_length=max_length, instruction=instruction)
        texts = _whole_texts(prompts, instruction, conditioning)
        encoded = self.tokenizer(texts, add_special_tokens=True, truncation=False, verbose=False)["input_ids"]
        return [len(ids) > length for ids in encoded]

    def padded_length(self, *, max_length: int = 300, instruction: str | None = None) -> int:
        """Tokens that the model reads for each prompt, whatever its own length."""
        if not instruction:
            return max_length
        # Two less: the start token and the instruction's trailing space, which merges with the prompt's first word.
        return len(self.tokenizer.encode(instruction)) + max_length - 2


def _whole_texts(prompts: Sequence[str], instruction: str | None, conditioning: Conditioning) -> list[str]:
    return [(instruction or "") + _clean(prompt, conditioning) for prompt in prompts]


def tell_cut(
    tokenizer: Any, texts: Sequence[str], mask: Tensor, prompts: Sequence[str], told: set[str]
) -> None:
    """Log each prompt whose text was cut when it was tokenized to `mask` (B, T), and the tokens lost; once while in `told`."""
    full = [row for row, used in enumerate(mask.bool().all(1).tolist()) if used and prompts[row] not in told]
    if not full:
        return
    lengths = [len(ids) for ids in tokenizer([texts[row] for row in full], verbose=False)["input_ids"]]
    for row, length in zip(full, lengths, strict=True):
        if length > mask.shape[1]:
            told.add(prompts[row])
            shown = prompts[row] if len(prompts[row]) <= _SHOWN else f"{prompts[row][:_SHOWN]}..."
            logging.getLogger(__name__).warning(
                "prompt cut: its last %d tokens are not read: %r", length - mask.shape[1], shown
            )


def _clean(prompt: str, conditioning: Conditioning) -> str:
    stripped = prompt.strip()
    return stripped.lower() if conditioning == "diffusers" else stripped
