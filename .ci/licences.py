#!/usr/bin/env python3
"""Compares the licences of all dependencies with those that deny.toml allows: what `cargo deny check licenses` does, without
having to build cargo-deny in every run.

    python3 .ci/licences.py
    python3 .ci/licences.py --texts     # what the packages carry: the licences of what is in the library, word for word
"""
import json
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
A_LICENCE = re.compile(r"(UN)?LICEN[CS]E|COPYING|COPYRIGHT|NOTICE", re.I)


def metadata(*arguments):
    command = ["cargo", "metadata", "--format-version", "1", "--locked", *arguments]
    return json.loads(subprocess.run(command, check=True, capture_output=True, cwd=ROOT).stdout)


def allowed(expression, names):
    """Whether an SPDX expression can be met by these names: one of them, AND of such, OR with one such."""
    tokens = re.findall(r"\(|\)|[^\s()]+", expression.replace("/", " OR "))

    def either():
        value = both()
        while tokens and tokens[0] == "OR":
            tokens.pop(0)
            value = both() or value
        return value

    def both():
        value = one()
        while tokens and tokens[0] == "AND":
            tokens.pop(0)
            value = one() and value
        return value

    def one():
        token = tokens.pop(0)
        if token == "(":
            value = either()
            tokens.pop(0)
            return value
        if tokens[:1] == ["WITH"]:
            tokens.pop(0)
            token += f" WITH {tokens.pop(0)}"
        return token in names

    return either()


def check():
    import tomllib

    names = set(tomllib.loads((ROOT / "deny.toml").read_text())["licenses"]["allow"])
    small = {"MIT", "Zlib"}
    assert allowed("MIT OR GPL-3.0", small) and not allowed("MIT AND GPL-3.0", small) and allowed("(GPL-3.0 OR Zlib) AND MIT", small)
    packages = [p for p in metadata()["packages"] if p["source"]]
    wrong = [f"{p['name']} {p['version']}: {p['license']}" for p in packages if not (p["license"] and allowed(p["license"], names))]
    print(f"{len(packages)} dependencies", *wrong, sep="\n")
    if wrong or not packages:
        raise SystemExit("expected licences that deny.toml allows")


def linked():
    """The packages that are compiled into the library on this platform."""
    host = re.search(r"^host: (.*)$", subprocess.run(["rustc", "-vV"], check=True, capture_output=True, text=True).stdout, re.M)
    graph = metadata("--filter-platform", host[1])
    packages = {p["id"]: p for p in graph["packages"]}
    edges = {node["id"]: node["deps"] for node in graph["resolve"]["nodes"]}
    found, ahead = set(), [id for id, p in packages.items() if p["name"] == "sqlite-annoy"]
    while ahead:
        for to in edges[ahead.pop()]:
            if to["pkg"] not in found and any(kind["kind"] is None for kind in to["dep_kinds"]):
                found.add(to["pkg"])
                ahead.append(to["pkg"])
    return sorted((packages[id] for id in found), key=lambda p: (p["name"], p["version"]))


def texts():
    print("The library contains these Rust packages, under the licences named here.\n")
    owners = {}
    for package in linked():
        print(f"{package['name']} {package['version']}: {package['license']}")
        folder = Path(package["manifest_path"]).parent
        files = sorted(file for file in folder.iterdir() if file.is_file() and A_LICENCE.match(file.name))
        # Where one may choose, MIT.
        for file in [file for file in files if "MIT" in file.name.upper()] or files:
            text = file.read_text(encoding="utf-8", errors="replace").replace("\r\n", "\n").strip()
            owners.setdefault(text, []).append(f"{package['name']} {package['version']}")
    for text, names in owners.items():
        print(f"\n{'=' * 100}\n{', '.join(names)}\n\n{text}")


texts() if "--texts" in sys.argv[1:] else check()
