"""Makes tests/golden/vision: tiny vision encoders of each family with what transformers makes of pixel values, layer by
layer; pictures with what transformers' PIL image processors make of them; published parameter counts.

Weights are seeded noise, larger than an initialisation, so that softmax and GELU leave their linear range; biases and
norms are noise too. Sizes are odd on purpose. The layouts of the authors' own checkpoints (`eva_vit_g.pth`, MAE,
VideoMAE) are the same weights under those names; MAE's are run in timm as well. Needs torch, transformers, timm,
safetensors, and pillow 13 or newer: earlier ones resize along rows first whatever the picture. Run from the repository's root:

    python scripts/golden/vision.py
"""

import argparse
import json
import math
import shutil
from pathlib import Path

from environment import ensure

ensure()

import numpy
import PIL
import timm
import torch
import transformers
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import (
    Blip2VisionConfig, Blip2VisionModel, CLIPConfig, CLIPModel, CLIPVisionConfig, CLIPVisionModel,
    CLIPVisionModelWithProjection, Dinov2Config, Dinov2Model, Dinov2WithRegistersConfig, Dinov2WithRegistersModel,
    SiglipConfig, SiglipModel, SiglipVisionConfig, SiglipVisionModel, VideoMAEConfig, VideoMAEForPreTraining,
    VideoMAEForVideoClassification, VideoMAEModel, ViTMAEConfig, ViTMAEForPreTraining, ViTMAEModel,
)

ROOT = Path("tests/golden/vision")


def randomise(model: nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if "norm" in name or "layrnorm" in name or "lambda1" in name:
            parameter.data = 0.2 * noise + (0.0 if name.endswith("bias") else 1.0)
        elif name.endswith("bias"):
            parameter.data = 0.3 * noise
        elif "position_embedding" in name or "token" in name or "class_embedding" in name:
            parameter.data = 0.7 * noise
        else:
            sharp = 1.6 if any(part in name for part in ("query", "key", "q_proj", "k_proj", "qkv")) else 1.0
            parameter.data = noise * sharp / math.sqrt(parameter[0].numel() if parameter.ndim else 1)
    # transformers builds `[q_bias, 0, v_bias]` for EVA.
    for module in model.modules():
        if hasattr(module, "qkv") and module.qkv.bias is not None:
            width = module.qkv.bias.shape[0] // 3
            module.qkv.bias.data[width : 2 * width] = 0.0


def pixels(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


def outputs(prefix: str, pixel_values: torch.Tensor, hidden, last, pooled=None) -> dict[str, torch.Tensor]:
    tensors = {f"{prefix}pixel_values": pixel_values, f"{prefix}last_hidden_state": last}
    tensors |= {f"{prefix}hidden.{index}": state for index, state in enumerate(hidden)}
    if pooled is not None:
        tensors[f"{prefix}pooled"] = pooled
    return tensors


def write(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.detach().float().contiguous().clone() for name, tensor in tensors.items()}
    save_file(tensors, path, metadata={"format": "pt"})
    largest = {name.split(".")[0]: tensor.abs().max().item() for name, tensor in tensors.items()}
    print(path, {name: round(value, 2) for name, value in largest.items() if "hidden" in name or "pooled" in name})


def pickle(path: Path, contents: dict) -> None:
    """A checkpoint as its authors write it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(contents, path)


def training_state(weights: dict[str, torch.Tensor]) -> dict:
    """What training scripts save beside the weights."""
    state = {0: {"step": torch.tensor(3.0), "exp_avg": torch.zeros(2)}}
    return {
        "optimizer": {"state": state, "param_groups": [{"lr": 1e-3, "params": [0]}]},
        "scaler": {"scale": 65536.0},
        "epoch": 3,
        "args": argparse.Namespace(model="large", lr=1e-3),
        **weights,
    }


def save(model: nn.Module, name: str) -> Path:
    folder = ROOT / name
    model.save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    return folder


def eager(model: nn.Module) -> nn.Module:
    model.set_attn_implementation("eager")
    return model.eval()


def clip() -> None:
    vision = dict(
        hidden_size=30, num_attention_heads=5, num_hidden_layers=3, intermediate_size=44, image_size=26, patch_size=5
    )
    text = dict(hidden_size=8, num_attention_heads=2, num_hidden_layers=1, intermediate_size=8, vocab_size=11)
    model = CLIPModel(CLIPConfig(vision_config=vision, text_config=text, projection_dim=14))
    randomise(model, 1)
    eager(model)
    folder = save(model, "clip")
    pixel_values = pixels(2, 3, 26, 26)
    out = model.vision_model(pixel_values, output_hidden_states=True)
    pooled = model.visual_projection(out.pooler_output)
    write(folder / "reference.safetensors", outputs("", pixel_values, out.hidden_states, out.last_hidden_state, pooled))

    config = CLIPVisionConfig(**vision | dict(num_hidden_layers=2, hidden_act="gelu", hidden_size=21, num_attention_heads=3))
    model = CLIPVisionModel(config)
    randomise(model, 2)
    eager(model)
    folder = save(model, "clip_vision")
    out = model(pixel_values, output_hidden_states=True)
    write(
        folder / "reference.safetensors",
        outputs("", pixel_values, out.hidden_states, out.last_hidden_state, out.pooler_output),
    )


def siglip() -> None:
    vision = dict(
        hidden_size=36, num_attention_heads=3, num_hidden_layers=3, intermediate_size=40, image_size=21, patch_size=7
    )
    text = dict(hidden_size=8, num_attention_heads=2, num_hidden_layers=1, intermediate_size=8, vocab_size=11)
    model = SiglipModel(SiglipConfig(vision_config=vision, text_config=text))
    randomise(model, 3)
    eager(model)
    folder = save(model, "siglip")
    pixel_values = pixels(2, 3, 21, 21)
    out = model.vision_model(pixel_values, output_hidden_states=True)
    write(
        folder / "reference.safetensors",
        outputs("", pixel_values, out.hidden_states, out.last_hidden_state, out.pooler_output),
    )


def eva_name(name: str) -> str:
    for theirs, ours in {
        "embeddings.class_embedding": "cls_token",
        "embeddings.position_embedding": "pos_embed",
        "embeddings.patch_embedding.": "patch_embed.proj.",
        "encoder.layers.": "blocks.",
        "self_attn.projection.": "attn.proj.",
        "self_attn.": "attn.",
        ".layer_norm": ".norm",
    }.items():
        name = name.replace(theirs, ours)
    return name


def eva() -> None:
    """BLIP-2's vision model, at its own size, at a rectangle, and at twice its size; and under EVA's names."""
    model = Blip2VisionModel(
        Blip2VisionConfig(
            hidden_size=33, num_attention_heads=3, num_hidden_layers=3, intermediate_size=50, image_size=28, patch_size=7
        )
    )
    randomise(model, 4)
    eager(model)
    folder = save(model, "blip2_vision")
    tensors = {}
    for prefix, (height, width) in {"own.": (28, 28), "wide.": (35, 49), "twice.": (56, 56)}.items():
        pixel_values = pixels(1, 3, height, width)
        out = model(pixel_values, output_hidden_states=True, interpolate_pos_encoding=height != 28 or width != 28)
        tensors |= outputs(prefix, pixel_values, out.hidden_states, out.last_hidden_state, out.pooler_output)
        # What MiniGPT-v2 computes: a norm that was never loaded, at PyTorch's epsilon; and LAVIS, whose norm was.
        norm = model.post_layernorm
        tensors[f"{prefix}ln_vision.identity"] = nn.functional.layer_norm(out.hidden_states[-1], (33,))
        tensors[f"{prefix}ln_vision.file"] = nn.functional.layer_norm(out.hidden_states[-1], (33,), norm.weight, norm.bias)
    write(folder / "reference.safetensors", tensors)

    original = {}
    for name, tensor in model.state_dict().items():
        if name.endswith("qkv.bias"):
            q_bias, _, v_bias = tensor.chunk(3)
            original |= {eva_name(name).replace("qkv.bias", f"{part}_bias"): bias for part, bias in zip("qv", (q_bias, v_bias))}
        elif not name.startswith("post_layernorm"):
            original[eva_name(name)] = tensor
    # What the file holds beyond what BLIP-2 uses.
    original |= {name.replace("blocks.0.", "blocks.3."): tensor for name, tensor in original.items() if name.startswith("blocks.0.norm")}
    original |= {"norm.weight": torch.ones(33), "head.weight": torch.ones(2, 33)}
    ln_vision = {f"ln_vision.{part}": getattr(model.post_layernorm, part) for part in ("weight", "bias")}
    pickle(ROOT / "eva/eva_vit_g.pth", original)
    pickle(ROOT / "eva/blip2.pth", {"model": ln_vision | {"query_tokens": torch.zeros(1, 1, 3)}})


def dinov2() -> None:
    sizes = dict(hidden_size=30, num_attention_heads=5, image_size=30, patch_size=6, mlp_ratio=2)
    models = {
        "dinov2": Dinov2Model(Dinov2Config(**sizes, num_hidden_layers=3)),
        "dinov2_giant": Dinov2Model(Dinov2Config(**sizes, num_hidden_layers=2, use_swiglu_ffn=True)),
        "dinov2_registers": Dinov2WithRegistersModel(
            Dinov2WithRegistersConfig(**sizes, num_hidden_layers=2, num_register_tokens=3)
        ),
    }
    for seed, (name, model) in enumerate(models.items(), 5):
        randomise(model, seed)
        eager(model)
        folder = save(model, name)
        tensors = {}
        # Fewer rows and more columns than the 5 x 5 of training; and a remainder that no patch covers.
        for prefix, (height, width) in {"own.": (30, 30), "wide.": (20, 43)}.items():
            pixel_values = pixels(2, 3, height, width)
            out = model(pixel_values, output_hidden_states=True)
            tensors |= outputs(prefix, pixel_values, out.hidden_states, out.last_hidden_state, out.pooler_output)
        write(folder / "reference.safetensors", tensors)


def timm_name(name: str) -> str:
    for theirs, ours in {
        "embeddings.patch_embeddings.projection.": "patch_embed.proj.",
        "embeddings.position_embeddings": "pos_embed",
        "embeddings.cls_token": "cls_token",
        "encoder.layer.": "blocks.",
        "attention.output.dense.": "attn.proj.",
        "attention.attention.": "attn.",
        "intermediate.dense.": "mlp.fc1.",
        "output.dense.": "mlp.fc2.",
        "layernorm_before.": "norm1.",
        "layernorm_after.": "norm2.",
        "layernorm.": "norm.",
    }.items():
        name = name.replace(theirs, ours)
    return name


def original(folder: Path, prefix: str, depth: int) -> dict[str, torch.Tensor]:
    """The encoder of a saved model under the names of its authors, query, key and value in one."""
    tensors = {
        timm_name(name.removeprefix(prefix)): tensor
        for name, tensor in load_file(folder / "model.safetensors").items()
        if name.startswith(prefix)
    }
    for block in range(depth):
        for kind in ("weight", "bias"):
            parts = [f"blocks.{block}.attn.{part}.{kind}" for part in ("query", "key", "value")]
            if parts[0] in tensors:
                tensors[f"blocks.{block}.attn.qkv.{kind}"] = torch.cat([tensors.pop(part) for part in parts])
    return tensors


def mae() -> None:
    config = ViTMAEConfig(
        hidden_size=20, num_attention_heads=5, num_hidden_layers=3, intermediate_size=30, image_size=24, patch_size=4,
        decoder_hidden_size=8, decoder_num_attention_heads=2, decoder_num_hidden_layers=1, decoder_intermediate_size=8,
        mask_ratio=0.0, layer_norm_eps=1e-6,
    )
    model = ViTMAEForPreTraining(config)
    randomise(model, 8)
    eager(model)
    folder = save(model, "mae")
    pixel_values = pixels(2, 3, 24, 24)
    # Rising noise keeps the patches in order.
    out = model.vit(pixel_values, noise=torch.arange(36.0).expand(2, 36), output_hidden_states=True)
    write(folder / "reference.safetensors", outputs("", pixel_values, out.hidden_states, out.last_hidden_state))

    tensors = original(folder, "vit.", 3)
    check = timm.models.vision_transformer.VisionTransformer(
        img_size=24, patch_size=4, embed_dim=20, depth=3, num_heads=5, mlp_ratio=1.5, num_classes=0, global_pool=""
    )
    check.load_state_dict(tensors, strict=True)
    error = (check.eval()(pixel_values) - out.last_hidden_state).abs().max().item()
    assert error < 1e-5, error
    beside = {"mask_token": torch.zeros(1, 1, 8), "decoder_embed.weight": torch.zeros(8, 20)}
    pickle(ROOT / "mae/original.pth", training_state({"model": tensors | beside}))


def videomae() -> None:
    sizes = dict(
        hidden_size=30, num_attention_heads=3, num_hidden_layers=3, intermediate_size=36, image_size=21, patch_size=7,
        num_frames=6, tubelet_size=2, layer_norm_eps=1e-6,
        decoder_hidden_size=8, decoder_num_attention_heads=2, decoder_num_hidden_layers=1, decoder_intermediate_size=8,
    )
    model = VideoMAEForPreTraining(VideoMAEConfig(**sizes, use_mean_pooling=False))
    randomise(model, 9)
    eager(model)
    folder = save(model, "videomae")
    pixel_values = pixels(2, 6, 3, 21, 21)
    out = model.videomae(pixel_values, output_hidden_states=True)
    pooled = out.last_hidden_state.mean(1)
    write(folder / "reference.safetensors", outputs("", pixel_values, out.hidden_states, out.last_hidden_state, pooled))

    tensors = original(folder, "videomae.", 3)
    beside = {"mask_token": torch.zeros(1, 1, 8), "encoder_to_decoder.weight": torch.zeros(8, 30)}
    encoder = {f"encoder.{name}": tensor for name, tensor in tensors.items()}
    pickle(ROOT / "videomae/original.pth", {"module": encoder | beside})

    model = VideoMAEForVideoClassification(VideoMAEConfig(**sizes | dict(num_hidden_layers=1), num_labels=2))
    randomise(model, 10)
    eager(model)
    folder = save(model, "videomae_classifier")
    out = model.videomae(pixel_values, output_hidden_states=True)
    pooled = model.fc_norm(out.last_hidden_state.mean(1))
    assert torch.allclose(model.classifier(pooled), model(pixel_values).logits, atol=1e-6)
    write(folder / "reference.safetensors", outputs("", pixel_values, out.hidden_states, out.last_hidden_state, pooled))


def picture(height: int, width: int) -> numpy.ndarray:
    """Smooth colours with edges and noise, so that a resize shows its kernel."""
    y, x = numpy.mgrid[0:height, 0:width]
    noise = numpy.random.default_rng(height).normal(0, 12, (height, width, 3))
    waves = numpy.stack([numpy.sin(x / 5), numpy.cos(y / 4), numpy.sin((x + y) / 7)], axis=-1)
    edges = 60 * ((x // 9 + y // 11) % 2)[..., None]
    return numpy.clip(100 + 70 * waves + edges + noise, 0, 255).astype(numpy.uint8)


def processors() -> None:
    """Each case: a `preprocessor_config.json` as it is published, and the processor of transformers that it describes."""
    clip = dict(image_mean=[0.48145466, 0.4578275, 0.40821073], image_std=[0.26862954, 0.26130258, 0.27577711])
    imagenet = dict(image_mean=[0.485, 0.456, 0.406], image_std=[0.229, 0.224, 0.225])
    half = dict(image_mean=[0.5, 0.5, 0.5], image_std=[0.5, 0.5, 0.5])
    both = dict(do_resize=True, do_normalize=True)
    cases = {
        # As openai/clip-vit-base-patch32: bare numbers.
        "clip": (transformers.CLIPImageProcessorPil, dict(**clip, **both, size=24, crop_size=22, do_center_crop=True, resample=3, feature_extractor_type="CLIPFeatureExtractor")),
        # As google/siglip-so400m-patch14-384.
        "siglip": (transformers.SiglipImageProcessorPil, dict(**half, **both, do_rescale=True, rescale_factor=0.00392156862745098, size=dict(height=27, width=27), resample=3, image_processor_type="SiglipImageProcessor")),
        # As facebook/dinov2-large.
        "dinov2": (transformers.BitImageProcessorPil, dict(**imagenet, **both, do_center_crop=True, do_convert_rgb=True, do_rescale=True, rescale_factor=0.00392156862745098, crop_size=dict(height=28, width=28), size=dict(shortest_edge=32), resample=3, image_processor_type="BitImageProcessor")),
        # As facebook/vit-mae-large: a bare number that means a square; enlarged and shrunk.
        "mae": (transformers.ViTImageProcessorPil, dict(**imagenet, **both, size=45, resample=3, feature_extractor_type="ViTFeatureExtractor")),
        "bilinear": (transformers.ViTImageProcessorPil, dict(**imagenet, **both, size=dict(height=19, width=31), resample=2, image_processor_type="ViTImageProcessor")),
        # As Salesforce/blip2-opt-2.7b.
        "blip2": (transformers.BlipImageProcessorPil, dict(**clip, **both, do_convert_rgb=True, do_rescale=True, rescale_factor=0.00392156862745098, size=dict(height=28, width=28), resample=3, image_processor_type="BlipImageProcessor")),
        # As MCG-NJU/videomae-large.
        "videomae": (transformers.VideoMAEImageProcessorPil, dict(**imagenet, **both, do_center_crop=True, do_rescale=True, rescale_factor=0.00392156862745098, crop_size=dict(height=21, width=21), size=dict(shortest_edge=21), resample=2, image_processor_type="VideoMAEImageProcessor")),
        # A crop wider than the picture is padded; nothing is normalised.
        "padded": (transformers.CLIPImageProcessorPil, dict(do_resize=False, do_normalize=False, do_center_crop=True, do_rescale=True, crop_size=dict(height=30, width=64), image_processor_type="CLIPImageProcessor")),
    }
    pictures = {"tall": picture(61, 40), "wide": picture(37, 53)}
    tensors = {f"picture.{name}": torch.tensor(array).float() for name, array in pictures.items()}
    for name, (kind, keys) in cases.items():
        processor = kind(**{key: value for key, value in keys.items() if not key.endswith("_type")})
        for side, array in pictures.items():
            values = processor(Image.fromarray(array), return_tensors="pt")["pixel_values"]
            tensors[f"{name}.{side}"] = values.reshape(values.shape[-3:])
    write(ROOT / "processors.safetensors", tensors)
    configs = {name: keys for name, (_, keys) in cases.items()}
    (ROOT / "processors.json").write_text(json.dumps(configs, indent=1) + "\n")
    # The folder of the CLIP model preprocesses pictures itself.
    keys = cases["clip"][1] | dict(size=26, crop_size=26)
    (ROOT / "clip/preprocessor_config.json").write_text(json.dumps(keys, indent=1) + "\n")
    processor = transformers.CLIPImageProcessorPil(**{key: value for key, value in keys.items() if not key.endswith("_type")})
    model = eager(CLIPModel.from_pretrained(ROOT / "clip"))
    values = processor([Image.fromarray(array) for array in pictures.values()], return_tensors="pt")["pixel_values"]
    pooled = model.visual_projection(model.vision_model(values).pooler_output)
    write(ROOT / "clip/pictures.safetensors", {"pooled": pooled})


def parameters() -> None:
    """The published shapes, and how many parameters transformers gives them (nothing is allocated)."""
    clip_large = dict(hidden_size=1024, intermediate_size=4096, num_hidden_layers=24, num_attention_heads=16, patch_size=14, projection_dim=768)
    so400m = dict(hidden_size=1152, intermediate_size=4304, num_hidden_layers=27, num_attention_heads=16, image_size=384, patch_size=14)
    large = dict(hidden_size=1024, num_hidden_layers=24, num_attention_heads=16)
    published = {
        "clip-vit-base-patch32": (CLIPVisionModelWithProjection, CLIPVisionConfig, {}),
        "clip-vit-large-patch14": (CLIPVisionModelWithProjection, CLIPVisionConfig, clip_large),
        "siglip-so400m": (SiglipVisionModel, SiglipVisionConfig, so400m),
        "dinov2-large": (Dinov2Model, Dinov2Config, large | dict(image_size=518, patch_size=14)),
        "mae-large": (ViTMAEModel, ViTMAEConfig, large | dict(intermediate_size=4096)),
        "videomae-large": (VideoMAEModel, VideoMAEConfig, large | dict(intermediate_size=4096, use_mean_pooling=False)),
        "blip2-vit-g": (Blip2VisionModel, Blip2VisionConfig, {}),
    }
    counts = {}
    for name, (model, config, sizes) in published.items():
        with torch.device("meta"):
            built = model(config(**sizes))
        # A mask token is of use in pretraining alone; EVA's key bias is zero and not stored by its authors.
        unused = sum(p.numel() for n, p in built.named_parameters() if n.endswith("mask_token"))
        if name == "blip2-vit-g":
            unused += 39 * 1408
        counts[name] = dict(config=sizes, parameters=sum(p.numel() for p in built.parameters()) - unused)
    (ROOT / "parameters.json").write_text(json.dumps(counts, indent=1) + "\n")
    print(counts)


if __name__ == "__main__":
    assert int(PIL.__version__.split(".")[0]) >= 13, PIL.__version__
    transformers.logging.set_verbosity_error()
    torch.set_grad_enabled(False)
    shutil.rmtree(ROOT, ignore_errors=True)
    ROOT.mkdir(parents=True)
    clip()
    siglip()
    eva()
    dinov2()
    mae()
    videomae()
    processors()
    parameters()
