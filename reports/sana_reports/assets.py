"""The templates of pages, and the style sheet and scripts that they carry inside them."""

import base64
import hashlib
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jinja2 import Environment

__all__ = ["asset", "fill", "script", "script_hash"]


def fill(template: str, **values: Any) -> str:
    """The page of a template beside this module; every value is escaped unless it is `Markup`."""
    return _environment().get_template(template).render(**values)


@cache
def _environment() -> "Environment":
    """One for all pages: it keeps the templates that it has compiled, which takes longer than to fill them."""
    # Half of the package's import time, and the command line's terminal table does not need it.
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader("sana_reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def script(name: str) -> str:
    """The script of a page, after what all pages share."""
    return asset("page.js") + asset(name)


def asset(name: str) -> str:
    """The text of a file beside the templates."""
    return files("sana_reports").joinpath("templates", name).read_text(encoding="utf-8")


def script_hash(script: str) -> str:
    """The script's SHA-256 as a content security policy names it."""
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
