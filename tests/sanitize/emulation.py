"""The emulated CUDA kernels, compiled for the address and undefined-behaviour sanitizers."""

from __future__ import annotations

from pathlib import Path

from tests.cuda_emulation.build import library

FLAGS = (
    "-O1",
    "-fno-omit-frame-pointer",
    "-fsanitize=address,undefined,float-cast-overflow",
    "-fno-sanitize-recover=all",
)


def sanitized_library() -> Path:
    return library(extra_flags=FLAGS)
