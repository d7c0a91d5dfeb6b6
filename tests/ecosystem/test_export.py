"""torch.export and ahead-of-time compilation of accelerated models."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import cisdl_ops
from tests.zoo.tasks import TASKS

ROOT = Path(__file__).parents[2]
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*treespec, LeafSpec.*:FutureWarning"),
    # torch says so of its own recurrent layers as of ours, which inherit the list that it means.
    pytest.mark.filterwarnings("ignore:The tensor attributes self.*_flat_weights:UserWarning"),
]

# What each model's graph has to hold of ours.
EXPORTED = {
    "lenet": {"conv2d", "avg_pool2d", "linear"},
    "alexnet": {"conv2d", "max_pool2d", "adaptive_avg_pool2d", "linear"},
    "resnet": {"conv2d", "max_pool2d", "adaptive_avg_pool2d", "linear"},
    "unet": {"conv2d", "conv_transpose2d", "max_pool2d"},
    "translator": {"gru_layer", "gru_cell", "linear"},
    "clock": {"rnn_layer", "lstm_cell", "linear"},
}


def targets(program: torch.export.ExportedProgram) -> set[str]:
    return {str(node.target) for node in program.graph.nodes if node.op == "call_function"}


@pytest.mark.parametrize("strict", [True, False], ids=["strict", "nonstrict"])
@pytest.mark.parametrize("name", EXPORTED)
def test_export(name: str, strict: bool) -> None:
    """One program for every batch size, and it is ours after decomposition, too."""
    task = TASKS[name]
    model = cisdl_ops.accelerate(task.model()).eval()

    def inputs(size: int) -> tuple[Tensor, ...]:
        return task.batch(size)[: 2 if name == "translator" else 1]

    batch = torch.export.Dim("batch")
    shapes = tuple({task.batch_dim(tensor): batch} for tensor in inputs(4))
    program = torch.export.export(model, inputs(4), dynamic_shapes=shapes, strict=strict)
    for stage in (program, program.run_decompositions()):
        assert {f"cisdl.{op}.default" for op in EXPORTED[name]} <= targets(stage)
        for size in (4, 7):
            expected = model(*inputs(size))
            torch.testing.assert_close(stage.module()(*inputs(size)), expected, rtol=1e-4, atol=1e-5)


def test_exported_program_in_a_file() -> None:
    task = TASKS["lenet"]
    model = cisdl_ops.accelerate(task.model())
    x = task.batch(3)[0]
    file = io.BytesIO()
    torch.export.save(torch.export.export(model, (x,)), file)
    file.seek(0)
    torch.testing.assert_close(torch.export.load(file).module()(x), model(x))


def test_exported_for_training() -> None:
    """The exported module trains: gradients go through our operators."""
    task = TASKS["lenet"]
    model = cisdl_ops.accelerate(task.model())
    x, y = task.batch(4)
    exported = torch.export.export(model, (x,)).module()
    got, expected = (
        torch.autograd.grad(nn.functional.cross_entropy(m(x), y), list(m.parameters()))
        for m in (exported, model)
    )
    torch.testing.assert_close(got, expected)


def test_jit_trace() -> None:
    task = TASKS["lenet"]
    model = cisdl_ops.accelerate(task.model())
    traced = torch.jit.trace(model, task.batch(3)[0])
    assert "cisdl::conv2d" in str(traced.inlined_graph)
    x = task.batch(5)[0]
    torch.testing.assert_close(traced(x), model(x))


LOAD = """
import json, sys, torch, cisdl_ops
runner = torch._inductor.aoti_load_package(sys.argv[1])
images = torch.load(sys.argv[2], weights_only=True)
torch.save([runner(x) for x in images], sys.argv[3])
print(json.dumps([cisdl_ops.last_implementation(op) for op in ("conv2d", "avg_pool2d", "linear")]))
"""


def test_ahead_of_time(tmp_path: Path) -> None:
    """AOTInductor makes a package; another process, which never saw the model, runs our kernels from it."""
    model = cisdl_ops.accelerate(
        nn.Sequential(nn.Conv2d(1, 4, 3), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(36, 3))
    )
    images = [torch.randn(size, 1, 8, 8) for size in (2, 5)]
    program = torch.export.export(model, (images[0],), dynamic_shapes=({0: torch.export.Dim("batch")},))
    package = torch._inductor.aoti_compile_and_package(
        program,
        package_path=str(tmp_path / "model.pt2"),
        inductor_configs={"aot_inductor.compile_wrapper_opt_level": "O0"},  # half the time to compile
    )
    torch.save(images, tmp_path / "images.pt")
    arguments = [package, str(tmp_path / "images.pt"), str(tmp_path / "results.pt")]
    done = subprocess.run([sys.executable, "-c", LOAD, *arguments], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert all(json.loads(done.stdout))
    results = torch.load(tmp_path / "results.pt", weights_only=True)
    torch.testing.assert_close(results, [model(x) for x in images])
