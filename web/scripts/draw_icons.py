"""Draws the icons of the installed app from the flame: `python web/scripts/draw_icons.py`, with Playwright's Chromium.

An ordinary icon has round corners of its own. A maskable one fills its square, since each system cuts its own shape out
of it, of which a circle of 80 % is sure to stay (https://www.w3.org/TR/appmanifest/#icon-masks).
"""

import re
import shutil
from pathlib import Path

from playwright.sync_api import sync_playwright

ASSETS = Path(__file__).parents[1] / "public" / "assets"
# name: pixels, share of the square that the flame takes, radius of the corners as a share of it
ICONS = {
    "icon192": (192, 0.62, 0.22),
    "icon512": (512, 0.62, 0.22),
    "maskable512": (512, 0.5, 0),
    "touch180": (180, 0.62, 0),
}


def main() -> None:
    path = re.search(r' d="([^"]+)"', (ASSETS / "flame.svg").read_text(encoding="utf-8"))
    assert path
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for name, (size, share, radius) in ICONS.items():
            page = browser.new_page(viewport={"width": size, "height": size})
            flame = size * share
            page.set_content(
                f'<body style="margin:0"><svg width="{size}" height="{size}" style="display:block">'
                f'<rect width="100%" height="100%" rx="{size * radius}" fill="#fbeadd"/>'
                f'<svg x="{(size - flame) / 2}" y="{(size - flame) / 2}" width="{flame}" height="{flame}"'
                f' viewBox="0 0 24 24"><path fill="#d0622f" d="{path[1]}"/></svg></svg>'
            )
            page.screenshot(path=ASSETS / f"{name}.png", omit_background=True)
        browser.close()


if __name__ == "__main__":
    main()
