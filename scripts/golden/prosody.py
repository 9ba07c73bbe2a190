"""Makes tests/golden/audio/prosody.safetensors: prosody of computed sounds by librosa and numpy.

Pitch, voicing and energy are librosa's; the count of syllables is written here from the description in
`ProsodyConfig`. Needs numpy, librosa and safetensors. Run from the repository's root:

    python scripts/golden/prosody.py
"""

from environment import ensure

ensure()

import librosa
import numpy
from safetensors.numpy import save_file

RATE = 16_000
FRAME, HOP = 1024, 160


def noise(samples: int, seed: int) -> numpy.ndarray:
    """As in audio.py: a hash of the sample's number."""
    word = (numpy.arange(samples, dtype=numpy.uint64) * 2_654_435_761 + seed * 974_711) % 2**32
    word ^= word >> 16
    word = (word * 2_246_822_519) % 2**32
    word ^= word >> 13
    return word.astype(numpy.float64) / 2**32 - 0.5


def babble(samples: int, seed: int, level: float) -> numpy.ndarray:
    """Syllables of a gliding voice, 0.3 s each, with noise throughout."""
    time = numpy.arange(samples).astype(numpy.float64) / RATE
    phase = 2 * numpy.pi * (110 + 15 * seed + 30 * time) * time
    envelope = numpy.sin(numpy.pi * time / 0.3) ** 2
    tone = numpy.sin(phase) + 0.6 * numpy.sin(2 * phase) + 0.4 * numpy.sin(3 * phase)
    return (0.3 * envelope * tone + level * noise(samples, seed)).astype(numpy.float32)


def decibels(energy: numpy.ndarray) -> numpy.ndarray:
    return 20 * numpy.log10(numpy.maximum(energy, 1e-6))


def measures(sound: numpy.ndarray, fmin=60.0, fmax=500.0, window=2.0) -> numpy.ndarray:
    sound = sound.astype(numpy.float64)
    options = dict(frame_length=FRAME, hop_length=HOP)
    hertz, voiced, probability = librosa.pyin(sound, fmin=fmin, fmax=fmax, sr=RATE, fill_na=0.0, **options)
    energy = librosa.feature.rms(y=sound, dtype=numpy.float64, **options)[0]
    level = decibels(energy)
    threshold = numpy.sort(level)[round(0.99 * (len(level) - 1))] - 25
    peaks = [
        i
        for i in range(1, len(level) - 1)
        if level[i] > level[i - 1] and level[i] >= level[i + 1] and level[i] > threshold
    ]
    ends = peaks[1:] + [len(level) - 1]
    nuclei = [p for p, end in zip(peaks, ends) if level[p] - level[p : end + 1].min() >= 2 and voiced[p]]
    half = round(window / 2 * RATE / HOP)
    rate = []
    for i in range(len(level)):
        first, last = max(0, i - half), min(len(level), i + half + 1)
        inside = sum(first <= nucleus < last for nucleus in nuclei)
        rate.append(inside / ((last - first) * HOP / RATE))
    print(f"{voiced.sum()} of {len(voiced)} frames voiced, {len(nuclei)} nuclei")
    return numpy.stack([hertz, energy, probability, numpy.array(rate)])


def main() -> None:
    tensors = {}
    for name, samples, seed, level in (("clear", 28_000, 3, 0.01), ("noisy", 20_123, 7, 0.3)):
        rows = measures(babble(samples, seed, level))
        slopes = [librosa.feature.delta(rows, width=9, order=order, mode="interp") for order in (1, 2)]
        tensors[name] = numpy.concatenate([rows, *slopes]).T
    tensors = {name: numpy.ascontiguousarray(tensor, numpy.float32) for name, tensor in tensors.items()}
    versions = {"librosa": librosa.__version__, "numpy": numpy.__version__}
    save_file(tensors, "tests/golden/audio/prosody.safetensors", metadata=versions)


if __name__ == "__main__":
    main()
