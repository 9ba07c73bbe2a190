"""Makes tests/golden/audio/*: small random models of transformers and what they make of computed sounds.

Each model is a folder as transformers writes it, and `reference.safetensors` beside it. Sounds are not stored: `sound`
below and in crates/limbic-encoders/tests/golden_audio.rs are the same formula. ImageBind is in no package: its audio
trunk is put together here from torch.nn, by the facts of facebookresearch/ImageBind (imagebind_model.py, transformer.py,
multimodal_preprocessors.py, helpers.py, data.py). Its filter banks are those of torchaudio's compliance/kaldi.py, which is
pure Python and is loaded by itself, since torchaudio's binary parts want a certain torch.

Needs torch, transformers, numpy, safetensors, and an unpacked torchaudio wheel. Run from the repository's root:

    python scripts/golden/audio.py FOLDER_WITH_TORCHAUDIO
"""

import importlib.util
import math
import shutil
import sys
import types
from pathlib import Path

from environment import ensure

ensure()

import numpy
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import (
    HubertConfig,
    HubertForCTC,
    HubertModel,
    Wav2Vec2Config,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2ForPreTraining,
    Wav2Vec2Model,
    WavLMConfig,
    WavLMModel,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
)

RATE = 16_000
FOLDER = Path("tests/golden/audio")


def sound(samples: int, seed: int) -> numpy.ndarray:
    """A gliding tone with two overtones, and noise from a hash of the sample's number."""
    numbers = numpy.arange(samples, dtype=numpy.uint64)
    word = (numbers * 2_654_435_761 + seed * 974_711) % 2**32
    word ^= word >> 16
    word = (word * 2_246_822_519) % 2**32
    word ^= word >> 13
    noise = word.astype(numpy.float64) / 2**32 - 0.5
    time = numbers.astype(numpy.float64) / RATE
    phase = 2 * numpy.pi * (140 + 10 * seed + 50 * time) * time
    tone = 0.3 * numpy.sin(phase) + 0.15 * numpy.sin(2 * phase) + 0.1 * numpy.sin(3 * phase)
    return (tone + 0.1 * noise).astype(numpy.float32)


def randomise(model: nn.Module) -> None:
    """Larger than an initialisation, so that softmax and GELU leave their linear range; no bias is zero, no norm is one."""
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape)
        if "original0" in name or "gru_rel_pos_const" in name or ("norm" in name and name.endswith("weight")):
            parameter.data = 1 + 0.2 * noise
        elif "rel_attn_embed" in name:
            parameter.data = noise
        elif parameter.ndim > 1:
            gain = 1.6 if "conv_layers" in name or name.startswith("conv") or "gru_rel" in name else 1.0
            parameter.data = gain * noise / math.sqrt(parameter[0].numel())
        else:
            parameter.data = 0.2 * noise


def write(folder: Path, tensors: dict[str, torch.Tensor]) -> None:
    tensors = {name: tensor.detach().float().contiguous().clone() for name, tensor in tensors.items()}
    save_file(tensors, folder / "reference.safetensors", metadata={"torch": torch.__version__})


def states(prefix: str, output, every: bool) -> dict[str, torch.Tensor]:
    tensors = {f"{prefix}last_hidden_state": output.last_hidden_state}
    if every:
        tensors |= {f"{prefix}hidden.{i}": state for i, state in enumerate(output.hidden_states)}
    return tensors


SHAPE = dict(
    hidden_size=30,
    num_hidden_layers=3,
    num_attention_heads=3,
    intermediate_size=44,
    conv_dim=(12, 20, 20),
    conv_kernel=(10, 7, 4),
    conv_stride=(10, 5, 4),
    num_conv_pos_embeddings=8,
    num_conv_pos_embedding_groups=3,
    vocab_size=11,
    num_codevectors_per_group=4,
    codevector_dim=6,
    proj_codevector_dim=5,
)
LARGE = SHAPE | dict(
    hidden_size=35,
    num_attention_heads=5,
    num_conv_pos_embeddings=7,
    num_conv_pos_embedding_groups=5,
    do_stable_layer_norm=True,
    feat_extract_norm="layer",
    conv_bias=True,
)
BUCKETS = dict(num_buckets=20, max_bucket_distance=50)


@torch.no_grad()
def speech(name: str, seed: int, config, model_class, body: str | None = None, old_names: bool = False) -> None:
    """One sound of 1.3 s with every hidden state, and a batch of 1, 0.6 and 0.8 s, padded on either side."""
    torch.manual_seed(seed)
    folder = FOLDER / name
    shutil.rmtree(folder, ignore_errors=True)
    model = model_class(config).eval()
    randomise(model)
    model.save_pretrained(folder)
    if old_names:
        path = folder / "model.safetensors"
        renamed = {
            key.replace("parametrizations.weight.original0", "weight_g").replace(
                "parametrizations.weight.original1", "weight_v"
            ): tensor
            for key, tensor in load_file(path).items()
        }
        save_file(renamed, path, metadata={"format": "pt"})
    extractor = Wav2Vec2FeatureExtractor(return_attention_mask=config.feat_extract_norm == "layer")
    extractor.save_pretrained(folder)
    model = getattr(model, body) if body else model

    single = extractor(sound(20_800, seed), sampling_rate=RATE, return_tensors="pt")
    tensors = states("single.", model(single.input_values, output_hidden_states=True), every=True)
    sounds = [sound(samples, seed + i) for i, samples in enumerate((16_000, 9_600, 12_800))]
    extractor = Wav2Vec2FeatureExtractor(return_attention_mask=True)
    padded = extractor(sounds, sampling_rate=RATE, padding=True, return_tensors="pt")
    values, mask = padded.input_values, padded.attention_mask
    tensors |= states("right.", model(values, attention_mask=mask), every=False)
    # The extractor can pad at the left, but then standardises by the wrong samples: shifted by hand.
    shifts = [int((row == 0).sum()) for row in mask]
    values, mask = (torch.stack([row.roll(by) for row, by in zip(rows, shifts)]) for rows in (values, mask))
    tensors |= states("left.", model(values, attention_mask=mask), every=False)
    write(folder, tensors)


@torch.no_grad()
def whisper() -> None:
    torch.manual_seed(31)
    folder = FOLDER / "whisper"
    shutil.rmtree(folder, ignore_errors=True)
    config = WhisperConfig(
        vocab_size=53,
        num_mel_bins=80,
        d_model=36,
        encoder_layers=3,
        encoder_attention_heads=3,
        encoder_ffn_dim=52,
        decoder_layers=1,
        decoder_attention_heads=3,
        decoder_ffn_dim=20,
        max_source_positions=50,
        max_target_positions=9,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=3,
        suppress_tokens=None,
        begin_suppress_tokens=None,
    )
    model = WhisperForConditionalGeneration(config).eval()
    positions = model.model.encoder.embed_positions.weight.clone()
    randomise(model)
    # Its positions are sinusoids, but they are read from the file.
    model.model.encoder.embed_positions.weight.data = positions
    model.save_pretrained(folder)
    extractor = WhisperFeatureExtractor(feature_size=80, chunk_length=1)
    extractor.save_pretrained(folder)
    tensors = {}
    for name, samples in (("padded", 11_200), ("cut", 20_800)):
        features = extractor(sound(samples, 31), sampling_rate=RATE, return_tensors="pt").input_features
        tensors[f"{name}.input_features"] = features
    tensors |= states("", model.model.encoder(features, output_hidden_states=True), every=True)
    # The front end of the large models, at full length; every 37th frame is kept.
    extractor = WhisperFeatureExtractor(feature_size=128)
    features = extractor(sound(48_000, 32), sampling_rate=RATE, return_tensors="pt").input_features
    assert features.shape == (1, 128, 3000)
    tensors["large.input_features"] = features[..., ::37]
    write(folder, tensors)


class MultiheadAttention(nn.MultiheadAttention):
    def forward(self, x):
        return super().forward(x, x, x, need_weights=False)[0]


class Mlp(nn.Module):
    def __init__(self, dim: int):
        super().__init__()
        self.fc1 = nn.Linear(dim, 4 * dim)
        self.fc2 = nn.Linear(4 * dim, dim)

    def forward(self, x):
        return self.fc2(nn.functional.gelu(self.fc1(x)))


class Block(nn.Module):
    def __init__(self, dim: int, heads: int):
        super().__init__()
        self.attn = MultiheadAttention(dim, heads, bias=True, add_bias_kv=True)
        self.norm_1 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = Mlp(dim)
        self.norm_2 = nn.LayerNorm(dim, eps=1e-6)

    def forward(self, x):
        x = x + self.attn(self.norm_1(x))
        return x + self.mlp(self.norm_2(x))


class Named(nn.Module):
    """Holds parts under the names of the published checkpoint."""

    def __init__(self, **parts):
        super().__init__()
        for name, part in parts.items():
            setattr(self, name, part)


class ImageBindAudio(nn.Module):
    def __init__(self, dim: int, heads: int, blocks: int, out: int, bands: int, frames: int):
        super().__init__()
        patches = ((bands - 16) // 10 + 1) * ((frames - 16) // 10 + 1)
        stem = Named(proj=nn.Conv2d(1, dim, 16, stride=10, bias=False), norm_layer=nn.LayerNorm(dim))
        positions = Named(pos_embed=nn.Parameter(torch.zeros(1, 1 + patches, dim)))
        preprocessor = Named(
            rgbt_stem=stem, pos_embedding_helper=positions, cls_token=nn.Parameter(torch.zeros(1, 1, dim))
        )
        self.modality_preprocessors = nn.ModuleDict({"audio": preprocessor})
        trunk = Named(blocks=nn.Sequential(*(Block(dim, heads) for _ in range(blocks))))
        self.modality_trunks = nn.ModuleDict({"audio": trunk})
        head = nn.Sequential(nn.LayerNorm(dim, eps=1e-6), nn.Identity(), nn.Linear(dim, out, bias=False))
        self.modality_heads = nn.ModuleDict({"audio": head})
        scale = Named()
        scale.register_buffer("log_logit_scale", torch.tensor(math.log(20.0)))
        self.modality_postprocessors = nn.ModuleDict({"audio": nn.Sequential(nn.Identity(), scale)})

    def forward(self, features):
        front = self.modality_preprocessors["audio"]
        x = front.rgbt_stem.norm_layer(front.rgbt_stem.proj(features[:, None]).flatten(2).transpose(1, 2))
        x = torch.cat([front.cls_token.expand(len(x), -1, -1), x], dim=1) + front.pos_embedding_helper.pos_embed
        x = x.transpose(0, 1)
        hidden = [x.transpose(0, 1)]
        for block in self.modality_trunks["audio"].blocks:
            x = block(x)
            hidden.append(x.transpose(0, 1))
        norm, _, linear = self.modality_heads["audio"]
        pooled = nn.functional.normalize(linear(norm(hidden[-1])[:, 0]), dim=-1)
        scale = self.modality_postprocessors["audio"][1].log_logit_scale
        return hidden, scale.exp().clip(max=100) * pooled


def kaldi(folder: str):
    sys.modules["torchaudio"] = types.ModuleType("torchaudio")
    spec = importlib.util.spec_from_file_location("kaldi", Path(folder) / "torchaudio/compliance/kaldi.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def filter_bank(module, samples: numpy.ndarray, frames: int) -> torch.Tensor:
    """ImageBind's `waveform2melspec` and its normalisation."""
    waveform = torch.tensor(samples)[None]
    bank = module.fbank(
        waveform - waveform.mean(),
        htk_compat=True,
        sample_frequency=RATE,
        use_energy=False,
        window_type="hanning",
        num_mel_bins=128,
        dither=0.0,
        frame_length=25,
        frame_shift=10,
    ).T
    bank = nn.functional.pad(bank, (0, max(0, frames - bank.shape[1])))[:, :frames]
    return (bank + 4.268) / 9.138


@torch.no_grad()
def imagebind(torchaudio: str) -> None:
    torch.manual_seed(41)
    folder = FOLDER / "imagebind"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    model = ImageBindAudio(dim=36, heads=3, blocks=3, out=28, bands=128, frames=204).eval()
    randomise(model)
    weights = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    weights["modality_trunks.vision.blocks.0.norm_1.weight"] = torch.ones(4)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(
        '{"model_type": "imagebind", "audio_embed_dim": 36, "audio_num_blocks": 3, "audio_num_heads": 3, "out_embed_dim": 28}\n'
    )
    module = kaldi(torchaudio)
    # 2.6 s of sound in three clips of 2 s: they start at 0, a third and two thirds of the 0.6 s that are left.
    samples = sound(41_600, 41)
    clips = [samples[start : start + 32_000] for start in (0, 3_200, 6_400)]
    features = torch.stack([filter_bank(module, clip, 204) for clip in clips])
    hidden, pooled = model(features[:1])
    _, clips_pooled = model(features)
    short = numpy.pad(sound(19_200, 42), (0, 12_800))
    tensors = {
        "input_features": features[:1],
        "short.input_features": filter_bank(module, short, 204)[None, :, ::3],
        "pooled": pooled,
        "clips.pooled": clips_pooled,
    }
    write(folder, tensors | {f"hidden.{i}": state for i, state in enumerate(hidden)})


if __name__ == "__main__":
    speech("wav2vec2-base", 21, Wav2Vec2Config(**SHAPE), Wav2Vec2ForPreTraining, body="wav2vec2")
    speech("wav2vec2-large", 22, Wav2Vec2Config(**LARGE), Wav2Vec2Model)
    base = HubertConfig(**SHAPE, feat_proj_layer_norm=False)
    speech("hubert-base", 23, base, HubertForCTC, body="hubert", old_names=True)
    speech("hubert-large", 24, HubertConfig(**LARGE), HubertModel)
    speech("wavlm-base", 25, WavLMConfig(**SHAPE, **BUCKETS), WavLMModel)
    speech("wavlm-large", 26, WavLMConfig(**LARGE, **BUCKETS), WavLMModel, old_names=True)
    whisper()
    imagebind(sys.argv[1])
