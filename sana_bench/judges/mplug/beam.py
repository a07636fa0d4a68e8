"""mPLUG's beam search over answers, rule by rule, for any function that gives next-token logits."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Hypothesis", "beam_search"]

# GNMT's length normalisation as modelscope sets it.
_ALPHA = 0.6
_FORBIDDEN = -1e20


@dataclass(frozen=True)
class Hypothesis:
    """Token ids with the start token, and the length-normalised log-probability."""

    tokens: tuple[int, ...]
    score: float


def beam_search(
    next_logits: Callable[[Tensor, Tensor], Tensor],
    n: int,
    *,
    start: int,
    end: int,
    beam_size: int,
    min_length: int,
    max_length: int,
    device: torch.device | str = "cpu",
) -> list[list[Hypothesis]]:
    """Search the answers of `n` questions at once; best first, at most `beam_size` each.

    A question is done when its best beam ends, or after `max_length` tokens; then all of its beams are kept,
    ended or not. An ended beam that is not the best is kept and searched on.

    Args:
        next_logits: maps ids (m, beams, length) and the places (m,) of the m questions not yet done to the
            logits (m, beams, vocabulary) of the next token.
        start, end: token ids; `end` cannot come among the first `min_length` tokens.
    """
    done: list[list[Hypothesis]] = [[] for _ in range(n)]
    places = torch.arange(n, device=device)
    ids = torch.full((n, beam_size, 1), start, device=device)
    # Only the first beam is real at the beginning: the others are copies of it.
    totals = torch.tensor([0.0] + [-torch.inf] * (beam_size - 1), device=device).repeat(n, 1)
    for step in range(max_length):
        probabilities = torch.softmax(next_logits(ids, places), dim=-1)
        # Not log_softmax: that rounds otherwise, and equal ranks need equal numbers.
        logs = torch.log(probabilities)
        if step < min_length:
            logs[..., end] = _FORBIDDEN
        penalty = ((5.0 + (step + 1)) / 6.0) ** _ALPHA
        scores = (logs + totals[..., None]).flatten(1) / penalty
        best, chosen = scores.topk(beam_size, dim=-1)
        totals = best * penalty
        parents, tokens = chosen // logs.shape[-1], chosen % logs.shape[-1]
        ids = torch.cat([ids.gather(1, parents[..., None].expand_as(ids)), tokens[..., None]], dim=-1)
        ended = torch.ones_like(tokens, dtype=torch.bool) if step + 1 == max_length else tokens == end
        stops = ended[:, 0]
        _keep(done, places, ids, best, ended | stops[:, None])
        if bool(stops.all()):
            break
        places, ids, totals = places[~stops], ids[~stops], totals[~stops]
    return [sorted(found, key=lambda h: h.score, reverse=True)[:beam_size] for found in done]


def _keep(done: list[list[Hypothesis]], places: Tensor, ids: Tensor, scores: Tensor, which: Tensor) -> None:
    for row, beam in which.nonzero().tolist():
        found = Hypothesis(tuple(ids[row, beam].tolist()), float(scores[row, beam]))
        done[int(places[row])].append(found)
