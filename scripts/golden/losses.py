"""Makes tests/golden/losses.json: the losses of limbic-train and their gradients by torch's autograd.

Needs torch and scipy. Run from the repository's root:

    python scripts/golden/losses.py

Every loss is given as its sum, what the sum is divided by, and the gradient of the quotient.
"""

import json
from pathlib import Path

from environment import ensure

ensure()

import scipy.stats
import torch
import torch.nn.functional as F

WEIGHTS = [0.5, 2.0, 1.25, 0.0]


def classes(generator):
    """Smoothing, weights and focal form in all combinations; CrossEntropyLoss itself where it has them."""
    logits = 2 * torch.randn(7, 4, generator=generator)
    targets = torch.tensor([0, 1, 2, 3, 1, 1, 2])
    for weights in (None, WEIGHTS):
        for smoothing in (0.0, 0.2):
            for gamma in (0.0, 0.5, 2.0):
                x = logits.clone().requires_grad_()
                weight = torch.tensor(weights) if weights else torch.ones(4)
                divisor = weight[targets].sum()
                if gamma == 0.0:
                    mean = torch.nn.CrossEntropyLoss(weight=weight if weights else None, label_smoothing=smoothing)(
                        x, targets)
                else:
                    rows = F.cross_entropy(x, targets, weight=weight, label_smoothing=smoothing, reduction="none")
                    p = x.softmax(1).gather(1, targets[:, None])[:, 0]
                    mean = ((1 - p) ** gamma * rows).sum() / divisor
                mean.backward()
                yield {"logits": logits.tolist(), "targets": targets.tolist(), "weights": weights,
                       "smoothing": smoothing, "gamma": gamma, "mean": mean.item(), "divisor": divisor.item(),
                       "gradient": x.grad.tolist()}


def concordance(a, b):
    moment = lambda x: ((x - x.mean()) ** 2).mean()
    covariance = ((a - a.mean()) * (b - b.mean())).mean()
    return 2 * covariance / (moment(a) + moment(b) + (a.mean() - b.mean()) ** 2)


def valences(generator):
    predicted, wanted = torch.randn(2, 9, generator=generator)
    wanted = (wanted / 3).clamp(-1, 1)
    for mse, ccc in ((1.0, 0.0), (0.0, 1.0), (0.5, 2.0)):
        x = predicted.clone().requires_grad_()
        mean = mse * F.mse_loss(x, wanted) + ccc * (1 - concordance(x, wanted))
        mean.backward()
        yield {"predicted": predicted.tolist(), "wanted": wanted.tolist(), "mse": mse, "ccc": ccc,
               "mean": mean.item(), "gradient": x.grad.tolist(),
               "scores": {"mse": F.mse_loss(predicted, wanted).item(), "mae": F.l1_loss(predicted, wanted).item(),
                          "pearson": float(scipy.stats.pearsonr(predicted.double(), wanted.double())[0]),
                          "ccc": concordance(predicted.double(), wanted.double()).item()}}


def contrastive(generator):
    """CLIP's loss over the full batch; of pairs that read the same, none is a negative of another."""
    for pairs, width, texts in ((1, 3, [0]), (5, 7, range(5)), (8, 4, range(8)), (6, 5, [0, 1, 0, 2, 2, 0]),
                                (3, 4, [0, 0, 0])):
        clips, captions = F.normalize(torch.randn(2, pairs, width, generator=generator), dim=-1)
        log_scale = torch.tensor([1.7])
        leaves = [x.clone().requires_grad_() for x in (clips, captions, log_scale)]
        scores = leaves[2].exp() * leaves[0] @ leaves[1].T
        own, texts = torch.arange(pairs), torch.tensor(list(texts))
        twins = (texts[:, None] == texts[None]) & (own[:, None] != own[None])
        scores = scores.masked_fill(twins, -torch.inf)
        mean = (F.cross_entropy(scores, own) + F.cross_entropy(scores.T, own)) / 2
        mean.backward()
        yield {"clips": clips.tolist(), "captions": captions.tolist(), "log_scale": log_scale.tolist(),
               "texts": [[100 + text, 7] for text in texts.tolist()],
               "mean": mean.item(), "gradients": [x.grad.tolist() for x in leaves]}


def main():
    generator = torch.Generator().manual_seed(11)
    golden = {"torch": torch.__version__, "classes": list(classes(generator)),
              "valences": list(valences(generator)), "contrastive": list(contrastive(generator))}
    lines = json.dumps(golden, separators=(",", ":")).replace('{"', '\n{"')
    Path("tests/golden/losses.json").write_text(lines.strip() + "\n")


if __name__ == "__main__":
    main()
