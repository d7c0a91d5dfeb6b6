"""A small test of word vectors, of our own: groups of alike words, and plurals, from Python's manual.

It is no benchmark: it only says whether vectors of so small a text know anything. The published ones,
WordSim-353 and the Google analogies, need a text a hundred times as long; `--word-eval` takes them.
"""

from __future__ import annotations

import torch

from cisdl_ops.word_vectors import Score, WordVectors

GROUPS: dict[str, tuple[str, ...]] = {
    name: tuple(words.split())
    for name, words in {
        "numbers": "int float complex integer decimal",
        "containers": "list tuple dict set",
        "strings": "str bytes string unicode ascii",
        "exceptions": "typeerror valueerror attributeerror syntaxerror runtimeerror",
        "loops": "while break continue else loop",
        "errors": "try except finally raise raised",
        "constants": "true false none",
        "attribute hooks": "__get__ __set__ __getattr__ __setattr__ __getattribute__",
        "life of an object": "__init__ __new__ __del__ cls",
        "scopes": "global nonlocal local namespace",
        "asynchronous": "async await coroutine asynchronous",
        "letters": "uppercase lowercase digits characters letter",
        "arithmetic": "addition multiplication division modulo arithmetic",
        "debugging": "debugger pdb breakpoint breakpoints",
        "arguments": "positional keyword argument parameter arguments parameters",
        "modules": "import imported module modules package",
        "modals": "may must should can will",
    }.items()
}

PLURALS = tuple(
    (one, f"{one}{'es' if one.endswith('s') else 's'}")
    for one in (
        *("object", "class", "function", "method", "argument", "name", "attribute", "value", "item", "type"),
        *("character", "string", "list", "number", "expression", "statement", "module", "key", "exception"),
        *("sequence", "instance", "operator", "integer", "variable", "parameter", "tuple", "pattern"),
        "operation",
    )
)


def grouped(known: WordVectors) -> tuple[list[str], list[int]]:
    """The words of the groups that have vectors and company in their group, and the groups' numbers."""
    words, numbers = [], []
    for number, group in enumerate(GROUPS.values()):
        present = [word for word in group if word in known]
        if len(present) > 1:
            words += present
            numbers += [number] * len(present)
    return words, numbers


def group_score(vectors: WordVectors) -> Score:
    """The share of words whose nearest of all words of the groups is one of their own group."""
    words, numbers = grouped(vectors)
    total = sum(map(len, GROUPS.values()))
    if not words:
        return Score("groups", float("nan"), 0, total)
    unit = vectors.unit()[[vectors.number(word) for word in words]]
    cosines = (unit.unsqueeze(1) * unit).sum(2).fill_diagonal_(-2)
    group = torch.tensor(numbers)
    right = int((group[cosines.argmax(1)] == group).sum())
    return Score("groups", right / len(words), len(words), total)


def chance(known: WordVectors) -> Score:
    """What `group_score` comes to if all words are equally alike, as one-hot vectors are."""
    words, numbers = grouped(known)
    total = sum(map(len, GROUPS.values()))
    if not words:
        return Score("groups", float("nan"), 0, total)
    others = [numbers.count(number) - 1 for number in numbers]
    return Score("groups", sum(others) / (len(words) - 1) / len(words), len(words), total)


def plural_questions(known: WordVectors) -> list[tuple[str, str, str, str]]:
    """Every "object is to objects as class is to ?" of pairs that have vectors."""
    pairs = [(one, more) for one, more in PLURALS if one in known and more in known]
    return [(*a, *b) for a in pairs for b in pairs if a != b]


def plural_score(vectors: WordVectors) -> Score:
    """The share of those questions whose answer is the nearest word."""
    asked = plural_questions(vectors)
    total = len(PLURALS) * (len(PLURALS) - 1)
    right = sum(vectors.analogy(a, b, c)[0][0] == d for a, b, c, d in asked)
    return Score("plurals", right / len(asked) if asked else float("nan"), len(asked), total)
