#!/usr/bin/env python3
"""Draws docs/leaves.svg: rows, the leaves they are in, and the leaves nearest to a query.

    python docs/figures.py
"""
import math
import random
from pathlib import Path

SIZE, LEAVES, LOOKED = 420, 12, 3
COLOURS = ["#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377",
           "#333333", "#ff8800", "#88bb00", "#7755dd", "#996633", "#dd55bb"]


def main():
    rng = random.Random(5)
    homes = [(rng.uniform(60, 360), rng.uniform(60, 360)) for _ in range(9)]
    rows = [(rng.gauss(x, 28), rng.gauss(y, 28)) for x, y in homes for _ in range(30)]
    centroids = rng.sample(rows, LEAVES)
    for _ in range(20):
        groups = [[] for _ in centroids]
        for row in rows:
            groups[min(range(LEAVES), key=lambda i: math.dist(row, centroids[i]))].append(row)
        centroids = [tuple(sum(c) / len(g) for c in zip(*g)) if g else centroid for g, centroid in zip(groups, centroids)]
    query = (235.0, 215.0)
    near = sorted(range(LEAVES), key=lambda i: math.dist(query, centroids[i]))[:LOOKED]
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {SIZE} {SIZE}" width="{SIZE}" height="{SIZE}" '
           'font-family="sans-serif" font-size="12">', f'<rect width="{SIZE}" height="{SIZE}" fill="white"/>']
    for i, group in enumerate(groups):
        looked = i in near
        for x, y in group:
            out.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{COLOURS[i % len(COLOURS)]}" opacity="{1 if looked else .3}"/>')
    for rank, i in enumerate(near, 1):
        x, y = centroids[i]
        out.append(f'<line x1="{query[0]}" y1="{query[1]}" x2="{x:.1f}" y2="{y:.1f}" stroke="black" stroke-dasharray="4 3"/>')
        out.append(f'<text x="{x + 7:.1f}" y="{y - 7:.1f}" font-weight="bold">{rank}</text>')
    for x, y in centroids:
        out.append(f'<path d="M{x - 5:.1f} {y:.1f}h10M{x:.1f} {y - 5:.1f}v10" stroke="black" stroke-width="1.5"/>')
    out.append(f'<rect x="{query[0] - 5}" y="{query[1] - 5}" width="10" height="10" fill="black"/></svg>')
    Path(__file__).with_name("leaves.svg").write_text("\n".join(out) + "\n")


main()
