"""Word vectors by counting: no training, one decomposition."""

from __future__ import annotations

import numpy as np
import torch
from scipy.sparse import coo_matrix
from sklearn.decomposition import TruncatedSVD
from torch import Tensor

from cisdl_ops.glove import cooccurrence

WINDOW = 5
LARGEST = 1_000_000
"""Tokens up to which it is quick."""


def ppmi_svd(tokens: Tensor, words: int, dim: int, seed: int, shift: float = 0.0) -> Tensor:
    """Rows U S^(1/2) of the `dim` largest singular values of the matrix of positive pointwise information.

        PPMI_ij = max(0, log(X_ij X / (X_i X_j^0.75)) - shift)      X_i, X: sums of a row and of all

    X counts neighbours up to `WINDOW` apart by 1 / distance. The power 0.75 and the root of S are those of
    the source.

    Source: Levy, Goldberg, Dagan, "Improving distributional similarity with lessons learned from word
    embeddings", TACL 2015.
    """
    keys, values = (t.numpy() for t in cooccurrence(tokens, words, WINDOW))
    i, j = keys // words, keys % words
    other = i != j
    rows, columns = np.concatenate([i, j[other]]), np.concatenate([j, i[other]])
    counts = np.concatenate([values, values[other]])
    of_row = np.bincount(rows, counts, words)
    of_column = of_row**0.75
    of_column *= of_row.sum() / of_column.sum()
    information = np.log(counts * of_row.sum() / (of_row[rows] * of_column[columns])) - shift
    kept = information > 0
    matrix = coo_matrix((information[kept], (rows[kept], columns[kept])), (words, words)).tocsr()
    svd = TruncatedSVD(min(dim, words - 1), random_state=seed)
    found = svd.fit_transform(matrix)  # U S
    return torch.from_numpy((found / np.sqrt(np.maximum(svd.singular_values_, 1e-12))).astype(np.float32))
