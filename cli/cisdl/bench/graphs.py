"""A call as a CUDA graph: its kernels alone, without Python, dispatch and allocation.

Small layers spend more on those than on work. Most published speed-ups of recurrent layers are those of a
graph alone, so both sides get one.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

WARM_UPS = 3  # allocators, lazily loaded kernels, algorithms that are chosen by trying


def captured(prepare: Callable[[], Callable[[], object]], device: torch.device) -> Callable[[], object]:
    """``prepare()`` gives a call; returns the replay of a graph of that call.

    Both happen on the stream that is captured: autograd runs a gradient on the stream of its forward.
    """
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.device(device), torch.cuda.stream(stream):
        call = prepare()
        for _ in range(WARM_UPS):
            call()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream):
            call()
    torch.cuda.current_stream(device).wait_stream(stream)

    def replay() -> object:
        graph.replay()
        return call  # which keeps what the graph reads alive

    return replay
