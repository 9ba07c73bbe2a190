"""Tiny checkpoints in the layouts that others have published, and what must become of them: tests/golden/import.

    pip install torch transformers peft safetensors
    python scripts/golden/importers.py

Names of adapters and query transformers come from the real peft and transformers; those of the projections are read off
the published code: Emotion-LLaMA `minigpt4/models/minigpt_v2.py` and `minigpt_base.py`, Video-LLaMA
`video_llama/models/video_llama.py`, AffectGPT `my_affectgpt/models/affectgpt.py`. Each `NAME.safetensors` holds the
values under limbic's names.
"""

import pathlib

from environment import ensure

ensure()

import peft
import safetensors.torch
import torch
import transformers
from torch import nn

OUT = pathlib.Path(__file__).resolve().parents[2] / "tests/golden/import"
WIDTH, LAYERS, RANK = 8, 2, 2
PATCH, FACE, VOICE = 6, 5, 4


def randomise(module):
    for parameter in module.parameters():
        parameter.data = torch.randn(parameter.shape)
    return module


def decoder(targets):
    config = transformers.LlamaConfig(
        vocab_size=20, hidden_size=WIDTH, intermediate_size=16, num_hidden_layers=LAYERS, num_attention_heads=2
    )
    lora = peft.LoraConfig(task_type="CAUSAL_LM", r=RANK, target_modules=targets)
    return randomise(peft.get_peft_model(transformers.LlamaForCausalLM(config), lora))


def query_transformer(vision_width, layers):
    """In the names of LAVIS, which calls the attention `self` and keeps the first norm with the embeddings."""
    config = transformers.Blip2QFormerConfig(
        hidden_size=4, num_hidden_layers=layers, num_attention_heads=2, intermediate_size=6,
        cross_attention_frequency=1, encoder_hidden_size=vision_width,
    )
    state = randomise(transformers.Blip2QFormerModel(config)).state_dict()
    return {name.replace("attention.attention.", "attention.self.").replace("layernorm.", "embeddings.LayerNorm."): value
            for name, value in state.items()}, state


class Layout:
    """A state dict under published names, and the same values under ours."""

    def __init__(self):
        self.theirs, self.ours = {}, {}

    def linear(self, theirs, inputs, outputs, ours):
        for name, value in randomise(nn.Linear(inputs, outputs)).state_dict().items():
            self.theirs[f"{theirs}.{name}"] = value
            if ours:
                self.ours[f"{ours}.{name}"] = value

    def tensor(self, theirs, shape, ours):
        self.theirs[theirs] = self.ours[ours] = torch.randn(shape)

    def adapters(self, targets):
        for name, value in decoder(targets).named_parameters():
            if "lora_" in name:
                self.theirs[f"llama_model.{name}"] = value.data
                name = name.removeprefix("base_model.model.").replace(".default", "")
                self.ours[f"llama.{name}"] = value.data
        for layer in range(LAYERS):
            name = f"llama_model.base_model.model.model.layers.{layer}.self_attn.rotary_emb.inv_freq"
            self.theirs[name] = torch.ones(2)

    def branch(self, kind, table, vision_width, positions, queries, projection, ours, layers=1):
        self.tensor(table, (positions, vision_width), f"{ours}.positions")
        self.tensor(f"{kind}_query_tokens", (1, queries, 4), f"{ours}.query_tokens")
        theirs, state = query_transformer(vision_width, layers)
        self.theirs |= {f"{kind}_Qformer.bert.{name}": value for name, value in theirs.items()}
        self.theirs[f"{kind}_Qformer.bert.embeddings.position_ids"] = torch.arange(3)[None]
        self.ours |= {f"{ours}.qformer.{name}": value for name, value in state.items()}
        self.linear(projection, 4, WIDTH, f"{ours}.proj")


def save(name, layout):
    safetensors.torch.save_file({k: v.clone().contiguous() for k, v in layout.ours.items()}, OUT / f"{name}.safetensors",
                                {"format": "pt"})
    torch.save(layout.theirs, OUT / f"{name}.pth")


def minigpt_v2():
    layout = Layout()
    layout.adapters(["q_proj", "v_proj"])
    layout.linear("llama_proj", 4 * PATCH, WIDTH, "projectors.0.body.linear")
    return layout


def emotion_llama():
    layout = minigpt_v2()
    layout.linear("feats_llama_proj1", FACE, WIDTH, "projectors.1.body.linear")
    layout.linear("feats_llama_proj2", FACE, WIDTH, "projectors.2.body.linear")
    layout.linear("feats_llama_proj3", VOICE, WIDTH, "projectors.3.body.linear")
    layout.linear("cls_tk_llama_proj", PATCH, WIDTH, "projectors.4.body.linear")
    for part in ["feats_prep.0.0", "feats_prep.0.3", "attention_mlp.0", "fc_att", "fc_out"]:
        layout.linear(f"attention.{part}", 3, 2, None)
    return layout


def affectgpt_v1():
    layout = Layout()
    layout.branch("video", "video_frame_position_embedding.weight", PATCH, 7, 3, "llama_proj", "projectors.0.body", layers=2)
    layout.branch("audio", "audio_position_embedding.weight", VOICE, 5, 2, "audio_llama_proj", "projectors.1.body")
    layout.theirs["audio_encoder.modality_preprocessors.audio.buffer"] = torch.ones(1)
    return layout


SEVEN = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def affectgpt_v2():
    layout = Layout()
    layout.adapters(SEVEN)
    layout.linear("video_attention_mlp", PATCH, 1, "projectors.0.body.attention_mlp")
    layout.linear("affectgpt_proj", PATCH, WIDTH, "projectors.0.body.proj")
    layout.linear("audio_attention_mlp", VOICE, 1, "projectors.1.body.attention_mlp")
    layout.linear("audio_llama_proj", VOICE, WIDTH, "projectors.1.body.proj")
    layout.linear("image_llama_proj", PATCH, WIDTH, "projectors.2.body.proj")
    layout.linear("multi_video_embs", PATCH, PATCH, "fusions.0.body.embs.0")
    layout.linear("multi_audio_embs", VOICE, PATCH, "fusions.0.body.embs.1")
    layout.linear("attention_mlp", 2 * PATCH, PATCH, "fusions.0.body.attention_mlp")
    layout.linear("fc_att", PATCH, 2, "fusions.0.body.fc_att")
    layout.linear("multi_llama_proj", PATCH, WIDTH, "fusions.0.body.proj")
    layout.theirs["visual_encoder.model.vision_model.embeddings.position_ids"] = torch.arange(3)[None]
    return layout


def affectgpt_v2_qformer():
    layout = Layout()
    layout.adapters(["q_proj"])
    layout.branch("video", "video_frame_position_embedding.weight", PATCH, 7, 1, "affectgpt_proj", "projectors.0.body")
    layout.branch("audio", "audio_position_embedding.weight", VOICE, 5, 1, "audio_llama_proj", "projectors.1.body")
    layout.linear("image_llama_proj", PATCH, WIDTH, "projectors.2.body.proj")
    layout.linear("multi_video_embs", PATCH, PATCH, "fusions.0.body.embs.0")
    layout.linear("multi_audio_embs", VOICE, PATCH, "fusions.0.body.embs.1")
    layout.branch("multi", "multi_position_embedding.weight", PATCH, 11, 1, "multi_llama_proj", "fusions.0.body")
    return layout


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(5)
    published = emotion_llama()
    save("emotion_llama", published)
    # As the trainer saves it, by peft 0.2 and from several processes, with the norm that does nothing.
    state = {name.replace(".default.", "."): value for name, value in published.theirs.items()}
    state |= {"ln_vision.weight": torch.ones(PATCH), "ln_vision.bias": torch.zeros(PATCH)}
    torch.save(
        {
            "model": {f"module.{name}": nn.Parameter(value) for name, value in state.items()},
            "optimizer": {"state": {0: {"step": 3, "exp_avg": torch.ones(2)}}, "param_groups": [{"lr": 1e-5}]},
            "config": {"run": {"task": "image_text_pretrain"}, "model": {"lora_r": 64}},
            "scaler": {"scale": 65536.0},
            "epoch": 29,
        },
        OUT / "emotion_llama_wrapped.pth",
    )
    torch.save({"model": state | {"ln_vision.bias": torch.full((PATCH,), 0.25)}}, OUT / "emotion_llama_normed.pth")
    save("minigpt_v2", minigpt_v2())
    save("affectgpt_v1", affectgpt_v1())
    save("affectgpt_v2", affectgpt_v2())
    save("affectgpt_v2_qformer", affectgpt_v2_qformer())
    print(sum(path.stat().st_size for path in OUT.iterdir()), "bytes")


if __name__ == "__main__":
    main()
