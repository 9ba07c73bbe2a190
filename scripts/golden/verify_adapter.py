"""Loads base models and adapters that limbic wrote with transformers and PEFT, and compares the logits.

    LIMBIC_ADAPTER_OUT=/tmp/adapter cargo test --release -p limbic-llama --test llama an_exported
    python scripts/golden/verify_adapter.py /tmp/adapter

PEFT drops tensors it does not expect and warns of missing ones only, so names are compared here one by one.
Needs torch, transformers, peft, safetensors.
"""

import sys
import warnings
from pathlib import Path

from environment import ensure

ensure()

import peft
import torch
import transformers
from safetensors.torch import load_file

IDS = [[3, 1, 4, 1, 5, 9, 2, 6]]


def verify(out):
    base, report = transformers.AutoModelForCausalLM.from_pretrained(out / "base", output_loading_info=True)
    assert not any(report.values()), report
    model = peft.PeftModel.from_pretrained(base, out / "adapter").eval()

    stored = load_file(out / "adapter" / "adapter_model.safetensors")
    loaded = {name.replace(".default", "").replace("vector.weight", "vector"): p
              for name, p in model.named_parameters() if "lora_" in name}
    assert stored.keys() == loaded.keys(), stored.keys() ^ loaded.keys()
    assert all(torch.equal(stored[name], loaded[name]) for name in stored)
    assert any(stored[name].abs().max() > 0 for name in stored if "lora_B" in name), "every B is zero"

    wanted = load_file(out / "expected.safetensors")["logits"]
    with torch.no_grad():
        got = model(torch.tensor(IDS)).logits
        with model.disable_adapter():
            base_logits = model(torch.tensor(IDS)).logits
    difference = (got - wanted).abs().max().item()
    effect = (got - base_logits).abs().max().item()
    assert difference < 1e-4 < effect, (difference, effect)
    print(f"{out.name}: {type(base).__name__}, {len(stored)} tensors; logits differ by {difference:.1e}; "
          f"the adapter moves them by {effect:.1e}")


warnings.simplefilter("error", UserWarning)
folders = sorted(path.parent for path in Path(sys.argv[1]).glob("*/base"))
assert folders, f"nothing to verify in {sys.argv[1]}"
for folder in folders:
    verify(folder)
