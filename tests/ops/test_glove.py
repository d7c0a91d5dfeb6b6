"""Counting neighbours and GloVe's AdaGrad against plain versions of both."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from cisdl_ops import glove, glove_reference
from cisdl_ops.glove import GloVe, Records
from cisdl_ops.word_vectors import Vocabulary

WORDS = 40


def text(size: int = 400) -> Tensor:
    """Sentences of many lengths, also empty ones and of a single word."""
    generator = torch.Generator().manual_seed(5)
    share = 1 / torch.arange(1.0, WORDS + 1)
    tokens = torch.multinomial(share, size, replacement=True, generator=generator).int()
    tokens[torch.rand(size, generator=generator) < 0.1] = -1
    return tokens


def matrix(keys: Tensor, values: Tensor) -> Tensor:
    found = torch.zeros(WORDS, WORDS, dtype=torch.float64)
    i, j = keys // WORDS, keys % WORDS
    found[i, j] = values
    found[j, i] = values
    return found


@pytest.mark.parametrize("window", [1, 2, 10, 255])
def test_counts_are_those_of_every_pair(window: int) -> None:
    keys, values = glove.cooccurrence(text(), WORDS, window)
    expected = glove_reference.cooccurrence(text().tolist(), WORDS, window)
    torch.testing.assert_close(matrix(keys, values), torch.from_numpy(expected), rtol=1e-12, atol=1e-12)
    assert bool((keys.diff() > 0).all())
    assert bool((keys // WORDS <= keys % WORDS).all())


def test_counts_of_a_large_vocabulary() -> None:
    """Keys of more than 32 bits, with an odd number of sorting passes."""
    words = 100_000
    tokens = torch.tensor([99_999, 7, 99_999, 99_998, -1, 99_999], dtype=torch.int32)
    keys, values = glove.cooccurrence(tokens, words, 2)
    expected = {
        (7, 99_998): 0.5,
        (7, 99_999): 2.0,
        (99_998, 99_999): 1.0,
        (99_999, 99_999): 1.0,
    }
    assert dict(zip([divmod(k, words) for k in keys.tolist()], values.tolist(), strict=True)) == expected


def dense(records: Records) -> Tensor:
    """The matrix of x that the records stand for."""
    found = torch.zeros(WORDS, WORDS, dtype=torch.float64)
    i, j = records.pairs.long().unbind(1)
    found[i, j] = records.targets[:, 0].double().exp()
    assert int((found > 0).sum()) == len(records)
    return found


@pytest.mark.parametrize("memory", [1 << 30, 20_000])
@pytest.mark.parametrize("in_files", [False, True])
def test_records_are_the_matrix_in_blocks(memory: int, in_files: bool, tmp_path: Path) -> None:
    """Also if the text is counted in many stretches and merged in many slices."""
    torch.set_num_threads(2)
    folder = tmp_path / "counts" if in_files else None
    records = Records.count(text(), WORDS, 4, x_max=2.0, memory=memory, folder=folder)
    expected = torch.from_numpy(glove_reference.cooccurrence(text().tolist(), WORDS, 4))
    torch.testing.assert_close(dense(records), expected, rtol=1e-6, atol=0)
    x, weight = records.targets.double().unbind(1)
    torch.testing.assert_close(weight, (x.exp() / 2).pow(0.75).clamp(max=1), rtol=1e-6, atol=0)
    assert records.blocks == 31
    sizes = records.offsets.diff()
    block = torch.repeat_interleave(torch.arange(31 * 31), sizes)
    i, j = records.pairs.long().unbind(1)
    assert torch.equal(block, i % 31 * 31 + j % 31)


def small_records() -> Records:
    return Records.count(text(), WORDS, 3, x_max=3.0)


def model(dim: int) -> GloVe:
    return GloVe(Vocabulary([f"w{i}" for i in range(WORDS)], [1] * WORDS), dim, seed=4)


@pytest.mark.parametrize("dim", [1, 14, 15, 40, 70, 113])
def test_is_glove(dim: int) -> None:
    """Vectors, biases and both losses after two passes."""
    records, ours = small_records(), model(dim)

    def with_bias(vectors: Tensor, biases: Tensor) -> np.ndarray[Any, Any]:
        return torch.cat([vectors, biases.unsqueeze(1)], 1).double().numpy()

    w, c = with_bias(ours.vectors, ours.biases), with_bias(ours.context_vectors, ours.context_biases)
    w_sums, c_sums = np.ones_like(w), np.ones_like(c)
    expected: list[float] = []
    for epoch in (1, 2):
        loss = 0.0
        for n in glove_reference.schedule(records.blocks, records.offsets.tolist(), 4 * 1000003 + epoch):
            i, j = records.pairs[n].tolist()
            loss += glove_reference.update(
                w[i], w_sums[i], c[j], c_sums[j], *records.targets[n].tolist(), lr=0.2
            )
        expected.append(loss / len(records))
    seen: list[float] = []
    ours.train(records, 2, lr=0.2, progress=lambda _, loss: seen.append(loss))
    torch.testing.assert_close(seen, expected, rtol=1e-4, atol=0)
    torch.testing.assert_close(with_bias(ours.vectors, ours.biases), w, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(with_bias(ours.context_vectors, ours.context_biases), c, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(ours._word[:, 1, :dim].double().numpy(), w_sums[:, :-1], rtol=1e-4, atol=1e-5)
    assert bool((ours._word[:, 0, dim + 1] == 1).all())  # the columns beside the biases stay 1
    assert bool((ours._context[:, 0, dim] == 1).all())
    assert not ours._word[:, 0, dim + 2 :].any()


def test_every_record_is_trained_once_in_a_pass() -> None:
    records = small_records()
    order = list(glove_reference.schedule(records.blocks, records.offsets.tolist(), 1))
    assert sorted(order) == list(range(len(records)))
    assert order != list(glove_reference.schedule(records.blocks, records.offsets.tolist(), 2))


@pytest.mark.parametrize("blocks", [1, 7, 93])
def test_blocks_of_any_number(blocks: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """More blocks than teams, and numbers that are not shared out in teams."""
    expected = small_records()
    monkeypatch.setattr(Records, "blocks_for", lambda words, dim: blocks)
    records = small_records()
    assert torch.equal(dense(records), dense(expected))
    order = list(glove_reference.schedule(blocks, records.offsets.tolist(), 1))
    assert sorted(order) == list(range(len(records)))
    rows = torch.full((WORDS, 2, 16), 0.2), torch.full((WORDS, 2, 16), 0.1)
    for one in rows:
        one[:, 1] = 1
    w, c = (r[:, 0, :].double().numpy().copy() for r in rows)
    sums = [r[:, 1, :].double().numpy().copy() for r in rows]
    glove.train(*rows, records.offsets, records.pairs, records.targets, blocks, lr=0.3, seed=1)
    for n in order:
        i, j = records.pairs[n].tolist()
        log_x, weight = records.targets[n].tolist()
        d = w[i] @ c[j] - log_x
        steps = 0.3 * weight * d * c[j], 0.3 * weight * d * w[i]
        for row, total, step in zip((w[i], c[j]), (sums[0][i], sums[1][j]), steps, strict=True):
            row -= step / np.sqrt(total)
            total += step**2
    torch.testing.assert_close(rows[0][:, 0].double().numpy(), w, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(rows[1][:, 0].double().numpy(), c, rtol=1e-4, atol=1e-5)


def test_rows_of_any_width() -> None:
    """The op itself takes rows without padding."""
    records = small_records()
    rows = [torch.ones(WORDS, 2, width) for width in (5, 16)]
    rows[1][:, 0, 5:] = 0
    pair = [(r, r.clone()) for r in rows]
    for w, c in pair:
        glove.train(w, c, records.offsets, records.pairs, records.targets, records.blocks)
    torch.testing.assert_close(pair[0][0], pair[1][0][:, :, :5], rtol=1e-5, atol=1e-6)


def test_the_same_bits_on_any_number_of_threads() -> None:
    records, results = small_records(), []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        ours = model(20)
        ours.train(records, 3)
        results.append(ours.vectors)
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


def test_the_loss_falls() -> None:
    losses: list[float] = []
    ours = model(10)
    ours.train(small_records(), 30, progress=lambda _, loss: losses.append(loss))
    assert losses[-1] < 0.3 * losses[0]
    summed = ours.word_vectors()
    assert torch.equal(summed.vectors, ours.vectors + ours.context_vectors)


def test_a_text_without_pairs() -> None:
    records = Records.count(torch.tensor([3, -1, 4, -1], dtype=torch.int32), WORDS)
    assert len(records) == 0
    model(4).train(records, 1)


def arguments() -> dict[str, Any]:
    records = small_records()
    return {
        "word_rows": torch.ones(WORDS, 2, 16),
        "context_rows": torch.ones(WORDS, 2, 16),
        "offsets": records.offsets,
        "pairs": records.pairs,
        "targets": records.targets,
        "blocks": records.blocks,
    }


BAD: list[tuple[str, Any, str]] = [
    ("word_rows", torch.ones(WORDS, 3, 16), r"word_rows: expected shape \[words, 2, width\]"),
    ("word_rows", torch.ones(WORDS, 2, 16).double(), "word_rows: expected dtype float32, got float64"),
    (
        "context_rows",
        torch.ones(WORDS, 2, 8),
        r"context_rows: expected shape \[40, 2, 16\], got \[40, 2, 8\]",
    ),
    ("word_rows", torch.ones(5, 2, 16), "context_rows: expected shape"),
    ("offsets", torch.zeros(4, dtype=torch.int64), r"offsets: expected shape \[962\], got \[4\]"),
    ("offsets", torch.zeros(962, dtype=torch.int64), "offsets: expected them to go from 0"),
    ("pairs", torch.zeros(3, 2, dtype=torch.int32), r"targets: expected shape \[3, 2\]"),
    ("targets", torch.zeros(3, 3), r"targets: expected shape \[records, 2\]"),
    ("blocks", 0, "blocks: expected an integer from 1 to 32768, got 0"),
    ("lr", math.inf, "lr: expected a finite number that is not negative, got inf"),
]


@pytest.mark.parametrize(("name", "value", "message"), BAD)
def test_bad_arguments_are_refused(name: str, value: Any, message: str) -> None:
    with pytest.raises(RuntimeError, match=message):
        glove.train(**(arguments() | {name: value}))


def test_records_of_another_block_are_refused() -> None:
    given = arguments()
    given["pairs"] = given["pairs"].clone()
    given["pairs"][0, 0] += 1
    with pytest.raises(RuntimeError, match="pairs: expected words below 40 of block"):
        glove.train(**given)


def test_bad_counting_is_refused() -> None:
    with pytest.raises(RuntimeError, match="window: expected an integer from 1 to 255, got 256"):
        glove.cooccurrence(text(), WORDS, 256)
    with pytest.raises(RuntimeError, match="tokens: expected numbers from -1 to 4, got"):
        glove.cooccurrence(text(), 5)
    with pytest.raises(ValueError, match="records: expected 40 words, got 50"):
        model(3).train(Records.count(text(), 50))
