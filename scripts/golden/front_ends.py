"""Makes tests/golden/encoders/front_ends.safetensors: what librosa computes from a seeded sound.

Needs numpy, librosa and safetensors. Run from the repository's root:

    python scripts/golden/front_ends.py
"""

from environment import ensure

ensure()

import librosa
import numpy
from safetensors.numpy import save_file

RATE = 16_000


def sound() -> numpy.ndarray:
    """0.4 s: a gliding tone with overtones that fades in, some noise, and a silent tail."""
    random = numpy.random.default_rng(7)
    time = numpy.arange(6_400) / RATE
    phase = 2 * numpy.pi * (180 * time + 120 * time**2)
    tone = sum(numpy.sin(k * phase) / k for k in range(1, 9))
    mixed = 0.2 * tone * numpy.minimum(1, 8 * time) + 0.01 * random.standard_normal(time.size)
    mixed[5_600:] = 0
    return mixed.astype(numpy.float32)


def main() -> None:
    samples = sound()
    tensors = {"sound": samples}

    default = dict(sr=RATE, n_fft=400, hop_length=160, n_mels=80)
    power = librosa.feature.melspectrogram(y=samples, **default)
    tensors["log_mel"] = numpy.log10(numpy.maximum(power, 1e-10)).T

    other = dict(sr=RATE, n_fft=512, win_length=400, hop_length=200, n_mels=40, fmin=60, fmax=7600)
    power = librosa.feature.melspectrogram(y=samples, pad_mode="reflect", htk=True, norm=None, **other)
    tensors["htk"] = (numpy.log(numpy.maximum(power, 1e-6)).T + 4) / 3

    mfcc = librosa.feature.mfcc(y=samples, sr=RATE, n_fft=400, hop_length=160, n_mels=40, n_mfcc=13)
    slope = librosa.feature.delta(mfcc, width=9, order=1, mode="interp")
    curvature = librosa.feature.delta(mfcc, width=9, order=2, mode="interp")
    tensors["mfcc"] = numpy.concatenate([mfcc, slope, curvature]).T

    tensors = {name: numpy.ascontiguousarray(tensor, numpy.float32) for name, tensor in tensors.items()}
    versions = {"librosa": librosa.__version__, "numpy": numpy.__version__}
    save_file(tensors, "tests/golden/encoders/front_ends.safetensors", metadata=versions)


if __name__ == "__main__":
    main()
