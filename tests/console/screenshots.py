"""Takes the pictures of the documentation: a dashboard and a dashboard with problems, in both themes."""

from __future__ import annotations

import io

from dashboard import PAGES, ROOT, chromium, page
from PIL import Image

FOLDER = ROOT / "infra" / "console"

# Widgets by picture: title, columns, height, page.
PICTURES = {
    "dashboard": [
        ("Integrations", 14, 250, "healthy.overview"),
        ("Scores", 10, 250, "healthy.scores"),
        ("Findings", 12, 330, "healthy.findings"),
        ("Latest syncs", 12, 330, "healthy.history"),
        ("Why does a device have its score?", 12, 400, "healthy.explained"),
        ("Newest changes", 12, 400, "healthy.audit"),
    ],
    "trouble": [
        ("Paused", 24, 0, "paused.overview"),
        ("Held", 24, 0, "held.overview"),
        ("Forty integrations", 24, 330, "forty.overview"),
    ],
}

MAX_BYTES = 150_000


def main() -> None:
    """Take all pictures."""
    FOLDER.mkdir(exist_ok=True)
    with chromium() as browser:
        for name, widgets in PICTURES.items():
            for theme in ("light", "dark"):
                tab = browser.new_page(viewport={"width": 1200, "height": 300})
                parts = [
                    (title, columns, height, (PAGES / f"{file}.{theme}.html").read_text())
                    for title, columns, height, file in widgets
                ]
                tab.set_content(page(theme, parts))
                picture = Image.open(io.BytesIO(tab.screenshot(full_page=True))).convert("RGB")
                file = FOLDER / f"{name}-{theme}.png"
                picture.quantize(256, dither=Image.Dither.NONE).save(file, optimize=True)
                print(f"{file.relative_to(ROOT)}: {file.stat().st_size // 1000} kB")
                if file.stat().st_size > MAX_BYTES:
                    raise SystemExit(f"{file} is too large: more than {MAX_BYTES} bytes")
                tab.close()


if __name__ == "__main__":
    main()
