"""Inference-time scaling: a generator that wraps another, makes N candidates a sample and keeps what a judge prefers.

Candidate 0 starts from the sample's own noise, so best-of-1 is the wrapped generator. With `keep` k, samples 0 to k-1 of a prompt
are the k winners of one search, the next k those of the next. Source: SANA-1.5 (arXiv 2501.18427) section 2.4.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from sana_bench import generators, judges
from sana_bench.core.cut_texts import CutTexts
from sana_bench.core.errors import SampleError, SuiteError
from sana_bench.core.fingerprint import fingerprint
from sana_bench.core.registry import GENERATORS
from sana_bench.generators.base import (
    CutsPrompts,
    Generator,
    HasStages,
    OutOfMemoryError,
    PreparesPrompts,
    Request,
    Stage,
    TellsFormat,
)
from sana_bench.generators.best_of_n.files import Cost, Search, load_search, save_search
from sana_bench.generators.best_of_n.tournament import tournament
from sana_bench.generators.noise import candidate_seed
from sana_bench.judges.base import PromptJudge, YesNo
from sana_bench.suites.cells import GeneratorSpec
from sana_bench.suites.schema import BestOfNSpec, Variant
from sana_kernels import resolve_backend

if TYPE_CHECKING:
    import numpy as np

__all__ = ["BestOfN", "build_best_of_n", "find_wrapped", "judge_identity", "wrapped_variant"]

_T = TypeVar("_T")
# Keys of a variant that change no candidate; rewritten texts are part of each request.
_NOT_OF_THE_SEARCH = {"name", "description", "kind", "derived_from", "prompt_rewrites"}
# Keys that variants did not have when searches were first kept.
_SINCE = ("tf32", "compile", "cuda_graphs")
# A candidate that could not be made loses to every other: it says no, as surely as possible.
_LOST = YesNo(-float("inf"), float("inf"))


@dataclass
class _Job:
    """One search in this call: which noise it starts from, and the candidates' images as far as they are in memory."""

    prompt: str
    seed: int
    folder: Path | None
    search: Search
    images: "dict[int, np.ndarray]" = field(default_factory=dict)
    prompt_id: str = ""
    original: str | None = None

    def request(self, number: int) -> Request:
        """What the wrapped generator is asked for as a candidate."""
        return Request(self.prompt, candidate_seed(self.seed, number), number, self.prompt_id, self.original)


class BestOfN:
    """See `sana_bench.generators.Generator`."""

    def __init__(
        self,
        inner: Generator,
        judge: PromptJudge,
        spec: BestOfNSpec,
        *,
        identity: str = "",
        folder: Path | None = None,
    ) -> None:
        """`identity` tells this variant's searches from others' in `folder`; None remembers nothing on disk."""
        self._inner, self._judge, self._spec = inner, judge, spec
        self._identity, self._folder = identity, folder
        self._recent: dict[tuple[str, int], Search] = {}
        self._flops_per_image: float | None = None
        self._judge_flops: float | None = None

    @property
    def inner(self) -> Generator:
        """The wrapped generator."""
        return self._inner

    def cost(self, request: Request) -> dict[str, float] | None:
        """What the search behind a request of the last call cost, told with its first winner only.

        That of an interrupted search counts from its beginning.
        """
        if request.index % self._spec.keep:
            return None
        search = self._recent.get((request.prompt, request.noise_seed))
        return asdict(search.cost) if search is not None else None

    def source_format(self, request: Request) -> str | None:
        """What the wrapped generator says of the winner's file."""
        search = self._recent.get((request.prompt, request.noise_seed))
        if search is None or not isinstance(self._inner, TellsFormat):
            return None
        job = _job(request, None, search)
        return self._inner.source_format(job.request(search.winners[request.index % self._spec.keep]))

    def prepare(self, prompt: str) -> None:
        """Let the wrapped generator encode a prompt."""
        if isinstance(self._inner, PreparesPrompts):
            self._inner.prepare(prompt)

    def stages(self) -> tuple[Stage, ...]:
        """The parts of the wrapped generator, for all candidates, and the judging of them."""
        inner = self._inner.stages() if isinstance(self._inner, HasStages) else ()
        return (*inner, Stage("judging", self._judge, "judge"))

    def forget(self) -> None:
        """Drop the searches of the last call and what the wrapped generator kept, so that the next image pays for its search."""
        self._recent = {}
        if isinstance(self._inner, HasStages):
            self._inner.forget()

    def cut_texts(self, prompts: Sequence[str]) -> list[CutTexts]:
        """What the wrapped generator says."""
        return self._inner.cut_texts(prompts) if isinstance(self._inner, CutsPrompts) else []

    def generate(self, requests: list[Request]) -> "np.ndarray":
        """Return the winners' uint8 images, in order.

        Searches of several requests share batches when their candidates fit. Raises `SampleError` when no candidate of a request
        could be made.
        """
        import numpy as np

        jobs: dict[tuple[str, int], _Job] = {}
        for request in requests:
            key = (request.prompt, request.noise_seed)
            if key not in jobs:
                folder = self._search_folder(request)
                known = self._recent.get(key) or (load_search(folder) if folder is not None else Search())
                jobs[key] = _job(request, folder, known)
        self._complete([job for job in jobs.values() if not job.search.winners])
        self._recent = {key: job.search for key, job in jobs.items()}
        images = []
        for request in requests:
            search = jobs[(request.prompt, request.noise_seed)].search
            rank = request.index % self._spec.keep
            if search.answers[search.winners[rank]] is None:
                raise SampleError(f"none of {self._spec.candidates} candidates could be made")
            images.append(search.images[rank])
        return np.stack(images)

    def _complete(self, jobs: list[_Job]) -> None:
        size, count = self._spec.batch_size, self._spec.candidates
        per_batch = max(1, size // count)
        for first in range(0, len(jobs), per_batch):
            group = jobs[first : first + per_batch]
            for job in group:
                # Batches start at fixed candidates, so that a resumed search makes what the whole one would have made.
                job.search.answers = job.search.answers[: len(job.search.answers) // size * size]
            start = min(len(job.search.answers) for job in group)
            for candidate in range(start, count, size):
                self._round(group, range(candidate, min(candidate + size, count)))
            for job in group:
                self._finish(job)

    def _round(self, group: list[_Job], numbers: range) -> None:
        import numpy as np

        pairs = [(job, number) for job in group for number in numbers]
        began = time.perf_counter()
        images = self._make(pairs)
        made = time.perf_counter()
        present = [index for index, image in enumerate(images) if image is not None]
        answers: list[YesNo | None] = [None] * len(pairs)
        if present:
            stacked = np.stack([image for image in images if image is not None])
            verdicts = self._judged([pairs[index][0].request(0).judged_prompt for index in present], stacked)
            for index, verdict in zip(present, verdicts, strict=True):
                answers[index] = verdict
        judged = time.perf_counter()
        for (job, number), image, answer in zip(pairs, images, answers, strict=True):
            job.search.answers.append(answer)
            if image is not None:
                job.images[number] = image
        share = len(numbers) / len(pairs)
        per_image = (self._flops_per_image or 0.0, self._judge_flops or 0.0)
        for job in group:
            flops = (one * len(numbers) for one in per_image)
            job.search.cost.add(Cost(len(numbers), share * (made - began), share * (judged - made), *flops))
            self._drop_losers(job)
            if job.folder is not None:
                save_search(job.folder, job.search)

    def _make(self, pairs: list[tuple[_Job, int]]) -> "list[np.ndarray | None]":
        """Return each candidate's image; None for one that cannot be made even alone."""
        requests = [job.request(number) for job, number in pairs]
        try:
            return list(self._counted(requests))
        except OutOfMemoryError:
            if len(pairs) == 1:
                raise
        except SampleError:
            if len(pairs) == 1:
                return [None]
        half = len(pairs) // 2
        return self._make(pairs[:half]) + self._make(pairs[half:])

    def _counted(self, requests: list[Request]) -> "np.ndarray":
        """Generate; the first time with torch counting the FLOPs of all products."""
        import numpy as np

        if self._flops_per_image is not None:
            return np.asarray(self._inner.generate(requests))
        images, flops = _with_flops(lambda: np.asarray(self._inner.generate(requests)))
        self._flops_per_image = flops / len(requests)
        return images

    def _judged(self, prompts: list[str], images: "np.ndarray") -> list[YesNo]:
        """Judge; the first time with torch counting as in generation."""
        if self._judge_flops is not None:
            return self._judge.judge(prompts, images)
        answers, flops = _with_flops(lambda: self._judge.judge(prompts, images))
        self._judge_flops = flops / len(prompts)
        return answers

    def _drop_losers(self, job: _Job) -> None:
        """Forget images that cannot win any more: those that lost inside their finished part of the bracket."""
        part = self._spec.candidates // self._spec.keep
        answers = [answer or _LOST for answer in job.search.answers]
        size = 1
        while size * 2 <= min(part, len(answers)):
            size *= 2
        whole = len(answers) // size * size
        alive = {first + tournament(answers[first : first + size], 1)[0] for first in range(0, whole, size)}
        job.images = {
            number: image for number, image in job.images.items() if number in alive or number >= whole
        }

    def _finish(self, job: _Job) -> None:
        import numpy as np

        winners = tournament([answer or _LOST for answer in job.search.answers], self._spec.keep)
        size = self._spec.batch_size
        for number in winners:
            if number not in job.images and job.search.answers[number] is not None:
                # Judged before an interruption: its batch is made again, as it was.
                first = number // size * size
                numbers = range(first, min(first + size, self._spec.candidates))
                made = self._make([(job, other) for other in numbers])
                job.images.update(
                    {other: image for other, image in zip(numbers, made, strict=True) if image is not None}
                )
        lacking = [number for number in winners if number not in job.images]
        blank = np.zeros((1, 1, 3), np.uint8)
        job.search.winners = winners
        # A winner without an image means that no candidate had one; `generate` refuses it.
        job.search.images = [blank if number in lacking else job.images[number] for number in winners]
        job.images = {}
        if job.folder is not None and not lacking:
            save_search(job.folder, job.search)

    def _search_folder(self, request: Request) -> Path | None:
        if self._folder is None:
            return None
        # The original only where there is one: other searches keep the folder that they had.
        original = [] if request.original is None else [request.original]
        name = fingerprint([self._identity, request.prompt, request.noise_seed, *original])
        return self._folder / self._identity[:16] / name[:2] / name


def _job(request: Request, folder: Path | None, search: Search) -> _Job:
    return _Job(
        request.prompt, request.noise_seed, folder, search, prompt_id=request.prompt_id, original=request.original
    )  # fmt: skip


def _with_flops(work: Callable[[], _T]) -> tuple[_T, int]:
    """Do some work with torch counting the FLOPs of its products."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        result = work()
    return result, counter.get_total_flops()


def wrapped_variant(variant: Variant) -> Variant:
    """Return the variant that a best-of-N variant draws its candidates from; raises `SuiteError` for none."""
    spec = _spec(variant)
    if spec.generator == variant.generator:
        raise SuiteError(f"variant {variant.name!r}: best_of_n cannot wrap itself")
    return variant.model_copy(update={"generator": spec.generator, "best_of_n": None})


def find_wrapped(variant: Variant, relative_to: Path) -> Path | None:
    """Return the weights of the wrapped generator; raises as its own finder does."""
    return generators.find(wrapped_variant(variant), relative_to)


def judge_identity(variant: Variant, relative_to: Path) -> dict[str, object]:
    """Return what changes a variant's images beside the wrapped generator: the search's settings and the judge's identity.

    Raises `SuiteError` for an unknown judge and `AssetError` for missing weights.
    """
    spec = _spec(variant)
    judge = judges.build(spec.judge, relative_to, "cpu")
    # The batch size changes last bits only, as it does for every generator.
    settings = {"candidates": spec.candidates, "keep": spec.keep}
    return {
        **settings,
        "wrapped": GENERATORS.entry(spec.generator).revision,
        "judge": judges.identity(spec.judge, judge),
    }


def build_best_of_n(spec: GeneratorSpec, device: str) -> Generator:
    """Load the wrapped generator and the judge."""
    settings = _spec(spec.variant)
    inner = replace(spec, variant=wrapped_variant(spec.variant))
    judge = judges.build(settings.judge, spec.variants_dir or Path(), device)
    judge.load()
    parts = inner.variant.model_dump(mode="json", exclude=_NOT_OF_THE_SEARCH)
    parts["kernels"] = resolve_backend(inner.variant.kernels, device)
    parts["precision"] = inner.variant.plain_precision
    # Only where they are set: other variants keep the searches that they had.
    for key in _SINCE:
        if parts[key] == Variant.model_fields[key].default:
            del parts[key]
    identity = fingerprint(
        [
            parts,
            spec.weights_sha256,
            settings.model_dump(mode="json"),
            judges.identity(settings.judge, judge),
            GENERATORS.entry(settings.generator).revision,
        ]
    )
    return BestOfN(
        generators.build(inner, device), judge, settings, identity=identity, folder=spec.search_cache
    )


def _spec(variant: Variant) -> BestOfNSpec:
    if variant.best_of_n is None:
        raise SuiteError(f"variant {variant.name!r}: generator best_of_n needs the section best_of_n")
    return variant.best_of_n
