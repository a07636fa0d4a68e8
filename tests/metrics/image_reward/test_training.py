"""Training of the reward model: its data, its loss, resuming after a kill, and a folder that the metric loads."""

import math
from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
import torch
import yaml

from sana_bench.cli.main import execute
from sana_bench.core.errors import AssetError
from sana_bench.metrics.image_reward.card import accuracy_tables, dense_pairs, geneval_pairs, random_pairs
from sana_bench.metrics.image_reward.metric import RewardFiles
from sana_bench.metrics.image_reward.network import MAX_TOKENS, WordPieces
from sana_bench.metrics.image_reward.training import (
    RewardTask,
    _parse,
    _per_pair,
    _Teacher,
    _tokens,
    pairwise_loss,
    run_reward_training,
)
from sana_bench.micro import reward_data
from sana_bench.micro.captions import is_held_out, sample_record, scene_for
from sana_bench.micro.claims import Claim
from sana_bench.micro.dense_prompts import DensePrompt, Group, NoSceneError, dense_scene, stored_dense_prompts
from sana_bench.micro.reward_data import (
    FAMILY,
    VOCABULARY,
    _word_places,
    grade,
    near_misses,
    sample_reward_batch,
    sample_wish,
    word_claims,
)
from sana_bench.micro.templates import RELATIONS
from sana_bench.micro.truth import patch_labels
from sana_bench.micro.world import COLORS, SHAPES, Scene, SceneObject
from tests import ROOT
from tests.judges.interruption import stop_at

CONFIG = {
    "kind": "reward",
    "name": "reward-tiny",
    "data": {"source": "micro", "blur": 0.5},
    "model": {
        "vision": {"image_size": 64, "patch": 16, "width": 16, "layers": 1, "heads": 2},
        "text": {
            "hidden_size": 16,
            "intermediate_size": 32,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "max_position_embeddings": 40,
        },
    },
    "training": {
        "steps": 6,
        "batch_size": 8,
        "learning_rate": 5.0e-3,
        "warmup_steps": 2,
        "precision": "fp32",
        "checkpoint_every": 3,
        "log_every": 1,
    },
}


def tiny_task():
    settings = _parse(CONFIG)
    return RewardTask(settings.vision, settings.text, 0, 0.0)


@pytest.fixture(autouse=True, scope="module")
def short_card():
    """The card's measurement over thousands of scenes is for trained weights."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sana_bench.metrics.image_reward.card.accuracy_tables", lambda files: "")
        yield


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    out = tmp_path_factory.mktemp("reward")
    run_reward_training(CONFIG, out)
    return out


def painted(*objects):
    items = (SceneObject(shape, color, x, y, 8.0, COLORS[color]) for shape, color, x, y in objects)
    return Scene(tuple(items), (190, 190, 190))


RED_LEFT_OF_BLUE = painted(("circle", "red", 16, 32), ("star", "blue", 48, 32))
RELATED = DensePrompt((Group(1, "red", "circle"), Group(1, "blue", "star")), "left of")


# Facts: two objects, two colours, two numbers, one place.
@pytest.mark.parametrize(
    ("scene", "share"),
    [
        (RED_LEFT_OF_BLUE, 1),
        (painted(("circle", "red", 48, 32), ("star", "blue", 16, 32)), 6 / 7),
        (painted(("circle", "blue", 16, 32), ("star", "red", 48, 32)), 5 / 7),
        (painted(("circle", "red", 16, 32)), 3 / 7),
        (painted(("ring", "pink", 16, 32)), 0),
    ],
)
def test_a_grade_is_the_share_of_facts_shown(scene, share):
    assert grade(RELATED, scene) == pytest.approx(share)


def test_prompts_of_all_forms_say_what_their_record_says():
    """A prompt's text is GenEval's own, and its scene satisfies all that it states."""
    rng = np.random.default_rng(0)
    known = {sample_record(task, rng)["prompt"] for task in ("single_object", "counting") for _ in range(300)}
    forms = set()
    for _ in range(400):
        wish = sample_wish(rng)
        forms.add((len(wish.groups), bool(wish.relation), bool(wish.groups[0].color)))
        if len(wish.groups) == 1 and not wish.groups[0].color:
            assert wish.text in known
        assert grade(wish, dense_scene(wish, rng)) == 1
        assert set(wish.text.split()) <= set(VOCABULARY)
        for other in near_misses(wish, rng).values():
            # Exactly the one thing asked for is gone; what a lost object had is gone with it.
            assert other != wish
            assert set(other.text.split()) <= set(VOCABULARY)
    assert len(forms) >= 8


def test_words_are_tied_to_the_facts_that_they_state():
    prompt = DensePrompt((Group(2, "red", "circle"), Group(1, "", "star")))
    assert prompt.text == "a photo of two red circles and a star"
    of_circle = Claim("count", "circle", count=2), Claim("color", "circle", color="red", count=2)
    expected = [None, None, None, *of_circle, Claim("entity", "circle"), None, None, Claim("entity", "star")]
    assert word_claims(prompt) == expected
    related = dict(zip(RELATED.text.split(), word_claims(RELATED), strict=True))
    assert related["left"] == Claim("relation", "circle", relation="left of", other="star")
    assert related["blue"] == Claim("color", "star", color="blue")


def test_patches_are_labelled_with_what_they_show():
    shapes, colors = (part.reshape(8, 8) for part in patch_labels(RED_LEFT_OF_BLUE, 8))
    assert shapes[4, 2] == SHAPES.index("circle") + 1
    assert shapes[4, 6] == SHAPES.index("star") + 1
    assert colors[4, 2] == list(COLORS).index("red") + 1
    assert not shapes[0].any()
    assert ((shapes > 0) == (colors > 0)).all()


def test_batches_are_repeatable_and_leave_the_evaluation_sets_out():
    one, again = (sample_reward_batch(3, 5, 6, 8) for _ in range(2))
    for name in ("images", "grades", "words", "shapes", "colors"):
        np.testing.assert_array_equal(getattr(one, name), getattr(again, name))
    assert one.images.shape == (6 * FAMILY, 64, 64, 3)
    # Every picture shows its own prompt wholly.
    assert (np.diagonal(one.grades, axis1=1, axis2=2) == 1).all()
    prompts = [text for step in range(40) for text in sample_reward_batch(0, step, 4, 8).prompts]
    assert not [text for text in prompts if is_held_out(text) or text in stored_dense_prompts()]


def test_nouns_and_relations_are_tied_to_places():
    wish = DensePrompt((Group(1, "red", "circle"), Group(1, "", "star")), "left of")
    shown = Scene(
        (
            SceneObject("circle", "blue", 50.0, 12.0, 8.0, COLORS["blue"]),
            SceneObject("star", "red", 14.0, 17.0, 8.0, COLORS["red"]),
        ),
        (190, 190, 190),
    )
    words = wish.text.split()
    places = dict(zip(words, _word_places(wish, shown, len(words) + 2, 16), strict=False))
    assert places["circle"] == (0, 3, -1)
    assert places["star"] == (1, 0, -1)
    # What holds, not what the prompt says.
    assert places["left"] == (-1, -1, RELATIONS.index("right of"))
    assert places["red"] == places["of"] == (-1, -1, -1)
    twice = Scene((*shown.objects, replace(shown.objects[0], cx=20.0, cy=50.0)), shown.background)
    assert _word_places(wish, twice, len(words), 16)[words.index("circle")] == (-1, -1, -1)


def test_the_teacher_asks_words_for_their_places():
    teacher = _Teacher(8, 4, 8)
    states = torch.zeros(1, 1, 1, 3, 8)
    nowhere = torch.full((1, 1, 1, 3, 3), -1)
    assert teacher.place_loss(states, nowhere).item() == 0
    for head in teacher.word_places:
        torch.nn.init.zeros_(head.weight)
        torch.nn.init.zeros_(head.bias)
    known = nowhere.clone()
    known[..., 1, 0] = 2
    # Without weights all four rows are as likely, and so are all four relations.
    assert teacher.place_loss(states, known).item() == pytest.approx(math.log(4), rel=1e-6)
    known[..., 2, 2] = 3
    assert teacher.place_loss(states, known).item() == pytest.approx(2 * math.log(4), rel=1e-6)


def test_training_goes_on_from_given_weights(trained, tmp_path):
    settings = _parse(CONFIG | {"start": str(trained / "reward")})
    task = RewardTask(settings.vision, settings.text, 7, 0.0, settings.start)
    start = RewardFiles.of_folder(trained / "reward").network.state_dict()
    assert all(torch.equal(value, start[name]) for name, value in task.network.state_dict().items())
    assert all(parameter.requires_grad for parameter in task.network.parameters())
    run_reward_training(CONFIG | {"name": "reward-tiny-second", "start": str(trained / "reward")}, tmp_path)
    card = (tmp_path / "reward/README.md").read_text()
    assert "`sana-bench train configs/train/reward_tiny_second.yaml`" in card
    assert f"from the weights in `{trained / 'reward'}`" in card


def test_weights_of_another_size_are_no_start(trained, tmp_path):
    model = CONFIG["model"] | {"text": CONFIG["model"]["text"] | {"intermediate_size": 48}}
    with pytest.raises(ValueError, match=r"start: .* is not of the size"):
        run_reward_training(CONFIG | {"start": str(trained / "reward"), "model": model}, tmp_path)


def test_the_loss_is_that_of_every_ordered_pair():
    rewards = torch.tensor([[0.5, -1.0, 2.0], [1.0, 1.0, 1.0]])
    grades = torch.tensor([[1.0, 0.5, 0.5], [1.0, 0.25, 0.5]])
    expected = [
        -torch.nn.functional.logsigmoid(rewards[row, i] - rewards[row, j])
        for row in range(2)
        for i, j in permutations(range(3), 2)
        if grades[row, i] > grades[row, j]
    ]
    loss, right = pairwise_loss(rewards, grades)
    # float32 sums of five terms.
    torch.testing.assert_close(loss, torch.stack(expected).mean(), rtol=1e-6, atol=1e-6)
    assert float(right) == pytest.approx(1 / 5)


def test_every_prompt_of_a_family_meets_every_picture():
    rows = torch.arange(2 * FAMILY)
    over_prompts, over_pictures = (_per_pair(rows, dim=dim).reshape(2, FAMILY, FAMILY) for dim in (1, 2))
    assert over_prompts[1, 2].tolist() == [4, 5, 6, 7]
    assert over_pictures[1, 2].tolist() == [6] * FAMILY


def test_tokens_are_those_of_the_metric(tmp_path):
    (tmp_path / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n")
    prompts = sample_reward_batch(0, 0, 3, 8).prompts
    ids, mask = _tokens(prompts)
    padded, padded_mask = WordPieces(tmp_path / "vocab.txt")(prompts)
    assert padded.shape[1] == MAX_TOKENS
    assert torch.equal(padded[:, : ids.shape[1]], ids)
    assert torch.equal(padded_mask[:, : ids.shape[1]], mask)
    assert not padded[:, ids.shape[1] :].any()


def test_weights_load_as_the_metrics(trained):
    files = RewardFiles.of_folder(trained / "reward")
    assert files.network.sizes[0].width == 16
    ids, mask = files.tokens(["a photo of a red circle"])
    assert torch.isfinite(files.network(torch.zeros(1, 3, 64, 64), ids, mask)).all()
    assert {path.name for path in (trained / "reward").iterdir()} == {
        "README.md",
        "curve.csv",
        "curve.png",
        "med_config.json",
        "model.safetensors",
        "vision_config.json",
        "vocab.txt",
    }
    assert set(files.identity()) == {"weights_sha256", "config_sha256", "vocabulary_sha256", "vision_sha256"}


def test_an_interrupted_run_ends_with_the_same_weights(trained, tmp_path):
    stop_at(RewardTask, 4, lambda: run_reward_training(CONFIG, tmp_path))
    run_reward_training(CONFIG, tmp_path)
    # Bytes are equal: every draw of a step comes from its number.
    name = "reward/model.safetensors"
    assert (tmp_path / name).read_bytes() == (trained / name).read_bytes()


def test_it_learns_to_rank_a_batch_it_sees_again_and_again(monkeypatch):
    fixed = sample_reward_batch(0, 0, 2, 16)
    monkeypatch.setattr("sana_bench.metrics.image_reward.training.sample_reward_batch", lambda *_: fixed)
    task = tiny_task()
    optimizer = torch.optim.AdamW(task.parameter_groups(3e-3))
    seen = []
    for _ in range(250):
        loss, extra = task.loss(0, 2 * FAMILY, torch.Generator().manual_seed(0))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        seen.append(extra)
    assert seen[0]["pair_accuracy"] < 0.9
    assert seen[-1]["pair_accuracy"] > 0.9
    assert seen[-1]["pair_loss"] < 0.5 * seen[0]["pair_loss"]


def test_every_parameter_is_trained():
    task = tiny_task()
    loss, _ = task.loss(0, 2 * FAMILY, torch.Generator().manual_seed(0))
    loss.backward()
    parameters = [pair for module in task.modules.values() for pair in module.named_parameters()]
    assert [name for name, p in parameters if p.grad is None] == []


def test_pairs_for_measuring_are_ordered_by_the_truth():
    kinds = set()
    for pair in dense_pairs(1, 0):
        kinds.add(pair.mistake)
    assert kinds == {"wrong shape", "wrong colour", "wrong number", "missing object", "wrong place"}
    kinds = {pair.mistake for pair in geneval_pairs(1, 0)}
    assert {"swapped colours", "wrong relation", "wrong count", "missing object"} <= kinds
    # Some of these draws have no scene, as large groups above each other.
    assert len(list(random_pairs(200, 2**31 - 1))) == 200


def test_the_table_counts_every_pair(trained):
    rows = accuracy_tables(RewardFiles.of_folder(trained / "reward"), per_prompt=1, n_random=20).splitlines()
    cells = [[cell.strip() for cell in row.split("|")[1:-1]] for row in rows if row.startswith("| ")][1:]
    for prompts in ("evaluation prompts", "dense prompts"):
        of_set = [row for row in cells if row[0] == prompts]
        assert of_set[-1][1] == "all"
        assert int(of_set[-1][2]) == sum(int(row[2]) for row in of_set[:-1])
    assert cells[-1][:3] == ["random prompts", "more of it wrong", "20"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param({"training": {"step": 3}}, "unknown key 'training.step'", id="training"),
        pytest.param({"model": {"width": 3}}, "unknown key 'model.width'", id="model"),
        pytest.param({"model": {}}, "section 'model.vision' needs", id="missing"),
        pytest.param({"data": None}, "section 'data' is missing", id="section"),
        pytest.param(
            {"training": CONFIG["training"] | {"batch_size": 6}}, "batch_size counts pictures", id="batch"
        ),
        pytest.param(
            {"model": CONFIG["model"] | {"text": CONFIG["model"]["text"] | {"max_position_embeddings": 16}}},
            "at least 35",
            id="positions",
        ),
        pytest.param(
            {"model": CONFIG["model"] | {"vision": CONFIG["model"]["vision"] | {"patch": 12}}},
            "patch divides it",
            id="patch",
        ),
    ],
)
def test_bad_configurations_are_one_line(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        run_reward_training(CONFIG | change, tmp_path)


def test_damaged_folders_are_refused(trained, tmp_path):
    import shutil

    with pytest.raises(AssetError, match=r"reward_micro\.yaml") as caught:
        RewardFiles.of_folder(tmp_path / "reward")
    assert "\n" not in str(caught.value)
    folder = shutil.copytree(trained / "reward", tmp_path / "reward")
    (folder / "vision_config.json").write_text('{"deep": 3}')
    with pytest.raises(AssetError, match="not the sizes of a vision tower"):
        _ = RewardFiles.of_folder(folder).network
    (folder / "vision_config.json").unlink()
    with pytest.raises(AssetError, match=r"vision_config\.json: missing"):
        RewardFiles.of_folder(folder).identity()
    shutil.copy(trained / "reward" / "vision_config.json", folder)
    (folder / "model.safetensors").write_bytes(b"short")
    with pytest.raises(AssetError, match="not a checkpoint"):
        _ = RewardFiles.of_folder(folder).network


@pytest.mark.parametrize("name", ["reward_micro", "reward_micro_second"])
def test_the_shipped_configurations_are_read(tmp_path, monkeypatch, name):

    path = ROOT / f"configs/train/{name}.yaml"
    config = yaml.safe_load(path.read_text())
    assert _parse(config).loop.precision == "fp32"
    seen = []
    monkeypatch.setattr(
        "sana_bench.metrics.image_reward.training.run_reward_training",
        lambda given, out, fresh: seen.append((given, out)),
    )
    assert execute(["train", str(path), "--output", str(tmp_path)]) == 0
    assert seen == [(config, tmp_path)]


def test_scenes_of_records_and_of_prompts_agree():
    """The same prompt as a GenEval record paints a scene that shows all of it."""
    rng = np.random.default_rng(1)
    for _ in range(20):
        record = sample_record("color_attr", rng)
        groups = tuple(Group(1, clause["color"], clause["class"]) for clause in record["include"])
        assert DensePrompt(groups).text == record["prompt"]
        assert grade(DensePrompt(groups), scene_for(record, rng)) == 1


def test_a_family_that_cannot_be_drawn_gives_way_to_another(monkeypatch) -> None:
    expected = sample_reward_batch(seed=0, step=3, n_families=3, patch=8)
    left = [1]

    def crowded(wish: DensePrompt, rng: np.random.Generator) -> Scene:
        if left.pop() if left else False:
            raise NoSceneError(wish.text)
        return dense_scene(wish, rng)

    monkeypatch.setattr(reward_data, "dense_scene", crowded)
    found = sample_reward_batch(seed=0, step=3, n_families=3, patch=8)
    assert not left
    assert len(found.prompts) == len(expected.prompts) == 12
    assert found.prompts[:4] != expected.prompts[:4]
    assert found.prompts[4:] == expected.prompts[4:]
    assert all(found.grades[family, place, place] == 1 for family in range(3) for place in range(4))
