"""Makes tests/golden/training: ten training steps by transformers, PEFT and torch.

Needs torch, transformers, peft, safetensors. Run from the repository's root:

    python scripts/golden/training.py

A tiny LLaMA with LoRA, a linear projector on given features, heads of classes and valence, the common space of clips and
captions, and the mask of hidden tokens. Every step has all five objectives, with scheduled weights, LoRA+ (PEFT's own
optimizer groups), the recipe's learning-rate schedule, the norm of the whole gradient clipped, and CLIP's clamp of the
temperature. Samples are computed one at a time, all of a step under one tape.
"""

import json
import math
from pathlib import Path

from environment import ensure

ensure()

import peft
import torch
import torch.nn.functional as F
import transformers
from peft.optimizers import create_loraplus_optimizer
from safetensors.torch import save_file

OUT = Path("tests/golden/training")
STEPS, BATCH, SEED, MASK_SHARE = 10, 4, 5, 0.3
WIDTH, VOCABULARY, TOKENS, FEATURE = 24, 41, 2, 4
RATES = {"lora": 4e-3, "projectors": 2e-3, "head": 3e-3}
LORA_PLUS, DECAY, BETAS, EPSILON, MAX_NORM = 4.0, 0.05, [0.9, 0.98], 1e-8, 1.0
WARMUP, FINAL_RATE = 3, 0.1
LABEL_WEIGHTS, SMOOTHING, GAMMA = [0.5, 1.5, 1.0], 0.1, 1.0
MSE, CCC = 1.0, 0.5
POINTS = {"lm": [[0, 1.0]], "class": [[0, 0.5]], "valence": [[0, 0.2], [8, 0.6]], "contrastive": [[2, 0.0], [6, 0.4]],
          "masked": [[0, 0.3]]}

MASK64 = (1 << 64) - 1
GOLDEN = 0x9E3779B97F4A7C15


class Counter:
    """limbic's counter-based random numbers, from their description: SplitMix64's finalizer over a key and an index."""

    def __init__(self, key):
        self.key = key

    @staticmethod
    def mix(z):
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & MASK64
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB & MASK64
        return z ^ (z >> 31)

    @classmethod
    def new(cls, seed):
        return cls(cls.mix((seed + GOLDEN) & MASK64))

    def site(self, name):
        value = 0xCBF29CE484222325
        for byte in name.encode():
            value = (value ^ byte) * 0x100000001B3 & MASK64
        return self.index(value)

    def index(self, index):
        return Counter(self.mix(self.key ^ self.mix((index * GOLDEN + 1) & MASK64)))

    def uniform(self, i):
        return (self.mix((self.key + GOLDEN * (i + 1)) & MASK64) >> 11) / (1 << 53)


def hide(caption, rng):
    """Shown ids, places of masks, places to be told."""
    chosen = [place for place in range(len(caption)) if rng.uniform(3 * place) < MASK_SHARE]
    if not chosen:
        chosen = [int(rng.site("any").uniform(0) * len(caption))]
    ids, masks = list(caption), []
    for place in chosen:
        fate = rng.uniform(3 * place + 1)
        if fate < 0.8:
            masks.append(place)
        elif fate < 0.9:
            ids[place] = int(rng.uniform(3 * place + 2) * VOCABULARY)
    return ids, masks, chosen


def weight(points, step):
    if step <= points[0][0]:
        return points[0][1]
    for (start, a), (end, b) in zip(points, points[1:]):
        if step < end:
            return a + (b - a) * (step - start) / (end - start)
    return points[-1][1]


def schedule(step):
    if step < WARMUP:
        return (step + 1) / WARMUP
    cosine = 0.5 * (1 + math.cos(math.pi * (step - WARMUP) / (STEPS - WARMUP)))
    return FINAL_RATE + (1 - FINAL_RATE) * cosine


class Around(torch.nn.Module):
    """What stands around the decoder."""

    def __init__(self):
        super().__init__()
        self.projector = torch.nn.Linear(FEATURE, WIDTH)
        self.inner, self.output = torch.nn.Linear(WIDTH, 5), torch.nn.Linear(5, 3)
        self.valence = torch.nn.Linear(WIDTH, 1)
        self.clip, self.caption = torch.nn.Linear(WIDTH, 6), torch.nn.Linear(WIDTH, 6)
        self.log_scale = torch.nn.Parameter(torch.tensor([math.log(1 / 0.07)]))
        self.mask = torch.nn.Parameter(torch.zeros(1, WIDTH))

    def media(self, sample):
        features = torch.tensor(sample["features"]).T
        return self.projector(F.adaptive_avg_pool1d(features, TOKENS).T)


def samples(generator):
    draw = lambda low, high: int(torch.randint(low, high, (1,), generator=generator))
    ids = lambda count: [draw(3, VOCABULARY) for _ in range(count)]
    found = []
    for number in range(7):
        found.append({
            "before": [1] + ids(draw(1, 4)), "after": ids(draw(2, 6)),
            "features": None if number == 3 else torch.randn(draw(1, 6), FEATURE, generator=generator).tolist(),
            "answer": ids(draw(1, 5)) + [2], "label": None if number == 5 else number % 3,
            "valence": None if number == 2 else round(draw(-100, 101) / 100, 2),
            "caption": [] if number == 1 else ids(draw(3, 8)),
        })
    return found


def losses(model, around, batch, step):
    """The five mean losses of a step."""
    embed, decoder, head = model.get_input_embeddings(), model.model, model.lm_head
    text = lambda ids: embed(torch.tensor(ids, dtype=torch.long))

    def states(rows, both_ways=False):
        mask = torch.zeros(1, 1, len(rows), len(rows)) if both_ways else None
        return decoder(inputs_embeds=rows[None], attention_mask=mask, use_cache=False).last_hidden_state[0]

    tokens, classes, valences, clips, captions, masked = [], [], [], [], [], []
    for number, sample in enumerate(batch):
        media = around.media(sample) if sample["features"] else torch.zeros(0, WIDTH)
        prompt = torch.cat([text(sample["before"]), media, text(sample["after"])])
        state = states(torch.cat([prompt, text(sample["answer"])]))
        end = len(prompt) - 1
        logits = head(state[end:end + len(sample["answer"])])
        tokens.append(F.cross_entropy(logits, torch.tensor(sample["answer"]), reduction="none"))
        if sample["label"] is not None:
            logits = around.output(around.inner(state[end]).tanh())
            target, weights = torch.tensor([sample["label"]]), torch.tensor(LABEL_WEIGHTS)
            row = F.cross_entropy(logits[None], target, weight=weights, label_smoothing=SMOOTHING, reduction="sum")
            row = row * (1 - logits.softmax(0)[sample["label"]]) ** GAMMA
            classes.append((row, LABEL_WEIGHTS[sample["label"]]))
        if sample["valence"] is not None:
            valences.append((around.valence(state[end])[0], sample["valence"]))
        caption = sample["caption"]
        if caption and sample["features"]:
            clips.append(F.normalize(around.clip(media.mean(0)), dim=0))
            read = states(text([1] + caption))[1:].mean(0)
            captions.append(F.normalize(around.caption(read), dim=0))
        if caption:
            rng = Counter.new(SEED).site("mask").site("step").index(step).index(number)
            ids, masks, wanted = hide(caption, rng)
            shown = torch.stack([around.mask[0] if place in masks else text([ids[place]])[0]
                                 for place in range(len(ids))])
            state = states(torch.cat([text([1]), media, shown]), both_ways=True)[1 + len(media):]
            target = torch.tensor([caption[place] for place in wanted])
            masked.append(F.cross_entropy(head(state[wanted]), target, reduction="none"))
    predicted = torch.stack([a for a, _ in valences])
    wanted = torch.tensor([b for _, b in valences])
    a, b = predicted - predicted.mean(), wanted - wanted.mean()
    ccc = 2 * (a * b).mean() / (
        (a ** 2).mean() + (b ** 2).mean() + (predicted.mean() - wanted.mean()) ** 2 + 1e-8)
    scores = around.log_scale.exp() * torch.stack(clips) @ torch.stack(captions).T
    own = torch.arange(len(clips))
    return {
        "lm": torch.cat(tokens).mean(),
        "class": sum(row for row, _ in classes) / sum(w for _, w in classes),
        "valence": MSE * F.mse_loss(predicted, wanted) + CCC * (1 - ccc),
        "contrastive": (F.cross_entropy(scores, own) + F.cross_entropy(scores.T, own)) / 2,
        "masked": torch.cat(masked).mean(),
    }


def named(model, around):
    """All weights under limbic's names."""
    weights = {}
    for name, value in model.state_dict().items():
        name = name.removeprefix("base_model.model.").replace(".base_layer", "").replace(".default", "")
        weights[f"llama.{name}"] = value
    names = {"projector": "projectors.0.body.linear", "inner": "head.inner", "output": "head.output",
             "valence": "valence.output", "clip": "alignment.clip", "caption": "alignment.caption"}
    for name, value in around.state_dict().items():
        first, _, last = name.partition(".")
        full = {"log_scale": "alignment.log_scale", "mask": "mask.embedding"}.get(name, f"{names.get(first)}.{last}")
        weights[full] = value
    return {name: value.detach().clone().contiguous() for name, value in weights.items()}


def main():
    torch.manual_seed(3)
    generator = torch.Generator().manual_seed(4)
    shape = dict(hidden_size=WIDTH, intermediate_size=28, num_hidden_layers=2, num_attention_heads=3,
                 num_key_value_heads=1, vocab_size=VOCABULARY, max_position_embeddings=64, rms_norm_eps=1e-5,
                 bos_token_id=1, eos_token_id=2, tie_word_embeddings=False)
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(attn_implementation="eager", **shape))
    around = Around()
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(1 + 0.2 * noise if parameter.dim() == 1 else 0.25 * noise)
        around.mask.copy_(0.25 * torch.randn(1, WIDTH, generator=generator))
    lora = dict(r=3, lora_alpha=6, lora_dropout=0.0, target_modules=["q_proj", "v_proj", "down_proj"])
    model = peft.get_peft_model(model, peft.LoraConfig(task_type="CAUSAL_LM", **lora))
    save = lambda weights, name: save_file(weights, OUT / name, metadata={"format": "pt"})
    save(named(model, around), "start.safetensors")

    optimizer = create_loraplus_optimizer(model, torch.optim.AdamW, lr=RATES["lora"], loraplus_lr_ratio=LORA_PLUS,
                                          loraplus_weight_decay=DECAY, betas=tuple(BETAS), eps=EPSILON)
    heads = [value for name, value in around.named_parameters()
             if not name.startswith("projector.") and name != "log_scale"]
    settings = {"weight_decay": DECAY, "betas": tuple(BETAS), "eps": EPSILON}
    optimizer.add_param_group({"params": list(around.projector.parameters()), "lr": RATES["projectors"], **settings})
    optimizer.add_param_group({"params": heads, "lr": RATES["head"], **settings})
    # CLIP's training decays no gains, among them the temperature.
    optimizer.add_param_group({"params": [around.log_scale], "lr": RATES["head"], **settings, "weight_decay": 0.0})
    peaks = [group["lr"] for group in optimizer.param_groups]
    trained = [value for group in optimizer.param_groups for value in group["params"]]

    found = samples(generator)
    steps = []
    for step in range(STEPS):
        drawn = torch.randperm(len(found), generator=generator)[:BATCH].tolist()
        terms = losses(model.get_base_model(), around, [found[index] for index in drawn], step)
        total = sum(weight(POINTS[term], step) * value for term, value in terms.items())
        optimizer.zero_grad()
        total.backward()
        norm = torch.nn.utils.clip_grad_norm_(trained, MAX_NORM)
        for group, peak in zip(optimizer.param_groups, peaks):
            group["lr"] = peak * schedule(step)
        optimizer.step()
        with torch.no_grad():
            around.log_scale.clamp_(max=math.log(100))
        steps.append({"drawn": drawn, "total": total.item(), "norm": norm.item(),
                      "terms": {term: value.item() for term, value in terms.items()}})
    print([round(step["total"], 4) for step in steps], [round(step["norm"], 2) for step in steps])
    end = {name: value for name, value in named(model, around).items()
           if "lora_" in name or not name.startswith("llama.")}
    save(end, "end.safetensors")
    golden = {
        "versions": {m.__name__: m.__version__ for m in (torch, transformers, peft)},
        "llama": shape, "lora": lora, "mask_share": MASK_SHARE, "seed": SEED,
        "train": {"steps": STEPS, "batch_size": BATCH, "learning_rate": RATES, "lora_plus": LORA_PLUS,
                  "warmup": WARMUP, "final_rate": FINAL_RATE, "betas": BETAS, "epsilon": EPSILON,
                  "weight_decay": DECAY, "clip_norm": MAX_NORM,
                  "loss": {**{f"{term}_weight": points for term, points in POINTS.items()},
                           "label_smoothing": SMOOTHING, "focal_gamma": GAMMA,
                           "label_weights": dict(zip(["a", "b", "c"], LABEL_WEIGHTS)),
                           "valence": {"mse": MSE, "ccc": CCC}, "mask_share": MASK_SHARE}},
        "samples": found, "steps": steps,
    }
    (OUT / "training.json").write_text(json.dumps(golden, separators=(",", ":")).replace('{"', '\n{"').strip() + "\n")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
