"""mPLUG's network for visual question answering, in one class for published and micro weights."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sana_bench.judges.mplug.beam import Hypothesis, beam_search
from sana_bench.judges.mplug.config import MPlugConfig
from sana_bench.judges.mplug.layers import (
    BertEmbeddings,
    BertLayer,
    FusionLayer,
    PredictionHead,
    VisionTransformer,
)

__all__ = ["END", "PAD", "START", "MPlugVQA"]

#: Token ids that the beam search has built in; they are [PAD], [CLS] and [SEP] in BERT's vocabulary.
PAD, START, END = 0, 101, 102
# Tokens of an answer of one word, start and end included.
_ONE_WORD = 3


class _Layers(nn.Module):
    """Layers under the numbers that the published weights give them."""

    def __init__(self, layers: dict[int, nn.Module]) -> None:
        super().__init__()
        self.layer = nn.ModuleDict({str(number): layer for number, layer in layers.items()})


class _Bert(nn.Module):
    def __init__(self, config: MPlugConfig, n_layers: int, *, cross: bool) -> None:
        super().__init__()
        self.embeddings = BertEmbeddings(config)
        self.encoder = _Layers({i: BertLayer(config, cross=cross) for i in range(n_layers)})


class _Fusion(nn.Module):
    def __init__(self, config: MPlugConfig) -> None:
        super().__init__()
        numbers = range(config.first_fusion_layer, config.num_hidden_layers)
        layers = {i: FusionLayer(config, connected=config.is_connected(i)) for i in numbers}
        self.encoder = _Layers(dict(layers))


class _Decoder(nn.Module):
    def __init__(self, config: MPlugConfig) -> None:
        super().__init__()
        self.bert = _Bert(config, config.text_decode_layers, cross=True)
        self.cls = nn.ModuleDict({"predictions": PredictionHead(config)})


class MPlugVQA(nn.Module):
    """Answers a question about an image in words.

    Source: mPLUG (arXiv 2205.12005) as modelscope 1.9.5 runs it for inference; momentum copies, the text side of
    CLIP and the layers that never run are left out.
    """

    def __init__(self, config: MPlugConfig) -> None:
        super().__init__()
        self.config = config
        self.visual_encoder = nn.ModuleDict({"visual": VisionTransformer(config)})
        if config.hidden_size != config.vision_width:
            self.visn_fc = nn.Linear(config.vision_width, config.hidden_size)
            self.visn_layer_norm = nn.LayerNorm(config.hidden_size, eps=1e-12)
        self.text_encoder = _Bert(config, config.text_encoder_layers, cross=False)
        self.fusion_encoder = _Fusion(config)
        self.text_decoder = _Decoder(config)

    def encode_images(self, pixels: Tensor) -> Tensor:
        """Normalised pixels (B, 3, R, R) to image tokens (B, N, D)."""
        tokens = self.visual_encoder["visual"](pixels)
        if self.config.hidden_size == self.config.vision_width:
            return tokens
        return self.visn_layer_norm(self.visn_fc(tokens))

    def fuse(self, image: Tensor, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Image tokens (I, N, D) and question ids (B, T) to the fused image (I or B, N, D) and text (B, T, D).

        I divides B, and the questions of an image stand together. The image comes back with a row per question
        where a connected layer changed it for each. `mask` is True (or 1) at the question's tokens.
        """
        wide = mask.bool()[:, None, None, :]
        text = self.text_encoder.embeddings(ids)
        for layer in self.text_encoder.encoder.layer.values():
            text = layer(text, wide)
        for layer in self.fusion_encoder.encoder.layer.values():
            text, image = layer(text, wide, image)
        return image, text

    def context(self, image: Tensor, text: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Keys and values of [image; text] for each decoder layer: the same at every step of a search.

        `image` and `text` are those of `fuse`; what is the image's is computed once for all its questions.
        """
        n = len(text) // len(image)
        found = []
        for layer in self._decoder_layers:
            seen, read = (layer.crossattention.keys_values(states) for states in (image, text))
            keys, values = (
                torch.cat([of_image[:, None].expand(-1, n, -1, -1, -1).flatten(0, 1), of_text], dim=2)
                for of_image, of_text in zip(seen, read, strict=True)
            )
            found.append((keys, values))
        return found

    def decode(self, ids: Tensor, context: list[tuple[Tensor, Tensor]], mask: Tensor) -> Tensor:
        """Hidden states (B, K, T, D) of K answers per question, ids (B, K, T)."""
        x = self.text_decoder.bert.embeddings(ids.flatten(0, 1)).unflatten(0, ids.shape[:2])
        for layer, keys_values in zip(self._decoder_layers, context, strict=True):
            x = layer.decode(x, keys_values, mask[:, None, None, :])
        return x

    def logits(self, hidden: Tensor) -> Tensor:
        """Next-token logits over the vocabulary for any hidden states (.., D)."""
        return self.text_decoder.cls["predictions"](hidden)

    def answer(
        self,
        image: Tensor,
        ids: Tensor,
        mask: Tensor,
        *,
        beam_size: int | None = None,
        min_length: int | None = None,
        max_length: int | None = None,
    ) -> list[list[Hypothesis]]:
        """Beam search of each question's answers; image tokens (I, N, D), ids and mask (B, T), as for `fuse`.

        The search is the configuration's where nothing else is asked for; one beam is greedy search.
        """
        context, visible = self.known(image, ids, mask)

        def next_logits(answers: Tensor, places: Tensor) -> Tensor:
            kept = [(keys[places], values[places]) for keys, values in context]
            return self.logits(self.decode(answers, kept, visible[places])[:, :, -1])

        return beam_search(
            next_logits,
            len(ids),
            start=START,
            end=END,
            beam_size=self.config.beam_size if beam_size is None else beam_size,
            min_length=self.config.min_length if min_length is None else min_length,
            max_length=self.config.max_length if max_length is None else max_length,
            device=ids.device,
        )

    def first_logits(self, image: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
        """Logits (B, vocabulary) of the first word of each question's answer; arguments as for `answer`."""
        context, visible = self.known(image, ids, mask)
        start = torch.full((len(ids), 1, 1), START, device=ids.device)
        return self.logits(self.decode(start, context, visible)[:, 0, -1])

    def known(self, image: Tensor, ids: Tensor, mask: Tensor) -> tuple[list[tuple[Tensor, Tensor]], Tensor]:
        """The context that the decoder answers from, and what it may look at (B, N + T); arguments as for `answer`."""
        fused, text = self.fuse(image, ids, mask)
        return self.context(fused, text), _visible(fused, mask)

    def answer_loss(self, answers: Tensor, context: list[tuple[Tensor, Tensor]], visible: Tensor) -> Tensor:
        """Cross-entropy of each right answer's tokens, summed: shape (B,).

        `answers` (B, T) are ids from start to end token, padded with 0; the rest is what `known` gives.
        """
        # Nearly all answers are one word: they are not padded to the longest, and the others are done again in full.
        losses = self._summed_loss(answers[:, :_ONE_WORD], context, visible)
        rows = ((answers != PAD).sum(dim=1) > _ONE_WORD).nonzero()[:, 0]
        if not len(rows):
            return losses
        kept = [(keys[rows], values[rows]) for keys, values in context]
        return losses.index_copy(0, rows, self._summed_loss(answers[rows], kept, visible[rows]))

    def _summed_loss(self, words: Tensor, context: list[tuple[Tensor, Tensor]], visible: Tensor) -> Tensor:
        hidden = self.decode(words[:, None, :-1], context, visible)[:, 0]
        losses = F.cross_entropy(
            self.logits(hidden).transpose(1, 2), words[:, 1:], ignore_index=PAD, reduction="none"
        )
        return losses.sum(dim=1)

    @property
    def _decoder_layers(self) -> Any:
        return self.text_decoder.bert.encoder.layer.values()


def _visible(image: Tensor, mask: Tensor) -> Tensor:
    """What a decoder may look at, (B, N + T): the whole image and the question's own tokens."""
    everything = mask.new_ones((len(mask), image.shape[1]), dtype=torch.bool)
    return torch.cat([everything, mask.bool()], dim=1)
