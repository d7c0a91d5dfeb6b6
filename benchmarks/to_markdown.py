"""Writes the benchmark tables of docs/speed.md, and their summary in the README, from files of `cisdl bench`.

    python benchmarks/to_markdown.py benchmarks/A.json [benchmarks/B.json ...]

The tables lie between the two markers in docs/speed.md; the first names the files, so running without
arguments renews it from the same ones. Files of timings become columns, those of the same instruction set and
threads one column, in which a row of a later file takes the place of an earlier one's; one of `cisdl bench
memory` is a sentence. No figure is typed by hand. The two charts are those of `cisdl bench chart` with the
first file.
"""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from cisdl_ops.cases import CASES, NETWORKS

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
PAGE = ROOT / "docs" / "speed.md"
SUMMARY = re.compile(r"<!-- bench summary -->\n.*?<!-- end of bench summary -->", re.DOTALL)
SECTION = re.compile(r"<!-- bench: (?P<files>[^>]*) -->\n.*?<!-- end of bench -->", re.DOTALL)
WORST = 6
ENOUGH_LAYERS = 5  # fewer are not worth a sentence


# Parts that have a table of their own.
WHOLE = ("step", "pass")
PARTS_OF_TRAINING = {"cell": {"forward", "backward"}, "layer": {"training"}}


def mean_of(speedups: Iterable[float]) -> float:
    """The geometric one."""
    logarithms = [math.log(one) for one in speedups]
    return math.exp(sum(logarithms) / len(logarithms))


def geometric_means(result: dict[str, Any]) -> dict[tuple[str, str], float]:
    found: dict[tuple[str, str], list[float]] = {}
    for row in result["rows"]:
        found.setdefault((row["case"].split("/")[0], row["part"]), []).append(row["speedup"]["value"])
    return {key: mean_of(speedups) for key, speedups in found.items()}


def columns(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of each processor, instruction set and number of threads, the first with the rows of the others."""
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    for result in results:
        environment = result["environment"]
        place = (*(environment[name] for name in ("processor", "isa", "threads")), forced(result))
        column = found.setdefault(place, {**result, "rows": [], "networks": {}})
        for name, network in result.get("networks", {}).items():
            layers = column["networks"].get(name, {"layers": {}})["layers"] | network["layers"]
            column["networks"][name] = {"layers": layers}
        rows = {(row["case"], row["part"], row["layout"]): row for row in column["rows"] + result["rows"]}
        column["rows"] = list(rows.values())
    return list(found.values())


def verdicts(result: dict[str, Any], op: str, part: str) -> str:
    found = [
        row["verdict"] for row in result["rows"] if row["part"] == part and row["case"].split("/")[0] == op
    ]
    return " / ".join(str(found.count(kind)) for kind in ("win", "even", "loss"))


def forced(result: dict[str, Any]) -> bool:
    """Whether torch was kept to the same lesser instruction set."""
    return "ATEN_CPU_CAPABILITY" in result["environment"].get("variables", {})


def processor(result: dict[str, Any]) -> str:
    """Its name without what all names have."""
    return re.sub(r"\((R|TM)\)| Processor$", "", result["environment"]["processor"])


def label(result: dict[str, Any]) -> str:
    """What distinguishes a file: processor, instruction set, threads, whether it holds all cases."""
    threads = result["environment"]["threads"]
    isa = result["environment"]["isa"]
    some = ", some of the cases" if result["options"]["quick"] else ""
    isa += " forced on both" if forced(result) else ""
    return f"{processor(result)}, {isa}, {threads} thread{'s' if threads > 1 else ''}{some}"


def losses(result: dict[str, Any]) -> list[str]:
    """The rows in which torch was faster, worst first."""
    rows = sorted((r for r in result["rows"] if r["verdict"] == "loss"), key=lambda r: r["speedup"]["value"])
    return [f"`{r['case']}` {r['part']} {r['speedup']['value']:.2f}" for r in rows]


def networks(results: list[dict[str, Any]]) -> list[str]:
    """A table: the geometric mean over a network's layers, their passes summed, and its slowest layer."""
    if not results[0].get("networks"):
        return []
    lines = [
        "Layers of networks, all passes of a layer summed (forward and gradients, as training runs them): "
        "geometric mean and, in brackets, the slowest layer.",
        "",
        "| network | " + " | ".join(map(label, results)) + " |",
        "|---" * (len(results) + 1) + "|",
    ]
    names = [*results[0]["networks"], "all"]
    for name in names:
        cells = []
        for result in results:
            found = result.get("networks", {})
            chosen = found if name == "all" else {name: found.get(name, {"layers": {}})}
            speedups = [value for one in chosen.values() for value in one["layers"].values()]
            mean = mean_of(speedups) if speedups else None
            cells.append("-" if mean is None else f"{mean:.2f}x ({min(speedups):.2f}x)")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return [*lines, ""]


def trained(result: dict[str, Any], op: str) -> dict[str, float]:
    """Speed-up by case of forward and backward: timed together, or summed."""
    wanted = PARTS_OF_TRAINING[op.split("_")[-1]]
    rows: dict[str, list[dict[str, Any]]] = {}
    for row in result["rows"]:
        if row["case"].split("/")[0] == op and row["part"] in wanted:
            rows.setdefault(row["case"], []).append(row)
    return {
        case: sum(row["torch_seconds"] for row in found) / sum(row["ours_seconds"] for row in found)
        for case, found in rows.items()
        if len(found) == len(wanted)
    }


def recurrent(results: list[dict[str, Any]]) -> list[str]:
    """A table of what training asks of cells and layers."""
    ops = dict.fromkeys(row["case"].split("/")[0] for row in results[0]["rows"])
    lines = [
        "Recurrent cells and whole layers (`nn.LSTM`, `nn.GRU`, `nn.RNN`), forward and backward together: "
        "geometric mean and, in brackets, the slowest case.",
        "",
        "| op | " + " | ".join(map(label, results)) + " |",
        "|---" * (len(results) + 1) + "|",
    ]
    for op in ops:
        if op.split("_")[-1] not in PARTS_OF_TRAINING:
            continue
        each = [trained(result, op).values() for result in results]
        cells = [f"{mean_of(one):.2f}x ({min(one):.2f}x, {len(one)} cases)" if one else "-" for one in each]
        lines.append(f"| {op} | " + " | ".join(cells) + " |")
    return [*lines, ""] if len(lines) > 4 else []


def word_vectors(results: list[dict[str, Any]]) -> list[str]:
    """A table of passes over a text: ratio, and updates a second of ours."""
    shown = [result for result in results if any(row["part"] == "pass" for row in result["rows"])]
    if not shown:
        return []
    lines = [
        "Word vectors, a pass over a text of Zipf's law against torch's sparse embeddings with SGD "
        "(word2vec) or Adagrad (GloVe): ratio, and millions of updates a second of ours. Against gensim, on "
        "a real text: [word-vectors.md](word-vectors.md).",
        "",
        "| training | " + " | ".join(map(label, shown)) + " |",
        "|---" * (len(shown) + 1) + "|",
    ]
    names = [row["case"] for row in shown[0]["rows"] if row["part"] == "pass"]
    for name in names:
        cells = []
        for result in shown:
            rows = [row for row in result["rows"] if row["case"] == name]
            rate = [int(row["implementation"].split()[0]) / row["ours_seconds"] / 1e6 for row in rows]
            speedups = [row["speedup"]["value"] for row in rows]
            cells.append(f"{speedups[0]:.1f}x ({rate[0]:.2g} M/s)" if rows else "-")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return [*lines, ""]


def steps(results: list[dict[str, Any]]) -> list[str]:
    """A table of whole training steps: milliseconds of ours and torch's, and their ratio."""
    models = {row["case"]: {} for row in results[0]["rows"] if row["part"] == "step"}
    for index, result in enumerate(results):
        for row in result["rows"]:
            if row["case"] in models:
                ours, theirs = (1e3 * row[f"{side}_seconds"] for side in ("ours", "torch"))
                cell = f"{row['speedup']['value']:.2f}x ({ours:.3g} / {theirs:.3g} ms)"
                models[row["case"]][index] = cell
    shown = [index for index in range(len(results)) if any(index in cells for cells in models.values())]
    if not shown:
        return []
    lines = [
        "Whole training steps at batch 64 (forward, loss, backward, Adam; torch's in its fused form): ratio, "
        "and milliseconds of ours / torch's. `_accelerated` is torch's model after `accelerate`.",
        "",
        "| step | " + " | ".join(label(results[index]) for index in shown) + " |",
        "|---" * (len(shown) + 1) + "|",
    ]
    for name, cells in models.items():
        lines.append(
            f"| {name.split('/')[1]} | " + " | ".join(cells.get(index, "-") for index in shown) + " |"
        )
    return [*lines, ""]


def headroom(result: dict[str, Any]) -> list[str]:
    """A sentence on what the products of matrices could gain at all."""
    most: dict[str, list[float]] = {}
    for row in result["rows"]:
        op = row["case"].split("/")[0]
        if op.split("_")[-1] in ("linear", *PARTS_OF_TRAINING) and row.get("fraction_of_ceiling"):
            bound = row["speedup"]["value"] / row["fraction_of_ceiling"]
            most.setdefault(f"{op} {row['part'].replace('_', ' ')}", []).append(bound)
    if not most:
        return []
    each = ", ".join(f"{name} {mean_of(bounds):.2f}x" for name, bounds in most.items())
    return [
        "What a kernel would gain that does just the formula's operations at the measured peak, or moves "
        f"its operands once at the measured bandwidth ({label(result)}): {each}.",
        "",
    ]


def wide_3x3(result: dict[str, Any]) -> list[str]:
    """A sentence on the convolutions that most networks spend their time in."""
    layers = {}
    for case in CASES:
        weight, stride = case.shapes.get("weight", ()), case.kwargs.get("stride", 1)
        if case.op == "conv2d" and weight[2:] == (3, 3) and stride == 1 and min(weight[:2]) >= 64:
            rows = [row for row in result["rows"] if row["case"] == case.id]
            if len(rows) == 3 and case.kwargs.get("dilation", 1) == 1:
                ours = sum(row["ours_seconds"] for row in rows)
                layers[case.id] = sum(row["torch_seconds"] for row in rows) / ours
    if len(layers) < ENOUGH_LAYERS:
        return []
    mean = mean_of(layers.values())
    worst = min(layers, key=layers.__getitem__)
    return [
        f"3x3 convolutions of stride 1 with 64 channels or more on both sides, {label(result)}, forward and "
        f"both gradients summed: {mean:.2f}x over {len(layers)} layers, the slowest {layers[worst]:.2f}x "
        f"(`{worst}`).",
        "",
    ]


def memory(result: dict[str, Any]) -> list[str]:
    """A sentence on peak memory: the worst case, and each network's largest layer."""
    rows = result["rows"]
    worst = max(rows, key=lambda row: row["ours_bytes"] / row["torch_bytes"])
    largest = {}
    for row in rows:
        network = row["case"].split("/")[1].split("_")[0]
        if network in NETWORKS:
            ours, theirs = largest.get(network, (0, 0))
            largest[network] = (max(ours, row["ours_bytes"]), max(theirs, row["torch_bytes"]))
    each = ", ".join(f"{name} {ours / theirs:.2f}" for name, (ours, theirs) in largest.items())
    most = worst["ours_bytes"] / worst["torch_bytes"]
    return [
        "Peak memory of forward and backward, ours over torch's, of the largest layer of each network: "
        f"{each}; of any one case at most {most:.2f} (`{worst['case']}` in "
        f"{worst['layout']}).",
        "",
    ]


def of_the_table(content: dict[str, Any]) -> dict[str, Any]:
    """Without rows of `--axis` and `--cache cold`: they are no cases of the table."""
    rows = [row for row in content["rows"] if not row.get("axis") and row.get("cache") != "cold"]
    return {**content, "rows": rows}


def section(paths: list[Path]) -> str:
    """The markdown between the markers, markers included."""
    contents = [of_the_table(json.loads(path.read_text())) for path in paths]
    results = columns([content for content in contents if "ceilings" in content])
    memories = [content for content in contents if "ceilings" not in content]
    lines = [f"<!-- bench: {' '.join(str(p.relative_to(ROOT)) for p in paths)} -->"]
    lines += [
        f"torch's time over ours, float32, {dates(results)}; each side in the faster of contiguous and "
        "channels_last. Geometric means over the cases, and how many of them were won / even / lost.",
        "",
        "| op, pass | " + " | ".join(map(label, results)) + " |",
        "|---" * (len(results) + 1) + "|",
    ]
    for op, part in geometric_means(results[0]):
        if part in WHOLE and op != "model":
            continue
        cells = []
        for result in results:
            mean = geometric_means(result).get((op, part))
            cells.append("-" if mean is None else f"{mean:.2f}x ({verdicts(result, op, part)})")
        lines.append(f"| {op} {part.replace('_', ' ')} | " + " | ".join(cells) + " |")
    lines.append("")
    lines += networks(results)
    lines += recurrent(results)
    lines += word_vectors(results)
    lines += steps(results)
    for result in results:
        lines += headroom(result)
    for result in results:
        lines += wide_3x3(result)
    for result in memories:
        lines += memory(result)
    for result in results:
        lost = losses(result)
        shown = ", ".join(lost[:WORST]) or "none"
        more = f", and {len(lost) - WORST} more in the file" if len(lost) > WORST else ""
        lines.append(f"Lost to torch ({label(result)}), worst first: {shown}{more}.")
        lines.append("")
    names = ", ".join(f"[{p.name}](../{p.relative_to(ROOT)})" for p in paths)
    lines += [f"Every figure: {names}.", "<!-- end of bench -->"]
    return "\n".join(lines)


def dates(results: list[dict[str, Any]]) -> str:
    """What was measured when."""
    places = [processor(result) + " on " + result["environment"]["date"][:10] for result in results]
    return f"torch {results[0]['environment']['torch']}, {', '.join(dict.fromkeys(places))}"


def counted(result: dict[str, Any]) -> str:
    """How many rows of a file were won, even and lost."""
    rows = result["rows"]
    counts = [str(sum(row["verdict"] == kind for row in rows)) for kind in ("win", "even", "loss")]
    return f"{' / '.join(counts)} ({label(result)})"


def summary(paths: list[Path]) -> str:
    """The markdown between the markers in the README: the networks, and how many rows were won and lost."""
    contents = [of_the_table(json.loads(path.read_text())) for path in paths]
    results = columns([content for content in contents if "ceilings" in content])
    lines = [
        "<!-- bench summary -->",
        f"torch's time over ours, float32, {dates(results)}. Passes faster than torch's / even / slower: "
        f"{'; '.join(map(counted, results))}.",
        "",
        *networks(results),
        "<!-- end of bench summary -->",
    ]
    return "\n".join(lines)


def named_files(page: str) -> list[Path]:
    """The files that the tables were made from."""
    found = SECTION.search(page)
    if not found:
        sys.exit(f"{PAGE}: expected the markers <!-- bench: FILES --> and <!-- end of bench -->, found none")
    return [ROOT / name for name in found["files"].split()]


if __name__ == "__main__":
    text = PAGE.read_text()
    chosen = [Path(name).resolve() for name in sys.argv[1:]] or named_files(text)
    PAGE.write_text(SECTION.sub(lambda _: section(chosen), text))
    README.write_text(SUMMARY.sub(lambda _: summary(chosen), README.read_text()))
