"""The tests, folder by folder as the packages; paths that they share."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
#: Official prompts and cases that lie beside the repository where there are any.
SHARED = ROOT.parent / "shared"
