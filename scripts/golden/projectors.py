"""Makes tests/golden/projectors/*.safetensors in PyTorch.

Query transformers are transformers' `Blip2QFormerModel`; cross-modal attention is made of torch.nn.MultiheadAttention;
the others are small enough to be written down from the published code, which each class names. Each file holds weights
(`weights.*`), inputs (`features.*`, `lengths.*`), the result and, for a random weighting of it (`probe`), the gradients
of weights and inputs by autograd. Needs torch, transformers, einops and safetensors. Run from the repository's root:

    python scripts/golden/projectors.py
"""

import json
import math
import os

from environment import ensure

ensure()

import torch
from einops import rearrange
from safetensors.torch import save_file
from torch import nn
from transformers import Blip2QFormerConfig, Blip2QFormerModel, Blip2VisionConfig, Blip2VisionModel

FOLDER = "tests/golden/projectors"
WIDTH = 11  # of the language model


def randomise(module: nn.Module) -> None:
    """Larger than an initialisation, so that softmax and GELU leave their linear range."""
    for name, parameter in module.named_parameters():
        fan_in = math.prod(parameter.shape[1:]) if parameter.ndim > 1 else 1
        scale = 0.8 / math.sqrt(fan_in) if parameter.ndim > 1 else 0.2
        if "position" in name or "query_tokens" in name:
            scale = 0.7
        noise = torch.randn(parameter.shape) * scale
        is_norm = "norm" in name.lower() and name.endswith("weight")
        parameter.data = noise + 1 if is_norm else noise


def split_projections(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Our attention keeps query, key and value apart; torch.nn.MultiheadAttention joins them."""
    split = {}
    for name, tensor in tensors.items():
        head, found, tail = name.partition("in_proj_")
        if found:
            for part, piece in zip(("query", "key", "value"), tensor.chunk(3)):
                split[f"{head}{part}.{tail}"] = piece
        else:
            split[name.replace("out_proj.", "proj.")] = tensor
    return split


def padded(lengths: list[int], dim: int) -> tuple[torch.Tensor, torch.Tensor]:
    features = torch.randn(len(lengths), max(lengths), dim)
    lengths = torch.tensor(lengths)
    features[mask_of(features, lengths)] = 0.0
    return features.requires_grad_(), lengths


def mask_of(features: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """True on padding."""
    return torch.arange(features.shape[1])[None] >= lengths[:, None]


def mean_over_time(features: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    return torch.stack([row[:length].mean(0) for row, length in zip(features, lengths)])


def save(file: str, module: nn.Module, sources: list[tuple[torch.Tensor, torch.Tensor]], **more: torch.Tensor) -> None:
    """A fusion is called with all sources, a projector with its one."""
    output = module(*sources) if len(sources) > 1 else module(*sources[0])
    probe = torch.randn(output.shape)
    (output * probe).sum().backward()
    weights = {f"body.{name}": p.detach() for name, p in module.named_parameters()}
    gradients = {f"body.{name}": p.grad for name, p in module.named_parameters()}
    tensors = {f"weights.{name}": tensor for name, tensor in split_projections(weights).items()}
    tensors |= {f"gradients.{name}": tensor for name, tensor in split_projections(gradients).items()}
    for index, (features, lengths) in enumerate(sources):
        tensors |= {f"features.{index}": features, f"lengths.{index}": lengths, f"features_gradient.{index}": features.grad}
    tensors |= {"output": output, "probe": probe} | more
    tensors = {name: tensor.detach().float().contiguous().clone() for name, tensor in tensors.items()}
    save_file(tensors, f"{FOLDER}/{file}.safetensors", metadata={"torch": torch.__version__})


def bert(dim: int, heads: int, layers: int, intermediate: int, every: int, feature_dim: int) -> Blip2QFormerModel:
    config = Blip2QFormerConfig(
        hidden_size=dim,
        num_attention_heads=heads,
        num_hidden_layers=layers,
        intermediate_size=intermediate,
        cross_attention_frequency=every,
        encoder_hidden_size=feature_dim,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    return Blip2QFormerModel(config).eval()


class BertQFormer(nn.Module):
    """Video-LLaMA's `encode_videoQformer_visual`: frame positions, each over all features of its frame."""

    def __init__(self, dim, heads, queries, positions, each, feature_dim):
        super().__init__()
        self.positions = nn.Parameter(torch.zeros(positions, feature_dim))
        self.query_tokens = nn.Parameter(torch.zeros(1, queries, dim))
        self.qformer = bert(dim, heads, layers=2, intermediate=3 * dim, every=1, feature_dim=feature_dim)
        self.proj = nn.Linear(dim, WIDTH)
        self.each = each

    def forward(self, features, lengths):
        places = torch.arange(features.shape[1]) // self.each
        read = self.qformer(
            query_embeds=self.query_tokens.expand(len(features), -1, -1),
            encoder_hidden_states=features + self.positions[places],
            encoder_attention_mask=(~mask_of(features, lengths)).long(),
        )
        return self.proj(read.last_hidden_state)


class Merge(nn.Module):
    """`MiniGPTv2.encode_img`."""

    def __init__(self, feature_dim, group, skip):
        super().__init__()
        self.linear = nn.Linear(group * feature_dim, WIDTH)
        self.group, self.skip = group, skip

    def forward(self, features, _lengths):
        return self.linear(rearrange(features[:, self.skip :], "b (k g) d -> b k (g d)", g=self.group))


class First(nn.Module):
    """`cls_tk_llama_proj` of Emotion-LLaMA."""

    def __init__(self, feature_dim):
        super().__init__()
        self.linear = nn.Linear(feature_dim, WIDTH)

    def forward(self, features, _lengths):
        return self.linear(features[:, :1])


class AttentionPool(nn.Module):
    """AffectGPT v2's `encode_video_attention`, and `encode_video_mean` where it has no attention."""

    def __init__(self, feature_dim, tokens, attention=True, softmax=False):
        super().__init__()
        if attention:
            self.attention_mlp = nn.Linear(feature_dim, 1)
        self.proj = nn.Linear(feature_dim, WIDTH)
        self.tokens, self.softmax = tokens, softmax

    def forward(self, features, lengths):
        pooled = []
        for row, length in zip(features, lengths):
            row = row[:length]
            if not hasattr(self, "attention_mlp"):
                pooled.append(row.mean(0))
                continue
            weights = self.attention_mlp(row)
            pooled.append((row.T @ (weights.softmax(0) if self.softmax else weights)).squeeze(1))
        return self.proj(torch.stack(pooled))[:, None].expand(-1, self.tokens, -1)


class FramePool(nn.Module):
    """Video-ChatGPT's `get_spatio_temporal_features`; with class tokens the tokens of Valley."""

    def __init__(self, feature_dim, frames, class_token):
        super().__init__()
        self.linear = nn.Linear(feature_dim, WIDTH)
        self.frames, self.class_token = frames, class_token

    def forward(self, features, _lengths):
        frames = rearrange(features, "b (t p) d -> b t p d", t=self.frames)
        if self.class_token:
            tokens = [frames[:, :, 1:].mean(1), frames[:, :, 0]]
        else:
            tokens = [frames.mean(2), frames.mean(1)]
        return self.linear(torch.cat(tokens, 1))


class AttentionFusion(nn.Module):
    """AffectGPT v2's `encode_multi_attention`."""

    def __init__(self, dims, tokens, softmax=False):
        super().__init__()
        width = max(dims)
        self.embs = nn.ModuleList(nn.Linear(dim, width) for dim in dims)
        self.attention_mlp = nn.Linear(len(dims) * width, width)
        self.fc_att = nn.Linear(width, len(dims))
        self.proj = nn.Linear(width, WIDTH)
        self.tokens, self.softmax = tokens, softmax

    def forward(self, *sources):
        hidden = [emb(mean_over_time(*source)) for emb, source in zip(self.embs, sources)]
        weights = self.fc_att(self.attention_mlp(torch.cat(hidden, 1)))
        weights = weights.softmax(1) if self.softmax else weights
        fused = torch.stack(hidden, 2) @ weights[:, :, None]
        return self.proj(fused.squeeze(2))[:, None].expand(-1, self.tokens, -1)


class QFormerFusion(nn.Module):
    """AffectGPT v2's `encode_multi_qformer`; rows are run one by one, so that there is no padding."""

    def __init__(self, dims, dim, heads, queries, positions):
        super().__init__()
        width = max(dims)
        self.embs = nn.ModuleList(nn.Linear(source, width) for source in dims)
        self.positions = nn.Parameter(torch.zeros(positions, width))
        self.query_tokens = nn.Parameter(torch.zeros(1, queries, dim))
        self.qformer = bert(dim, heads, layers=2, intermediate=2 * dim, every=1, feature_dim=width)
        self.proj = nn.Linear(dim, WIDTH)

    def forward(self, *sources):
        rows = []
        for row in range(len(sources[0][0])):
            parts = [emb(features[row, : lengths[row]]) for emb, (features, lengths) in zip(self.embs, sources)]
            joined = torch.cat(parts)[None]
            read = self.qformer(
                query_embeds=self.query_tokens, encoder_hidden_states=joined + self.positions[: joined.shape[1]]
            )
            rows.append(self.proj(read.last_hidden_state))
        return torch.cat(rows)


class CrossLayer(nn.Module):
    def __init__(self, dim, heads, ratio):
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attn = nn.MultiheadAttention(dim, heads, batch_first=True)
        self.norm2 = nn.LayerNorm(dim)
        self.fc1 = nn.Linear(dim, ratio * dim)
        self.fc2 = nn.Linear(ratio * dim, dim)

    def forward(self, x, keys, padding):
        normed = self.norm1(keys)
        x = x + self.attn(self.norm1(x), normed, normed, key_padding_mask=padding, need_weights=False)[0]
        return x + self.fc2(self.fc1(self.norm2(x)).relu())


class CrossTransformer(nn.Module):
    def __init__(self, dim, heads, layers, ratio):
        super().__init__()
        self.layers = nn.ModuleList(CrossLayer(dim, heads, ratio) for _ in range(layers))
        self.norm = nn.LayerNorm(dim)

    @staticmethod
    def placed(x):
        """Scaled, with the sinusoids of fairseq's `SinusoidalPositionalEmbedding`, the first place being 0."""
        length, dim = x.shape[1:]
        frequencies = torch.exp(torch.arange(dim // 2) * -(math.log(10000) / (dim // 2 - 1)))
        angles = torch.arange(length)[:, None] * frequencies
        return math.sqrt(dim) * x + torch.cat([angles.sin(), angles.cos()], 1)

    def forward(self, x, keys, padding):
        x, keys = self.placed(x), None if keys is None else self.placed(keys)
        for layer in self.layers:
            x = layer(x, x if keys is None else keys, padding)
        return self.norm(x)


class CrossModal(nn.Module):
    """MulT (Tsai et al. 2019) between all pairs, with means of two equal segments in place of the last vector."""

    def __init__(self, dims, dim, heads, layers, self_layers, ratio, kernel, tokens):
        super().__init__()
        others = len(dims) - 1
        self.proj = nn.ModuleList(nn.Conv1d(source, dim, kernel, padding=kernel // 2, bias=False) for source in dims)
        self.pairs = nn.ModuleList(CrossTransformer(dim, heads, layers, ratio) for _ in range(len(dims) * others))
        self.memories = nn.ModuleList(CrossTransformer(others * dim, heads, self_layers, ratio) for _ in dims)
        self.output = nn.Linear(len(dims) * others * dim, WIDTH)
        self.tokens = tokens

    def forward(self, *sources):
        paddings = [mask_of(*source) for source in sources]
        features = [features * ~padding[..., None] for (features, _), padding in zip(sources, paddings)]
        streams = [conv(source.transpose(1, 2)).transpose(1, 2) for conv, source in zip(self.proj, features)]
        pairs, told = iter(self.pairs), []
        for index, stream in enumerate(streams):
            learnt = [
                next(pairs)(stream, other, padding)
                for place, (other, padding) in enumerate(zip(streams, paddings))
                if place != index
            ]
            remembered = self.memories[index](torch.cat(learnt, 2), None, paddings[index])
            told.append(
                torch.stack(
                    [
                        nn.functional.adaptive_avg_pool1d(row[:length].T[None], self.tokens)[0].T
                        for row, length in zip(remembered, sources[index][1])
                    ]
                )
            )
        return self.output(torch.cat(told, 2))


class Network(nn.Module):
    def __init__(self, dim, inner, hidden):
        super().__init__()
        self.fc1 = nn.Linear(dim, inner)
        self.fc2 = nn.Linear(inner, hidden)

    def forward(self, x):
        return self.fc2(self.fc1(x).relu()).relu()


class ConvAttention(nn.Module):
    """Emotion-LLaMA v2's `ConvProAttention` and the layer after it, on sources brought to one length."""

    def __init__(self, dims, inner, hidden, output, blocks, tokens):
        super().__init__()
        self.feats_prep = nn.ModuleList(Network(dim, inner, hidden) for dim in dims)
        self.attention_mlp = Network(len(dims) * hidden, inner, hidden)
        self.fc_att = nn.Linear(hidden, len(dims))
        self.conv_entry = nn.Conv1d(len(dims) * hidden, hidden, 1)
        self.conv_blocks = nn.ModuleList(nn.Conv1d(hidden, hidden, 3, padding=1) for _ in range(blocks))
        self.fc_final = nn.Linear(hidden, output)
        self.proj = nn.Linear(output, WIDTH)
        self.tokens = tokens

    def forward(self, *sources):
        aligned = [
            torch.stack(
                [
                    nn.functional.adaptive_avg_pool1d(row[:length].T[None], self.tokens)[0].T
                    for row, length in zip(features, lengths)
                ]
            )
            for features, lengths in sources
        ]
        hidden = [network(source) for network, source in zip(self.feats_prep, aligned)]
        flat = torch.cat(hidden, 2)
        scores = self.fc_att(self.attention_mlp(flat))
        fused = torch.einsum("bkhs,bks->bkh", torch.stack(hidden, 3), scores)
        x = self.conv_entry(flat.transpose(1, 2))
        for conv in self.conv_blocks:
            x = nn.functional.silu(conv(x)) + x
        return self.proj(self.fc_final(fused + x.transpose(1, 2)))


def blip2() -> None:
    """Published names of both worlds are made from these in the test."""
    torch.manual_seed(1)
    model = bert(dim=15, heads=3, layers=3, intermediate=22, every=2, feature_dim=10)
    norm = nn.LayerNorm(10)
    query_tokens = torch.randn(1, 5, 15) * 0.7
    randomise(model)
    randomise(norm)
    features = torch.randn(2, 7, 10) * 2 + 0.5
    with torch.no_grad():
        out = model(
            query_embeds=query_tokens.expand(2, -1, -1),
            encoder_hidden_states=norm(features),
            output_hidden_states=True,
        )
    tensors = {f"weights.qformer.{name}": p for name, p in model.named_parameters()}
    tensors |= {f"weights.ln_vision.{name}": p for name, p in norm.named_parameters()}
    tensors |= {"weights.query_tokens": query_tokens, "features": features, "last_hidden_state": out.last_hidden_state}
    tensors |= {f"hidden.{index}": state for index, state in enumerate(out.hidden_states)}
    tensors = {name: tensor.detach().contiguous().clone() for name, tensor in tensors.items()}
    save_file(tensors, f"{FOLDER}/blip2.safetensors", metadata={"torch": torch.__version__})


def blip2_folder() -> None:
    """A Hugging Face folder of a tiny BLIP-2 without its language model, and what its queries say of three frames."""
    torch.manual_seed(2)
    vision = Blip2VisionConfig(
        hidden_size=12, intermediate_size=20, num_hidden_layers=2, num_attention_heads=3, image_size=28, patch_size=14
    )
    eyes = Blip2VisionModel(vision).eval()
    qformer = bert(dim=15, heads=3, layers=3, intermediate=22, every=2, feature_dim=12)
    query_tokens = torch.randn(1, 5, 15) * 0.7
    randomise(eyes)
    randomise(qformer)
    frames = torch.randint(0, 256, (3, 28, 28, 3), dtype=torch.uint8)
    mean, std = torch.tensor([0.48, 0.45, 0.41]), torch.tensor([0.26, 0.25, 0.27])
    with torch.no_grad():
        pixel_values = ((frames / 255 - mean) / std).permute(0, 3, 1, 2)
        seen = eyes(pixel_values).last_hidden_state
        read = qformer(query_embeds=query_tokens.expand(3, -1, -1), encoder_hidden_states=seen).last_hidden_state
    tensors = {f"vision_model.{name}": p for name, p in eyes.named_parameters()}
    tensors |= {f"qformer.{name}": p for name, p in qformer.named_parameters()}
    tensors |= {"query_tokens": query_tokens, "language_projection.weight": torch.zeros(1, 15)}
    tensors = {name: tensor.detach().contiguous().clone() for name, tensor in tensors.items()}
    os.makedirs(f"{FOLDER}/blip2", exist_ok=True)
    save_file(tensors, f"{FOLDER}/blip2/model.safetensors", metadata={"format": "pt"})
    with open(f"{FOLDER}/blip2/config.json", "w") as file:
        keys = ["hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "image_size"]
        keys += ["patch_size", "layer_norm_eps", "qkv_bias", "hidden_act"]
        config = {"model_type": "blip-2", "vision_config": {key: getattr(vision, key) for key in keys}}
        json.dump(config, file, indent=2)
        file.write("\n")
    reference = {"frames": frames.float(), "features": read.reshape(15, 15).contiguous()}
    save_file(reference, f"{FOLDER}/blip2/reference.safetensors", metadata={"torch": torch.__version__})


def main() -> None:
    blip2()
    blip2_folder()
    projectors = {
        "bert_qformer": (lambda: BertQFormer(dim=15, heads=3, queries=4, positions=5, each=3, feature_dim=10), [8, 3]),
        "merge": (lambda: Merge(feature_dim=5, group=4, skip=1), [13, 13]),
        "first": (lambda: First(feature_dim=7), [5, 2]),
        "attention": (lambda: AttentionPool(feature_dim=7, tokens=2), [5, 2]),
        "attention_softmax": (lambda: AttentionPool(feature_dim=7, tokens=1, softmax=True), [5, 2]),
        "mean": (lambda: AttentionPool(feature_dim=7, tokens=3, attention=False), [5, 2]),
        "spatio_temporal": (lambda: FramePool(feature_dim=6, frames=3, class_token=False), [15, 15]),
        "valley": (lambda: FramePool(feature_dim=6, frames=3, class_token=True), [15, 15]),
    }
    for seed, (name, (build, lengths)) in enumerate(projectors.items()):
        torch.manual_seed(100 + seed)
        module = build()
        randomise(module)
        linear = next(m for m in module.modules() if isinstance(m, nn.Linear))
        dims = {"bert_qformer": 10, "merge": 5}
        save(name, module, [padded(lengths, dims.get(name, linear.in_features))])

    fusions = {
        "fusion_attention": lambda: AttentionFusion([9, 14], tokens=2),
        "fusion_attention_softmax": lambda: AttentionFusion([9, 14, 6], tokens=1, softmax=True),
        "fusion_qformer": lambda: QFormerFusion([9, 14], dim=15, heads=3, queries=2, positions=16),
        "fusion_cross_modal": lambda: CrossModal(
            [9, 14, 6], dim=12, heads=3, layers=2, self_layers=1, ratio=2, kernel=3, tokens=2
        ),
        "fusion_cross_modal_pair": lambda: CrossModal(
            [9, 14], dim=6, heads=3, layers=1, self_layers=2, ratio=3, kernel=1, tokens=1
        ),
        "fusion_conv_attention": lambda: ConvAttention([9, 14, 6], inner=10, hidden=8, output=7, blocks=2, tokens=5),
    }
    for seed, (name, build) in enumerate(fusions.items()):
        torch.manual_seed(200 + seed)
        module = build()
        randomise(module)
        sources = [padded([7, 3, 5], 9), padded([4, 8, 1], 14), padded([2, 6, 5], 6)]
        first = getattr(module, "embs", getattr(module, "proj", None))
        count = len(first) if isinstance(first, nn.ModuleList) else len(module.feats_prep)
        save(name, module, sources[:count])


if __name__ == "__main__":
    main()
