"""Reference numbers for crates/limbic-llama, made by transformers and PEFT.

    python scripts/golden/llama.py            # writes tests/golden/llama

Tiny decoders with random weights, biases and norms included, in every variant that crates/limbic-llama reads:

- `untied`: 6 heads on 2 key-value heads;
- `tied`: the same, with a head_dim that is not hidden_size / heads and another rope_theta;
- `llama3`: tied, in BF16, RoPE of type llama3 in the older spelling, so short an original context that two thirds of
  the frequencies are stretched within the 80 positions at hand;
- `qwen2`: biased queries, keys and values, 9 heads on 3 key-value heads, 3 blocks, in shards, keys of transformers 5;
- `biased`: a LLaMA with `attention_bias` and `mlp_bias`, and linear RoPE scaling.

Each has hidden states (transformers' `output_hidden_states`), logits, the same with left padding, gradients, greedy
texts, and one PEFT adapter: plain, rsLoRA, DoRA on chosen blocks, patterns of ranks behind a regular expression, DoRA
with dropout. `rotary.safetensors` has rotary angles of published models at positions far out. The weights are drawn far larger than a fresh model's, so that attention is sharp and a wrong rotation or
head order shows in the logits. Needs torch, transformers, peft, safetensors, numpy.
"""

import json
import shutil
from pathlib import Path

from environment import ensure

ensure()

import numpy
import peft
import torch
import transformers
from safetensors.torch import save_file

OUT = Path(__file__).resolve().parents[2] / "tests" / "golden" / "llama"
LLAMA3 = dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
              original_max_position_embeddings=32)
ALL = ["q_proj", "v_proj", "o_proj", "gate_proj", "down_proj"]
MODELS = {
    "untied": dict(
        model=dict(hidden_size=36, intermediate_size=44, vocab_size=53, tie_word_embeddings=False),
        lora=dict(r=3, lora_alpha=5, target_modules=ALL)),
    "tied": dict(
        model=dict(hidden_size=24, intermediate_size=28, vocab_size=41, head_dim=8, tie_word_embeddings=True,
                   rope_parameters=dict(rope_type="default", rope_theta=500000.0)),
        lora=dict(r=3, lora_alpha=5, use_rslora=True, target_modules=ALL)),
    "llama3": dict(
        model=dict(hidden_size=42, intermediate_size=36, vocab_size=47, num_attention_heads=6, num_key_value_heads=3,
                   head_dim=12, num_hidden_layers=3, max_position_embeddings=128, tie_word_embeddings=True,
                   rope_parameters=dict(rope_theta=10000.0, **LLAMA3)),
        length=80,
        lora=dict(r=4, lora_alpha=6, use_rslora=True, use_dora=True, target_modules=["q_proj", "k_proj", "down_proj"],
                  layers_to_transform=[0, 2], exclude_modules=["layers.2.mlp.down_proj"])),
    "qwen2": dict(
        kind="qwen2", shard="60KB",
        model=dict(hidden_size=54, intermediate_size=40, vocab_size=57, num_attention_heads=9, num_key_value_heads=3,
                   num_hidden_layers=3, tie_word_embeddings=False, use_sliding_window=False, eos_token_id=[2, 7],
                   rope_parameters=dict(rope_type="default", rope_theta=1000000.0)),
        lora=dict(r=3, lora_alpha=5, target_modules=r"model\.layers\.[02]\.(?!.*k_proj).*_proj",
                  rank_pattern={"layers.0.self_attn.q_proj": 5, "up_proj|down_proj": 2},
                  alpha_pattern={r".*\.2\.self_attn\.v_proj": 9, "gate_proj": 1.5})),
    "biased": dict(
        model=dict(hidden_size=30, intermediate_size=26, vocab_size=43, num_attention_heads=5, num_key_value_heads=1,
                   attention_bias=True, mlp_bias=True, tie_word_embeddings=False,
                   rope_parameters=dict(rope_type="linear", factor=3.0, rope_theta=10000.0)),
        lora=dict(r=2, lora_alpha=3, use_dora=True, lora_dropout=0.25, target_modules="all-linear")),
}
BASE_GRADIENTS = [
    "model.embed_tokens.weight",
    "model.layers.0.input_layernorm.weight",
    "model.layers.0.self_attn.k_proj.weight",
    "model.layers.0.self_attn.k_proj.bias",
    "model.layers.1.mlp.gate_proj.weight",
    "model.norm.weight",
]
# The key of the dropout masks, as limbic's tests name it.
DROPOUT_SEED = 3


class CounterRng:
    """limbic's random function (crates/limbic-weights/src/counter.rs): SplitMix64's finalizer on a key and an index."""

    GOLDEN = 0x9E3779B97F4A7C15
    WORD = (1 << 64) - 1

    def __init__(self, key):
        self.key = key

    @classmethod
    def mix(cls, z):
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & cls.WORD
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & cls.WORD
        return z ^ (z >> 31)

    @classmethod
    def seeded(cls, seed):
        return cls(cls.mix((seed + cls.GOLDEN) & cls.WORD))

    def site(self, name):
        hashed = 0xCBF29CE484222325
        for byte in name.encode():
            hashed = ((hashed ^ byte) * 0x100000001B3) & self.WORD
        return CounterRng(self.mix(self.key ^ self.mix((hashed * self.GOLDEN + 1) & self.WORD)))

    def bits(self, index):
        return self.mix((self.key + self.GOLDEN * (index + 1)) & self.WORD)


class LimbicDropout(torch.nn.Module):
    """Dropout with the mask that limbic draws for the layer of this name (crates/limbic-llama/src/dropout.rs)."""

    def __init__(self, name, probability):
        super().__init__()
        key = CounterRng.seeded(DROPOUT_SEED).site(name).bits(0)
        self.keys = key & 0xFFFFFFFF, key >> 32
        self.probability = probability

    def forward(self, x):
        bits = numpy.arange(x.numel(), dtype=numpy.uint64) ^ self.keys[0]
        bits = ((bits ^ (bits >> 16)) * 0x7FEB352D) & 0xFFFFFFFF
        bits = ((bits ^ (bits >> 15) ^ self.keys[1]) * 0x846CA68B) & 0xFFFFFFFF
        bits = (bits ^ (bits >> 16)) >> 1
        kept = bits >= int(self.probability * 2**31)
        mask = torch.from_numpy(kept.astype(numpy.float32) / numpy.float32(1 - self.probability))
        return x * mask.reshape(x.shape)


def randomise(model, seed):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if name.endswith("norm.weight"):
                noise = 1 + 0.2 * noise
            elif name.endswith("bias"):
                noise = 0.5 * noise
            else:
                noise = 0.25 * noise
            parameter.copy_(noise)


def forward(model, **inputs):
    out = model(use_cache=False, output_hidden_states=True, **inputs)
    return out.logits, {f"hidden.{i}": hidden for i, hidden in enumerate(out.hidden_states)}


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


def save(model, folder, kind, shard):
    model.save_pretrained(folder, **({"max_shard_size": shard} if shard else {}))
    (folder / "generation_config.json").unlink(missing_ok=True)
    if kind == "llama3":
        # As Meta published it, before transformers 5.
        path = folder / "config.json"
        config = json.loads(path.read_text())
        rope = config.pop("rope_parameters")
        config["rope_theta"] = rope.pop("rope_theta")
        config["rope_scaling"] = rope
        config["torch_dtype"] = config.pop("dtype")
        path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def make(name, settings, seed):
    folder = OUT / name
    shutil.rmtree(folder, ignore_errors=True)
    shape = dict(num_hidden_layers=2, num_attention_heads=6, num_key_value_heads=2, max_position_embeddings=64,
                 rms_norm_eps=1e-5, bos_token_id=1, eos_token_id=2, attn_implementation="eager") | settings["model"]
    if settings.get("kind") == "qwen2":
        model = transformers.Qwen2ForCausalLM(transformers.Qwen2Config(**shape)).eval()
    else:
        model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**shape)).eval()
    randomise(model, seed)
    if name == "llama3":
        # Saved in half precision, as published; what follows computes with the rounded weights in F32.
        # `to` would round the rotary frequencies too, which loading a checkpoint does not.
        for parameter in model.parameters():
            parameter.data = parameter.data.bfloat16()
    save(model, folder, name, settings.get("shard"))
    model = model.float()

    generator = torch.Generator().manual_seed(seed + 1)
    length = settings.get("length", 11)
    ids = torch.randint(0, shape["vocab_size"], (2, length), generator=generator)
    embeddings = model.model.embed_tokens(ids).detach().requires_grad_()
    logits, hidden = forward(model, inputs_embeds=embeddings)
    direction = torch.randn(logits.shape, generator=generator)
    tensors = {"logits": logits, "direction": direction} | hidden

    # Row 0 begins three slots late.
    mask = torch.ones_like(ids)
    mask[0, :3] = 0
    padded, hidden = forward(model, input_ids=ids, attention_mask=mask)
    tensors |= {"padded.logits": padded, "padded.hidden": hidden[f"hidden.{shape['num_hidden_layers']}"]}

    (model(ids, use_cache=False).logits * direction).sum().backward()
    parameters = dict(model.named_parameters())
    for key in BASE_GRADIENTS:
        if key in parameters:
            tensors[f"gradient.{key}"] = parameters[key].grad
    rows = []
    for prompt in [ids[0, :3].tolist(), ids[1, :8].tolist(), ids[1, 2:4].tolist()]:
        tokens, gap = greedy(model, prompt, 12)
        assert gap > 1e-3, f"{name}: a near tie ({gap}) would make greedy decoding a matter of luck; change the seed"
        rows.append({"prompt": prompt, "tokens": tokens})

    lora = peft.LoraConfig(task_type="CAUSAL_LM", **settings["lora"])
    adapted = peft.get_peft_model(model, lora).eval()
    with torch.no_grad():
        for key, parameter in adapted.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if "lora_magnitude_vector" in key:
                parameter.mul_(1 + 0.3 * noise)
            elif "lora_" in key:
                parameter.copy_(0.2 * noise)
    adapted.save_pretrained(folder / "adapter")
    (folder / "adapter" / "README.md").unlink(missing_ok=True)
    path = folder / "adapter" / "adapter_config.json"
    config = json.loads(path.read_text())
    if isinstance(config["target_modules"], list):
        # PEFT keeps a set, whose order is another in every process.
        config["target_modules"].sort()
    path.write_text(json.dumps(config, indent=2, sort_keys=True))
    if name == "tied":
        # The older kind of file; its config is that beside the newer one.
        torch.save(peft.get_peft_model_state_dict(adapted), folder / "adapter" / "adapter_model.bin")

    def measure(prefix):
        for parameter in adapted.parameters():
            parameter.grad = None
        x = embeddings.detach().requires_grad_()
        logits, hidden = forward(adapted.get_base_model(), inputs_embeds=x)
        (logits * direction).sum().backward()
        tensors[f"{prefix}.logits"] = logits
        for key, value in hidden.items():
            tensors[f"{prefix}.{key}"] = value
        tensors[f"{prefix}.gradient.embeddings"] = x.grad
        for key, parameter in adapted.named_parameters():
            if "lora_" in key:
                short = key.removeprefix("base_model.model.").replace(".default", "")
                short = short.replace("lora_magnitude_vector.weight", "lora_magnitude_vector")
                tensors[f"{prefix}.gradient.{short}"] = parameter.grad

    measure("lora")
    if lora.lora_dropout > 0:
        for key, module in adapted.named_modules():
            if hasattr(module, "lora_dropout"):
                short = key.removeprefix("base_model.model.")
                module.lora_dropout["default"] = LimbicDropout(short, lora.lora_dropout)
        adapted.train()
        measure("dropout")
        adapted.eval()
    merged = adapted.merge_and_unload()
    tensors["merged.model.layers.0.self_attn.q_proj.weight"] = merged.model.layers[0].self_attn.q_proj.weight
    save_file({k: v.detach().contiguous().clone() for k, v in tensors.items()}, folder / "reference.safetensors",
              metadata={"format": "pt"})
    versions = {m.__name__: m.__version__ for m in (torch, transformers, peft)}
    (folder / "reference.json").write_text(
        json.dumps({"made_by": "scripts/golden/llama.py", "versions": versions, "seed": seed,
                    "ids": ids.tolist(), "greedy": rows}, indent=1) + "\n")
    largest = {k: float(v.detach().abs().max()) for k, v in tensors.items() if k.startswith("hidden.")}
    print(name, {k: round(v, 1) for k, v in largest.items()})


def rotary():
    """Cosines and sines of single positions, one row each."""
    tensors = {"positions": torch.tensor([0, 1, 17, 300, 4095], dtype=torch.float32)}
    llama3 = LLAMA3 | dict(factor=32.0, original_max_position_embeddings=8192)
    for name, head, parameters in [
        ("llama-2", 128, dict(rope_type="default", rope_theta=10000.0)),
        ("qwen2.5", 128, dict(rope_type="default", rope_theta=1000000.0)),
        ("llama-3.2", 64, dict(rope_theta=500000.0, **llama3)),
        ("linear", 80, dict(rope_type="linear", factor=4.0, rope_theta=10000.0)),
    ]:
        config = transformers.LlamaConfig(hidden_size=head, num_attention_heads=1, max_position_embeddings=131072,
                                          rope_parameters=parameters)
        embedding = transformers.models.llama.modeling_llama.LlamaRotaryEmbedding(config)
        cos, sin = embedding(torch.zeros(1), tensors["positions"].long()[None])
        tensors |= {f"{name}.cos": cos[0], f"{name}.sin": sin[0]}
    save_file({k: v.contiguous() for k, v in tensors.items()}, OUT / "rotary.safetensors", metadata={"format": "pt"})


if __name__ == "__main__":
    torch.set_num_threads(1)
    rotary()
    for index, (name, settings) in enumerate(MODELS.items()):
        make(name, settings, seed=20 + index)
