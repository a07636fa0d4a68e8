"""The judge behind an OpenAI-compatible server, against one on loopback."""

import base64
import io
import logging
import math
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sana_bench import judges
from sana_bench.core.errors import AssetError, BenchError, SuiteError, UsageError
from sana_bench.judges.answers import RememberingJudge
from sana_bench.judges.served import ServedJudge
from sana_bench.suites.judge_spec import JudgeSpec, ServerSpec
from tests.judges.chat_server import ChatServer, said, serving

IMAGE = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
SPELLINGS = ["Yes", "yes", " yes", " Yes"]
KEY = "sk-Very/Secret_0123456789"


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with serving(lambda body: said(f" {_question(body)}! ")) as found:
        yield found


def _question(body) -> str:
    return body["messages"][0]["content"][1]["text"]


def _judge(server: ChatServer, **settings) -> ServedJudge:
    return ServedJudge("tiny", ServerSpec(address=server.address, **settings), first_pause_s=0.001)


def test_words_come_back_in_order_without_space_around(server):
    judge = _judge(server)
    assert judge.answer(IMAGE, ["a", "b", "c"], max_tokens=5) == ["a!", "b!", "c!"]
    assert judge.read_text(IMAGE, "Read.") == "Read.!"
    first = next(request for request in server.requests if _question(request) == "a")
    assert (first["model"], first["temperature"], first["max_tokens"]) == ("tiny", 0, 5)
    assert not {"logprobs", "chat_template_kwargs"} & first.keys()
    assert server.requests[-1]["max_tokens"] == 1024
    # The image is sent whole, in front of the text.
    picture = first["messages"][0]["content"][0]
    head, _, content = picture["image_url"]["url"].partition(",")
    assert (picture["type"], head) == ("image_url", "data:image/png;base64")
    with Image.open(io.BytesIO(base64.b64decode(content))) as sent:
        assert np.array_equal(np.asarray(sent), IMAGE)


def test_a_model_is_asked_to_answer_at_once(server):
    _judge(server, thinking=False).answer(IMAGE, ["a"])
    assert server.requests[0]["chat_template_kwargs"] == {"enable_thinking": False}


def test_probabilities_are_those_that_the_server_lists(server):
    shares = {"Yes": 0.7, "No": 0.2, " Yes": 0.05, "yes": 0.04, " yes": 0.01}
    server.reply = lambda _: said("Yes", {token: math.log(share) for token, share in shares.items()})
    judge = _judge(server, top_logprobs=7)
    ((yes, lower, spaced, both), (no,)) = judge.probabilities(IMAGE, ["a", "b"], [SPELLINGS, ["No"]])
    found = [token.probability for token in (yes, lower, spaced, both, no)]
    # A logarithm and back is two roundings.
    assert found == pytest.approx([0.7, 0.04, 0.01, 0.05, 0.2], rel=1e-14)
    assert len({token.token for token in (yes, lower, spaced, both, no)}) == 5
    # The same in any process, and in any other question.
    assert judge.probabilities(IMAGE, ["c"], [["Yes"]])[0][0].token == yes.token
    assert 0 <= yes.token < 2**48
    request = server.requests[0]
    assert (request["max_tokens"], request["logprobs"], request["top_logprobs"]) == (1, True, 7)


@pytest.mark.parametrize(
    ("shares", "spellings", "message"),
    [
        # Nothing is listed of what is asked for: it can have up to what is left over.
        (
            {"No": 0.6, "Maybe": 0.3},
            ["Yes"],
            r"'Yes' is not among the 2 most .* up to 0.1, what is has 0\. Set top_logp",
        ),
        # No more than the least of the list.
        ({"No": 0.6, "Maybe": 0.02}, ["Yes"], r"up to 0.02, what is has 0\."),
        # What is listed is too little beside it.
        (
            {"Yes": 0.5, "No": 0.49, "Maybe": 0.01 - 3e-4},
            ["Yes", "yes", " yes"],
            r"'yes' is .* up to 0.0006, .* has 0.5",
        ),
        # `Te` may be the token that begins `Ten`, and not count for it.
        ({"Te": 0.5, "ten": 0.5}, ["Ten", "ten"], r"'Ten' is .* up to 0.5, what is has 0.5"),
    ],
)
def test_what_is_not_listed_is_not_guessed(server, shares, spellings, message):
    server.reply = lambda _: said("", {token: math.log(share) for token, share in shares.items()})
    with pytest.raises(UsageError, match=message):
        _judge(server).probabilities(IMAGE, ["a"], [spellings])
    assert len(server.requests) == 1


def test_what_cannot_matter_counts_as_nothing(server):
    """What is left over is a ten-thousandth of what is listed: 0.1 % is the most that a question's sum can lack."""
    shares = {"Yes": 0.6, "No": 0.39996}
    server.reply = lambda _: said("Yes", {token: math.log(share) for token, share in shares.items()})
    (found,) = _judge(server).probabilities(IMAGE, ["a"], [SPELLINGS])
    assert [token.probability for token in found] == pytest.approx([0.6, 0, 0, 0], rel=1e-14)
    assert all(token.whole for token in found)


def test_a_server_without_log_probabilities_is_refused_at_once(server):
    for reply in (said("Yes"), {"choices": [{"message": {"content": "Yes"}, "logprobs": None}]}):
        server.reply = lambda _, reply=reply: reply
        with pytest.raises(UsageError, match=r"judge tiny at .* gives no log-probabilities"):
            _judge(server).probabilities(IMAGE, ["a"], [["Yes"]])
    assert len(server.requests) == 2


def test_tokens_are_read_by_their_bytes_or_their_text(server):
    """Half a character has no text; servers that give no bytes give the text."""
    server.reply = lambda _: said("é", {"é": -0.1}, bytes=[195])
    with pytest.raises(UsageError, match="'é' is not among"):
        _judge(server).probabilities(IMAGE, ["a"], [["é"]])
    server.reply = lambda _: said("é", {"é": -0.1}, bytes=None)
    (((token),),) = _judge(server).probabilities(IMAGE, ["a"], [["é"]])
    assert token.probability == pytest.approx(math.exp(-0.1), rel=1e-14)


@pytest.mark.parametrize(
    "trouble", [429, 500, 503, b"", b"{", b"[]", b'{"choices": []}', b'{"choices": [{}]}']
)
def test_a_server_in_trouble_is_asked_again(server, trouble):
    left = [trouble, trouble]
    server.reply = lambda body: left.pop() if left else said("fine")
    assert _judge(server).answer(IMAGE, ["a"]) == ["fine"]
    assert server.questions() == ["a"] * 3


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (503, r"it answers 503, status 503, sent with no key; asked 6 times. What is answered is kept"),
        (b"<html>", "its answer cannot be read"),
        (said(None), "no text; a model that thinks aloud needs more tokens"),
        (said("x", {"x": float("nan")}), "its answer cannot be read"),
        (said("x", {"x": 0.5}), "its answer cannot be read .*a log-probability of 0.5"),
    ],
)
def test_a_server_that_stays_in_trouble_is_one_clear_line(server, reply, message):
    server.reply = lambda _: reply
    judge = _judge(server)
    has_logprobs = isinstance(reply, dict) and "logprobs" in reply["choices"][0]
    ask = partial(judge.probabilities, spellings=[["x"]]) if has_logprobs else judge.answer
    with pytest.raises(BenchError, match=message) as caught:
        ask(IMAGE, ["a"])
    assert not isinstance(caught.value, UsageError)
    assert "\n" not in str(caught.value)
    assert len(server.requests) == 6


@pytest.mark.parametrize(("status", "hint"), [(400, ""), (401, "SANA_BENCH_JUDGE_KEY"), (404, "")])
def test_a_refusal_is_not_repeated(server, status, hint):
    server.reply = lambda _: status
    with pytest.raises(UsageError, match=f"it answers {status}.*{hint}"):
        _judge(server).answer(IMAGE, ["a"])
    assert len(server.requests) == 1


def test_pauses_double_and_a_server_may_ask_for_longer(server, monkeypatch):
    waited: list[float] = []

    class Patient(threading.Event):
        def wait(self, timeout=None):
            waited.append(timeout)
            return False

    monkeypatch.setattr("sana_bench.judges.served.Event", Patient)
    server.reply = lambda _: 429
    with pytest.raises(BenchError, match="asked 6 times"):
        ServedJudge("tiny", ServerSpec(address=server.address), first_pause_s=8).answer(IMAGE, ["a"])
    assert waited == [8, 16, 32, 60, 60]
    waited.clear()
    server.headers = {"Retry-After": "20"}
    with pytest.raises(BenchError):
        ServedJudge("tiny", ServerSpec(address=server.address), first_pause_s=8).answer(IMAGE, ["a"])
    assert waited == [20, 20, 32, 60, 60]


def test_a_slow_answer_is_given_up_and_asked_for_again(server):
    slow = threading.Event()
    left = [1]

    def reply(body):
        if left:
            left.pop()
            slow.wait(10)
        return said("late")

    server.reply = reply
    judge = _judge(server, timeout_s=1)
    assert judge.answer(IMAGE, ["a"]) == ["late"]
    slow.set()
    assert len(server.requests) == 2


def test_a_server_that_is_not_there_is_one_clear_line():
    with serving(lambda _: 500) as gone:
        pass
    with pytest.raises(BenchError, match=r"judge tiny at http.*ConnectError.*asked 6 times") as caught:
        _judge(gone).answer(IMAGE, ["a"])
    assert "\n" not in str(caught.value)


def test_reaching_asks_as_often_as_it_is_told_to():
    with serving(lambda _: 500) as gone:
        judge = _judge(gone)
        judge.reach(1)
    with pytest.raises(AssetError, match=r"judge tiny at http.*ConnectError: [^;]*$"):
        judge.reach(1)
    with pytest.raises(AssetError, match="asked 2 times"):
        judge.reach(2)


def test_no_more_questions_are_on_their_way_than_allowed(server):
    """Also where several images are asked about at the same time; and all that are allowed are."""
    full = threading.Barrier(3)

    def reply(body):
        # Every third request arrives while two others wait, or not at all.
        full.wait(10)
        return said(_question(body))

    server.reply = reply
    judge = _judge(server, at_once=3)
    assert judge.images_at_once == 3
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda image: judge.answer(IMAGE + image, ["a", "b", "c"]), range(4)))
    assert found == [["a", "b", "c"]] * 4
    assert server.most_in_flight == 3


def test_one_failure_stops_the_others(server):
    """Those that wait for a busy server are not waited for."""
    asked = threading.Event()

    def reply(body):
        if _question(body) == "wrong":
            asked.wait(10)
            return 400
        asked.set()
        return 503

    server.reply = reply
    judge = ServedJudge("tiny", ServerSpec(address=server.address, at_once=2), first_pause_s=30)
    with pytest.raises(UsageError, match="it answers 400"):
        judge.answer(IMAGE, ["wrong", "busy"])
    assert server.questions().count("busy") == 1
    # It can be asked again, and questions about another image were none of those.
    server.reply = lambda _: said("fine")
    assert judge.answer(IMAGE, ["a", "b"]) == ["fine", "fine"]


def test_a_failure_of_one_image_is_not_told_as_that_of_another(server):
    """An image that waits for a busy server goes on when another image's questions fail; stopped from outside it does not."""
    waits, failed = threading.Event(), threading.Event()

    def reply(body):
        if _question(body) == "wrong":
            waits.wait(10)
            return 400
        if not waits.is_set():
            waits.set()
            return 503
        failed.wait(10)
        return said("fine")

    server.reply = reply
    judge = ServedJudge("tiny", ServerSpec(address=server.address), first_pause_s=0.2)
    with ThreadPoolExecutor(2) as pool:
        patient = pool.submit(judge.answer, IMAGE, ["busy"])
        hasty = pool.submit(judge.answer, IMAGE + 1, ["wrong", "wrong"])
        with pytest.raises(UsageError, match="it answers 400"):
            hasty.result(10)
        failed.set()
        assert patient.result(10) == ["fine"]
    server.reply = lambda _: 503
    judge = ServedJudge("tiny", ServerSpec(address=server.address), first_pause_s=60)
    with ThreadPoolExecutor(1) as pool:
        n_asked = len(server.requests)
        patient = pool.submit(judge.answer, IMAGE, ["busy"])
        while len(server.requests) == n_asked:
            threading.Event().wait(0.01)
        judge.stop()
        with pytest.raises(BenchError, match="stopped"):
            patient.result(10)


def test_what_was_answered_is_not_asked_again(server, tmp_path):
    judge = _judge(server)
    remembering = RememberingJudge(judge, tmp_path, judge.identity())
    assert remembering.answer(IMAGE, ["a", "b"]) == ["a!", "b!"]
    server.reply = lambda _: 400
    again = RememberingJudge(judge, tmp_path, judge.identity())
    assert again.answer(IMAGE, ["b", "a"]) == ["b!", "a!"]
    assert judge.images_at_once == 8
    other = _judge(server, top_logprobs=5)
    with pytest.raises(UsageError, match="it answers 400"):
        RememberingJudge(other, tmp_path, other.identity()).answer(IMAGE, ["a"])


def test_loading_finds_a_wrong_model(server):
    _judge(server).load()
    server.models = None
    _judge(server).load()  # this server does not tell
    server.models = ["tinny", "huge"]
    with pytest.raises(UsageError, match=r"no such model \(did you mean 'tinny'\?\); it has tinny, huge"):
        _judge(server).load()


def test_the_key_is_sent_and_appears_nowhere_else(server, tmp_path, monkeypatch, caplog, capfd):
    """Not in identity, files, logs, messages or the judge's own words, although this server repeats it in all that it says."""
    monkeypatch.setenv("SANA_BENCH_JUDGE_KEY", KEY)
    caplog.set_level(logging.DEBUG)
    messages = []
    judge = _judge(server)
    remembering = RememberingJudge(judge, tmp_path, judge.identity())
    server.reply = lambda _: said(f"your key is {KEY}")
    assert remembering.answer(IMAGE, ["a"]) == ["your key is ***"]
    for reply in (401, 503, f"no JSON, {KEY}".encode(), said("x", {KEY: 0.5}), said("x", {KEY: -0.5})):
        server.reply = lambda _, reply=reply: reply
        with pytest.raises(BenchError) as caught:
            remembering.probabilities(IMAGE, [str(reply)[:9]], [["Yes"]])
        messages += [
            str(caught.value),
            repr(caught.value),
            str(caught.value.__cause__),
            str(caught.value.__context__),
        ]
    server.models = [KEY]
    with pytest.raises(UsageError) as caught:
        judge.load()
    messages.append(str(caught.value))
    assert set(server.keys) == {f"Bearer {KEY}"}
    written = [path.read_text() for path in tmp_path.rglob("*.json")]
    assert len(written) == 1
    everything = [*messages, *written, str(judge.identity()), repr(judge), caplog.text, *capfd.readouterr()]
    assert all(KEY not in text for text in everything)
    assert any("***" in text for text in messages)


def test_a_key_that_cannot_be_sent_is_refused_without_being_shown(server, monkeypatch):
    monkeypatch.setenv("SANA_BENCH_JUDGE_KEY", "sk-é secret")
    with pytest.raises(UsageError, match="SANA_BENCH_JUDGE_KEY holds a character") as caught:
        _judge(server)
    assert "secret" not in str(caught.value)


def test_without_a_key_none_is_sent(server, monkeypatch):
    monkeypatch.delenv("SANA_BENCH_JUDGE_KEY", raising=False)
    _judge(server).answer(IMAGE, ["a"])
    assert server.keys == [None]


def test_it_steers_a_search_by_its_review(server):
    shares = {
        "Yes": 0.7,
        "yes": 0.1,
        " yes": 0.02,
        " Yes": 0.03,
        "No": 0.1,
        "no": 0.03,
        " no": 0.01,
        " No": 0.01,
    }
    server.reply = lambda _: said("Yes", {token: math.log(share) for token, share in shares.items()})
    spec = JudgeSpec(name="served", weights="tiny", server=ServerSpec(address=server.address))
    judge = judges.build(spec, Path(), "cpu")
    (found,) = judge.judge(["a cat"], IMAGE[None])
    # Logarithms, exponents and a sum of four: ten roundings at most.
    assert (found.yes, found.no) == pytest.approx((math.log(0.85), math.log(0.15)), rel=1e-13)
    assert judge.identity()["server"] == server.address


def test_specs():
    """A judge without a server is told as it always was, so that what it chose is found again."""
    plain = JudgeSpec(name="vision_language", weights="a/b")
    assert plain.model_dump(mode="json") == {"name": "vision_language", "weights": "a/b", "precision": "fp32"}
    served = JudgeSpec(name="served", weights="a/b", server=ServerSpec(address="http://a/v1/"))
    assert served.model_dump(mode="json")["server"] == {
        "address": "http://a/v1", "top_logprobs": 20, "thinking": True, "at_once": 8, "timeout_s": 120,
    }  # fmt: skip
    with pytest.raises(ValueError, match="server belongs to the judge served"):
        JudgeSpec(name="vqa", server=ServerSpec(address="http://a"))
    for spec in (JudgeSpec(name="served"), JudgeSpec(name="served", weights="a/b")):
        with pytest.raises(
            SuiteError, match="served needs weights, the model's name on the server, and server"
        ):
            judges.build(spec, Path(), "cpu")
