"""Which of an image's captions a step trains on, by their CLIP scores (SANA, arXiv 2410.10629, section 2.3)."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

__all__ = ["DEFAULT_CAPTION", "RULES", "CaptionRule"]

RULES = ("softmax", "power")
#: Name of the caption that came with the image.
DEFAULT_CAPTION = "prompt"
# The published code's lower bound on the temperature of its power law.
_LOWEST_POWER_TEMPERATURE = 0.01
_NONE: Mapping[str, float] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptionRule:
    """Probabilities of captions from CLIP scores (100 times the cosine).

    `softmax`, the paper's: exp(score / temperature), normalised. `power`, the published code's: of the captions that reach
    `threshold`, score ** (1 / temperature), normalised; when none does, the best one. An image without scores uses
    its own prompt, or its captions by their weights where some have one. `weights` by caption type go before an image's own;
    a type without weighs 1, one of 0 is never drawn, and where there are scores weights multiply their probabilities.
    """

    rule: str = "softmax"
    temperature: float = 0.1
    threshold: float = 25.0
    weights: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.rule not in RULES:
            raise ValueError(f"caption_rule is {self.rule!r}; allowed: {', '.join(RULES)}")
        if not self.temperature >= 0:
            raise ValueError(f"caption_temperature is {self.temperature}; it must not be negative")

    def probabilities(
        self, captions: Mapping[str, str], scores: Mapping[str, float], weights: Mapping[str, float] = _NONE
    ) -> dict[str, float]:
        """Return the probability of each caption type, zero ones left out; raises ValueError for no captions."""
        if not captions:
            raise ValueError("no caption")
        own = {kind: self.weights.get(kind, weights.get(kind, 1.0)) for kind in captions}
        used = [kind for kind, weight in own.items() if weight > 0]
        if not used:
            raise ValueError("the weights of its captions are all 0")
        scored = {kind: scores[kind] for kind in used if kind in scores}
        if scored:
            found = self._softmax(scored) if self.rule == "softmax" else self._power(scored)
        elif any(kind in weights or kind in self.weights for kind in used):
            found = dict.fromkeys(used, 1.0)
        else:
            found = {DEFAULT_CAPTION if DEFAULT_CAPTION in used else min(used): 1.0}
        return _normalised({kind: value * own[kind] for kind, value in found.items()})

    def choose(
        self,
        captions: Mapping[str, str],
        scores: Mapping[str, float],
        uniform: float,
        weights: Mapping[str, float] = _NONE,
    ) -> str:
        """Return one caption's text, `uniform` being a number in [0, 1) from the step's generator."""
        probabilities = self.probabilities(captions, scores, weights)
        kinds = sorted(probabilities)
        below = 0.0
        for kind in kinds:
            below += probabilities[kind]
            if uniform < below:
                return captions[kind]
        # The sum may round to just under 1.
        return captions[kinds[-1]]

    def _softmax(self, scores: Mapping[str, float]) -> dict[str, float]:
        best = max(scores.values())
        if self.temperature == 0:
            return _normalised({kind: float(score == best) for kind, score in scores.items()})
        return _normalised(
            {kind: math.exp((score - best) / self.temperature) for kind, score in scores.items()}
        )

    def _power(self, scores: Mapping[str, float]) -> dict[str, float]:
        passing = {kind: score for kind, score in scores.items() if score >= self.threshold and score > 0}
        best = max(scores.values())
        if not passing:
            return {min(kind for kind, score in scores.items() if score == best): 1.0}
        exponent = 1 / max(self.temperature, _LOWEST_POWER_TEMPERATURE)
        return _normalised({kind: (score / best) ** exponent for kind, score in passing.items()})


def _normalised(weights: Mapping[str, float]) -> dict[str, float]:
    total = sum(weights.values())
    return {kind: weight / total for kind, weight in weights.items() if weight > 0}
