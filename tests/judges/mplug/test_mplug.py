"""mPLUG against modelscope's own classes with the same small random weights, and its published layout."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from sana_bench.core.errors import AssetError
from sana_bench.judges.mplug.config import read_config
from sana_bench.judges.mplug.files import load_network, read_vocabulary, save_network
from sana_bench.judges.mplug.judge import MAX_QUESTION_TOKENS, MPlugJudge, bert_tokenizer, image_to_pixels
from sana_bench.metrics.selfcheck import golden_files
from sana_bench.metrics.selfcheck.recipes import mplug as cases
from tests.float64 import assert_as_exact, in_float64

golden = golden_files.mplug()


def write_directory(folder, name, *, wrap=lambda state: {"model": state}):
    """The published layout with the reference's whole state: momentum, CLIP's text side, layers that never run."""
    network, bert, end_bias = cases.CONFIGS[name]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "configuration.json").write_text(json.dumps({"task": network["task"]}))
    (folder / "config.yaml").write_text(yaml.safe_dump(network))
    (folder / "config_bert.json").write_text(json.dumps(bert))
    (folder / "vocab.txt").write_text("".join(f"{word}\n" for word in cases.VOCABULARY))
    shapes = golden[name]["tensors"]
    state = {key: torch.from_numpy(cases.draw(key, tuple(s), end_bias)) for key, s in shapes.items()}
    torch.save(wrap(state), folder / "pytorch_model.bin")
    return folder


@pytest.fixture(scope="module", params=list(cases.CONFIGS))
def case(request, tmp_path_factory):
    folder = write_directory(tmp_path_factory.mktemp("mplug") / request.param, request.param)
    return MPlugJudge(folder), golden[request.param]["records"]


def ask(judge, record):
    asked = judge.tokenizer(
        record["question"].lower(), padding="max_length", truncation=True, max_length=MAX_QUESTION_TOKENS
    )
    pixels = image_to_pixels(cases.image(record["image"]), judge.network.config.image_res)
    return pixels, torch.tensor([asked["input_ids"]]), torch.tensor([asked["attention_mask"]])


def shorten(tensor):
    return tensor[0, ::7, ::13].numpy()


def test_preparation_equals_the_reference(case):
    judge, records = case
    for record in records:
        pixels, ids, _ = ask(judge, record)
        assert ids[0].tolist() == record["ids"]
        np.testing.assert_allclose(pixels.flatten()[::977].numpy(), record["pixels"], rtol=1e-6, atol=1e-6)


def test_a_long_question_loses_its_tail(case):
    judge, records = case
    longest = max(records, key=lambda record: len(record["question"]))
    assert len(judge.tokenizer(longest["question"])["input_ids"]) > MAX_QUESTION_TOKENS
    assert len(longest["ids"]) == MAX_QUESTION_TOKENS
    assert longest["ids"][-1] == 102


@torch.inference_mode()
def test_states_equal_the_reference(case):
    """float32 through a dozen layers, rounded in different places (fused attention, folded beams): ours may be a few times
    as far from float64 as the reference's.
    """
    judge, records = case
    for record in records:
        pixels, ids, mask = ask(judge, record)

        def vision() -> np.ndarray:
            return shorten(judge.network.encode_images(pixels[None]))

        def states() -> np.ndarray:
            tokens = judge.network.encode_images(pixels[None])
            return shorten(torch.cat(judge.network.fuse(tokens, ids, mask), dim=1))

        assert_as_exact(vision(), record["vision"], in_float64(vision))
        assert_as_exact(states(), record["states"], in_float64(states))


@torch.inference_mode()
def test_every_beam_equals_the_reference(case):
    """Scores are sums of log-probabilities, held to the reference's error against float64 as the states are."""
    judge, records = case
    for record in records:
        pixels, ids, mask = ask(judge, record)
        (found,) = judge.network.answer(judge.network.encode_images(pixels[None]), ids, mask)
        assert [list(hypothesis.tokens) for hypothesis in found] == record["beams"]

        def scores() -> list[float]:
            tokens = judge.network.encode_images(pixels[None])
            return [hypothesis.score for hypothesis in judge.network.answer(tokens, ids, mask)[0]]

        assert_as_exact([hypothesis.score for hypothesis in found], record["scores"], in_float64(scores))


def test_answers_of_all_questions_at_once_equal_the_references(case):
    judge, records = case
    for index in (0, 1):
        of_image = [record for record in records if record["image"] == index]
        answers = judge.answers(cases.image(index), [record["question"] for record in of_image])
        assert [answer.text for answer in answers] == [record["answer"] for record in of_image]


def test_the_cases_are_worth_comparing():
    records = [record for case in golden.values() for record in case["records"]]
    lengths = {len(beam) for record in records for beam in record["beams"]}
    assert {3, 4, 5, 7, 11} <= lengths
    assert any(len(record["answer"].split()) > 1 for record in records)
    # An ended beam that is not the best is searched on: an end token inside a beam.
    assert any(102 in beam[1:-1] for record in records for beam in record["beams"])


def test_the_directory_decides_the_stride(tmp_path):
    network = load_network(write_directory(tmp_path / "a", "stride3"))
    kinds = {name: layer.connected for name, layer in network.fusion_encoder.encoder.layer.items()}
    assert kinds == {"2": False, "3": False, "4": False, "5": True, "6": False, "7": False}
    assert not any(
        layer.connected
        for layer in load_network(
            write_directory(tmp_path / "b", "stride6")
        ).fusion_encoder.encoder.layer.values()
    )


@pytest.mark.parametrize(
    "wrap",
    [
        pytest.param(lambda state: state, id="bare"),
        pytest.param(lambda state: {"module": {f"model.{key}": v for key, v in state.items()}}, id="module"),
        pytest.param(lambda state: {"model": state, "epoch": 3}, id="model"),
    ],
)
def test_known_wrappings_load(tmp_path, wrap):
    network = load_network(write_directory(tmp_path, "same_width", wrap=wrap))
    bias = cases.draw("text_decoder.cls.predictions.bias", (network.config.vocab_size,), 5.5)
    assert torch.equal(network.text_decoder.cls["predictions"].bias, torch.from_numpy(bias))


def without(key):
    return lambda state: {name: value for name, value in state.items() if name != key}


@pytest.mark.parametrize(
    ("wrap", "message"),
    [
        pytest.param(
            without("visn_fc.weight"), r"does not hold this network .*visn_fc\.weight", id="missing"
        ),
        pytest.param(
            lambda state: state | {"text_encoder.pooler.dense.weight": torch.zeros(2)},
            r"does not hold this network .*pooler",
            id="unknown",
        ),
        pytest.param(
            lambda state: state | {"visn_fc.bias": torch.zeros(3)}, "size mismatch|shape", id="other shape"
        ),
        pytest.param(
            lambda state: state | {"text_decoder.cls.predictions.decoder.bias": torch.zeros(5)},
            "one number in the network, but differ",
            id="two biases",
        ),
        pytest.param(lambda state: [1, 2], "holds no table of tensors", id="no table"),
        pytest.param(lambda state: {"model": state, "run": Path("x")}, "not a plain file", id="code"),
    ],
)
def test_weights_that_do_not_fit_are_refused(tmp_path, wrap, message):
    folder = write_directory(tmp_path, "stride6", wrap=wrap)
    with pytest.raises(AssetError, match=message):
        load_network(folder)


@pytest.mark.parametrize(
    "name", ["configuration.json", "config.yaml", "config_bert.json", "pytorch_model.bin"]
)
def test_a_missing_file_is_named(tmp_path, name):
    folder = write_directory(tmp_path, "same_width")
    (folder / name).unlink()
    with pytest.raises(AssetError, match=f"{name} is missing"):
        load_network(folder)


def test_a_truncated_file_is_refused(tmp_path):
    path = write_directory(tmp_path, "same_width") / "pytorch_model.bin"
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(AssetError, match=r"pytorch_model\.bin: (damaged|not a plain file)"):
        load_network(tmp_path)


def test_a_vocabulary_of_another_network_is_refused(tmp_path):
    folder = write_directory(tmp_path, "same_width")
    config = read_config(folder)
    words = (folder / "vocab.txt").read_text().splitlines()
    (folder / "vocab.txt").write_text("\n".join(words[:-1]))
    with pytest.raises(
        AssetError, match=rf"{len(words) - 1} entries, config_bert\.json expects {len(words)}"
    ):
        read_vocabulary(folder, config)
    words[101], words[102] = words[102], words[101]
    (folder / "vocab.txt").write_text("\n".join(words))
    with pytest.raises(AssetError, match=r"entry 101 is '\[SEP\]'"):
        read_vocabulary(folder, config)


def test_another_task_is_refused(tmp_path):
    folder = write_directory(tmp_path, "same_width")
    (folder / "configuration.json").write_text('{"task": "image-captioning"}')
    with pytest.raises(AssetError, match="task is 'image-captioning'"):
        read_config(folder)


def test_saved_networks_load_again(tmp_path):
    network = load_network(write_directory(tmp_path / "published", "stride3"))
    save_network(network, cases.VOCABULARY, tmp_path / "own")
    again = load_network(tmp_path / "own")
    assert again.config == network.config
    assert read_vocabulary(tmp_path / "own", again.config) == cases.VOCABULARY
    for name, value in network.state_dict().items():
        assert torch.equal(again.state_dict()[name], value.half().float())


@torch.no_grad()
def test_loss_of_an_answer_is_its_negative_log_probability(case):
    """The search computes step by step and the loss at once, in sums of another order: alike in their error to float64."""
    judge, records = case
    pixels, ids, mask = ask(judge, records[0])
    image = judge.network.encode_images(pixels[None])
    (found,) = judge.network.answer(image, ids, mask)
    # A hypothesis is scored by its summed log-probability over the length penalty; those that end only once and
    # not at the first step, where the end token is forbidden, are what a loss sees too.
    for hypothesis in found:
        if hypothesis.tokens.count(102) == 1 and hypothesis.tokens[-1] == 102:
            steps = len(hypothesis.tokens) - 1
            expected = -hypothesis.score * ((5 + steps) / 6) ** 0.6
            answer = torch.tensor([hypothesis.tokens])

            def loss() -> float:
                seen = judge.network.encode_images(pixels[None])
                return judge.network.answer_loss(answer, *judge.network.known(seen, ids, mask)).item()

            assert_as_exact(loss(), expected, in_float64(loss))


def test_tokenizer_reads_odd_text():
    tokenizer = bert_tokenizer(cases.VOCABULARY)
    words = tokenizer.convert_ids_to_tokens(tokenizer("café CATS?zzz 東")["input_ids"])
    assert words == ["[CLS]", "caf", "##e", "cat", "##s", "?", "[UNK]", "[UNK]", "[SEP]"]
