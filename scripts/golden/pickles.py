"""Files as `torch.save` writes them, and what they hold: tests/golden/weights.

    pip install torch safetensors numpy
    python scripts/golden/pickles.py

Each `NAME.pth` comes with `NAME.safetensors`, whose tensors must be those of the `.pth` bit for bit, under names joined
by dots. `hostile_*.pth` ask for a function to be called and come with nothing.
"""

import argparse
import builtins
import collections
import os
import pathlib

from environment import ensure

ensure()

import numpy
import safetensors.torch
import torch

OUT = pathlib.Path(__file__).resolve().parents[2] / "tests/golden/weights"


def random(generator, *shape, dtype=torch.float32):
    return torch.randn(*shape, generator=generator).to(dtype)


def flatten(prefix, value):
    """All tensors below `value`, contiguous, by dotted name."""
    if isinstance(value, torch.Tensor):
        return {prefix: value.detach().clone().contiguous()}
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, (list, tuple)):
        items = enumerate(value)
    else:
        return {}
    found = {}
    for key, below in items:
        found |= flatten(f"{prefix}.{key}" if prefix else str(key), below)
    return found


def save(name, value, **options):
    torch.save(value, OUT / f"{name}.pth", **options)
    safetensors.torch.save_file(flatten("", value), OUT / f"{name}.safetensors", {"format": "pt"})


def training_checkpoint(generator):
    """What a training script leaves: weights beside an optimizer, settings and counters."""
    model = torch.nn.Sequential(
        torch.nn.Linear(5, 3), torch.nn.LayerNorm(3), torch.nn.BatchNorm1d(3), torch.nn.Embedding(7, 3)
    )
    for parameter in model.parameters():
        parameter.data = random(generator, *parameter.shape)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    loss = model[2](model[1](model[0](random(generator, 4, 5)))).square().sum() + model[3].weight.square().sum()
    loss.backward()
    optimizer.step()
    return {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "scaler": {"scale": 65536.0, "growth_interval": 2000, "flag": True},
        "config": {"run": {"lr": [1e-5, 3e-5], "name": "stage 2", "none": None, "large": 2**70}},
        "args": argparse.Namespace(lr=1e-4, out=pathlib.PurePosixPath("out/run")),
        "best": numpy.float64(0.9036),
        "curve": numpy.arange(6.0),
        "step": 12,
        "epoch": -3,
        "ids": {1, 2, 3},
        "counter": collections.Counter("emotion"),
        "blob": b"\x00\xff",
    }


def views(generator):
    """Storages that are shared, transposed, sliced and stepped through."""
    table = random(generator, 6, 8)
    return collections.OrderedDict(
        whole=table,
        again=table,
        transposed=table.t(),
        rows=table[2:4],
        columns=table[:, 1:7:2],
        permuted=random(generator, 2, 3, 4).permute(2, 0, 1),
        one=table[3, 5],
        row_of_one=table[3:4, ::2],
        empty=torch.empty(0, 4),
        nested=[table[0], (table[1], {"deep": table[:, 0]})],
    )


def dtypes(generator):
    """Every kind of value that a module's buffers may have."""
    values = random(generator, 3, 4)
    special = torch.tensor([0.0, -0.0, float("inf"), float("-inf"), float("nan"), 1e-42, 65504.0, 1e-7])
    return {
        "f64": values.double(),
        "f32": values,
        "f16": values.half(),
        "bf16": values.bfloat16(),
        "special": {name: special.to(getattr(torch, name)) for name in ("float32", "float16", "bfloat16", "float64")},
        "parameter": torch.nn.Parameter(random(generator, 2, 3, dtype=torch.bfloat16)),
        "frozen": torch.nn.Parameter(random(generator, 3), requires_grad=False),
        "i64": torch.arange(4),
        "i32": torch.arange(4, dtype=torch.int32),
        "i16": torch.arange(4, dtype=torch.int16),
        "i8": torch.arange(-2, 2, dtype=torch.int8),
        "u8": torch.arange(4, dtype=torch.uint8),
        "bool": torch.tensor([True, False, True]),
        "half_transposed": random(generator, 3, 5, dtype=torch.float16).t(),
    }


class Call:
    """Pickles as a call of `function`."""

    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(31)
    save("training", training_checkpoint(generator))
    save("views", views(generator))
    save("dtypes", dtypes(generator))
    for protocol in (3, 4, 5):
        save(f"protocol_{protocol}", {"model": views(generator), "n": 1 << 40}, pickle_protocol=protocol)
    tensor = random(generator, 2, 2)
    for name, call in {
        "os_system": Call(os.system, "touch limbic-was-here"),
        "eval": Call(builtins.eval, "open('limbic-was-here', 'w')"),
        "getattr": Call(getattr, tensor, "numpy"),
        "class": torch.nn.Linear(2, 2),
    }.items():
        torch.save({"weight": tensor, "trap": call}, OUT / f"hostile_{name}.pth")
    torch.save({"weight": tensor}, OUT / "legacy.pth", _use_new_zipfile_serialization=False)
    print(sum(path.stat().st_size for path in OUT.iterdir()), "bytes")


if __name__ == "__main__":
    main()
