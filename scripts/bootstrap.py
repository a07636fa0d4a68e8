"""Create the project's virtual environment: uv from the package index, pinned dependencies, editable project.

Usage: python scripts/bootstrap.py VENV_FOLDER. Standard library only; run it with Python 3.11 or newer.
"""

import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
UV_REQUIREMENT = "uv>=0.5"


def main() -> None:
    if sys.version_info < (3, 11):
        raise SystemExit(f"sana-bench needs Python 3.11 or newer; this is {sys.version.split()[0]}")
    target = Path(sys.argv[1]).resolve()
    # uv lives in a small environment of its own inside the folder, so nothing outside the clone is touched.
    uv_home = target / "uv"
    if not (target / "bin" / "python").exists():
        venv.create(target, with_pip=False, symlinks=True)
    if not (uv_home / "bin" / "uv").exists():
        venv.create(uv_home, with_pip=True, symlinks=True)
        run(
            uv_home / "bin" / "python",
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            UV_REQUIREMENT,
        )
    uv = (uv_home / "bin" / "uv", "pip", "install", "--quiet", "--python", target / "bin" / "python")
    run(*uv, "--requirement", ROOT / "requirements.lock")
    run(*uv, "--no-deps", "--editable", ROOT)


def run(*command: object) -> None:
    words = [str(word) for word in command]
    print("+", " ".join(words), flush=True)
    if subprocess.run(words, check=False).returncode:
        raise SystemExit(f"set-up failed at: {' '.join(words)}")


if __name__ == "__main__":
    main()
