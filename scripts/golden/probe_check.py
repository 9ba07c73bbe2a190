#!/usr/bin/env python3
"""Holds `limbic probe` against transformers on small random models of every family that it reads.

    python3 scripts/golden/probe_check.py [NAME]...

Builds each model (odd sizes, non-square pictures, sounds of 1 to 2 s, padding on either side), saves it as transformers does,
runs `limbic probe` on it with prepared inputs and with its own preprocessing, and prints the largest absolute differences.
Fails above 2e-5 on hidden states and 1e-4 on logits; with preprocessing, pictures and sounds may differ by 1e-4. NAMEs choose
some of the models. Pillow before 13 resizes tall pictures otherwise; see requirements.txt. Everything is made in a temporary
folder; where PyTorch is not installed, the environment of scripts/golden/setup.sh is made and used.
"""

import json
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from environment import byte_tokenizer, ensure, probe, randomise  # noqa: E402

ensure()

import numpy  # noqa: E402
import torch  # noqa: E402
import transformers as tf  # noqa: E402
from PIL import Image  # noqa: E402
from safetensors.torch import save_file  # noqa: E402
from scipy.io import wavfile  # noqa: E402

HIDDEN, LOGITS, PREPROCESSED = 2e-5, 1e-4, 1e-4
RATE = 16_000

DECODER = dict(vocab_size=261, hidden_size=36, intermediate_size=44, num_hidden_layers=3, num_attention_heads=6,
               num_key_value_heads=2, max_position_embeddings=96, rms_norm_eps=1e-5, tie_word_embeddings=False)
LLAMA3 = dict(rope_type="llama3", rope_theta=500000.0, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
              original_max_position_embeddings=32)
VISION = dict(hidden_size=30, num_attention_heads=5, num_hidden_layers=3, intermediate_size=44, image_size=28, patch_size=7)
TEXT = dict(hidden_size=8, num_attention_heads=2, num_hidden_layers=1, intermediate_size=8, vocab_size=11)
SPEECH = dict(hidden_size=30, num_hidden_layers=3, num_attention_heads=3, intermediate_size=44, conv_dim=(12, 20, 20),
              conv_kernel=(10, 7, 4), conv_stride=(10, 5, 4), num_conv_pos_embeddings=8, num_conv_pos_embedding_groups=3,
              vocab_size=11, num_codevectors_per_group=4, codevector_dim=6, proj_codevector_dim=5)
LARGE = SPEECH | dict(hidden_size=35, num_attention_heads=5, num_conv_pos_embeddings=7, num_conv_pos_embedding_groups=5,
                      do_stable_layer_norm=True, feat_extract_norm="layer", conv_bias=True)
BUCKETS = dict(num_buckets=20, max_bucket_distance=50)
CLIP_MEAN = dict(image_mean=[0.48145466, 0.4578275, 0.40821073], image_std=[0.26862954, 0.26130258, 0.27577711])
HALF = dict(image_mean=[0.5, 0.5, 0.5], image_std=[0.5, 0.5, 0.5])
IMAGENET = dict(image_mean=[0.485, 0.456, 0.406], image_std=[0.229, 0.224, 0.225])
BICUBIC, BILINEAR = dict(resample=3), dict(resample=2)


class Check:
    """One model, saved in a folder, and the rows of the table that it gives."""

    def __init__(self, name, model, folder):
        randomise(model, sum(map(ord, name)))
        if hasattr(model, "set_attn_implementation"):
            model.set_attn_implementation("eager")
        self.name, self.model, self.folder = name, model.eval(), folder / name
        self.model.save_pretrained(self.folder)
        self.rows = []

    def compare(self, how, wanted, arguments, tolerance=None, mask=None):
        """Every tensor of `wanted` must come out of limbic, and no other."""
        got = probe(self.folder, *arguments, "--layers", cwd=self.folder)
        assert got.keys() == wanted.keys(), f"{self.name}, {how}: only on one side: {sorted(got.keys() ^ wanted.keys())}"
        errors = {}
        for key, tensor in wanted.items():
            tensor = tensor.detach().float()
            assert got[key].shape == tensor.shape, f"{self.name}, {how}, {key}: {got[key].shape}, wanted {tensor.shape}"
            error = (got[key] - tensor).abs()
            if mask is not None:
                error = error[mask]
            kind = key.split(".")[0]
            errors[kind] = max(errors.get(kind, 0.0), float(error.max()) if not error.isnan().any() else float("nan"))
        limits = {kind: tolerance or (LOGITS if kind == "logits" else HIDDEN) for kind in errors}
        passed = all(errors[kind] <= limits[kind] for kind in errors)
        scale = max(float(tensor.detach().abs().max()) for tensor in wanted.values())
        self.rows.append((self.name, how, errors, scale, passed))

    def input(self, **tensors):
        """An --input file."""
        path = self.folder / "input.safetensors"
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
        return ["--input", path]


def listed(states, **others):
    named = {f"hidden.{index}": state for index, state in enumerate(states)}
    return named | {name: tensor for name, tensor in others.items() if tensor is not None}


@torch.no_grad()
def decoder(name, folder, model):
    check = Check(name, model, folder)
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(0, 256, (3, 23), generator=generator)

    def wanted(ids, **others):
        out = check.model(ids, output_hidden_states=True, use_cache=False, **others)
        return listed(out.hidden_states, logits=out.logits)

    check.compare("--ids", wanted(ids[:1]), ["--ids", ",".join(map(str, ids[0].tolist()))])
    mask = torch.ones_like(ids)
    for row, pads in enumerate((0, 4, 9)):
        mask[row, :pads] = 0
    arguments = check.input(input_ids=ids, attention_mask=mask)
    check.compare("--input, left padding", wanted(ids, attention_mask=mask), arguments, mask=mask.bool())
    mask = mask.flip(1)
    arguments = check.input(input_ids=ids, attention_mask=mask)
    check.compare("--input, right padding", wanted(ids, attention_mask=mask), arguments, mask=mask.bool())
    byte_tokenizer(check.folder)
    tokenizer = tf.PreTrainedTokenizerFast(tokenizer_file=str(check.folder / "tokenizer.json"))
    text = "She smiles, says \"fine\" \u2014 and looks away."
    check.compare("--text", wanted(tokenizer(text, return_tensors="pt").input_ids), ["--text", text])
    return check.rows


def picture(height, width):
    rows, columns = numpy.mgrid[0:height, 0:width]
    generator = numpy.random.default_rng(height)
    planes = [numpy.sin(rows / 5 + k) + numpy.cos(columns / (3 + k)) for k in range(3)]
    values = 127 + 50 * numpy.stack(planes, -1) + generator.normal(0, 12, (height, width, 3))
    return numpy.clip(values, 0, 255).astype(numpy.uint8)


@torch.no_grad()
def vision(name, folder, model, run, processor, keys, sizes=((28, 28),)):
    """`run` gives all that limbic should; `keys` are the processor's config as it is published."""
    check = Check(name, model, folder)
    for height, width in sizes:
        pixels = torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(2))
        arguments = check.input(pixel_values=pixels)
        check.compare(f"--input {height}x{width}", run(check.model, pixels), arguments)
    (check.folder / "preprocessor_config.json").write_text(json.dumps(keys))
    make = processor(**{key: value for key, value in keys.items() if key != "image_processor_type"})
    for height, width in ((61, 40), (37, 53)):
        image = Image.fromarray(picture(height, width))
        image.save(check.folder / "picture.png")
        pixels = make(image, return_tensors="pt")["pixel_values"]
        how = f"--image {height}x{width}"
        check.compare(how, run(check.model, pixels), ["--image", "picture.png"], tolerance=PREPROCESSED)
    return check.rows


@torch.no_grad()
def videomae(name, folder, kind, **extra):
    config = tf.VideoMAEConfig(**VISION, num_frames=4, tubelet_size=2, **extra)
    check = Check(name, kind(config), folder)

    def run(pixels):
        out = getattr(check.model, "videomae", check.model)(pixels, output_hidden_states=True)
        # As the classifier pools; the model alone does not.
        mean = out.last_hidden_state.mean(1)
        pooled = check.model.fc_norm(mean) if hasattr(check.model, "fc_norm") else mean
        return listed(out.hidden_states, last_hidden_state=out.last_hidden_state, pooled=pooled)

    pixels = torch.randn(2, 4, 3, 28, 28, generator=torch.Generator().manual_seed(3))
    check.compare("--input", run(pixels), check.input(pixel_values=pixels))
    return check.rows


def sound(samples, seed):
    """A gliding tone in noise, as 16-bit numbers, which a WAV file holds exactly."""
    time = numpy.arange(samples) / RATE
    tone = 0.4 * numpy.sin(2 * numpy.pi * (150 + 20 * seed + 60 * time) * time)
    noise = numpy.random.default_rng(seed).normal(0, 0.05, samples)
    return numpy.round(32767 * numpy.clip(tone + noise, -1, 1)).astype(numpy.int16)


@torch.no_grad()
def speech(name, folder, model, masked):
    check = Check(name, model, folder)
    extractor = tf.Wav2Vec2FeatureExtractor(return_attention_mask=masked)
    extractor.save_pretrained(check.folder)
    body = getattr(check.model, check.model.base_model_prefix, check.model)

    def run(**inputs):
        out = body(**inputs, output_hidden_states=True)
        return listed(out.hidden_states, last_hidden_state=out.last_hidden_state)

    samples = sound(20_801, 1)
    wavfile.write(check.folder / "sound.wav", RATE, samples)
    values = samples.astype(numpy.float32) / 32768
    inputs = extractor(values, sampling_rate=RATE, return_tensors="pt")
    single = run(input_values=inputs.input_values)
    check.compare("--input", single, check.input(input_values=inputs.input_values))
    check.compare("--audio", single, ["--audio", "sound.wav"], tolerance=PREPROCESSED)
    extractor = tf.Wav2Vec2FeatureExtractor(return_attention_mask=True)
    sounds = [sound(length, seed).astype(numpy.float32) / 32768 for length, seed in ((16_000, 2), (12_345, 3))]
    padded = extractor(sounds, sampling_rate=RATE, padding=True, return_tensors="pt")
    arguments = check.input(input_values=padded.input_values, attention_mask=padded.attention_mask.long())
    out = run(**padded)
    lengths = body._get_feat_extract_output_lengths(padded.attention_mask.sum(-1))
    mask = torch.arange(out["last_hidden_state"].shape[1]) < lengths[:, None]
    check.compare("--input, padded", out, arguments, mask=mask)
    return check.rows


@torch.no_grad()
def whisper(name, folder, bands):
    config = tf.WhisperConfig(
        vocab_size=53, num_mel_bins=bands, d_model=36, encoder_layers=3, encoder_attention_heads=3, encoder_ffn_dim=52,
        decoder_layers=1, decoder_attention_heads=3, decoder_ffn_dim=20, max_source_positions=50, max_target_positions=9,
        pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=3)
    check = Check(name, tf.WhisperForConditionalGeneration(config), folder)
    extractor = tf.WhisperFeatureExtractor(feature_size=bands, chunk_length=1)
    extractor.save_pretrained(check.folder)

    def run(features):
        out = check.model.model.encoder(features, output_hidden_states=True)
        return listed(out.hidden_states, last_hidden_state=out.last_hidden_state)

    for length in (11_200, 20_801):
        samples = sound(length, length % 7)
        wavfile.write(check.folder / "sound.wav", RATE, samples)
        values = samples.astype(numpy.float32) / 32768
        features = extractor(values, sampling_rate=RATE, return_tensors="pt").input_features
        check.compare(f"--input, {length} samples", run(features), check.input(input_features=features))
        how = f"--audio, {length} samples"
        check.compare(how, run(features), ["--audio", "sound.wav"], tolerance=PREPROCESSED)
    return check.rows


def plain(model, pixels):
    out = model(pixels, output_hidden_states=True)
    return listed(out.hidden_states, last_hidden_state=out.last_hidden_state, pooled=getattr(out, "pooler_output", None))


def clip_tower(model, pixels):
    out = model.vision_model(pixels, output_hidden_states=True)
    pooled = model.visual_projection(out.pooler_output)
    return listed(out.hidden_states, last_hidden_state=out.last_hidden_state, pooled=pooled)


def siglip_tower(model, pixels):
    return plain(model.vision_model, pixels)



def mae(model, pixels):
    """The encoder alone: nothing is masked, and nothing shuffled."""
    patches = (model.config.image_size // model.config.patch_size) ** 2
    noise = torch.arange(patches, dtype=torch.float32).expand(pixels.shape[0], -1) / patches
    out = model(pixels, noise=noise, output_hidden_states=True)
    return listed(out.hidden_states, last_hidden_state=out.last_hidden_state)


def square(kind, side, **others):
    return dict(image_processor_type=kind, do_resize=True, do_normalize=True, do_rescale=True,
                size=dict(height=side, width=side), **others)


def cropped(kind, side, edge, **others):
    return square(kind, side, **others) | dict(
        do_center_crop=True, size=dict(shortest_edge=edge), crop_size=dict(height=side, width=side))


CLIP = (tf.CLIPImageProcessorPil, cropped("CLIPImageProcessor", 28, 28, **CLIP_MEAN, **BICUBIC))
SIGLIP = (tf.SiglipImageProcessorPil, square("SiglipImageProcessor", 28, **HALF, **BICUBIC))
BIT = (tf.BitImageProcessorPil, cropped("BitImageProcessor", 28, 32, **IMAGENET, **BICUBIC))
VIT = (tf.ViTImageProcessorPil, square("ViTImageProcessor", 28, **IMAGENET, **BILINEAR))
BLIP = (tf.BlipImageProcessorPil, square("BlipImageProcessor", 28, **CLIP_MEAN, **BICUBIC))
OTHER_SIZES = ((28, 28), (35, 21))

MODELS = {
    "llama": lambda n, f: decoder(n, f, tf.LlamaForCausalLM(tf.LlamaConfig(**DECODER))),
    "llama-tied": lambda n, f: decoder(n, f, tf.LlamaForCausalLM(tf.LlamaConfig(
        **DECODER | dict(tie_word_embeddings=True, head_dim=8)))),
    "llama3": lambda n, f: decoder(n, f, tf.LlamaForCausalLM(tf.LlamaConfig(**DECODER, rope_parameters=LLAMA3))),
    "qwen2": lambda n, f: decoder(n, f, tf.Qwen2ForCausalLM(tf.Qwen2Config(**DECODER))),
    "clip": lambda n, f: vision(n, f, tf.CLIPModel(tf.CLIPConfig(
        vision_config=VISION, text_config=TEXT, projection_dim=14)), clip_tower, *CLIP),
    "clip-vision": lambda n, f: vision(n, f, tf.CLIPVisionModel(tf.CLIPVisionConfig(
        **VISION, hidden_act="gelu")), plain, *CLIP),
    "siglip": lambda n, f: vision(n, f, tf.SiglipModel(tf.SiglipConfig(
        vision_config=VISION, text_config=TEXT)), siglip_tower, *SIGLIP),
    "siglip-vision": lambda n, f: vision(n, f, tf.SiglipVisionModel(tf.SiglipVisionConfig(**VISION)), plain, *SIGLIP),
    "eva": lambda n, f: vision(n, f, tf.Blip2VisionModel(tf.Blip2VisionConfig(**VISION)), plain, *BLIP),
    "dinov2": lambda n, f: vision(n, f, tf.Dinov2Model(tf.Dinov2Config(**VISION)), plain, *BIT, sizes=OTHER_SIZES),
    "dinov2-registers": lambda n, f: vision(n, f, tf.Dinov2WithRegistersModel(tf.Dinov2WithRegistersConfig(
        **VISION, num_register_tokens=3)), plain, *BIT, sizes=OTHER_SIZES),
    "mae": lambda n, f: vision(n, f, tf.ViTMAEModel(tf.ViTMAEConfig(**VISION, mask_ratio=0.0)), mae, *VIT),
    "videomae": lambda n, f: videomae(n, f, tf.VideoMAEModel, use_mean_pooling=False),
    "videomae-classifier": lambda n, f: videomae(n, f, tf.VideoMAEForVideoClassification, use_mean_pooling=True),
    "wav2vec2-base": lambda n, f: speech(n, f, tf.Wav2Vec2ForPreTraining(tf.Wav2Vec2Config(**SPEECH)), False),
    "wav2vec2-large": lambda n, f: speech(n, f, tf.Wav2Vec2Model(tf.Wav2Vec2Config(**LARGE)), True),
    "hubert-base": lambda n, f: speech(n, f, tf.HubertForCTC(tf.HubertConfig(**SPEECH)), False),
    "hubert-large": lambda n, f: speech(n, f, tf.HubertModel(tf.HubertConfig(**LARGE)), True),
    "wavlm-base": lambda n, f: speech(n, f, tf.WavLMModel(tf.WavLMConfig(**SPEECH, **BUCKETS)), False),
    "wavlm-large": lambda n, f: speech(n, f, tf.WavLMModel(tf.WavLMConfig(**LARGE, **BUCKETS)), True),
    "whisper-80": lambda n, f: whisper(n, f, 80),
    "whisper-128": lambda n, f: whisper(n, f, 128),
}


def main():
    chosen = sys.argv[1:] or list(MODELS)
    unknown = [name for name in chosen if name not in MODELS]
    if unknown:
        sys.exit(f"no such model: {', '.join(unknown)}; wanted some of {', '.join(MODELS)}")
    tf.logging.set_verbosity_error()
    tf.logging.disable_progress_bar()
    failed = []
    print(f"torch {torch.__version__}, transformers {tf.__version__}; largest absolute differences")
    print(f"{'model':<19} {'input':<24} {'hidden':>8} {'last':>8} {'pooled':>8} {'logits':>8} {'largest':>8}")
    with tempfile.TemporaryDirectory() as folder:
        for name in chosen:
            try:
                rows = MODELS[name](name, Path(folder))
            except (AssertionError, SystemExit) as error:
                print(f"{name:<19} failed: {error}")
                failed.append(name)
                continue
            for name, how, errors, scale, passed in rows:
                kinds = ("hidden", "last_hidden_state", "pooled", "logits")
                cells = [f"{errors[kind]:8.1e}" if kind in errors else f"{'':>8}" for kind in kinds]
                print(f"{name:<19} {how:<24} {' '.join(cells)} {scale:8.2f}{'' if passed else '  TOO LARGE'}")
                if not passed:
                    failed.append(f"{name} {how}")
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")
    print("ok")


if __name__ == "__main__":
    main()
