"""Training of the VQA judge: it learns, resumes after a kill, and leaves a directory that the judge loads."""

import math
import shutil

import pytest
import torch
import yaml

from sana_bench.cli.main import execute
from sana_bench.judges.mplug.config import MPlugConfig
from sana_bench.judges.mplug.files import load_network
from sana_bench.judges.mplug.judge import MPlugJudge
from sana_bench.judges.mplug.reading import ReadingMPlug
from sana_bench.metrics.dpg.card import accuracy_tables
from sana_bench.metrics.dpg.training import STREAMS, Stream, VQATask, run_vqa_training
from sana_bench.metrics.training import PatchTeacher
from sana_bench.micro.reading_data import VOCABULARY as READING_VOCABULARY
from sana_bench.micro.vqa_data import VOCABULARY, sample_vqa_batch
from sana_bench.micro.world import COLORS, SHAPES
from tests import ROOT
from tests.judges.interruption import stop_at

PATCH = 16
CONFIG = {
    "kind": "vqa",
    "name": "vqa-tiny",
    "data": {"source": "micro", "questions_per_image": 2, "blur": 0.5},
    "model": {
        "image_res": 64,
        "vision_width": 64,
        "clip_vision_width": 64,
        "clip_vision_layers": 1,
        "clip_vision_patch_size": PATCH,
        "beam_size": 2,
        "max_length": 3,
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_attention_heads": 2,
        "num_hidden_layers": 2,
        "text_encoder_layers": 1,
        "fusion_layers": 2,
        "stride_layer": 1,
        "text_decode_layers": 1,
        "encoder_width": 16,
        "max_position_embeddings": 32,
    },
    "training": {
        "steps": 6,
        "batch_size": 4,
        "learning_rate": 5.0e-3,
        "warmup_steps": 2,
        "precision": "fp32",
        "checkpoint_every": 3,
        "log_every": 1,
    },
}


@pytest.fixture(autouse=True)
def short_card(monkeypatch):
    """The card's measurement over hundreds of scenes is for trained weights."""
    monkeypatch.setattr("sana_bench.metrics.dpg.card.accuracy_tables", lambda judge: "| measured elsewhere |")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    out = tmp_path_factory.mktemp("vqa")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sana_bench.metrics.dpg.card.accuracy_tables", lambda judge: "")
        run_vqa_training(CONFIG, out)
    return out


def test_weights_load_as_the_judge(trained):
    judge = MPlugJudge(trained / "vqa")
    batch = sample_vqa_batch(9, 0, 1, 3, 8)
    assert len(judge.answers(batch.images[0], batch.questions)) == 3
    assert judge.network.config.vocab_size == len(VOCABULARY)
    assert {path.name for path in (trained / "vqa").iterdir()} == {
        "README.md",
        "config.yaml",
        "config_bert.json",
        "configuration.json",
        "curve.csv",
        "curve.png",
        "model.safetensors",
        "vocab.txt",
    }


def test_the_card_is_no_part_of_the_judges_identity(trained, tmp_path):
    folder = shutil.copytree(trained / "vqa", tmp_path / "vqa")
    before = MPlugJudge(folder).identity()
    (folder / "README.md").write_text("other words")
    assert MPlugJudge(folder).identity() == before
    (folder / "vocab.txt").write_text("other words")
    assert MPlugJudge(folder).identity() != before


def test_an_interrupted_run_ends_with_the_same_weights(trained, tmp_path):
    stop_at(VQATask, 4, lambda: run_vqa_training(CONFIG, tmp_path))
    run_vqa_training(CONFIG, tmp_path)
    # Bytes are equal: every draw of a step comes from its number.
    name = "vqa/model.safetensors"
    assert (tmp_path / name).read_bytes() == (trained / name).read_bytes()


def test_training_goes_on_from_given_weights(trained, tmp_path):
    longer = CONFIG | {"name": "vqa-tiny-second", "start": str(trained / "vqa")}
    task = VQATask(MPlugConfig(**CONFIG["model"], vocab_size=len(VOCABULARY)), 7, 2, 0.5, trained / "vqa")
    start = load_network(trained / "vqa").state_dict()
    assert all(torch.equal(value, start[name]) for name, value in task.network.state_dict().items())
    assert all(parameter.requires_grad for parameter in task.network.parameters())
    run_vqa_training(longer, tmp_path)
    card = (tmp_path / "vqa/README.md").read_text()
    assert "`sana-bench train configs/train/vqa_tiny_second.yaml`" in card
    assert f"from the weights in `{trained / 'vqa'}`" in card


def test_weights_of_another_size_are_no_start(trained, tmp_path):
    model = CONFIG["model"] | {"intermediate_size": 48}
    with pytest.raises(ValueError, match=r"start: .* is not of the size"):
        run_vqa_training(CONFIG | {"start": str(trained / "vqa"), "model": model}, tmp_path)


def test_a_reading_judge_goes_on_from_a_vqa_judges_words(trained, tmp_path):
    stream = STREAMS["reading"]
    config = MPlugConfig(**CONFIG["model"], vocab_size=len(stream.vocabulary))
    task = VQATask(config, 7, 2, 0.5, trained / "vqa", stream)
    fresh = VQATask(config, 7, 2, 0.5, stream=stream).network.state_dict()
    start, n = load_network(trained / "vqa").state_dict(), len(VOCABULARY)
    for name, value in task.network.state_dict().items():
        if len(value) == len(READING_VOCABULARY):
            assert torch.equal(value[:n], start[name])
            assert torch.equal(value[n:], fresh[name][n:])
        else:
            assert torch.equal(value, start[name])
    reading = CONFIG | {"kind": "reading", "name": "reading-tiny", "start": str(trained / "vqa")}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sana_bench.metrics.reading_card.accuracy_tables", lambda judge: "")
        run_vqa_training(reading, tmp_path)
    judge = ReadingMPlug(tmp_path / "reading")
    assert judge.network.config.vocab_size == len(READING_VOCABULARY)
    assert len(judge.answer(sample_vqa_batch(9, 0, 1, 1, 8).images[0], ["Is there text?"])) == 1
    with pytest.raises(ValueError, match=r"start: .* has words that this training numbers otherwise"):
        run_vqa_training(CONFIG | {"start": str(tmp_path / "reading")}, tmp_path / "back")


@pytest.mark.parametrize(
    ("question", "answer", "message"),
    [("Is there a dog?", "no", "question has a word"), ("Is there a ring?", "perhaps", "answer has a word")],
)
def test_words_that_the_vocabulary_lacks_are_not_trained(question, answer, message):
    batch = sample_vqa_batch(0, 0, 1, 1, PATCH)
    batch.questions[0], batch.answers[0] = question, answer
    stream = Stream(VOCABULARY, lambda *_: batch)
    task = VQATask(MPlugConfig(**CONFIG["model"], vocab_size=len(VOCABULARY)), 0, 1, 0.0, stream=stream)
    with pytest.raises(ValueError, match=message):
        task.loss(0, 1, torch.Generator())


def test_loss_falls_on_a_batch_it_sees_again_and_again():
    fixed = sample_vqa_batch(0, 0, 4, 2, PATCH)
    stream = Stream(VOCABULARY, lambda *_: fixed)
    task = VQATask(MPlugConfig(**CONFIG["model"], vocab_size=len(VOCABULARY)), 0, 2, 0.0, stream=stream)
    optimizer = torch.optim.AdamW(task.parameter_groups(5e-3))
    losses = []
    for step in range(80):
        loss, _ = task.loss(step, 4, torch.Generator().manual_seed(0))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0]


@pytest.mark.parametrize("kind", STREAMS)
def test_every_parameter_is_trained(kind):
    stream = STREAMS[kind]
    config = MPlugConfig(**CONFIG["model"], vocab_size=len(stream.vocabulary))
    task = VQATask(config, 0, 2, 0.0, stream=stream)
    loss, _ = task.loss(0, 4, torch.Generator().manual_seed(0))
    loss.backward()
    named = [pair for module in task.modules.values() for pair in module.named_parameters()]
    assert [name for name, p in named if p.grad is None] == []


def test_the_teacher_asks_for_row_and_column():
    teacher = PatchTeacher(16, 4)
    for head in (teacher.shapes, teacher.colors, teacher.rows, teacher.columns):
        torch.nn.init.zeros_(head.weight)
        torch.nn.init.zeros_(head.bias)
    places = torch.arange(16)
    with torch.no_grad():
        teacher.rows.weight[places // 4, places] = 50.0
        teacher.columns.weight[places % 4, places] = 50.0
    nothing = torch.zeros(1, 16, dtype=torch.long)
    # Heads that know every place lose nothing there; the two without weights guess among all shapes and colours.
    guessing = math.log(len(SHAPES) + 1) + math.log(len(COLORS) + 1)
    found = teacher.patch_loss(torch.eye(16)[None], nothing, nothing)
    assert found.item() == pytest.approx(guessing, abs=1e-5)  # float32


def test_the_teacher_asks_for_further_labels():
    teacher = PatchTeacher(16, 4, {"letters": 27})
    patches, nothing = torch.randn(1, 16, 16), torch.zeros(1, 16, dtype=torch.long)
    letters = torch.full((1, 16), 26)
    without, more = (teacher.patch_loss(patches, nothing, nothing, m) for m in (None, {"letters": letters}))
    own = torch.nn.functional.cross_entropy(teacher.more["letters"](patches)[0], letters[0])
    assert more.item() == pytest.approx((without + own).item(), rel=1e-5)  # float32


def test_accuracy_tables_count_every_question(trained):
    tables = accuracy_tables(MPlugJudge(trained / "vqa"), n_scenes=3)
    rows = [line.split("|") for line in tables.splitlines() if line.startswith("|")][2:]
    totals = [int(row[4]) for row in rows if row[2].strip() == "all"]
    assert totals == [1400, 24]
    parts = [int(row[4]) for row in rows if row[2].strip() != "all"]
    assert sum(parts) == 1424


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param({"training": {"step": 3}}, "unknown key 'training.step'", id="training"),
        pytest.param({"model": {"width": 3}}, "unknown key 'model.width'", id="model"),
        pytest.param({"model": {"image_res": 64}}, "model: .*missing", id="missing"),
        pytest.param({"data": None}, "section 'data' is missing", id="section"),
        pytest.param({"extra": 1}, "unknown key 'extra'", id="extra"),
        pytest.param({"start": 3}, "start is 3", id="start"),
    ],
)
def test_bad_configurations_are_one_line(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        run_vqa_training(CONFIG | change, tmp_path)


@pytest.mark.parametrize("name", ["vqa_micro", "vqa_micro_second", "reading_micro"])
def test_the_shipped_configurations_are_read(tmp_path, monkeypatch, name):
    path = ROOT / f"configs/train/{name}.yaml"
    config = yaml.safe_load(path.read_text())
    seen = []
    monkeypatch.setattr(
        "sana_bench.metrics.dpg.training.run_vqa_training",
        lambda given, out, fresh: seen.append((given, out)),
    )
    assert execute(["train", str(path), "--output", str(tmp_path)]) == 0
    assert seen == [(config, tmp_path)]
