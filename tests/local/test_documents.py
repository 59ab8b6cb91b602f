"""The documents: links, targets of make, and sections that must exist."""

from __future__ import annotations

import os
import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

REPOSITORY = Path(__file__).resolve().parents[2]

MAX_README_LINES = 190

FENCE = re.compile(r"^ {0,3}(`{3,}|~{3,})")
HEADING = re.compile(r"^ {0,3}#{1,6}\s+(.*?)\s*#*$")
CODE_SPAN = re.compile(r"(`+)(.+?)\1")
# `[text](target)`, `![alt](target "title")`, `[name]: target`, and the attributes of HTML.
LINKS = [
    re.compile(r"\]\(\s*<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\s*\)"),
    re.compile(r"^ {0,3}\[[^\]]+\]:\s*<?([^\s>]+)>?"),
    re.compile(r"\b(?:href|src|srcset)=\"([^\"]+)\""),
]
SCHEME = re.compile(r"^[a-z][a-z0-9+.-]*:")
# The schemes of links to other sites.
EXTERNAL = re.compile(r"^(?:https|mailto):")
# A link to this project on a site that hosts it: it would show another version than the one that is read.
HOSTED = re.compile(r"^https?://[^/]*git[^/]*/[^/]+/falcon-posture-sync(?:[/#.]|$)")
MAKE = re.compile(r"(?:^|[\s(;&|`])make ((?:[A-Z_]+=\S+ )*[a-z][a-z-]*)")


def documents() -> list[Path]:
    """Return the Markdown files of the project, without those that are built or installed."""
    found = []
    for folder, folders, files in os.walk(REPOSITORY):
        folders[:] = [name for name in folders if name != "target" and not name.startswith(".")]
        found += [Path(folder) / name for name in files if name.endswith(".md")]
    return sorted(found)


def name_of(document: Path) -> str:
    """Return the path of a document in the project."""
    return str(document.relative_to(REPOSITORY))


def lines(document: Path) -> Iterator[tuple[bool, str]]:
    """Yield each line of a document, and whether it belongs to a block of code."""
    fence = ""
    for line in document.read_text().splitlines():
        mark = FENCE.match(line)
        if fence:
            yield True, line
            if mark and mark[1].startswith(fence) and not line.strip().strip(fence[0]):
                fence = ""
        elif mark:
            fence = mark[1]
            yield True, line
        else:
            yield False, line


def links(document: Path) -> list[str]:
    """Return the targets of the links of a document."""
    prose = [CODE_SPAN.sub("code", line) for code, line in lines(document) if not code]
    return [target for line in prose for pattern in LINKS for target in pattern.findall(line)]


def slug(heading: str) -> str:
    """Return the anchor that GitHub gives a heading: letters, digits, `_` and `-` in lower case, spaces as `-`."""
    text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", heading)
    text = re.sub(r"[^\w\- ]", "", text.replace("*", "").lower())
    return text.strip().replace(" ", "-")


@cache
def anchors(document: Path) -> frozenset[str]:
    """Return the anchors of a document. Of headings with the same text, the later ones get a number."""
    found: dict[str, int] = {}
    for code, line in lines(document):
        if not code and (heading := HEADING.match(line)):
            anchor = slug(heading[1])
            found[anchor] = found.get(anchor, -1) + 1
            if found[anchor]:
                found[f"{anchor}-{found[anchor]}"] = 0
    return frozenset(found)


def problem_of_file(document: Path, target: str) -> str:
    """Return what is wrong with a relative link of a document; empty, if nothing is."""
    path, _, anchor = target.partition("#")
    file = (document.parent / unquote(path)).resolve() if path else document
    if not file.is_relative_to(REPOSITORY):
        return "leaves the project"
    if not file.exists():
        return "names a file that does not exist"
    if anchor and (file.suffix != ".md" or anchor not in anchors(file)):
        return "names a heading that does not exist"
    return ""


def problem(document: Path, target: str) -> str:
    """Return what is wrong with a link of a document; empty, if nothing is."""
    if HOSTED.match(target) or target.startswith(("/", "file:")):
        return "is an absolute link into the project"
    if EXTERNAL.match(target):
        return ""
    if SCHEME.match(target):
        return "has a scheme that is not accepted"
    return problem_of_file(document, target)


def commands(document: Path) -> set[str]:
    """Return the targets of make that the code of a document names."""
    code = [
        line if block else "\n".join(span for _, span in CODE_SPAN.findall(line)) for block, line in lines(document)
    ]
    return {match.split()[-1] for text in code for match in MAKE.findall(text)}


def make_targets() -> set[str]:
    """Return the targets of the Makefile."""
    rules = re.findall(r"^([a-z][a-z -]*):(?!=)", (REPOSITORY / "Makefile").read_text(), re.MULTILINE)
    return {target for rule in rules for target in rule.split()}


@pytest.mark.parametrize("document", documents(), ids=name_of)
def test_every_link_leads_somewhere(document: Path) -> None:
    assert [f"{target} {wrong}" for target in links(document) if (wrong := problem(document, target))] == []


@pytest.mark.parametrize("document", documents(), ids=name_of)
def test_every_make_target_exists(document: Path) -> None:
    assert commands(document) - make_targets() == set()


def test_every_payload_file_has_a_section() -> None:
    sections = anchors(REPOSITORY / "events/README.md")
    payloads = {file.name for file in (REPOSITORY / "events").glob("*.json")}
    assert payloads
    assert {name for name in payloads if slug(f"`{name}`") not in sections} == set()


def test_every_command_of_make_is_documented() -> None:
    text = (REPOSITORY / "Makefile").read_text()
    listed = set(re.findall(r"^([a-z][a-z-]*):.*## ", text, re.MULTILINE)) - {"help"}
    assert listed
    assert listed - {command for document in documents() for command in commands(document)} == set()


def test_the_readme_is_short() -> None:
    assert len((REPOSITORY / "README.md").read_text().splitlines()) <= MAX_README_LINES


def test_the_measurements_start_with_the_head_that_the_bench_writes() -> None:
    bench = REPOSITORY / "tests/bench"
    head = (bench / "src/readme_head.md").read_text()
    assert (bench / "README.md").read_text().startswith(f"{head}\n## ")


def test_anchors_are_those_of_github(tmp_path: Path) -> None:
    document = tmp_path / "document.md"
    document.write_text(
        "# What's `a_b.json`?\n## Step 1: [Falcon](x.md)\n```\n# no heading\n```\n## A  B\n## Twice\n### Twice\n"
        "## Über uns ##\n## 10 % changed\n"
    )
    assert anchors(document) == {
        "whats-a_bjson",
        "step-1-falcon",
        "a--b",
        "twice",
        "twice-1",
        "über-uns",
        "10--changed",
    }


@pytest.mark.parametrize(
    ("target", "wrong"),
    [
        ("https://example.com/falcon-posture-sync", ""),
        ("tests/README.md", ""),
        ("README.md#how-it-works", ""),
        ("#how-it-works", ""),
        ("#how-it-work", "heading"),
        ("LICENSE#mit", "heading"),
        ("nowhere.md", "does not exist"),
        ("../elsewhere", "leaves"),
        ("/README.md", "absolute"),
        ("https://github.com/somebody/falcon-posture-sync/blob/main/README.md", "absolute"),
        ("http://example.com", "scheme"),
    ],
)
def test_links_are_judged(target: str, wrong: str) -> None:
    told = problem(REPOSITORY / "README.md", target)
    assert wrong in told
    assert bool(told) == bool(wrong)
