"""word2vec and GloVe against gensim and torch on a text of yours: how fast, and what the vectors know.

    python benchmarks/word_vectors.py TEXT... --gensim PYTHON -o benchmarks/word-vectors-DATE.json
    python benchmarks/word_vectors.py TEXT... --gensim PYTHON --seeds 3 --similarity FILE --analogies FILE

TEXT: files of lines, plain, .gz or .xz; words are what [a-z0-9]+ finds in the lower-cased line. PYTHON is an
interpreter that has gensim: it runs in a process of its own and takes turns with ours, round by round, each
on the same sentences with the same settings (window 5, 5 negatives, sample 1e-3, min_count 5). Without it
word2vec is held against torch's sparse embeddings with SGD. GloVe's opponent is torch's sparse Adagrad. With
--seeds, both are trained on the whole text and scored; every score says what it covers.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

MODES = ("pairs", "shared", "cbow")
MIN_COUNT, WINDOW, NEGATIVE, SAMPLE, LR = 5, 5, 5, 1e-3, 0.025
GLOVE_WINDOW = 10
SETTINGS = ("parts", "dims", "lines", "rounds", "threads", "seeds", "epochs")


def gensim_worker(text: str) -> None:
    """Runs under the other interpreter: answers each line of JSON with a line of JSON."""
    import gensim
    from gensim.models import Word2Vec

    with open(text, encoding="utf-8") as file:  # noqa: PTH123  (this interpreter may be of any version)
        lines = [line.split() for line in file]
    print(json.dumps({"version": gensim.__version__}), flush=True)
    models: dict[str, Any] = {}
    for request in sys.stdin:
        wanted = json.loads(request)
        key = f"{wanted['mode']} {wanted['dim']} {wanted['seed']} {wanted['threads']}"
        if key not in models:
            skip_gram = int(wanted["mode"] != "cbow")
            settings = {"window": WINDOW, "min_count": MIN_COUNT, "negative": NEGATIVE, "sample": SAMPLE}
            settings |= {"alpha": LR, "vector_size": wanted["dim"], "sg": skip_gram, "seed": wanted["seed"]}
            models = {key: Word2Vec(workers=wanted["threads"], **settings)}
            models[key].build_vocab(lines)
        part = lines[: wanted["lines"]]
        begin = time.perf_counter()
        models[key].train(part, total_examples=len(part), epochs=wanted["epochs"])
        seconds = time.perf_counter() - begin
        if wanted["save"]:
            models[key].wv.save_word2vec_format(wanted["save"], binary=True)
        print(json.dumps({"seconds": seconds}), flush=True)


class Gensim:
    """gensim in a process of its own."""

    def __init__(self, python: str, text: Path) -> None:
        self.process = subprocess.Popen(
            [python, __file__, "--gensim-worker", str(text)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.version = self.answer()["version"]

    def answer(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        return json.loads(line) if line else sys.exit("gensim's process died")

    def train(self, mode: str, dim: int, threads: int, lines: int | None, **options: Any) -> float:
        """Seconds for one training; a model is kept while mode, dim, seed and threads stay the same."""
        request = {"mode": mode, "dim": dim, "threads": threads, "lines": lines}
        request |= {"seed": 1, "epochs": 1, "save": None} | options
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        seconds: float = self.answer()["seconds"]
        return seconds


class Corpus:
    """The text as a file of words, its vocabulary, and its numbers."""

    def __init__(self, files: list[Path], folder: Path) -> None:
        from cisdl_ops.word_vectors import Vocabulary, read_lines

        self.path = folder / "text"
        word = re.compile(r"[a-z0-9]+")
        self.words_of_line = []
        with self.path.open("w") as file:
            for line in read_lines(files):
                if words := word.findall(line.lower()):
                    file.write(" ".join(words) + "\n")
                    self.words_of_line.append(len(words))
        begin = time.perf_counter()
        self.vocabulary = Vocabulary.build(read_lines(self.path), MIN_COUNT)
        counted = time.perf_counter()
        self.tokens = self.vocabulary.encode(read_lines(self.path))
        self.seconds = {"vocabulary": counted - begin, "encode": time.perf_counter() - counted}

    def part(self, lines: int) -> Any:
        ends = (self.tokens == -1).nonzero()[:, 0]
        return self.tokens[: int(ends[min(lines, len(ends)) - 1]) + 1].clone()

    def model(self, mode: str, dim: int, threads: int, seed: int = 1) -> Any:
        from cisdl_ops.word2vec import Word2Vec

        return Word2Vec(
            self.vocabulary,
            dim,
            window=WINDOW,
            negative=NEGATIVE,
            cbow=mode == "cbow",
            shared_negatives=mode == "shared",
            sample=SAMPLE,
            seed=seed,
            workers=threads,
        )


def timed(function: Callable[[], object]) -> float:
    begin = time.perf_counter()
    function()
    return time.perf_counter() - begin


def sparse_sgd(corpus: Corpus, dim: int, batch: int = 8192) -> Callable[[], int]:
    """Skip-gram in torch's terms: sparse embeddings, SGD, a batch of pairs. Returns pairs done by a call."""
    import torch
    from torch import nn

    words = len(corpus.vocabulary)
    inputs, outputs = (nn.Embedding(words, dim, sparse=True) for _ in range(2))
    sgd = torch.optim.SGD([*inputs.parameters(), *outputs.parameters()], lr=LR)
    share = corpus.vocabulary.counts.double() ** 0.75
    labels = torch.zeros(batch, 1 + NEGATIVE)
    labels[:, 0] = 1

    def step() -> int:
        centre = torch.multinomial(corpus.vocabulary.counts.double(), batch, replacement=True)
        context = torch.multinomial(corpus.vocabulary.counts.double(), batch, replacement=True)
        negatives = torch.multinomial(share, batch * NEGATIVE, replacement=True).view(batch, NEGATIVE)
        targets = torch.cat([context.unsqueeze(1), negatives], 1)
        scores = (outputs(targets) @ inputs(centre).unsqueeze(2)).squeeze(2)
        loss = nn.functional.binary_cross_entropy_with_logits(scores, labels, reduction="sum")
        sgd.zero_grad()
        loss.backward()
        sgd.step()
        return batch

    return step


def ratios(ours: list[float], theirs: list[float]) -> dict[str, Any]:
    """Work per second of both sides, a number a round, and the median of the rounds' ratios."""
    each = [a / b for a, b in zip(ours, theirs, strict=True)]
    return {
        "speedup": median(each),
        "least": min(each),
        "most": max(each),
        "ours_per_second": median(ours),
        "theirs_per_second": median(theirs),
        "ours_rounds": ours,
        "theirs_rounds": theirs,
    }


def say(row: dict[str, Any]) -> None:
    print(
        f"{row['case']:24} {row['threads']} thread(s)  {row['ours_per_second'] / 1e3:9.0f} k/s, "
        f"{row['against']} {row['theirs_per_second'] / 1e3:9.0f} k/s: {row['speedup']:.2f}x "
        f"({row['least']:.2f} to {row['most']:.2f})",
        flush=True,
    )


def updates_of(model: Any, tokens: Any) -> int:
    """Trains once; how many pairs (CBOW: windows) that was."""
    found: list[int] = []
    model.train(tokens, 1, LR, progress=lambda progress: found.append(progress.updates))
    return sum(found)


def repeated(step: Callable[[], int], calls: int) -> int:
    return sum(step() for _ in range(calls))


def word2vec_row(
    corpus: Corpus, gensim: Gensim | None, options: argparse.Namespace, mode: str, dim: int
) -> dict[str, Any]:
    """Ours and the opponent take turns on the same sentences."""
    part = corpus.part(options.lines)
    model = corpus.model(mode, dim, options.threads)
    ours = partial(model.train, part, 1, LR)
    updates = updates_of(model, part)
    work, rates = updates, ([], [])
    if gensim:
        work = sum(corpus.words_of_line[: options.lines])
        gensim.train(mode, dim, options.threads, options.lines)
    else:
        step = sparse_sgd(corpus, dim)
        step()
    for _ in range(options.rounds):
        rates[0].append(work / timed(ours))
        if gensim:
            rates[1].append(work / gensim.train(mode, dim, options.threads, options.lines))
        else:
            begin = time.perf_counter()
            rates[1].append(repeated(step, 4) / (time.perf_counter() - begin))
    return {
        "case": f"word2vec/{mode}_d{dim}",
        "against": f"gensim {gensim.version}" if gensim else "torch sparse SGD",
        "threads": options.threads,
        "unit": "words of text" if gensim else "pairs",
        **ratios(*rates),
    }


def glove_row(corpus: Corpus, options: argparse.Namespace, dim: int) -> dict[str, Any]:
    from cisdl.bench.word_vectors import sparse_adagrad

    from cisdl_ops.glove import GloVe, Records

    part = corpus.part(options.lines)
    begin = time.perf_counter()
    records = Records.count(part, len(corpus.vocabulary), GLOVE_WINDOW, dim=dim)
    print(f"{len(records)} records of {len(part)} tokens in {time.perf_counter() - begin:.1f} s", flush=True)
    model = GloVe(corpus.vocabulary, dim)
    model.train(records, 1)
    # The batch at which torch is fastest, found before anything is compared.
    steps = {batch: sparse_adagrad(records, dim, batch) for batch in (1024, 8192, 65536)}
    rate = {batch: step() / timed(step) for batch, step in steps.items() if step()}
    batch = max(rate, key=lambda b: rate[b])
    rates: tuple[list[float], list[float]] = ([], [])
    for _ in range(options.rounds):
        rates[0].append(len(records) / timed(partial(model.train, records, 1)))
        begin = time.perf_counter()
        rates[1].append(repeated(steps[batch], 2 * 65536 // batch) / (time.perf_counter() - begin))
    return {
        "case": f"glove/d{dim}",
        "against": f"torch sparse Adagrad, batch {batch}",
        "threads": options.threads,
        "unit": "records",
        **ratios(*rates),
    }


def two_threads_row(
    case: str, work: float, runs: dict[int, Callable[[], object]], rounds: int
) -> dict[str, Any]:
    """Ours on two threads against ours on one."""
    import torch

    rate: dict[int, list[float]] = {1: [], 2: []}
    for i in range(rounds + 1):
        for threads, run in runs.items():
            torch.set_num_threads(threads)
            took = timed(run)
            if i:
                rate[threads].append(work / took)
    return {"case": case, "against": "ours on 1 thread", "threads": 2, **ratios(rate[2], rate[1])}


def thread_rows(corpus: Corpus, options: argparse.Namespace, dim: int) -> Iterator[dict[str, Any]]:
    from cisdl_ops.glove import GloVe, Records

    part = corpus.part(options.lines)
    words = sum(corpus.words_of_line[: options.lines])
    for mode in MODES:
        models = {n: partial(corpus.model(mode, dim, n).train, part, 1, LR) for n in (1, 2)}
        yield two_threads_row(f"word2vec/{mode}_d{dim}", words, models, options.rounds)
    records = Records.count(part, len(corpus.vocabulary), GLOVE_WINDOW, dim=dim)
    run = partial(GloVe(corpus.vocabulary, dim).train, records, 1)
    yield two_threads_row(f"glove/d{dim}", len(records), {1: run, 2: run}, options.rounds)


def rows_of(corpus: Corpus, gensim: Gensim | None, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    parts = options.parts.split(",")
    for dim in options.dims:
        if "word2vec" in parts:
            for mode in MODES if gensim else MODES[:2]:
                yield word2vec_row(corpus, gensim, options, mode, dim)
        if "glove" in parts:
            yield glove_row(corpus, options, dim)
        if "threads" in parts:
            yield from thread_rows(corpus, options, dim)


def quality(corpus: Corpus, gensim: Gensim | None, options: argparse.Namespace, folder: Path) -> list[Any]:
    """The whole text, ``--epochs`` times, by each side from each seed."""
    from cisdl_ops.word_vectors import WordVectors

    found = []

    def score(side: str, mode: str, dim: int, seed: int, vectors: Any, seconds: float) -> None:
        row: dict[str, Any] = {"side": side, "mode": mode, "dim": dim, "seed": seed, "seconds": seconds}
        scores = []
        if options.similarity:
            scores.append(vectors.similarity_score(options.similarity, options.similarity.stem))
        if options.analogies:
            scores.append(vectors.analogy_score(options.analogies)["all"])
        row["scores"] = [vars(one) for one in scores]
        found.append(row)
        print(
            f"{side:8} {mode} d{dim} seed {seed}: {', '.join(map(str, scores))} ({seconds:.0f} s)", flush=True
        )

    for dim in options.dims:
        for mode in MODES:
            for seed in range(1, options.seeds + 1):
                model = corpus.model(mode, dim, options.threads, seed)
                took = timed(partial(model.train, corpus.tokens, options.epochs, LR))
                score("cisdl", mode, dim, seed, model.word_vectors(), took)
                if gensim and mode != "shared":
                    path = folder / "vectors"
                    took = gensim.train(
                        mode, dim, options.threads, None, seed=seed, epochs=options.epochs, save=str(path)
                    )
                    score("gensim", mode, dim, seed, WordVectors.load(path, binary=True), took)
    return found


def main() -> None:
    if sys.argv[1:2] == ["--gensim-worker"]:
        gensim_worker(sys.argv[2])
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("text", nargs="+", type=Path)
    parser.add_argument("--gensim", metavar="PYTHON", help="an interpreter that has gensim")
    parser.add_argument(
        "--parts", default="word2vec,glove", help="of word2vec, glove, threads [word2vec,glove]"
    )
    parser.add_argument("--dims", type=lambda s: [int(n) for n in s.split(",")], default=[100, 300])
    parser.add_argument("--lines", type=int, default=15000, help="of the text, in a round [15000]")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seeds", type=int, default=0, help="train and score this many times [0]")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--similarity", type=Path, help="word<TAB>word<TAB>score, such as WordSim-353")
    parser.add_argument("--analogies", type=Path, help="such as word2vec's questions-words.txt")
    parser.add_argument("-o", "--output", type=Path)
    options = parser.parse_args()

    import torch
    from cisdl.bench.results import write
    from cisdl.commands.bench import describe

    # torch says this about its own sparse gradients.
    warnings.filterwarnings("ignore", "Sparse invariant checks")
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        corpus = Corpus(options.text, folder)
        facts = {
            "lines": len(corpus.words_of_line),
            "words": sum(corpus.words_of_line),
            "vocabulary": len(corpus.vocabulary),
            "seconds": corpus.seconds,
        }
        print(facts, flush=True)
        gensim = Gensim(options.gensim, corpus.path) if options.gensim else None
        rows = []
        for row in rows_of(corpus, gensim, options):
            rows.append(row)
            say(row)
        scores = quality(corpus, gensim, options, folder) if options.seeds else []
        if gensim:
            gensim.process.kill()
    if options.output:
        environment = describe(torch.device("cpu"), options.threads)
        settings = {name: str(value) for name, value in vars(options).items() if name in SETTINGS}
        write(
            {
                "environment": environment,
                "settings": settings,
                "text": facts,
                "rows": rows,
                "quality": scores,
            },
            options.output,
        )


if __name__ == "__main__":
    main()
