#!/usr/bin/env python3
"""Whether every link in the documentation leads somewhere: files, pages of the book and headings. Addresses on the net are not asked.

    python3 .ci/links.py
"""
import os
import re
import subprocess
import sys

INCLUDE = re.compile(r"\{\{#include ([^}:]+)(?::(\d*):?(\d*))?\}\}")
LINK = re.compile(r"!?\[(?:[^\[\]]|\[[^\]]*\])*\]\(([^()\s]+)(?:\s+\"[^\"]*\")?\)")
FENCE = re.compile(r"^( {0,3})(```|~~~).*?^ {0,3}\2[ \t]*$", re.M | re.S)


def read(path):
    """A page as mdBook sees it, with what it includes; links of an included text are relative to the page."""
    with open(path, encoding="utf-8") as file:
        text = file.read()

    def included(match):
        lines = read(os.path.join(os.path.dirname(path), match[1])).splitlines(keepends=True)
        first, last = int(match[2] or 1), int(match[3] or len(lines))
        return "".join(lines[first - 1 : last])

    return INCLUDE.sub(included, text)


def anchors(text):
    """The headings of a page, as mdBook and the forges name them."""
    found = set()
    for heading in re.findall(r"^#{1,6}\s+(.*?)\s*#*$", FENCE.sub("", text), re.M):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").lower()
        name = re.sub(r"\s", "-", re.sub(r"[^\w\s-]", "", plain))
        repeated = sum(1 for other in found if re.fullmatch(re.escape(name) + r"(-\d+)?", other))
        found.add(f"{name}-{repeated}" if repeated else name)
    return found


def wrong_links(path):
    prose = re.sub(r"`[^`\n]*`", "", FENCE.sub("", read(path)))
    for target in LINK.findall(prose):
        name, _, anchor = target.partition("#")
        if re.match(r"[a-z]+:", name):
            continue
        file = os.path.normpath(os.path.join(os.path.dirname(path), name)) if name else path
        if not os.path.exists(file):
            yield f"{path}: {target}: there is no {file}"
        elif path.startswith("docs/") and not file.startswith("docs/"):
            yield f"{path}: {target}: the book has what is below docs alone"
        elif anchor and file.endswith(".md") and anchor not in anchors(read(file)):
            yield f"{path}: {target}: no heading of {file} has this name"


def main():
    pages = subprocess.run(["git", "ls-files", "*.md"], check=True, capture_output=True, text=True).stdout.split()
    wrong = [line for page in pages for line in wrong_links(page)]
    chapters = {os.path.join("docs", name) for name in LINK.findall(read("docs/SUMMARY.md"))}
    book = {page for page in pages if page.startswith("docs/") and page != "docs/SUMMARY.md"}
    wrong += [f"docs/SUMMARY.md: {page} is no chapter of the book" for page in sorted(book - chapters)]
    links = sum(len(LINK.findall(FENCE.sub("", read(page)))) for page in pages)
    print(f"{links} links in {len(pages)} pages", *wrong, sep="\n")
    sys.exit(bool(wrong) or links < 50)


main()
