"""Writes the table of docs/word-vectors.md from JSON files that benchmarks/word_vectors.py wrote.

    python benchmarks/word_vectors_to_markdown.py [benchmarks/A.json ...]

The table lies between two markers; the first names the files, so running without arguments renews it.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "word-vectors.md"
SECTION = re.compile(r"<!-- bench: (?P<files>[^>]*) -->\n.*?<!-- end of bench -->", re.DOTALL)


def per_second(value: float) -> str:
    return f"{value / 1e6:.3g} million" if value >= 1e6 else f"{value / 1e3:.0f} thousand"


def row(found: dict[str, Any]) -> str:
    spread = f"{found['speedup']:.2f}x ({found['least']:.2f} to {found['most']:.2f})"
    ours, theirs = per_second(found["ours_per_second"]), per_second(found["theirs_per_second"])
    threads = f"{found['threads']} thread{'s' if found['threads'] > 1 else ''}"
    return f"| `{found['case']}` | {threads} | {found['against']} | {spread} | {ours} | {theirs} |"


def section(files: list[str]) -> str:
    results = [json.loads((ROOT / file).read_text(encoding="utf-8")) for file in files]
    first = results[0]
    environment, text = first["environment"], first["text"]
    lines = [
        f"<!-- bench: {' '.join(files)} -->",
        f"{environment['processor']} ({environment['isa']}), {environment['date'][:10]}; a text of "
        f"{text['words']:,} words, {text['vocabulary']:,} of them different, of which the first "
        f"{int(first['settings']['lines']):,} lines are trained on in turns. "
        "Words (GloVe: records) a second, "
        f"medians of {first['settings']['rounds']} rounds, the slowest and fastest in brackets.",
        "",
        "| case | | against | ratio | ours | theirs |",
        "|---|---|---|---|---|---|",
        *(row(found) for result in results for found in result["rows"]),
        "<!-- end of bench -->",
    ]
    return "\n".join(lines)


def main() -> None:
    page = PAGE.read_text(encoding="utf-8")
    match = SECTION.search(page)
    if match is None:
        sys.exit(f"{PAGE}: expected <!-- bench: FILES --> and <!-- end of bench -->, found neither")
    files = sys.argv[1:] or match["files"].split()
    files = [str(Path(file).resolve().relative_to(ROOT)) for file in files]
    PAGE.write_text(page[: match.start()] + section(files) + page[match.end() :], encoding="utf-8")


if __name__ == "__main__":
    main()
