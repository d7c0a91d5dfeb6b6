"""What can be said of texts without their words' order, and of words without their neighbours."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.sparse import csr_matrix
from sklearn.linear_model import LogisticRegression

Numbers = Sequence[Sequence[int]]


def bag_of_words(train: Numbers, labels: Sequence[int], judged: Numbers) -> np.ndarray:
    """Scores (texts, classes) of a logistic regression on which words a text has, in whatever order."""
    width = 1 + max(max(map(max, texts), default=0) for texts in (train, judged))

    def bags(texts: Numbers) -> csr_matrix:
        sets = [sorted(set(text)) for text in texts]
        ends = np.cumsum([0, *map(len, sets)])
        columns = np.fromiter((word for each in sets for word in each), np.int64, int(ends[-1]))
        return csr_matrix((np.ones(len(columns), np.float32), columns, ends), (len(sets), width))

    fitted = LogisticRegression(max_iter=1000).fit(bags(train), labels)
    scores: np.ndarray = np.log(np.maximum(fitted.predict_proba(bags(judged)), 1e-30)).astype(np.float32)
    return scores


def most_similar(known: Sequence[Sequence[str]], judged: Sequence[Sequence[str]]) -> list[int]:
    """For each judged sequence, which known one shares most of its runs of up to three symbols.

    Rare runs count more (tf-idf), the first and last symbol are told from others, the measure is the cosine.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    def runs(sequence: Sequence[str]) -> list[str]:
        ended = ["^", *sequence, "$"]
        return ["\t".join(ended[i : i + n]) for n in (1, 2, 3) for i in range(len(ended) - n + 1)]

    vectors = TfidfVectorizer(analyzer=runs, dtype=np.float32).fit(known)
    library = vectors.transform(known).T.tocsr()
    found: list[int] = []
    for start in range(0, len(judged), 500):
        likeness = vectors.transform(judged[start : start + 500]) @ library
        found += np.asarray(likeness.argmax(axis=1)).ravel().tolist()
    return found
