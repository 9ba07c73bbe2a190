"""Reference numbers for crates/limbic-llama, made by transformers and PEFT.

    python scripts/golden/llama.py            # writes tests/golden/llama

Two tiny LLaMAs with random weights: `untied` (6 heads on 2 key-value heads) and `tied` (the same, with a
head_dim that is not hidden_size / heads, another rope_theta, and rsLoRA). The weights are drawn far larger
than a fresh model's, so that attention is sharp and a wrong rotation or head order shows in the logits.
Needs torch, transformers, peft, safetensors.
"""

import json
import shutil
from pathlib import Path

import peft
import torch
import transformers
from safetensors.torch import save_file

OUT = Path(__file__).resolve().parents[2] / "tests" / "golden" / "llama"
SHAPES = {
    "untied": dict(hidden_size=36, intermediate_size=44, vocab_size=53, tie_word_embeddings=False),
    "tied": dict(hidden_size=24, intermediate_size=28, vocab_size=41, head_dim=8, rope_theta=500000.0,
                 tie_word_embeddings=True),
}
BASE_GRADIENTS = [
    "model.embed_tokens.weight",
    "model.layers.0.input_layernorm.weight",
    "model.layers.0.self_attn.k_proj.weight",
    "model.layers.1.mlp.gate_proj.weight",
    "model.norm.weight",
]


def randomise(model, seed):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(1 + 0.2 * noise if parameter.dim() == 1 else 0.25 * noise)


def forward(model, embeddings):
    """Logits, and the hidden states after each block (the last one before the final norm)."""
    blocks = []
    hooks = [
        layer.register_forward_hook(lambda _m, _i, out: blocks.append(out[0] if isinstance(out, tuple) else out))
        for layer in model.model.layers
    ]
    logits = model(inputs_embeds=embeddings, use_cache=False).logits
    for hook in hooks:
        hook.remove()
    return logits, blocks


def greedy(model, prompt, steps):
    """Argmax without a cache; also the smallest gap between best and second, so that a tie is seen here."""
    ids, gap = list(prompt), float("inf")
    for _ in range(steps):
        with torch.no_grad():
            logits = model(torch.tensor([ids]), use_cache=False).logits[0, -1]
        best = logits.topk(2).values
        gap = min(gap, float(best[0] - best[1]))
        ids.append(int(logits.argmax()))
    return ids[len(prompt):], gap


def make(name, shape, seed):
    folder = OUT / name
    shutil.rmtree(folder, ignore_errors=True)
    config = transformers.LlamaConfig(
        num_hidden_layers=2, num_attention_heads=6, num_key_value_heads=2, max_position_embeddings=64,
        rms_norm_eps=1e-5, bos_token_id=1, eos_token_id=2, attn_implementation="eager", **shape)
    model = transformers.LlamaForCausalLM(config).eval()
    randomise(model, seed)
    model.save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)

    generator = torch.Generator().manual_seed(seed + 1)
    ids = torch.randint(0, config.vocab_size, (2, 11), generator=generator)
    embeddings = model.model.embed_tokens(ids).detach().requires_grad_()
    logits, blocks = forward(model, embeddings)
    direction = torch.randn(logits.shape, generator=generator)
    tensors = {"logits": logits, "block_0": blocks[0], "block_1": blocks[1], "direction": direction}

    (model(ids, use_cache=False).logits * direction).sum().backward()
    parameters = dict(model.named_parameters())
    for key in BASE_GRADIENTS:
        tensors[f"gradient.{key}"] = parameters[key].grad
    prompts = [ids[0, :3].tolist(), ids[1, :8].tolist(), ids[1, 2:4].tolist()]
    rows = []
    for prompt in prompts:
        tokens, gap = greedy(model, prompt, 12)
        assert gap > 1e-3, f"{name}: a near tie ({gap}) would make greedy decoding a matter of luck; change the seed"
        rows.append({"prompt": prompt, "tokens": tokens})

    lora = peft.LoraConfig(r=3, lora_alpha=5, lora_dropout=0.0, use_rslora=name == "tied", task_type="CAUSAL_LM",
                           target_modules=["q_proj", "v_proj", "o_proj", "gate_proj", "down_proj"])
    adapted = peft.get_peft_model(model, lora)
    with torch.no_grad():
        for key, parameter in adapted.named_parameters():
            if "lora_" in key:
                parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
    adapted.save_pretrained(folder / "adapter")
    (folder / "adapter" / "README.md").unlink(missing_ok=True)
    embeddings = embeddings.detach().requires_grad_()
    logits, blocks = forward(adapted.get_base_model(), embeddings)
    (logits * direction).sum().backward()
    tensors["lora.logits"] = logits
    tensors["lora.block_1"] = blocks[1]
    tensors["lora.gradient.embeddings"] = embeddings.grad
    for key, parameter in adapted.named_parameters():
        if "lora_" in key:
            short = key.removeprefix("base_model.model.").replace(".default", "")
            tensors[f"lora.gradient.{short}"] = parameter.grad
    save_file({k: v.detach().contiguous().clone() for k, v in tensors.items()}, folder / "reference.safetensors",
              metadata={"format": "pt"})
    versions = {m.__name__: m.__version__ for m in (torch, transformers, peft)}
    (folder / "reference.json").write_text(
        json.dumps({"made_by": "scripts/golden/llama.py", "versions": versions, "seed": seed,
                    "ids": ids.tolist(), "greedy": rows}, indent=1) + "\n")


if __name__ == "__main__":
    torch.set_num_threads(1)
    for index, (name, shape) in enumerate(SHAPES.items()):
        make(name, shape, seed=20 + index)
