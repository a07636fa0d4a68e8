"""Which of an image's captions a step trains on, by their CLIP scores (SANA, arXiv 2410.10629, section 2.3)."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["DEFAULT_CAPTION", "RULES", "CaptionRule"]

RULES = ("softmax", "power")
#: Name of the caption that came with the image.
DEFAULT_CAPTION = "prompt"
# The published code's lower bound on the temperature of its power law.
_LOWEST_POWER_TEMPERATURE = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptionRule:
    """Probabilities of captions from CLIP scores (100 times the cosine).

    `softmax`, the paper's: exp(score / temperature), normalised. `power`, the published code's: of the captions that reach
    `threshold`, score ** (1 / temperature), normalised; when none does, the best one. An image without scores uses
    its own prompt.
    """

    rule: str = "softmax"
    temperature: float = 0.1
    threshold: float = 25.0

    def __post_init__(self) -> None:
        if self.rule not in RULES:
            raise ValueError(f"caption_rule is {self.rule!r}; allowed: {', '.join(RULES)}")
        if not self.temperature >= 0:
            raise ValueError(f"caption_temperature is {self.temperature}; it must not be negative")

    def probabilities(self, captions: Mapping[str, str], scores: Mapping[str, float]) -> dict[str, float]:
        """Return the probability of each caption type, zero ones left out; raises ValueError for no captions."""
        if not captions:
            raise ValueError("no caption")
        scored = {kind: scores[kind] for kind in captions if kind in scores}
        if not scored:
            return {DEFAULT_CAPTION if DEFAULT_CAPTION in captions else min(captions): 1.0}
        return self._softmax(scored) if self.rule == "softmax" else self._power(scored)

    def choose(self, captions: Mapping[str, str], scores: Mapping[str, float], uniform: float) -> str:
        """Return one caption's text, `uniform` being a number in [0, 1) from the step's generator."""
        probabilities = self.probabilities(captions, scores)
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
