"""Draw the picture of the HTML report in README.md: the first screen, and charts in the dark theme.

`python tools/draw_report.py build/report.html docs/report.png` after `make`, which writes that report. Needs Chromium.
"""

from __future__ import annotations

import sys
from io import BytesIO
from pathlib import Path

from edgekit.browser.program import require_chromium

# The width at which all columns of the table of artifacts show, and as much of the page as fits a README.
WIDTH, HEIGHT, GAP = 1240, 960, 20
# Sharp on a display of two pixels a point, at a size of a few hundred kilobytes.
SCALE = 1.25
_GRAY = (128, 128, 132)


def draw(report: Path, picture: Path) -> None:
    """Draw a report.

    Args:
        report: The HTML report.
        picture: The PNG file to write.
    """
    from PIL import Image
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=require_chromium(), args=["--no-sandbox"])
        shots = []
        for theme, anchor in (("light", None), ("dark", "#tradeoffs h3:has-text('simple_cnn')")):
            page = browser.new_page(
                viewport={"width": WIDTH, "height": HEIGHT}, device_scale_factor=SCALE, color_scheme=theme
            )
            page.goto(report.resolve().as_uri())
            if anchor is not None:
                page.locator(anchor).first.evaluate("(part) => part.scrollIntoView()")
            shots.append(Image.open(BytesIO(page.screenshot())).convert("RGB"))
        browser.close()
    gap = round(GAP * SCALE)
    whole = Image.new("RGB", (sum(shot.width for shot in shots) + gap, shots[0].height), _GRAY)
    whole.paste(shots[0], (0, 0))
    whole.paste(shots[1], (shots[0].width + gap, 0))
    # 256 colours are all that the report has; the file is a third as large.
    whole.quantize(256).save(picture, optimize=True)


if __name__ == "__main__":
    draw(Path(sys.argv[1]), Path(sys.argv[2]))
