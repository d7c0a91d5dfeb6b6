"""The public data sets that `cisdl data get` brings, where from, and what their bytes have to be.

Whatever address a file comes from, nothing is put in its place before its SHA-256 is this one; so a mirror
may be any server. The license of a set is its own matter: these are files that anyone may fetch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class RemoteFile:
    """A file of a set as it lies in the set's folder."""

    name: str
    size: int
    sha256: str
    urls: tuple[str, ...]
    """Tried in this order."""
    members: Mapping[str, str] = field(default_factory=dict)
    """For an archive: its members that are wanted, and their names in the folder. It is not kept itself."""


@dataclass(frozen=True)
class Download:
    name: str
    title: str
    files: tuple[RemoteFile, ...]
    counts: Mapping[str, int] = field(default_factory=dict)
    """Examples (of a text: characters) that the set's reader has to find in each part."""


def at(*bases: str, name: str) -> tuple[str, ...]:
    return tuple(base + name for base in bases)


IDX = ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz",
       "t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz")  # fmt: skip


def idx(sizes: tuple[int, ...], checksums: tuple[str, ...], *bases: str) -> tuple[RemoteFile, ...]:
    return tuple(
        RemoteFile(name, size, checksum, at(*bases, name=name))
        for name, size, checksum in zip(IDX, sizes, checksums, strict=True)
    )


def of_github(base: str, files: Mapping[str, tuple[int, str]]) -> tuple[RemoteFile, ...]:
    """Files of a repository, `base` "owner/name/commit/folder"."""
    url = f"https://raw.githubusercontent.com/{base}/"
    return tuple(RemoteFile(name, *facts, (url + name,)) for name, facts in files.items())


DOWNLOADS: dict[str, Download] = {
    download.name: download
    for download in (
        Download(
            "mnist", "70,000 handwritten digits, 28 x 28 (11 MB)",
            idx(
                (9912422, 28881, 1648877, 4542),
                (
                    "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
                    "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
                    "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
                    "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
                ),
                "https://ossci-datasets.s3.amazonaws.com/mnist/",
                "https://storage.googleapis.com/cvdf-datasets/mnist/",
            ),
            {"train": 54000, "validation": 6000, "test": 10000},
        ),
        Download(
            "fashion-mnist", "70,000 photos of clothing, 28 x 28 (30 MB)",
            idx(
                (26421880, 29515, 4422102, 5148),
                (
                    "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
                    "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
                    "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
                    "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
                ),
                "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
                "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
            ),
            {"train": 54000, "validation": 6000, "test": 10000},
        ),
        Download(
            "cifar10", "60,000 photos of 10 classes, 32 x 32 in colour (170 MB)",
            (
                RemoteFile(
                    "cifar-10-binary.tar.gz", 170052171,
                    "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
                    ("https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",),
                    {
                        f"cifar-10-batches-bin/{name}.bin": f"{name}.bin"
                        for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch")
                    },
                ),
            ),
        ),
        Download(
            "sst2", "7,792 sentences of film reviews, positive or negative (0.8 MB)",
            of_github(
                "clairett/pytorch-sentiment-classification/master/data/SST2",
                {
                    "train.tsv": (
                        720259, "ec192f833a64da08f475488a77b0d0b47db47acd0f458bd18433fc793b569920"
                    ),
                    "dev.tsv": (92057, "eddea6b39e601dd4e7a672b53cc40fdf6019fa80522f351206c24340ca5d9359"),
                },
            ),
        ),
        Download(
            "tinyshakespeare", "1.1 million characters of Shakespeare (1.1 MB)",
            of_github(
                "karpathy/char-rnn/master/data/tinyshakespeare",
                {"input.txt": (1115394, "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed")},
            ),
            {"train": 892316, "validation": 111539, "test": 111539},
        ),
        Download(
            "text8", "17 million words of English Wikipedia, letters and spaces only (31 MB)",
            (
                RemoteFile(
                    "text8.zip", 31344016, "a6640522afe85d1963ad56c05b0ede0a0c000dddc9671758a6cc09b7a38e5232",
                    ("https://mattmahoney.net/dc/text8.zip", "http://mattmahoney.net/dc/text8.zip"),
                    {"text8": "text8.txt"},
                ),
            ),
            {"train": 80000000, "validation": 10000000, "test": 10000000},
        ),
        Download(
            "ud-english-ewt", "14,545 sentences with parts of speech, release 2.15 (16 MB)",
            of_github(
                "UniversalDependencies/UD_English-EWT/r2.15",
                {
                    "en_ewt-ud-train.conllu": (
                        14203025, "3fb78e2b55482c8ee00caa653af436c88c9e5bc9a73ce26e4ae3ddc79d2b7e7b"
                    ),
                    "en_ewt-ud-dev.conllu": (
                        1805545, "531a54ff90d6ab12201c5a50c3e78e6ddac4de69abc4bce5d275d3cd29efe2b6"
                    ),
                },
            ),
        ),
        Download(
            "word-eval", "pairs of words and how alike people find them (20 kB)",
            of_github(
                "mfaruqui/eval-word-vectors/master/data/word-sim",
                {
                    "EN-WS-353-ALL.txt": (
                        7405, "ce12919b240af45bdf46d243601eaca2b6212b159b5e7e9b435ee7ee40c5619c"
                    ),
                    "EN-WS-353-SIM.txt": (
                        4002, "f1da938998863c94e53f72f984a5c6e215f0b46c323aae8f0f4930703a339107"
                    ),
                    "EN-WS-353-REL.txt": (
                        5134, "66a7c88100624d0a391605ff61ce84e11d11ee620d51ec0298da49592838f8fa"
                    ),
                    "EN-RG-65.txt": (
                        1210, "c243f3a91c3f5d8cf67f21a67f6fb80bde8b6bb060851a6a48e6f2d68ec98c9f"
                    ),
                },
            ),
        ),
    )
}  # fmt: skip
