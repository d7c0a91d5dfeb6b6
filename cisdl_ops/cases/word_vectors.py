"""Word vectors, for ``cisdl bench`` alone: how many, how long, and how they are trained."""

from __future__ import annotations

from collections.abc import Iterator

from cisdl_ops.cases.build import tagged
from cisdl_ops.cases.table import Case

WORD_VECTORS = ("word2vec", "glove")
MODES = ("pairs", "shared", "cbow")
WORDS, TOKENS = 20_000, 20_000


def word_vector_cases() -> Iterator[Case]:
    for dim in (100, 300):
        shape = (WORDS, dim)
        for mode in MODES:
            tags = "bench quick" if (dim, mode) == (100, "pairs") else "bench"
            vectors = {"input_vectors": shape, "output_vectors": shape}
            options = {"mode": mode, "tokens": TOKENS}
            yield Case("word2vec", f"{mode}_d{dim}", vectors, options, tagged(tags))
        tags = "bench quick" if dim == 100 else "bench"
        vectors = {"word_vectors": shape, "context_vectors": shape}
        yield Case("glove", f"d{dim}", vectors, {"tokens": TOKENS}, tagged(tags))
