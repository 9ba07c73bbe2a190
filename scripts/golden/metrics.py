"""Makes tests/golden/metrics.json: random predictions and their scores by scikit-learn.

    pip install scikit-learn==1.9.1
    python scripts/golden/metrics.py

An unparsed answer is null in the file and one more predicted label for scikit-learn. Where scikit-learn is undefined
(no clip; kappa of a single category) the file holds 0, as limbic-eval documents.
The bootstrap is written a second time here, from its description, on scikit-learn's scores and numpy's percentile.
"""

import json
import math
import random
import warnings
from pathlib import Path

from environment import ensure

ensure()

import numpy
import sklearn
from sklearn.metrics import (
    accuracy_score,
    balanced_accuracy_score,
    cohen_kappa_score,
    confusion_matrix,
    precision_recall_fscore_support,
)

CASES = 200
BOOTSTRAPS = {13, 22, 29, 45}  # cases with intervals, one of each kind; they take seconds
SEED = 7
OUT = Path(__file__).parents[2] / "tests/golden/metrics.json"


def draw_case(random, number):
    """Class count, truth and predictions; the kinds of edge cases take turns."""
    classes = 1 + number % 8
    kind = number // 8 % 5
    n = 0 if kind == 4 and number % 3 == 0 else random.randint(1, 60)
    accuracy = random.random()
    unparsed = [0.0, 0.1, 0.5, 0.0, 1.0][kind]
    # Kind 3: only some classes occur, in truth or prediction.
    occurring = random.sample(range(classes), random.randint(1, classes)) if kind == 3 else list(range(classes))
    truth, predicted = [], []
    for _ in range(n):
        truth.append(random.choice(occurring))
        if random.random() < unparsed:
            predicted.append(None)
        elif random.random() < accuracy:
            predicted.append(truth[-1])
        else:
            predicted.append(random.randrange(classes))
    return classes, truth, predicted


def score(classes, truth, predicted):
    """All scores of limbic-eval, by scikit-learn."""
    labels = list(range(classes))
    answers = [classes if answer is None else answer for answer in predicted]
    empty = not truth
    matrix = (
        numpy.zeros((classes + 1, classes + 1), int)
        if empty
        else confusion_matrix(truth, answers, labels=[*labels, classes])
    )

    def averaged(average):
        if empty:
            return [0.0] * 3 if average else [[0.0] * classes] * 3 + [[0] * classes]
        return precision_recall_fscore_support(truth, answers, labels=labels, average=average, zero_division=0)

    precision, recall, f1, support = averaged(None)
    kappa = 0.0 if empty else cohen_kappa_score(truth, answers)
    return {
        "accuracy": 0.0 if empty else accuracy_score(truth, answers),
        "uar": 0.0 if empty else balanced_accuracy_score(truth, answers),
        "weighted_f1": averaged("weighted")[2],
        "macro_f1": averaged("macro")[2],
        "unparsed_rate": 0.0 if empty else float(numpy.mean([answer == classes for answer in answers])),
        "kappa": 0.0 if math.isnan(kappa) else kappa,
        "precision": list(precision),
        "recall": list(recall),
        "f1": list(f1),
        "support": [int(count) for count in support],
        "predicted": [int(count) for count in matrix.sum(axis=0)[:classes]],
        "matrix": matrix[:classes].tolist(),
    }


def splitmix(state):
    mask = (1 << 64) - 1
    bits = (state + 0x9E3779B97F4A7C15) & mask
    bits = (bits ^ (bits >> 30)) * 0xBF58476D1CE4E5B9 & mask
    bits = (bits ^ (bits >> 27)) * 0x94D049BB133111EB & mask
    return bits ^ (bits >> 31)


def bootstrap(classes, truth, predicted, seed):
    """Percentile intervals; clips sorted by true class, the right ones first."""
    clips = sorted(zip(truth, predicted), key=lambda clip: (clip[0], clip[0] != clip[1]))
    accuracies, uars = [], []
    for resample in range(1000):
        key = splitmix(splitmix(seed) ^ resample)
        chosen = [clips[splitmix(key ^ draw) * len(clips) >> 64] for draw in range(len(clips))]
        resampled_truth = [clip[0] for clip in chosen]
        answers = [classes if clip[1] is None else clip[1] for clip in chosen]
        accuracies.append(accuracy_score(resampled_truth, answers))
        uars.append(balanced_accuracy_score(resampled_truth, answers))
    return {
        "seed": seed,
        "accuracy": numpy.percentile(accuracies, [2.5, 97.5]).tolist(),
        "uar": numpy.percentile(uars, [2.5, 97.5]).tolist(),
    }


def main():
    warnings.simplefilter("ignore")  # scikit-learn warns of every undefined ratio
    source = random.Random(SEED)
    lines = []
    for number in range(CASES):
        classes, truth, predicted = draw_case(source, number)
        case = {
            "classes": classes,
            "truth": truth,
            "predicted": predicted,
            "scores": score(classes, truth, predicted),
        }
        if number in BOOTSTRAPS:
            case["bootstrap"] = bootstrap(classes, truth, predicted, number)
        lines.append(json.dumps(case, separators=(",", ":"), allow_nan=False))
    header = f'{{"scikit_learn":"{sklearn.__version__}","cases":[\n'
    temporary = OUT.with_suffix(".tmp")
    temporary.write_text(header + ",\n".join(lines) + "\n]}\n")
    temporary.replace(OUT)


if __name__ == "__main__":
    main()
