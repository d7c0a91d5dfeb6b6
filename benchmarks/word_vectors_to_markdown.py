"""Writes the tables of docs/word-vectors.md from JSON files that benchmarks/word_vectors.py wrote.

    python benchmarks/word_vectors_to_markdown.py [benchmarks/A.json ...]

Each table lies between two markers of which the first names its files, so running without arguments renews
them. Files with ``quality`` (--seeds) go into the table of scores, the others into that of speed.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "word-vectors.md"
SPEED, SCORES = "bench", "scores"


def per_second(value: float) -> str:
    return f"{value / 1e6:.3g} million" if value >= 1e6 else f"{value / 1e3:.0f} thousand"


def row(found: dict[str, Any]) -> str:
    spread = f"{found['speedup']:.2f}x ({found['least']:.2f} to {found['most']:.2f})"
    ours, theirs = per_second(found["ours_per_second"]), per_second(found["theirs_per_second"])
    threads = f"{found['threads']} thread{'s' if found['threads'] > 1 else ''}"
    return f"| `{found['case']}` | {threads} | {found['against']} | {spread} | {ours} | {theirs} |"


def section(files: list[str]) -> str:
    """A table for each file, for machines and settings may differ."""
    lines = [f"<!-- {SPEED}: {' '.join(files)} -->"]
    for file in files:
        result = json.loads((ROOT / file).read_text(encoding="utf-8"))
        environment, text = result["environment"], result["text"]
        lines += [
            f"{environment['processor']} ({environment['isa']}), {environment['date'][:10]}; a text of "
            f"{text['words']:,} words, {text['vocabulary']:,} of them different, of which the first "
            f"{int(result['settings']['lines']):,} lines are trained on in turns. "
            "Words (GloVe: records) a second, "
            f"medians of {result['settings']['rounds']} rounds, the slowest and fastest in brackets.",
            "",
            "| case | | against | ratio | ours | theirs |",
            "|---|---|---|---|---|---|",
            *map(row, result["rows"]),
            "",
        ]
    return "\n".join([*lines[:-1], f"<!-- end of {SPEED} -->"])


def scores(files: list[str]) -> str:
    """A row for each side and way of training: the mean of the seeds, and the least and most of them."""
    lines = [f"<!-- {SCORES}: {' '.join(files)} -->"]
    for file in files:
        found = json.loads((ROOT / file).read_text(encoding="utf-8"))
        settings, text, quality = found["settings"], found["text"], found["quality"]
        names = [one["name"] for one in quality[0]["scores"]]
        lines += [
            f"{found['environment']['date'][:10]}; {text['words']:,} words, {settings['epochs']} passes, "
            f"{settings['threads']} thread, {settings['seeds']} seeds a side, otherwise equal settings: "
            "the mean of the seeds, and the least and most of them. "
            + "; ".join(
                f"{one['name']}: {one['used']:,} of {one['total']:,} covered" for one in quality[0]["scores"]
            )
            + ".",
            "",
            f"| way | numbers a word | side | {' | '.join(names)} |",
            f"|---|---|---|{'---|' * len(names)}",
        ]
        groups: dict[tuple[str, int, str], list[Any]] = {}
        for one in quality:
            groups.setdefault((one["mode"], one["dim"], one["side"]), []).append(one["scores"])
        for (mode, dim, side), seeds in groups.items():
            cells = []
            for i in range(len(names)):
                values = [each[i]["value"] for each in seeds]
                cells.append(f"{sum(values) / len(values):.3f} ({min(values):.3f} to {max(values):.3f})")
            lines.append(f"| {mode} | {dim} | {side} | {' | '.join(cells)} |")
    return "\n".join([*lines, f"<!-- end of {SCORES} -->"])


def renew(page: str, name: str, write: Callable[[list[str]], str], files: list[str]) -> str:
    """The page with the section `name` written anew: from `files`, or those that its first marker names."""
    match = re.search(rf"<!-- {name}: (?P<files>[^>]*) -->\n.*?<!-- end of {name} -->", page, re.DOTALL)
    if match is None:
        sys.exit(f"{PAGE}: expected <!-- {name}: FILES --> and <!-- end of {name} -->, found neither")
    return page[: match.start()] + write(files or match["files"].split()) + page[match.end() :]


def main() -> None:
    page = PAGE.read_text(encoding="utf-8")
    files = [str(Path(file).resolve().relative_to(ROOT)) for file in sys.argv[1:]]
    scored = [file for file in files if json.loads((ROOT / file).read_text(encoding="utf-8"))["quality"]]
    page = renew(page, SPEED, section, [file for file in files if file not in scored])
    PAGE.write_text(renew(page, SCORES, scores, scored), encoding="utf-8")


if __name__ == "__main__":
    main()
