"""Trains LeNet and a small residual network on Fashion-MNIST, with Winograd's convolution and without.

    python benchmarks/winograd_accuracy.py --data FOLDER -o benchmarks/winograd-accuracy-DATE.json

Each training runs in a process of its own, since CISDL_STRICT=1, which leaves Winograd out, is read when the
library is loaded. Seed, batches and initial weights are the same on both sides; what differs is the rounding.
The question is whether the test accuracy does, beyond what another seed changes.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from datetime import datetime, timezone
from pathlib import Path
from statistics import mean
from typing import Any

MODELS = ("lenet", "resnet")
SETTINGS = {"winograd": "0", "strict": "1"}


def build(name: str) -> Any:
    from cisdl import backend
    from cisdl.models import lenet
    from torch import Tensor, nn

    from cisdl_ops.nn import Conv2d, Linear

    if name == "lenet":
        return lenet.build(backend.get("cisdl"), (1, 28, 28), 10, "relu", "max")

    class Block(nn.Module):
        """Two 3x3 convolutions and a shortcut (He et al. 2015)."""

        def __init__(self, inputs: int, width: int, stride: int) -> None:
            super().__init__()
            self.conv1 = Conv2d(inputs, width, 3, stride, 1, bias=False)
            self.norm1 = nn.BatchNorm2d(width)
            self.conv2 = Conv2d(width, width, 3, 1, 1, bias=False)
            self.norm2 = nn.BatchNorm2d(width)
            self.shortcut = nn.Identity() if stride == 1 else Conv2d(inputs, width, 1, stride, bias=False)

        def forward(self, x: Tensor) -> Tensor:
            y = nn.functional.relu(self.norm1(self.conv1(x)))
            return nn.functional.relu(self.norm2(self.conv2(y)) + self.shortcut(x))

    return nn.Sequential(
        Conv2d(1, 32, 3, 1, 1, bias=False),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        Block(32, 32, 1),
        Block(32, 64, 2),
        Block(64, 128, 2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        Linear(128, 10),
    )


def train(name: str, data: Path, seed: int, images: int, epochs: int) -> dict[str, Any]:
    """One training in this process: the test accuracy after the last epoch."""
    import torch
    from cisdl.data import idx
    from torch.nn.functional import cross_entropy

    import cisdl_ops

    def part(stem: str, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        x = idx.find(data, f"{stem}-images-idx3-ubyte")
        y = idx.find(data, f"{stem}-labels-idx1-ubyte")
        if x is None or y is None:
            sys.exit(f"{data}: expected {stem}-images-idx3-ubyte and {stem}-labels-idx1-ubyte, plain or .gz")
        pixels = torch.from_numpy(idx.read_idx(x, 3)[:count].copy()).float().unsqueeze(1)
        return (pixels - 72.9) / 90.0, torch.from_numpy(idx.read_idx(y, 1)[:count].copy()).long()

    torch.manual_seed(seed)
    x, y = part("train", images)
    test_x, test_y = part("t10k", 10_000)
    model = build(name)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)
    used = set()
    for _ in range(epochs):
        for batch in torch.randperm(len(x)).split(64):
            optimizer.zero_grad()
            cross_entropy(model(x[batch]), y[batch]).backward()
            optimizer.step()
            used.add(cisdl_ops.last_implementation("conv2d_backward_weight"))
            used.add(cisdl_ops.last_implementation("conv2d_backward_input"))
    model.eval()
    with torch.no_grad():
        right = sum(
            int((model(a).argmax(1) == b).sum())
            for a, b in zip(test_x.split(500), test_y.split(500), strict=True)
        )
    return {"accuracy": right / len(test_y), "implementations": sorted(used)}


def in_a_process(arguments: argparse.Namespace, name: str, setting: str, seed: int) -> dict[str, Any]:
    child = [sys.executable, __file__, "--child", name, "--seed", str(seed), "--data", str(arguments.data)]
    child += ["--images", str(arguments.images), "--epochs", str(arguments.epochs)]
    environment = {**os.environ, "CISDL_STRICT": SETTINGS[setting]}
    done = subprocess.run(child, env=environment, check=True, capture_output=True, text=True)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of Fashion-MNIST's IDX files")
    parser.add_argument("--images", type=int, default=20_000, help="of the training set")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("-o", "--out", type=Path)
    parser.add_argument("--child", choices=MODELS, help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, default=0, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        result = train(arguments.child, arguments.data, arguments.seed, arguments.images, arguments.epochs)
        print(json.dumps(result))
        return

    rows = []
    for name in MODELS:
        for setting in SETTINGS:
            runs = [in_a_process(arguments, name, setting, seed) for seed in range(arguments.seeds)]
            accuracies = [run["accuracy"] for run in runs]
            rows.append(
                {
                    "model": name,
                    "setting": setting,
                    "accuracies": accuracies,
                    "mean": mean(accuracies),
                    "implementations": runs[0]["implementations"],
                }
            )
            spread = f"{min(accuracies):.4f} to {max(accuracies):.4f}"
            print(f"{name:8} {setting:10} mean {mean(accuracies):.4f}, {spread}")
    if arguments.out:
        content = {
            "data": "fashion-mnist",
            "train_images": arguments.images,
            "test_images": 10_000,
            "epochs": arguments.epochs,
            "date": f"{datetime.now(timezone.utc):%Y-%m-%d}",
            "rows": rows,
        }
        arguments.out.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
