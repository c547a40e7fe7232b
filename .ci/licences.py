#!/usr/bin/env python3
"""Compares the licences of all dependencies with those that deny.toml allows: what `cargo deny check licenses` does, without
having to build cargo-deny in every run.

    python3 .ci/licences.py
"""
import json
import re
import subprocess
import tomllib

with open("deny.toml", "rb") as file:
    ALLOWED = set(tomllib.load(file)["licenses"]["allow"])


def allowed(expression):
    """Whether an SPDX expression can be met: a name that is allowed, AND of such, OR with one such."""
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
        return token in ALLOWED

    return either()


def main():
    assert allowed("MIT OR GPL-3.0") and not allowed("MIT AND GPL-3.0") and allowed("(GPL-3.0 OR Zlib) AND MIT")
    output = subprocess.run(["cargo", "metadata", "--format-version", "1", "--locked"], check=True, capture_output=True).stdout
    packages = [p for p in json.loads(output)["packages"] if p["source"]]
    wrong = [f"{p['name']} {p['version']}: {p['license']}" for p in packages if not (p["license"] and allowed(p["license"]))]
    print(f"{len(packages)} dependencies", *wrong, sep="\n")
    if wrong or not packages:
        raise SystemExit("expected licences that deny.toml allows")


main()
