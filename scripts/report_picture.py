"""The picture of a report that the README shows: the first screen of the demo's report.

Usage: sana-bench run demo && python scripts/report_picture.py   takes the newest report of the demo in results/
       python scripts/report_picture.py REPORT.html              takes this one
"""

import argparse
import io
import shutil
import sys
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
# What a reader sees first; wide enough for the page's full layout, sharp on a screen of 1.5 pixels a point.
WIDTH, HEIGHT, SCALE = 1240, 1010, 1.5


def take(report: Path) -> Image.Image:
    """The top of a report in the light scheme; needs `chromium` on the PATH and playwright (extra `test`)."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(
            viewport={"width": WIDTH, "height": HEIGHT}, device_scale_factor=SCALE, color_scheme="light"
        )
        page.goto(report.resolve().as_uri())
        content = page.screenshot()
        browser.close()
    return Image.open(io.BytesIO(content)).convert("RGB")


def write(picture: Image.Image, path: Path) -> None:
    """Write as a small PNG: a page of text and flat colours needs few of them."""
    picture.quantize(96, dither=Image.Dither.NONE).save(path, optimize=True)


def newest_report(results: Path) -> Path:
    """The report of the demo that was written last; raises `FileNotFoundError` without one."""
    found = sorted(results.glob("runs/demo-*/report/report.html"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise FileNotFoundError(f"{results}: no report of the demo; sana-bench run demo makes one")
    return found[-1]


def main() -> int:
    """Run the command line; return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("report", type=Path, nargs="?", metavar="REPORT.html")
    parser.add_argument("--to", type=Path, default=ROOT / "docs" / "report.png", metavar="FILE.png")
    arguments = parser.parse_args()
    write(take(arguments.report or newest_report(Path("results"))), arguments.to)
    print(f"picture: {arguments.to}, {arguments.to.stat().st_size:,} bytes")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except OSError as error:
        sys.exit(f"report_picture: {error}")
