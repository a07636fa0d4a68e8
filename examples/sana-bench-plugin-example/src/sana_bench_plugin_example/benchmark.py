"""A benchmark: three prompts."""

from sana_bench import Prompt


class Greys:
    """The prompts black, grey and white."""

    name = "greys"
    default_images_per_prompt = 2
    metric_names = ("brightness",)

    def prompts(self, tier: str) -> list[Prompt]:
        """Return the whole prompt set; the same in every tier."""
        return [
            Prompt(f"{line:05d}", f"a picture all {name}", "greys")
            for line, name in enumerate(("black", "grey", "white"))
        ]
