"""The one table of cases: every test, ``cisdl check`` and ``cisdl bench`` read it.

A :class:`Case` is an op, the shapes of its tensors and its keyword arguments; an :class:`Op` says how to
call ours, torch's and the reference, which inputs have gradients, and what a call costs. A new op is a new
entry in ``OPS`` and a block of cases; nothing in the tests or the bench has to change. Cases lie in one file
an op family, the layers of whole networks in ``networks.py``.

Tags: ``test`` small shapes that reach every option and every edge of a vector loop; ``grad`` tiny shapes for
numerical derivatives in float64; ``bench`` layers of real networks; ``quick`` the part of ``bench`` that
``cisdl bench --quick`` runs; ``first`` the first layer of a network, whose input's gradient nobody
needs, so that it is checked but not timed; ``tiny`` what loads the code of a layer before its memory is
measured.

Whole recurrent layers (``LAYERS``) and word vectors have cases of ``bench`` only: they are tested by files of
their own.
"""

from __future__ import annotations

import fnmatch

from cisdl_ops.cases.build import GATES
from cisdl_ops.cases.cells import cell_cases
from cisdl_ops.cases.conv2d import conv2d_cases
from cisdl_ops.cases.conv_transpose2d import conv_transpose2d_cases
from cisdl_ops.cases.layers import MODULES, layer_cases
from cisdl_ops.cases.linear import linear_cases
from cisdl_ops.cases.networks import NETWORKS, network_cases, network_of
from cisdl_ops.cases.pooling import adaptive_pool_cases, pool_cases
from cisdl_ops.cases.table import LAYERS, OPS, Case, Function, Op, Pass, Shape, op_of
from cisdl_ops.cases.word_vectors import WORD_VECTORS, word_vector_cases

__all__ = [
    "CASES",
    "LAYERS",
    "NETWORKS",
    "OPS",
    "WORD_VECTORS",
    "Case",
    "Function",
    "Op",
    "Pass",
    "Shape",
    "network_of",
    "op_of",
    "select",
]

CASES: tuple[Case, ...] = (
    *linear_cases(),
    *conv2d_cases(),
    *conv_transpose2d_cases(),
    *pool_cases(),
    *adaptive_pool_cases(),
    *(case for op in GATES for case in cell_cases(op)),
    *(case for op in MODULES for case in layer_cases(op)),
    *word_vector_cases(),
    *network_cases(),
)


def select(tag: str | None = None, glob: str = "*") -> list[Case]:
    """Cases with ``tag`` whose op, name or ``op/name`` matches ``glob``."""
    return [
        case
        for case in CASES
        if (tag is None or tag in case.tags)
        and any(fnmatch.fnmatchcase(text, glob) for text in (case.id, case.op, case.name))
    ]
