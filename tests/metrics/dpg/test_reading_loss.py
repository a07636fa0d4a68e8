"""What teaches to read: attention on the letter's patch, and the letter named from that patch alone."""

import math

import pytest
import torch

from sana_bench.judges.mplug.config import MPlugConfig
from sana_bench.judges.mplug.network import END, START
from sana_bench.metrics.dpg.reading_loss import reading_loss
from sana_bench.metrics.dpg.training import STREAMS, VQATask
from sana_bench.micro.reading_data import VOCABULARY, sample_reading_batch
from tests.metrics.dpg.test_training import CONFIG, PATCH

N_PATCHES = (64 // PATCH) ** 2
LETTER, NEXT = VOCABULARY.index("o"), VOCABULARY.index("##p")


@pytest.fixture(scope="module")
def task() -> VQATask:
    return VQATask(
        MPlugConfig(**CONFIG["model"], vocab_size=len(VOCABULARY)), 3, 2, 0.0, stream=STREAMS["reading"]
    )


@pytest.fixture
def known(task):
    """A double-precision network with the context of two questions about noise."""
    network = task.network.double().requires_grad_(False)
    yield_pixels = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    ids = torch.tensor([[START, LETTER, END, 0], [START, LETTER, LETTER, END]])
    context, visible = network.known(network.encode_images(yield_pixels), ids, (ids != 0).long())
    yield network, context, visible
    task.network.float().requires_grad_(True)


def test_nothing_read_is_no_loss(known):
    network, context, visible = known
    answers = torch.tensor([[START, LETTER, END], [START, NEXT, END]])
    assert reading_loss(network, answers, context, visible, torch.full((2, 15), -1)).item() == 0


def test_it_is_minus_the_logarithms_of_attention_and_of_the_letter_from_its_patch_alone(known):
    """One letter, computed by the decoder's own parts; float64, sums of some thousand terms: to a thousand roundings."""
    network, context, visible = known
    answers, glimpses = torch.tensor([[START, LETTER, END]] * 2), torch.full((2, 15), -1)
    glimpses[1, 0] = 5
    found = reading_loss(network, answers, context, visible, glimpses).item()
    patch_alone = torch.zeros_like(visible)
    patch_alone[1, 1 + 5] = True
    hidden = network.decode(answers[1:, None, :1], [(k[1:], v[1:]) for k, v in context], patch_alone[1:])
    naming = -network.logits(hidden)[0, 0, 0].log_softmax(-1)[LETTER].item()
    (layer,) = network.text_decoder.bert.encoder.layer.values()
    x = layer.attention(network.text_decoder.bert.embeddings(answers[1:, :1]), None)
    query = layer.crossattention.self.query(x)[0, 0].reshape(2, -1)
    keys = context[0][0][1]
    shares = [
        torch.softmax((keys[head] @ query[head] / math.sqrt(query.shape[1]))[visible[1]], 0)[6]
        for head in range(2)
    ]
    looking = -math.log(sum(share.item() for share in shares) / 2)
    # The result itself is float32.
    assert found == pytest.approx(looking + naming, rel=2**-22)


def test_what_is_not_read_changes_nothing(known):
    network, context, visible = known
    answers, glimpses = torch.tensor([[START, LETTER, NEXT, END]] * 2), torch.full((2, 15), -1)
    glimpses[0, :2] = torch.tensor([3, 4])
    before = reading_loss(network, answers, context, visible, glimpses)
    answers[1], answers[0, 3] = torch.tensor([START, NEXT, END, 0]), NEXT
    assert torch.equal(reading_loss(network, answers, context, visible, glimpses), before)


def test_a_few_steps_teach_where_to_look():
    """Of some thirty places that could be looked at, and 52 letters, chance is 3.4 + 3.9."""
    stream = STREAMS["reading"]
    fixed = sample_reading_batch(1, 0, 8, 4, PATCH)
    task = VQATask(
        MPlugConfig(**CONFIG["model"], vocab_size=len(VOCABULARY)),
        0,
        4,
        0.0,
        stream=type(stream)(stream.vocabulary, lambda *_: fixed, stream.labels),
    )
    optimizer = torch.optim.AdamW(task.parameter_groups(5e-3))
    losses = []
    for step in range(60):
        loss, extra = task.loss(step, 8, torch.Generator().manual_seed(0))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(extra["reading_loss"])
    assert losses[0] > 6
    assert losses[-1] < 0.8 * losses[0]
