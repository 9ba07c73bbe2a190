"""Makes tests/golden/encoders/{vit,vit_sincos,audio_transformer,qformer}.safetensors in PyTorch.

The models are put together from torch.nn's own attention and transformer layers, whose parameters are
then renamed to ours, so that nothing of our arithmetic is repeated here. Each file holds the weights
(`weights.*`), the inputs and the results. Needs torch, librosa, numpy and safetensors. Run from the
repository's root:

    python scripts/golden/encoders.py
"""

import math

from environment import ensure

ensure()

import numpy
import torch
from safetensors.torch import save_file
from torch import nn

MEAN, STD = (0.48, 0.45, 0.41), (0.26, 0.25, 0.27)


def randomise(module: nn.Module) -> None:
    """Larger than an initialisation, so that softmax and GELU leave their linear range."""
    for name, parameter in module.named_parameters():
        scale = 0.8 / math.sqrt(parameter.shape[-1]) if parameter.ndim > 1 else 0.2
        noise = torch.randn(parameter.shape) * scale
        parameter.data = noise + 1 if "norm" in name and name.endswith("weight") else noise


def encoder_layer(dim: int, heads: int, intermediate: int) -> nn.TransformerEncoderLayer:
    return nn.TransformerEncoderLayer(
        dim, heads, intermediate, dropout=0.0, activation="gelu", layer_norm_eps=1e-6, batch_first=True, norm_first=True
    )


RENAMED = {
    "self_attn.in_proj_weight": "attn.qkv.weight",
    "self_attn.in_proj_bias": "attn.qkv.bias",
    "self_attn.out_proj.": "attn.proj.",
    "linear1.": "mlp.fc1.",
    "linear2.": "mlp.fc2.",
}


def state(module: nn.Module, gradients: bool = False) -> dict[str, torch.Tensor]:
    tensors = {}
    for name, parameter in module.named_parameters():
        for theirs, ours in RENAMED.items():
            name = name.replace(theirs, ours)
        tensors[name] = parameter.grad if gradients else parameter.detach()
    return tensors


def save(file: str, module: nn.Module, **tensors: torch.Tensor) -> None:
    tensors |= {f"weights.{name}": tensor for name, tensor in state(module).items()}
    tensors = {name: tensor.detach().float().contiguous() for name, tensor in tensors.items()}
    save_file(tensors, f"tests/golden/encoders/{file}.safetensors", metadata={"torch": torch.__version__})


def sincos_grid(dim: int, side: int) -> torch.Tensor:
    """The position embedding of masked autoencoders, from the paper's formula on a meshgrid."""
    columns, rows = numpy.meshgrid(numpy.arange(side), numpy.arange(side))
    frequencies = 1 / 10_000 ** (numpy.arange(dim // 4) / (dim // 4))
    parts = []
    for places in (columns, rows):
        angles = numpy.outer(places.reshape(-1), frequencies)
        parts += [numpy.sin(angles), numpy.cos(angles)]
    return torch.tensor(numpy.concatenate(parts, axis=1), dtype=torch.float32)


class PatchEmbed(nn.Module):
    def __init__(self, patch: int, dim: int):
        super().__init__()
        self.proj = nn.Conv2d(3, dim, patch, stride=patch)

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        return self.proj(pictures).flatten(2).transpose(1, 2)


class Vit(nn.Module):
    def __init__(self, side: int, patch: int, dim: int, depth: int, heads: int, learned: bool):
        super().__init__()
        self.patch_embed = PatchEmbed(patch, dim)
        self.blocks = nn.ModuleList(encoder_layer(dim, heads, 2 * dim) for _ in range(depth))
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.learned = learned
        if learned:
            self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
            self.pos_embed = nn.Parameter(torch.zeros(1, 1 + (side // patch) ** 2, dim))
        else:
            self.grid = sincos_grid(dim, side // patch)

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        x = self.patch_embed(pictures)
        if self.learned:
            x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], dim=1) + self.pos_embed
        else:
            x = x + self.grid
        for block in self.blocks:
            x = block(x)
        x = self.norm(x)
        return x[:, 1:] if self.learned else x


def vit(file: str, learned: bool) -> None:
    torch.manual_seed(11)
    model = Vit(side=16, patch=4, dim=24, depth=2, heads=3, learned=learned)
    randomise(model)
    frames = torch.randint(0, 256, (2, 16, 16, 3))
    pictures = (frames.permute(0, 3, 1, 2) / 255 - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    save(file, model, frames=frames, output=model(pictures).flatten(0, 1))


class AudioTransformer(nn.Module):
    def __init__(self, inputs: int, dim: int, depth: int, heads: int):
        super().__init__()
        self.stem = nn.Linear(inputs, dim)
        self.blocks = nn.ModuleList(encoder_layer(dim, heads, 3 * dim) for _ in range(depth))
        self.norm = nn.LayerNorm(dim, eps=1e-6)

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        x = self.stem(frames)
        _, length, dim = x.shape
        steps = math.log(10_000) / (dim // 2 - 1) * torch.arange(dim // 2)
        angles = torch.arange(length)[:, None] * torch.exp(-steps)[None]
        x = x + torch.cat([angles.sin(), angles.cos()], dim=1)
        for block in self.blocks:
            x = block(x)
        return self.norm(x)


def audio_transformer() -> None:
    """Its input is librosa's log-mel, so that the whole path from the sound is compared."""
    import librosa

    torch.manual_seed(12)
    model = AudioTransformer(inputs=4 * 20, dim=32, depth=2, heads=4)
    randomise(model)
    sound = (0.1 * torch.randn(3_200)).numpy()
    power = librosa.feature.melspectrogram(y=sound, sr=16_000, n_fft=400, hop_length=160, n_mels=20)
    frames = torch.tensor(numpy.log10(numpy.maximum(power, 1e-10)).T)
    frames = torch.cat([frames, frames[-1:].expand(-len(frames) % 4, -1)])
    save("audio_transformer", model, sound=torch.tensor(sound), output=model(frames.reshape(1, -1, 80))[0])


class Cross(nn.Module):
    def __init__(self, dim: int, heads: int):
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        # Three input sizes named apart make PyTorch keep three projections.
        self.attn = nn.MultiheadAttention(dim, heads, batch_first=True)
        self.attn._qkv_same_embed_dim = False
        self.attn.in_proj_weight = None
        for name in "qkv":
            setattr(self.attn, f"{name}_proj_weight", nn.Parameter(torch.zeros(dim, dim)))


class Layer(nn.Module):
    def __init__(self, dim: int, heads: int, intermediate: int, cross: bool):
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.self_attn = nn.MultiheadAttention(dim, heads, batch_first=True)
        self.cross = Cross(dim, heads) if cross else None
        self.norm2 = nn.LayerNorm(dim)
        self.linear1 = nn.Linear(dim, intermediate)
        self.linear2 = nn.Linear(intermediate, dim)

    def forward(self, x, keys, values, padding):
        y = self.norm1(x)
        x = x + self.self_attn(y, y, y, need_weights=False)[0]
        if self.cross is not None:
            x = x + self.cross.attn(self.cross.norm(x), keys, values, key_padding_mask=padding, need_weights=False)[0]
        return x + self.linear2(nn.functional.gelu(self.linear1(self.norm2(x))))


class QFormer(nn.Module):
    def __init__(self, inputs: int, outputs: int, dim: int, heads: int, layers: int, queries: int, max_length: int):
        super().__init__()
        self.input = nn.Linear(inputs, dim)
        self.input_norm = nn.LayerNorm(dim)
        self.positions = nn.Parameter(torch.zeros(max_length, dim))
        self.queries = nn.Parameter(torch.zeros(queries, dim))
        self.layers = nn.ModuleList(Layer(dim, heads, 2 * dim, cross=i % 2 == 0) for i in range(layers))
        self.norm = nn.LayerNorm(dim)
        self.output = nn.Linear(dim, outputs)

    def forward(self, features, padding):
        values = self.input_norm(self.input(features))
        keys = values + self.positions[: values.shape[1]]
        x = self.queries.expand(len(features), -1, -1)
        for layer in self.layers:
            x = layer(x, keys, values, padding)
        return self.output(self.norm(x))


def split_projections(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Our cross-attention keeps query, key and value apart; PyTorch joins their biases."""
    split = {}
    for name, tensor in tensors.items():
        head, found, _ = name.partition(".cross.attn.")
        if not found:
            split[f"body.{name}"] = tensor
        elif name.endswith("in_proj_bias"):
            for part, bias in zip(("query", "key", "value"), tensor.chunk(3)):
                split[f"body.{head}{found}{part}.bias"] = bias
        else:
            for theirs, ours in {"q_proj_": "query.", "k_proj_": "key.", "v_proj_": "value.", "out_proj.": "proj."}.items():
                name = name.replace(theirs, ours)
            split[f"body.{name}"] = tensor
    return split


def qformer() -> None:
    torch.manual_seed(13)
    model = QFormer(inputs=10, outputs=12, dim=16, heads=4, layers=3, queries=5, max_length=9)
    randomise(model)
    lengths = torch.tensor([7, 3])
    mean, std = torch.randn(10), torch.rand(10) + 0.5
    padding = torch.arange(7)[None] >= lengths[:, None]
    features = torch.randn(2, 7, 10).masked_fill(padding[..., None], 0.0).requires_grad_()
    output = model((features - mean) / std, padding)
    probe = torch.randn(output.shape)
    (output * probe).sum().backward()

    weights = split_projections(state(model)) | {"input_mean": mean, "input_std": std}
    tensors = {f"weights.{name}": tensor for name, tensor in weights.items()}
    tensors |= {f"gradients.{name}": tensor for name, tensor in split_projections(state(model, gradients=True)).items()}
    tensors |= {"features": features, "features_gradient": features.grad, "output": output, "probe": probe}
    tensors = {name: tensor.detach().contiguous().clone() for name, tensor in tensors.items()}
    save_file(tensors, "tests/golden/encoders/qformer.safetensors", metadata={"torch": torch.__version__})


if __name__ == "__main__":
    vit("vit", learned=True)
    vit("vit_sincos", learned=False)
    audio_transformer()
    qformer()
