#!/usr/bin/env python3
"""Proves an export in transformers and PEFT themselves. Takes no arguments:

    python3 scripts/verify_export.py

Makes a small LLaMA and a small Qwen2 with transformers, lets limbic train adapters on each for two steps on clips that it
synthesises, exports adapter and merged decoder, and loads both in transformers and PEFT. Fails on any missing or unexpected
tensor, on an adapter whose every B is zero, and where logits differ from limbic's own by more than 1e-4.

Where PyTorch is not installed, the environment of scripts/golden/setup.sh is made and used. LIMBIC names a built limbic other
than the release build, which is made where it is absent.
"""

import json
import sys
import tempfile
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "golden"))
from environment import ROOT, byte_tokenizer, ensure, limbic, probe, randomise  # noqa: E402

ensure()

import peft  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402
from safetensors.torch import load_file  # noqa: E402

TOLERANCE = 1e-4
IDS = [256, *(ord(c) - 32 for c in "Which emotion does the speaker show?"), 3, 200, 77]

# Odd sizes: six heads in two groups, a width that no power of two divides.
SHAPE = dict(vocab_size=261, hidden_size=36, intermediate_size=44, num_hidden_layers=3, num_attention_heads=6,
             num_key_value_heads=2, max_position_embeddings=1024, rms_norm_eps=1e-5, attn_implementation="eager")
MODELS = {
    "llama": (transformers.LlamaForCausalLM, transformers.LlamaConfig, {}),
    "llama-tied": (transformers.LlamaForCausalLM, transformers.LlamaConfig, dict(tie_word_embeddings=True, head_dim=8)),
    "qwen2": (transformers.Qwen2ForCausalLM, transformers.Qwen2Config, dict(tie_word_embeddings=False)),
}

RECIPE = """
name: {name}
seed: 3
labels: {root}/configs/labels/synth-6.yaml
prompt: {root}/configs/prompts/en.yaml
model:
  decoder: {{ kind: pretrained, folder: {name}-base }}
  lora: {lora}
  inputs:
    - name: video
      placeholder: <video>
      encoder: {root}/configs/encoders/cosine-48.yaml
      frames: {{ kind: uniform, count: 2 }}
      crop: {{ kind: squash }}
      projector: {{ kind: linear, tokens: 2, standardise: true }}
data:
  manifest: data/manifest.jsonl
  max_tokens: 1024
  tasks: {{ emotion: 1.0 }}
train:
  steps: 2
  batch_size: 4
  learning_rate: {{ lora: 2.0e-2, projectors: 1.0e-3 }}
  loss: {{ class_weight: 0.0 }}
evaluation: {{ every: 2, metric: loss, max_new_tokens: 2 }}
run: {{ log_every: 1, save_every: 2 }}
"""
LORA = "{ r: 3, lora_alpha: 7, target_modules: [q_proj, v_proj, o_proj, down_proj] }"


def load(kind, folder):
    """A model of transformers, of which every tensor must have been in the files."""
    model, report = kind.from_pretrained(folder, output_loading_info=True, attn_implementation="eager")
    assert not any(report.values()), f"{folder}: {report}"
    return model.float().eval()


def logits(model):
    with torch.no_grad():
        return model(torch.tensor([IDS])).logits[0]


def difference(a, b):
    assert a.shape == b.shape, (a.shape, b.shape)
    return (a - b).abs().max().item()


def with_adapter(kind, base, adapter):
    """The base with the adapter that PEFT loads, name by name what the file holds."""
    with warnings.catch_warnings():
        # PEFT only warns of tensors that it misses.
        warnings.simplefilter("error", UserWarning)
        model = peft.PeftModel.from_pretrained(load(kind, base), adapter).eval()
    stored = load_file(adapter / "adapter_model.safetensors")
    loaded = {name.replace(".default", ""): value for name, value in model.state_dict().items() if "lora_" in name}
    assert stored.keys() == loaded.keys(), f"only on one side: {sorted(stored.keys() ^ loaded.keys())}"
    assert all(torch.equal(stored[name], loaded[name]) for name in stored), "tensors differ after loading"
    assert any(value.abs().max() > 0 for name, value in stored.items() if "lora_B" in name), "every B is zero"
    return model, len(stored)


def check(name, folder):
    kind, config, extra = MODELS[name]
    base = folder / f"{name}-base"
    base.mkdir()
    bos, eos = byte_tokenizer(base)
    model = kind(config(**SHAPE | extra, bos_token_id=bos, eos_token_id=eos)).eval()
    randomise(model, len(name))
    model.save_pretrained(base, max_shard_size="40KB")

    recipe = RECIPE.format(name=name, root=ROOT, lora=LORA)
    (folder / f"{name}.yaml").write_text(recipe)
    limbic("train", f"{name}.yaml", "--devices", "cpu:1", cwd=folder)
    out = folder / f"{name}-export"
    limbic("export", name, "--out", out, "--merged", "--max-shard-size", "50KB", "--verify", cwd=folder)

    adapted, count = with_adapter(kind, base, out / "llm_adapter")
    merged = load(kind, out / "merged")
    ids = ["--ids", ",".join(map(str, IDS))]
    ours_merged = probe(out / "merged", *ids, cwd=folder)["logits"][0]
    ours = probe(base, "--adapter", out / "llm_adapter", *ids, cwd=folder)["logits"][0]
    effect = difference(logits(adapted), logits(load(kind, base)))
    rows = {
        "adapter: PEFT and limbic": difference(logits(adapted), ours),
        "merged: transformers and limbic": difference(logits(merged), ours_merged),
        "adapter and merged, in Python": difference(logits(adapted), logits(merged)),
    }
    shards = json.loads((out / "merged" / "model.safetensors.index.json").read_text())
    tensors = len(shards["weight_map"])
    print(f"{name}: {count} tensors of the adapter, {tensors} of the merged decoder; the adapter moves logits by {effect:.2g}")
    for what, error in rows.items():
        print(f"  {error:8.1e}  {what}")
    assert effect > 100 * TOLERANCE, f"{name}: the adapter changes next to nothing ({effect})"
    return max(rows.values())


def main():
    transformers.logging.disable_progress_bar()
    warnings.simplefilter("ignore", FutureWarning)
    print(f"torch {torch.__version__}, transformers {transformers.__version__}, peft {peft.__version__}")
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        limbic("data", "synth", "--out", "data", "--clips", "12", cwd=folder)
        errors = {name: check(name, folder) for name in MODELS}
    wrong = {name: error for name, error in errors.items() if not error <= TOLERANCE}
    if wrong:
        sys.exit(f"logits differ by more than {TOLERANCE}: {wrong}")
    print("ok")


if __name__ == "__main__":
    main()
