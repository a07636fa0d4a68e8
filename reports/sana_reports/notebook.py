"""Results as notebooks show them."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from markupsafe import escape

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["section"]


def section(lines: Iterable[str], table: "pd.DataFrame") -> str:
    """HTML of lines above a table; all text is escaped."""
    told = "".join(f"<div>{escape(line)}</div>" for line in lines if line)
    return told + table.to_html(index=False, na_rep="", float_format="{:.4g}".format)
