"""The style sheet and the scripts that pages carry inside them."""

import base64
import hashlib
from importlib.resources import files

__all__ = ["asset", "script", "script_hash"]


def script(name: str) -> str:
    """The script of a page, after what all pages share."""
    return asset("page.js") + asset(name)


def asset(name: str) -> str:
    """The text of a file beside the templates."""
    return files("sana_reports").joinpath("templates", name).read_text(encoding="utf-8")


def script_hash(script: str) -> str:
    """The script's SHA-256 as a content security policy names it."""
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
