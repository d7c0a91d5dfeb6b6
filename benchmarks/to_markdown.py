"""Writes the README's benchmark section from JSON files that `cisdl bench` wrote.

    python benchmarks/to_markdown.py benchmarks/A.json [benchmarks/B.json ...]

The section lies between the two markers in README.md; the first names the files, so running without arguments
renews it from the same ones. No figure in it is typed by hand.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
SECTION = re.compile(r"<!-- bench: (?P<files>[^>]*) -->\n.*?<!-- end of bench -->", re.DOTALL)
WORST = 8


def geometric_means(result: dict[str, Any]) -> dict[tuple[str, str], float]:
    return {
        (op, part): mean for key, mean in result["geometric_means"].items() for op, part in [key.split(":")]
    }


def verdicts(result: dict[str, Any], op: str, part: str) -> str:
    found = [
        row["verdict"] for row in result["rows"] if row["part"] == part and row["case"].split("/")[0] == op
    ]
    return " / ".join(str(found.count(kind)) for kind in ("win", "even", "loss"))


def label(result: dict[str, Any]) -> str:
    """What distinguishes a file from the next: its threads, and whether it holds only some of the cases."""
    threads = result["environment"]["threads"]
    some = ", some of the cases" if result["options"]["quick"] else ""
    return f"{threads} thread{'s' if threads > 1 else ''}{some}"


def losses(result: dict[str, Any]) -> list[str]:
    """The rows in which torch was faster, worst first."""
    rows = sorted((r for r in result["rows"] if r["verdict"] == "loss"), key=lambda r: r["speedup"]["value"])
    return [f"`{r['case']}` {r['part']} {r['speedup']['value']:.2f}" for r in rows]


def section(paths: list[Path]) -> str:
    """The markdown between the markers, markers included."""
    results = [json.loads(path.read_text()) for path in paths]
    lines = [f"<!-- bench: {' '.join(str(p.relative_to(ROOT)) for p in paths)} -->"]
    environment = results[0]["environment"]
    lines += [
        f"torch's time over ours on one {environment['processor']} ({environment['isa']}), float32, torch "
        f"{environment['torch']}, {environment['date'][:10]}; each side in the faster of contiguous and "
        "channels_last. Geometric means over the cases, and how many of them were won / even / lost.",
        "",
        "| op, pass | " + " | ".join(map(label, results)) + " |",
        "|---" * (len(results) + 1) + "|",
    ]
    for op, part in geometric_means(results[0]):
        cells = []
        for result in results:
            mean = geometric_means(result).get((op, part))
            cells.append("-" if mean is None else f"{mean:.2f}x ({verdicts(result, op, part)})")
        lines.append(f"| {op} {part.replace('_', ' ')} | " + " | ".join(cells) + " |")
    lines.append("")
    for result in results:
        lost = losses(result)
        shown = ", ".join(lost[:WORST]) or "none"
        more = f", and {len(lost) - WORST} more in the file" if len(lost) > WORST else ""
        lines.append(f"Lost to torch ({label(result)}), worst first: {shown}{more}.")
        lines.append("")
    names = ", ".join(f"[{p.name}]({p.relative_to(ROOT)})" for p in paths)
    lines += [f"Every figure: {names}.", "<!-- end of bench -->"]
    return "\n".join(lines)


def named_files(readme: str) -> list[Path]:
    """The files that the section in the README was made from."""
    found = SECTION.search(readme)
    if not found:
        sys.exit(
            "README.md: expected the markers <!-- bench: FILES --> and <!-- end of bench -->, found none"
        )
    return [ROOT / name for name in found["files"].split()]


if __name__ == "__main__":
    text = README.read_text()
    chosen = [Path(name).resolve() for name in sys.argv[1:]] or named_files(text)
    README.write_text(SECTION.sub(lambda _: section(chosen), text))
