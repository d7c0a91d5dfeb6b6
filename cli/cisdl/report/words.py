"""neighbours.png, map.png, analogies.png: what word vectors know, by example."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from sklearn.manifold import TSNE

from cisdl.data import word_groups
from cisdl.report import style
from cisdl_ops.word_vectors import Score, WordVectors

Box = tuple[float, float, float, float]

ROWS, NEAREST = 12, 6
MAPPED = 120
ENOUGH = 0.9
"""Share of the groups' words that a text has to know for the groups to be shown; else frequent words are."""


def fits(vectors: WordVectors) -> bool:
    score = word_groups.group_score(vectors)
    return score.used >= ENOUGH * score.total


def frequent(vectors: WordVectors, count: int, first: int = 100, last: int = 5000) -> list[str]:
    """Words of four letters or more, by frequency from about the `first` to the `last`, evenly in ratio."""
    words = [word for word in vectors.words if len(word) > 3 and word.isalpha()] or vectors.words
    last = min(last, len(words) - 1)
    ranks = np.unique(np.geomspace(min(first, max(last // 4, 1)), max(last, 1), count).astype(int))
    return [words[rank] for rank in ranks if rank < len(words)]


def draw_neighbours(path: Path, title: str, vectors: WordVectors) -> None:
    """A row a word: the nearest words, shaded by cosine."""
    asked = frequent(vectors, ROWS)
    if fits(vectors):
        asked = [next(word for word in group if word in vectors) for group in word_groups.GROUPS.values()]
    asked = asked[:ROWS]
    rows = [vectors.most_similar(word, count=NEAREST) for word in asked]
    with style.figure(path, 10.5, 0.8 + 0.36 * len(asked), title) as fig:
        axes = fig.add_subplot()
        frame(axes, 1 + NEAREST, len(asked))
        for y, (word, found) in enumerate(zip(asked, rows, strict=True)):
            axes.text(0.05, y + 0.5, word, va="center", fontweight="bold")
            for x, (other, cosine) in enumerate(found, start=1):
                shade = colormaps["Blues"](0.75 * max(0.0, cosine) ** 1.5)
                axes.add_patch(cell(x, y, shade))
                axes.text(x + 0.06, y + 0.5, shortened(other, 14), va="center", fontsize=9)
                axes.text(x + 0.94, y + 0.5, f"{cosine:.2f}", va="center", ha="right", fontsize=7)


def draw_map(path: Path, title: str, vectors: WordVectors) -> None:
    """Where words lie in two dimensions that keep near words near (t-SNE of the unit vectors)."""
    if fits(vectors):
        words, numbers = word_groups.grouped(vectors)
        names = list(word_groups.GROUPS)
    else:
        words, names = frequent(vectors, MAPPED, 50), ["words"]
        numbers = [0] * len(words)
        title = title.replace("of the groups", "by frequency, each a little rarer than the one before")
    if len(words) < 5:
        return
    unit = vectors.unit()[[vectors.number(word) for word in words]].double().numpy()
    places = TSNE(
        2, perplexity=min(8, (len(words) - 1) / 3), init="pca", random_state=0, method="exact"
    ).fit_transform(unit)
    colors = [*colormaps["tab20"].colors]  # type: ignore[attr-defined]
    with style.figure(path, 10.5, 8, title) as fig:
        axes = fig.add_subplot()
        style.bare(axes)
        for number in dict.fromkeys(numbers):
            chosen = [i for i, one in enumerate(numbers) if one == number]
            color = colors[number % len(colors)] if len(names) > 1 else style.BLUE
            x, y = places[chosen].T
            axes.scatter(x, y, s=22, color=color, label=names[number])
        axes.margins(0.08)
        for word, place, (aside, above) in zip(words, places, sides(words, places), strict=True):
            axes.annotate(
                word,
                place,
                xytext=(4 * aside, 5 * above),
                textcoords="offset points",
                fontsize=8,
                ha="left" if aside > 0 else "right",
                va="center",
            )
        if len(names) > 1:
            axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5), fontsize=8.5)


def sides(words: Sequence[str], places: npt.NDArray[np.float64]) -> list[tuple[int, int]]:
    """Where each word goes, right (1) or left (-1) of its point and how high, to cover little."""
    height = 0.02 * np.ptp(places[:, 1])
    letter = 0.0075 * np.ptp(places[:, 0])
    boxes = [
        (x - letter / 2, x + letter / 2, y - height / 3, y + height / 3) for x, y in places
    ]  # the points
    chosen = []
    for word, (x, y) in zip(words, places, strict=True):
        best = None
        for aside, above in ((1, 0), (-1, 0), (1, 1), (-1, 1), (1, -1), (-1, -1)):
            ends = sorted((x + aside * letter, x + aside * letter * (1 + len(word))))
            box = (*ends, y + (above - 1) * height / 2, y + (above + 1) * height / 2)
            covered = sum(common(box, other) for other in boxes)
            if best is None or covered < best[0]:
                best = (covered, (aside, above), box)
        assert best is not None
        chosen.append(best[1])
        boxes.append(best[2])
    return chosen


def common(a: Box, b: Box) -> float:
    """The area of two boxes' intersection."""
    return max(0.0, min(a[1], b[1]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[2], b[2]))


def draw_analogies(
    path: Path, title: str, vectors: WordVectors, files: Sequence[Path], scores: Sequence[Score]
) -> None:
    """Some questions "a is to b as c is to ?", the answers, and the right one.

    `scores`, of all questions of `files` and of the plurals, are for the title.
    """
    questions = published(vectors, files)
    what = "analogies"
    if not questions:
        asked = word_groups.plural_questions(vectors)
        questions = asked[:: max(1, len(asked) // ROWS)][:ROWS]
        what = "one and many"
    if not questions:
        return
    answers = [vectors.analogy(a, b, c, 3) for a, b, c, _ in questions]
    found_of = {score.name: score for score in scores}
    score = found_of["plurals" if what != "analogies" else what]
    heading = f"{title}: {what}, {100 * score.value:.1f} % of {score.used:,} right, of which these are some"
    with style.figure(path, 10.5, 0.8 + 0.36 * (len(questions) + 1), heading) as fig:
        axes = fig.add_subplot()
        frame(axes, 7, len(questions) + 1)
        for x, name in (
            (0.05, "a is to b as c is to ..."),
            (3.05, "expected"),
            (4.05, "nearest, with cosine"),
        ):
            axes.text(x, 0.5, name, va="center", color=style.FAINT)
        for y, ((a, b, c, d), found) in enumerate(zip(questions, answers, strict=True), start=1):
            axes.text(0.05, y + 0.5, f"{a} : {b}  =  {c} : ?", va="center")
            axes.text(3.05, y + 0.5, shortened(d, 17), va="center", fontweight="bold")
            for x, (word, cosine) in enumerate(found, start=4):
                hit = word == d
                axes.add_patch(cell(x, y, "#d5ead9" if hit else "#f3f4f6"))
                axes.text(x + 0.06, y + 0.5, shortened(word, 14), va="center", fontsize=9)
                axes.text(x + 0.94, y + 0.5, f"{cosine:.2f}", va="center", ha="right", fontsize=7)


def published(vectors: WordVectors, files: Sequence[Path]) -> list[tuple[str, str, str, str]]:
    """Questions of the files that can be asked, about as many of each section."""
    sections: dict[str, list[tuple[str, str, str, str]]] = {}
    section = ""
    for path in files:
        for line in path.read_text(encoding="utf-8").lower().splitlines():
            fields = line.split()
            if fields and fields[0] == ":":
                section = line
            elif len(fields) == 4 and all(word in vectors for word in fields):
                a, b, c, d = fields
                sections.setdefault(section, []).append((a, b, c, d))
    each = -(-ROWS // max(1, len(sections)))
    chosen = [
        asked[len(asked) // (2 * each) :: max(1, len(asked) // each)][:each] for asked in sections.values()
    ]
    return [question for asked in chosen for question in asked][:ROWS]


def frame(axes: Axes, width: int, height: int) -> None:
    style.bare(axes)
    axes.set_xlim(0, width)
    axes.set_ylim(height, 0)


def cell(x: float, y: float, color: Any) -> Rectangle:
    return Rectangle((x + 0.01, y + 0.06), 0.98, 0.88, facecolor=color, edgecolor="none")


def shortened(word: str, most: int) -> str:
    return word if len(word) <= most else word[: most - 1] + "…"
