"""An OpenAI-compatible server: a question a request, asked again while the server is busy, with a key that nothing else holds."""

from collections.abc import Callable, Mapping
from functools import cached_property
from http import HTTPStatus
from threading import BoundedSemaphore, Event
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from sana_bench.assets.locate import JUDGE_KEY, judge_key
from sana_bench.core.errors import BenchError, UsageError
from sana_bench.suites.judge_spec import ServerSpec
from sana_models.files import parse_json

if TYPE_CHECKING:
    import httpx

__all__ = ["TRIES", "ChatServer"]

_Found = TypeVar("_Found")

# Answers that another try can change.
_BUSY = frozenset(
    {
        HTTPStatus.REQUEST_TIMEOUT,
        HTTPStatus.TOO_MANY_REQUESTS,
        HTTPStatus.INTERNAL_SERVER_ERROR,
        HTTPStatus.BAD_GATEWAY,
        HTTPStatus.SERVICE_UNAVAILABLE,
        HTTPStatus.GATEWAY_TIMEOUT,
    }
)
_UNSUPPORTED = frozenset({HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED, HTTPStatus.NOT_IMPLEMENTED})
#: How often a server in trouble is asked.
TRIES = 6
_LONGEST_PAUSE_S = 60.0
# Characters of a server's own words in a message.
_SHOWN = 200
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


class ChatServer:
    """What lies behind the address of a `ServerSpec`. May be asked from several threads.

    A server that is busy, breaks off or answers what cannot be read is asked again, after pauses that double or that it asks for.
    The key of the environment is sent with each request, and struck out of everything that comes back.
    """

    def __init__(self, spec: ServerSpec, label: str, first_pause_s: float) -> None:
        """`label` begins every message. Raises `UsageError` for a key that cannot be one."""
        self._spec, self._label, self._first_pause_s = spec, label, first_pause_s
        self._key = judge_key()
        self._in_flight = BoundedSemaphore(spec.at_once)

    def models(self, tries: int) -> list[str]:
        """The models that it says it has; empty where it does not say. Raises as `complete`."""

        def read(found: Any) -> list[str]:
            return [str(one["id"]) for one in found["data"]]

        return self._ask("GET", "models", None, read, Event(), [], tries)

    def complete(
        self, body: Mapping[str, Any], read: Callable[[dict[str, Any]], _Found], stopped: Event
    ) -> _Found:
        """What `read` makes of the choice that the server makes for a chat.

        `read` raises ValueError, KeyError, TypeError or IndexError for one that is not as it should be. Once `stopped` is set,
        nothing is asked again.

        Raises:
            UsageError: the server refuses the request or the key.
            BenchError: it is out of reach, or busy or not to be understood however often it is asked.
        """
        return self._ask(
            "POST", "chat/completions", body, lambda found: read(found["choices"][0]), stopped, None
        )

    def _ask(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None,
        read: Callable[[Any], _Found],
        stopped: Event,
        unsupported: _Found | None,
        tries: int = TRIES,
    ) -> _Found:
        """`unsupported` is the answer of a server that does not know the path; None where it must."""
        import httpx

        pause, problem = self._first_pause_s, ""
        for left in reversed(range(tries)):
            wait = pause
            try:
                with self._in_flight:
                    answer = self._client.request(method, path, json=body)
                if answer.status_code == HTTPStatus.OK:
                    return read(parse_json(self._without_key(answer.text)))
                if unsupported is not None and answer.status_code in _UNSUPPORTED:
                    return unsupported
                problem = f"it answers {answer.status_code}, {self._words(answer)}"
                if answer.status_code not in _BUSY:
                    raise UsageError(f"{self._label}: {problem}{_hint(answer.status_code)}")
                wait = max(wait, _asked_pause(answer))
            except httpx.TransportError as error:
                problem = self._without_key(f"{type(error).__name__}: {error}".rstrip(": "))
            except (ValueError, KeyError, TypeError, IndexError) as error:
                problem = f"its answer cannot be read ({type(error).__name__}: {self._without_key(str(error))[:_SHOWN]})"
            if left and stopped.wait(min(wait, _LONGEST_PAUSE_S)):
                raise BenchError(f"{self._label}: stopped")
            pause *= 2
        asked = (
            ""
            if tries == 1
            else f"; asked {tries} times. What is answered is kept, run the same command again to continue"
        )
        raise BenchError(f"{self._label}: {problem}{asked}")

    @cached_property
    def _client(self) -> "httpx.Client":
        import httpx

        return httpx.Client(
            base_url=self._spec.address,
            timeout=self._spec.timeout_s,
            headers={"Authorization": f"Bearer {self._key}"} if self._key else {},
            limits=httpx.Limits(max_connections=self._spec.at_once),
            # A proxy, or a password of ~/.netrc, is for servers elsewhere.
            trust_env=urlsplit(self._spec.address).hostname not in _LOOPBACK,
        )

    def _words(self, answer: "httpx.Response") -> str:
        """What a server says beside a status, in one line."""
        words = " ".join(self._without_key(answer.text).split())
        return words[:_SHOWN] or answer.reason_phrase

    def _without_key(self, text: str) -> str:
        if not self._key:
            return text
        return text.replace(self._key, "***").replace(self._key.replace("/", "\\/"), "***")


def _hint(status: int) -> str:
    refused = status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)
    return f"; its key is read from the environment, {JUDGE_KEY}" if refused else ""


def _asked_pause(answer: "httpx.Response") -> float:
    """The seconds that a server asks to wait."""
    asked = answer.headers.get("Retry-After", "")
    return float(asked) if asked.isdecimal() else 0.0
