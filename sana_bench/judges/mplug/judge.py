"""mPLUG as a judge that answers questions about an image."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sana_bench.assets.locate import data_root, resolve_folder
from sana_bench.core.errors import AssetError
from sana_bench.core.fingerprint import NOT_WEIGHTS, directory_sha256
from sana_bench.core.preprocess import CLIP_MEAN, CLIP_STD
from sana_bench.judges.base import Answer
from sana_models.libraries import without_torchao

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor
    from transformers import BertTokenizer

    from sana_bench.judges.mplug.network import MPlugVQA

__all__ = [
    "MAX_QUESTION_TOKENS",
    "MPLUG_ID",
    "MPlugJudge",
    "bert_tokenizer",
    "find_mplug",
    "image_to_pixels",
]

# [CLS] and [SEP] included; what is longer loses its tail, as in modelscope's pipeline.
MAX_QUESTION_TOKENS = 25
#: The published weights on the hub.
MPLUG_ID = "xingjianleng/mplug_visual-question-answering_coco_large_en"


class MPlugJudge:
    """mPLUG in the published preparation: image squeezed to a square, beam search, float32.

    Weights are hashed at once and loaded on first use. All questions about an image go through the network
    together, and no other image does: an answer then depends on nothing but image and questions.
    """

    def __init__(self, folder: Path, device: str = "cpu") -> None:
        """Raises `AssetError` when there is no folder of weights."""
        if not folder.is_dir():
            raise AssetError(f"{folder} is missing: the weights of the mPLUG judge")
        self._folder = folder
        self._device = device
        self._weights_sha256 = directory_sha256(folder, ignore=NOT_WEIGHTS)

    def load(self) -> None:
        """Raises `AssetError` for missing or damaged files."""
        _ = self.network, self.tokenizer

    def identity(self) -> dict[str, Any]:
        return {"network": "mplug-vqa@1", "precision": "fp32", "weights_sha256": self._weights_sha256}

    @cached_property
    def network(self) -> "MPlugVQA":
        """The loaded network; raises `AssetError` for missing or damaged files."""
        from sana_bench.judges.mplug.files import load_network

        return load_network(self._folder).to(self._device)

    @cached_property
    def tokenizer(self) -> "BertTokenizer":
        """The directory's own vocabulary."""
        from sana_bench.judges.mplug.files import read_vocabulary

        return bert_tokenizer(read_vocabulary(self._folder, self.network.config))

    question_limit = MAX_QUESTION_TOKENS

    def cut(self, questions: Sequence[str]) -> list[bool]:
        """Say of each question whether it is read without its end."""
        texts = [question.lower() for question in questions]
        encoded = self.tokenizer(texts, truncation=False, verbose=False)["input_ids"] if texts else []
        return [len(ids) > MAX_QUESTION_TOKENS for ids in encoded]

    def answers(self, image: "NDArray[np.uint8]", questions: Sequence[str]) -> list[Answer]:
        import torch

        if not questions:
            return []
        with torch.inference_mode():
            found = self.network.answer(*self._asked(image, questions))
        return [Answer(self._text(hypotheses[0].tokens)) for hypotheses in found]

    def log_odds(self, image: "NDArray[np.uint8]", questions: Sequence[str]) -> "NDArray[np.float64]":
        """Log-probability of yes less that of no as the first word of each answer, (questions,): one step, no search.

        Raises `AssetError` for a vocabulary in which yes or no is not one word.
        """
        import torch

        words = self.tokenizer.convert_tokens_to_ids(["yes", "no"])
        if self.tokenizer.unk_token_id in words:
            raise AssetError(f"{self._folder}: the vocabulary has no single word for yes or for no")
        with torch.inference_mode():
            logits = self.network.first_logits(*self._asked(image, questions))[:, words].double().cpu()
        # The normalisation over the vocabulary is the same for both.
        return (logits[:, 0] - logits[:, 1]).numpy()

    def _asked(self, image: "NDArray[np.uint8]", questions: Sequence[str]) -> "tuple[Tensor, Tensor, Tensor]":
        """Image tokens (1, N, D), and ids and mask with one row a question."""
        import torch

        pixels = image_to_pixels(image, self.network.config.image_res).to(self._device)
        with torch.inference_mode():
            tokens = self.network.encode_images(pixels[None])
        return tokens, *self.question_ids(questions)

    def question_ids(self, questions: Sequence[str]) -> "tuple[Tensor, Tensor]":
        """Ids and mask (questions, `MAX_QUESTION_TOKENS`) as the network reads them."""
        asked = self.tokenizer(
            [question.lower() for question in questions],
            padding="max_length",
            truncation=True,
            max_length=MAX_QUESTION_TOKENS,
            return_tensors="pt",
        ).to(self._device)
        return asked["input_ids"], asked["attention_mask"]

    def _text(self, tokens: Sequence[int]) -> str:
        return str(
            self.tokenizer.decode(list(tokens), skip_special_tokens=True, clean_up_tokenization_spaces=True)
        )


def bert_tokenizer(vocabulary: Sequence[str]) -> "BertTokenizer":
    """BERT's lower-casing WordPiece over `vocabulary`, line number = id."""
    with without_torchao():
        from transformers import BertTokenizer

    return BertTokenizer(vocab={word: index for index, word in enumerate(vocabulary)}, do_lower_case=True)


def image_to_pixels(image: "NDArray[np.uint8]", size: int) -> "Tensor":
    """RGB (height, width, 3) to CLIP-normalised float32 (3, size, size): bicubic, aspect ratio not kept."""
    from PIL import Image
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms import functional as transforms

    squeezed = transforms.resize(Image.fromarray(image), [size, size], InterpolationMode.BICUBIC)
    return transforms.normalize(transforms.to_tensor(squeezed), list(CLIP_MEAN), list(CLIP_STD))


def find_mplug(who: str) -> Path:
    """Return the folder of the published judge, below the data root or in the hub cache.

    Raises `AssetError` that begins with `who` and says how to get it.
    """
    local = data_root() / "mplug"
    if local.is_dir():
        return local
    try:
        return resolve_folder(MPLUG_ID, Path("/"))
    except AssetError:
        raise AssetError(
            f"{who}: {local} is missing, and so is the judge in the hub cache; "
            f"get it with `sana-bench fetch dpg_bench` or `hf download {MPLUG_ID}`"
        ) from None
