"""A judge that an OpenAI-compatible server answers for, such as vLLM and SGLang.

A server tells tokens by their text, and lists the most probable of them alone. What it does not list is not guessed: where it
could matter, the question has no answer (`_first_tokens`).
"""

import base64
import hashlib
import io
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from threading import Event
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from sana_bench.core.errors import AssetError, BenchError, SuiteError, UsageError, nearest
from sana_bench.core.preprocess import prefetch
from sana_bench.judges.base import FirstToken
from sana_bench.judges.chat_server import TRIES, ChatServer
from sana_bench.suites.judge_spec import JudgeSpec, ServerSpec

__all__ = ["ServedJudge", "build_served"]

_Found = TypeVar("_Found")

# How much what a server does not list may add to the listed probabilities of a question's spellings, as a share of them.
_UNLISTED = 1e-3


class ServedJudge:
    """A `ReadingJudge` behind an address, which is asked nothing before it is loaded or has a question.

    Every question is a request of its own, at temperature 0, with the image in front of the text. Raises `UsageError` for a
    server that refuses the request or the key, and `BenchError` for one that gives no answer however often it is asked.
    """

    def __init__(self, model: str, server: ServerSpec, *, first_pause_s: float = 1.0) -> None:
        """`model` is its name on the server; the pause after the first failed try is in seconds."""
        self._model, self._server = model, server
        self._label = f"judge {model} at {server.address}"
        self._chat = ChatServer(server, self._label, first_pause_s)
        self._being_asked: set[Event] = set()

    @property
    def images_at_once(self) -> int:
        return self._server.at_once

    def stop(self) -> None:
        for stopped in list(self._being_asked):
            stopped.set()

    def load(self) -> None:
        self.reach(TRIES)

    def reach(self, tries: int) -> None:
        """Raises `UsageError` for a server that does not have the model, `AssetError` for one that is away."""
        try:
            models = self._chat.models(tries)
        except UsageError:
            raise
        except BenchError as error:
            raise AssetError(str(error)) from None
        if models and self._model not in models:
            raise UsageError(
                f"{self._label}: the server has no such model{nearest(self._model, models)}; it has {', '.join(models)}"
            )

    def identity(self) -> dict[str, Any]:
        return {
            "judge": "served@1",
            "model": self._model,
            "server": self._server.address,
            "top_logprobs": self._server.top_logprobs,
            "thinking": self._server.thinking,
        }

    def probabilities(
        self, image: NDArray[np.uint8], questions: Sequence[str], spellings: Sequence[Sequence[str]]
    ) -> list[list[FirstToken]]:
        """Also raises `UsageError` for a server that gives no log-probabilities, or lists too few for a question's spellings.

        A token is known by its text: its number is a hash of that, and a spelling has a token of its own.
        """
        more = {"max_tokens": 1, "logprobs": True, "top_logprobs": self._server.top_logprobs}
        found = self._complete(image, questions, more, self._listed)
        return [
            _first_tokens(self._label, listed, group) for listed, group in zip(found, spellings, strict=True)
        ]

    def answer(
        self, image: NDArray[np.uint8], questions: Sequence[str], *, max_tokens: int = 16
    ) -> list[str]:
        return self._complete(image, questions, {"max_tokens": max_tokens}, _text)

    def read_text(self, image: NDArray[np.uint8], request: str, *, max_tokens: int = 1024) -> str:
        return self.answer(image, [request], max_tokens=max_tokens)[0]

    def _complete(
        self,
        image: NDArray[np.uint8],
        questions: Sequence[str],
        more: Mapping[str, Any],
        read: Callable[[dict[str, Any]], _Found],
    ) -> list[_Found]:
        picture = {"type": "image_url", "image_url": {"url": _data_url(image)}}
        silent = {} if self._server.thinking else {"chat_template_kwargs": {"enable_thinking": False}}

        stopped = Event()

        def ask(question: str) -> _Found:
            turn = {"role": "user", "content": [picture, {"type": "text", "text": question}]}
            body = {"model": self._model, "messages": [turn], "temperature": 0, **silent, **more}
            return self._chat.complete(body, read, stopped)

        self._being_asked.add(stopped)
        try:
            if len(questions) == 1:
                return [ask(questions[0])]
            return list(prefetch(ask, questions, self._server.at_once, stopped.set))
        finally:
            self._being_asked.discard(stopped)

    def _listed(self, choice: dict[str, Any]) -> dict[bytes, float]:
        """Probabilities of the most probable next tokens by their text, as a server lists them."""
        if not (choice.get("logprobs") or {}).get("content"):
            raise UsageError(
                f"{self._label}: the server gives no log-probabilities, and this metric needs them"
            )
        listed: dict[bytes, float] = {}
        for entry in choice["logprobs"]["content"][0]["top_logprobs"]:
            raw = entry.get("bytes")
            text = bytes(raw) if raw else str(entry["token"]).encode()
            share = math.exp(float(entry["logprob"]))
            # A softmax in float32 exceeds 1 by its rounding alone.
            if not 0 <= share <= 1 + 1e-6:
                raise ValueError(f"a log-probability of {entry['logprob']}")
            listed.setdefault(text, share)
        return listed


def _first_tokens(label: str, listed: Mapping[bytes, float], spellings: Sequence[str]) -> list[FirstToken]:
    """The tokens that the spellings are.

    A spelling that is not listed is at most as probable as the least of the list, as what the list leaves over, or, where it is
    more than one token, as a listed beginning of it. It counts as 0 where all of them together are below 0.1 % of those listed.

    Raises:
        UsageError: they can be more.
    """
    texts = [spelling.encode() for spelling in spellings]
    rest = min([max(0.0, 1 - math.fsum(listed.values())), *listed.values()])
    bounds = [
        max([rest, *(share for text, share in listed.items() if text and whole.startswith(text))])
        for whole in texts
        if whole not in listed
    ]
    known = math.fsum(listed[text] for text in set(texts) if text in listed)
    if math.fsum(bounds) > _UNLISTED * known:
        lacking = next(
            spelling for spelling, text in zip(spellings, texts, strict=True) if text not in listed
        )
        raise UsageError(
            f"{label}: {lacking!r} is not among the {len(listed)} most probable tokens that the server lists; what is not "
            f"may have up to {math.fsum(bounds):.2g}, what is has {known:.2g}. Set top_logprobs higher (vLLM: --max-logprobs)"
        )
    return [FirstToken(_number(text), listed.get(text, 0.0)) for text in texts]


def _number(text: bytes) -> int:
    return int.from_bytes(hashlib.sha256(text).digest()[:6])


def _text(choice: dict[str, Any]) -> str:
    content = choice["message"]["content"]
    if not isinstance(content, str):
        raise ValueError("no text; a model that thinks aloud needs more tokens, or thinking: false")
    return content.strip()


def _data_url(image: NDArray[np.uint8]) -> str:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG", compress_level=1)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def build_served(spec: JudgeSpec, relative_to: Path, device: str) -> ServedJudge:
    """The judge `served`; raises `SuiteError` without a model's name or a server."""
    if spec.weights is None or spec.server is None:
        raise SuiteError(
            "judge: served needs weights, the model's name on the server, and server, its address"
        )
    if spec.precision != "fp32":
        raise SuiteError("judge: the precision of a served model is its server's; leave precision out")
    return ServedJudge(spec.weights, spec.server)
