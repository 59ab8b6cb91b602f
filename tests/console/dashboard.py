"""Shows the pages that tests/it/console/pages.rs writes in Chromium, as on a dashboard."""

from __future__ import annotations

import os
import shutil
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from playwright.sync_api import sync_playwright

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser

ROOT = Path(__file__).resolve().parents[2]
PAGES = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "tmp" / "console"

# No requests to other hosts. The sandbox does not work as root.
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

# Styles around a widget, roughly as in CloudWatch. A widget switches off CloudWatch's styles of its elements.
STYLE = """
body { margin: 0; padding: 12px; font: 14px/20px Arial, sans-serif; }
.light { background: #f2f3f3; color: #16191f; }
.dark { background: #0f1b2a; color: #d5dbdb; }
h1 { font-size: 18px; line-height: 24px; margin: 0; grid-column: span 24; }
main { display: grid; grid-template-columns: repeat(24, minmax(0, 1fr)); gap: 12px; }
section { border-radius: 8px; overflow: auto; border: 1px solid #8884; }
section > h2 { font-size: 14px; margin: 0; padding: 8px 8px 2px; }
.light section { background: #fff; } .dark section { background: #161d26; }
"""


def tool(variable: str, names: list[str], package: str) -> str:
    """Find a program of the machine by a variable or on the PATH."""
    if found := os.environ.get(variable) or next(filter(None, map(shutil.which, names)), None):
        return found
    sys.exit(f"{names[0]} not found on the PATH: run `apt-get install {package}` or set {variable} to its path.")


@contextmanager
def chromium() -> Iterator[Browser]:
    """Start the browser of the machine."""
    path = tool("CHROMIUM", ["chromium", "chromium-browser", "google-chrome"], "chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        try:
            yield browser
        finally:
            browser.close()


def page(theme: str, widgets: list[tuple[str, int, int, str]], width: int | None = None) -> str:
    """Return a dashboard of widgets: title, columns (of 24), height (0: automatic), HTML of the function."""
    sections = "".join(
        f'<section style="grid-column: span {columns};{f"height:{height}px" if height else ""}">'
        f"<h2>{title}</h2>{html}</section>"
        for title, columns, height, html in widgets
    )
    size = f' style="width:{width}px"' if width else ""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Dashboard</title>'
        f'<style>{STYLE}</style></head><body class="{theme}">'
        f"<main{size}><h1>falcon-posture-sync</h1>{sections}</main></body></html>"
    )
