"""VQAScore: the question, the number, and judges that are never taken for each other."""

import math
import threading
from dataclasses import replace

import pytest

from sana_bench.core.errors import SuiteError
from sana_bench.core.images import load_image
from sana_bench.core.registry import JUDGES, Entry
from sana_bench.judges.vlm import VisionLanguageModel
from sana_bench.metrics import build
from sana_bench.metrics.base import MetricAssets
from sana_bench.suites.schema import MetricSpec
from tests.judges.chat_server import ChatServer, said, serving
from tests.metrics.told_judge import ToldJudge
from tests.tiny_qwen import write_qwen

SHARES = {"Yes": 0.75, "No": 0.25}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_qwen(tmp_path_factory.mktemp("judge") / "Tiny-VL", "qwen3_vl")


@pytest.fixture
def server():
    listed = {token: math.log(share) for token, share in SHARES.items()}
    with serving(lambda _: said("Yes", listed)) as found:
        yield found


def _metric(tmp_path, **parameters):
    spec = MetricSpec(name="vqascore", parameters=parameters)
    return build(spec, "full", MetricAssets(tmp_path, tmp_path / "cache"))


def _served(tmp_path, server: ChatServer, **more):
    return _metric(tmp_path, judge="owner/Tiny-VL", server=server.address, **more)


def test_the_score_is_the_probability_of_yes(folder, samples, tmp_path):
    """The question is t2v_metrics' of version 3, and the answer's first token alone counts."""
    metric = _metric(tmp_path, judge=str(folder), precision="fp32")
    assert metric.protocol == "vqascore/vlm-tiny-vl@1"
    prompt = replace(samples[0].prompt, text='a {prompt} "in" braces')
    asked = [replace(samples[0], prompt=prompt), *samples[1:4]]
    rows = metric.score(asked)
    model = VisionLanguageModel(folder)
    for sample, row in zip(asked, rows, strict=True):
        question = f'Does this figure show "{sample.prompt.text}"? Please answer Yes or No.'
        ((token,),) = model.probabilities(load_image(sample.image_path), [question], [["Yes"]])
        assert row.value == token.probability
        assert (row.sample_id, row.tag) == (sample.id, sample.prompt.tag)
    assert len({row.value for row in rows}) == 4
    overall, *tasks = metric.summarise(rows, 4, seed=0)
    assert overall.value == pytest.approx(sum(row.value for row in rows) / 4, rel=1e-12)
    assert (overall.unit, overall.higher_is_better) == ("fraction", True)
    assert [task.key for task in tasks] == [samples[0].prompt.tag]


def test_options_that_a_prompt_was_cut_of_are_asked_for(folder, samples, tmp_path):
    """As CLIP score does: the prompt as published."""
    metric = _metric(tmp_path, judge=str(folder), precision="fp32")
    prompt = replace(samples[0].prompt, metadata={"full_prompt": "a cat --ar 3:2"})
    found = metric.score([replace(samples[0], prompt=prompt), samples[0]])
    assert found[0].value != found[1].value


def test_a_second_run_asks_nothing(samples, tmp_path, server):
    first = _served(tmp_path, server).score(samples)
    assert [row.value for row in first] == pytest.approx([0.75] * len(samples), rel=1e-14)
    n_asked = len(server.requests)
    # Images of one prompt that are equal are one image to a judge.
    assert n_asked == len({(load_image(one.image_path).tobytes(), one.prompt.text) for one in samples})
    assert _served(tmp_path, server).score(samples) == first
    assert len(server.requests) == n_asked


def test_images_are_asked_about_at_the_same_time(samples, tmp_path, server):
    reply = server.reply

    def slow(body):
        server.together.wait(10)
        return reply(body)

    server.together, server.reply = threading.Barrier(3), slow
    rows = _served(tmp_path, server, at_once=3).score(samples[:6])
    assert [row.sample_id for row in rows] == [sample.id for sample in samples[:6]]
    assert server.most_in_flight == 3


def test_judges_are_told_apart(folder, tmp_path, server):
    here, there = _metric(tmp_path, judge=str(folder)), _served(tmp_path, server)
    assert (here.protocol, there.protocol) == ("vqascore/vlm-tiny-vl@1", "vqascore/vlm-served-tiny-vl@1")
    identity = there.identity()
    assert identity["judge"]["server"] == server.address
    assert identity["question"] == 'Does this figure show "{prompt}"? Please answer Yes or No.'
    whole = _metric(tmp_path, judge=str(folder), precision="fp32")
    assert whole.protocol == here.protocol
    assert [one.identity()["judge"]["precision"] for one in (here, whole)] == ["bf16", "fp32"]
    assert not server.requests


def test_a_judge_by_name_computes_as_it_does(tmp_path):
    """bf16 is for models of the hub: a judge that has one precision is not asked for another."""
    made = []
    judge = ToldJudge(soft=lambda *_: 0.5)

    def build_judge(spec, relative_to, device):
        made.append(spec)
        return judge

    with JUDGES.added(Entry("mine", build_judge)):
        metric = _metric(tmp_path, judge="mine")
    assert (metric.protocol, made[0].precision) == ("vqascore/vlm-mine@1", "fp32")


def test_a_server_without_a_model_is_no_published_judge(tmp_path, server):
    """Another metric's published judge behind a server would be another judge than its official protocol's."""
    spec = MetricSpec(name="geneval2", parameters={"server": server.address})
    with pytest.raises(SuiteError, match="metric 'geneval2': it needs the parameter judge"):
        build(spec, "full", MetricAssets(tmp_path, tmp_path))
    named = spec.model_copy(update={"parameters": {**spec.parameters, "judge": "Qwen/Qwen3-VL-8B-Instruct"}})
    metric = build(named, "full", MetricAssets(tmp_path, tmp_path))
    assert metric.protocol == "geneval2/vlm-served-qwen3-vl-8b-instruct@1"


@pytest.mark.parametrize("tier", ["micro", "full"])
def test_without_a_judge_there_is_no_score(tmp_path, tier):
    with pytest.raises(SuiteError, match="metric 'vqascore': it needs the parameter judge"):
        build("vqascore", tier, MetricAssets(tmp_path, tmp_path))


def test_a_protocol_must_be_that_of_the_judge(tmp_path, server):
    parameters = {"judge": "owner/Tiny-VL", "server": server.address}
    spec = MetricSpec(name="vqascore", protocol="vqascore/vlm-tiny-vl@1", parameters=parameters)
    with pytest.raises(
        SuiteError, match=r"no protocol 'vqascore/vlm-tiny-vl@1'.*it has vqascore/vlm-served-tiny-vl@1"
    ):
        build(spec, "full", MetricAssets(tmp_path, tmp_path))
