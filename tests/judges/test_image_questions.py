"""Questions that share an image's prefix are answered as each alone by the network's own whole forward pass."""

from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers

from sana_bench.judges.image_questions import ImageQuestions
from sana_bench.judges.vlm import VisionLanguageModel
from tests.float64 import assert_as_exact, in_float64
from tests.judges.vlm_cases import write_vlm
from tests.tiny_qwen import FAMILIES, write_qwen

# Neither square nor a multiple of a patch's pair: its pieces count otherwise than its positions.
IMAGE = np.random.default_rng(0).integers(0, 256, (120, 200, 3), dtype=np.uint8)
QUESTIONS = [
    "How many cats are there? Answer in one word.",
    "Is the dog red? Answer in one word.",
    "Does this figure show a large red circle left of a small blue square? Please answer Yes or No.",
    "Is?",
    "Is?",
]


@pytest.fixture(scope="module", params=[*FAMILIES, "llava"])
def folder(request, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp(request.param)
    return write_vlm(path) if request.param == "llava" else write_qwen(path, request.param)


def _whole(judge: VisionLanguageModel, question: str) -> torch.Tensor:
    """Logits after the question by one forward pass over all that the processor makes of it, as a user would do it."""
    inputs = judge.processor(text=[judge.turn(question)], images=[_picture()], return_tensors="pt")
    with torch.inference_mode():
        return judge.network(**inputs).logits[0, -1]


def _picture():
    from PIL import Image

    return Image.fromarray(IMAGE)


@pytest.mark.parametrize("batch", [1, 2, 16])
def test_side_by_side_is_as_alone(folder, batch):
    judge = VisionLanguageModel(folder, batch=batch)
    together = judge.next_logits(IMAGE, QUESTIONS)

    def alone() -> np.ndarray:
        return np.stack([_whole(judge, question).numpy() for question in QUESTIONS])

    # Side by side the sums are taken in another order, no further from float64.
    exact = in_float64(alone)
    assert_as_exact(together.numpy(), alone(), exact)
    shares = torch.tensor(exact).softmax(-1).numpy()
    # What issue and docs promise of probabilities in fp32.
    assert np.abs(together.softmax(-1).numpy() - shares).max() < 1e-5
    assert np.abs(exact[0] - exact[1]).max() > 0.1


def test_the_image_is_read_once(folder):
    judge = VisionLanguageModel(folder)
    judge.next_logits(IMAGE, QUESTIONS)  # when first asked it tries whether it may share
    tower = judge.network.model.visual if "llava" not in folder.name else judge.network.model.vision_tower
    seen: list[int] = []
    tower.register_forward_hook(lambda *_: seen.append(1))
    prepared: list[int] = []
    prepares = judge.processor.image_processor
    original = type(prepares).__call__

    class Counting(type(prepares)):
        def __call__(self, *arguments, **options):
            prepared.append(1)
            return original(self, *arguments, **options)

    prepares.__class__ = Counting
    judge.next_logits(IMAGE, QUESTIONS)
    assert (len(seen), len(prepared)) == (1, 1)
    assert judge.processor.image_processor is prepares
    # For the next image too: nothing of the first is kept.
    other = judge.next_logits(IMAGE[::-1], QUESTIONS)
    assert (len(seen), len(prepared)) == (2, 2)
    assert not torch.allclose(other, judge.next_logits(IMAGE, QUESTIONS))


@pytest.mark.parametrize("max_tokens", [1, 3, 4, 7])
def test_answers_are_what_the_model_generates(folder, max_tokens):
    """Also where some answers end within the tokens that are written side by side and others go on."""
    judge = VisionLanguageModel(folder)
    said = judge.answer(IMAGE, QUESTIONS, max_tokens=max_tokens)
    for question, answer in zip(QUESTIONS, said, strict=True):
        inputs = judge.processor(text=[judge.turn(question)], images=[_picture()], return_tensors="pt")
        written = judge.network.generate(**inputs, max_new_tokens=max_tokens, do_sample=False)
        new = written[0, inputs["input_ids"].shape[1] :]
        assert answer == judge.processor.tokenizer.decode(new, skip_special_tokens=True).strip()
        assert judge.read_text(IMAGE, question, max_tokens=max_tokens) == answer


def test_an_answer_ends_where_the_model_ends_it(folder):
    """The first word of the first answer is made an end of all answers: that answer is empty, the others stop at the word."""
    judge = VisionLanguageModel(folder)
    first = int(judge.next_logits(IMAGE, QUESTIONS[:1])[0].argmax())
    judge.network.generation_config.eos_token_id = [first]
    judge.network.generation_config.repetition_penalty = 1.0
    said = judge.answer(IMAGE, QUESTIONS, max_tokens=8)
    assert said == [judge.answer(IMAGE, [question], max_tokens=8)[0] for question in QUESTIONS]
    assert said[0] == judge.processor.tokenizer.decode([first], skip_special_tokens=True).strip()


def test_probabilities_are_those_of_first_tokens(folder):
    judge = VisionLanguageModel(folder)
    tokenizer = judge.processor.tokenizer
    spellings = [["Yes", "yes", " yes", "Yes"], ["No"], ["no", " Yes and no"]]
    found = judge.probabilities(IMAGE, QUESTIONS[:3], spellings)
    for question, group, tokens in zip(QUESTIONS, spellings, found, strict=False):
        shares = _whole(judge, question).double().softmax(-1)
        for spelling, token in zip(group, tokens, strict=True):
            ids = tokenizer.encode(spelling, add_special_tokens=False)
            assert (token.token, token.whole) == (ids[0], len(ids) == 1)
            assert token.probability == pytest.approx(float(shares[ids[0]]), abs=1e-5)
    assert found[0][0] == found[0][3]


def test_a_model_whose_image_looks_at_the_question_reads_it_for_each(tmp_path):
    """PaliGemma's attention goes both ways between image and question: what it makes of the image belongs to one question."""
    judge = VisionLanguageModel(_write_paligemma(tmp_path))
    together = judge.next_logits(IMAGE, QUESTIONS)

    def alone() -> np.ndarray:
        return np.stack([_whole(judge, question).numpy() for question in QUESTIONS])

    assert_as_exact(together.numpy(), alone(), in_float64(alone))
    with torch.inference_mode():
        shared = ImageQuestions(judge.network, judge._rows(IMAGE, QUESTIONS), 16)
        assert shared.shared
        # What would come out otherwise.
        assert np.abs(shared.next_logits(range(5)).numpy() - together.numpy()).max() > 0.1


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_rounding_is_not_taken_for_a_difference(tmp_path, precision):
    judge = VisionLanguageModel(write_qwen(tmp_path, "qwen2_5_vl"), precision=precision)
    with torch.inference_mode():
        assert judge._ask(IMAGE, QUESTIONS).shared


def _write_paligemma(path: Path) -> Path:
    from transformers import (
        AutoConfig,
        AutoModelForImageTextToText,
        PaliGemmaProcessor,
        PreTrainedTokenizerFast,
        SiglipImageProcessor,
    )

    names = ("<pad>", "<bos>", "<eos>", "?", "Is", "red", "How", "cats")
    words = Tokenizer(models.WordLevel({name: place for place, name in enumerate(names)}, "?"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", bos_token="<bos>", eos_token="<eos>", unk_token="?"
    )
    pictures = SiglipImageProcessor(size={"height": 28, "width": 28})
    pictures.image_seq_length = 4
    processor = PaliGemmaProcessor(pictures, tokenizer)
    text = {
        "model_type": "gemma", "vocab_size": len(processor.tokenizer), "hidden_size": 32, "intermediate_size": 64,
        "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 1, "head_dim": 8,
    }  # fmt: skip
    vision = {
        "model_type": "siglip_vision_model", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 2, "image_size": 28, "patch_size": 14, "vision_use_head": False,
    }  # fmt: skip
    image_token = processor.tokenizer.convert_tokens_to_ids("<image>")
    config = AutoConfig.for_model(
        "paligemma", text_config=text, vision_config=vision, image_token_index=image_token, projection_dim=32
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModelForImageTextToText.from_config(config)
        for parameter in model.parameters():
            if parameter.ndim > 1:
                torch.nn.init.normal_(parameter, std=0.25)
    model.save_pretrained(path)
    processor.save_pretrained(path)
    return path


def test_what_a_cache_does_not_hold_is_not_shared():
    """A processor that tells something else about each token, or puts the question before the image."""
    from types import SimpleNamespace

    from transformers import BatchFeature

    class Network:
        device, dtype = torch.device("cpu"), torch.float32
        config = SimpleNamespace(image_token_id=9)

        def forward(self, input_ids, pixel_values=None, cross_mask=None):
            assert pixel_values is not None
            last = input_ids[:, -1:, None].float() + torch.arange(4)
            return SimpleNamespace(logits=last)

        __call__ = forward

    def row(ids, **more):
        parts = {"input_ids": torch.tensor([ids]), "pixel_values": torch.zeros(1, 3, 2, 2)}
        return BatchFeature(parts | {name: torch.zeros(1, len(ids), 1) for name in more})

    for rows in (
        [row([9, 1, 2], cross_mask=1), row([9, 1, 3], cross_mask=1)],
        [row([1, 9, 2]), row([5, 9, 2])],
        [row([1, 2]), row([1, 3])],
        [row([9, 1])],
    ):
        asked = ImageQuestions(Network(), rows, 2)
        assert not asked.shared
        places = list(range(len(rows)))
        expected = [[float(asked.ids[place][-1] + column) for column in range(4)] for place in places]
        assert asked.next_logits(places).tolist() == expected
