#!/usr/bin/env python3
"""The training step of `limbic bench step` in PyTorch, transformers and PEFT, to be compared with it.

A frozen LLaMA of drawn weights with LoRA adapters reads a batch of embeddings, which ask for a gradient as they do where a
projector made them; the last `--answer` positions are supervised. A step is forward, backward, clipping to norm 1 and AdamW.
Flags and keys are those of `limbic bench step`; the answer is one JSON line.

    python3 -m venv venv && venv/bin/pip install torch transformers peft
    venv/bin/python scripts/bench/peer_step.py --dim 512 --layers 8 --seq 340 --answer 12
"""
import argparse
import json
import resource
import statistics
import time

import peft
import torch
import transformers

LINEARS = "q_proj,k_proj,v_proj,o_proj,gate_proj,up_proj,down_proj"


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    numbers = {"dim": 512, "layers": 8, "heads": 8, "kv-heads": 8, "ffn": 1376, "vocab": 32000, "batch": 4, "seq": 340,
               "answer": 12, "rank": 16, "threads": 2, "steps": 8, "warmup": 2}
    for name, default in numbers.items():
        parser.add_argument(f"--{name}", type=int, default=default, help=f"by default {default}")
    parser.add_argument("--dropout", type=float, default=0.0, help="share of the adapters' inputs that is dropped")
    parser.add_argument("--targets", default=LINEARS, help="layers with adapters")
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), default="float32")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--every-position", action="store_true", help="supervise all positions")
    parser.add_argument("--recompute", choices=("none", "block"), default="none")
    args = parser.parse_args()
    if args.every_position:
        args.answer = args.seq
    return args


def build(args, dtype):
    """The decoder with its adapters, and the batch."""
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=args.vocab, hidden_size=args.dim, intermediate_size=args.ffn, num_hidden_layers=args.layers,
        num_attention_heads=args.heads, num_key_value_heads=args.kv_heads, tie_word_embeddings=False,
        max_position_embeddings=max(4096, args.seq))
    with torch.device(args.device):
        model = transformers.LlamaForCausalLM(config)
    lora = peft.LoraConfig(task_type="CAUSAL_LM", r=args.rank, lora_alpha=2 * args.rank, lora_dropout=args.dropout,
                           target_modules=args.targets.split(","))
    model = peft.get_peft_model(model.to(dtype), lora).train()
    if args.recompute == "block":
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    shape = (args.batch, args.seq)
    embeddings = 0.02 * torch.randn(*shape, args.dim, dtype=dtype, device=args.device)
    tokens = torch.randint(args.vocab, shape, device=args.device)
    # transformers shifts the labels by one, and leaves -100 out.
    unsupervised = torch.arange(args.seq, device=args.device) < args.seq - args.answer
    return model, embeddings.requires_grad_(), tokens.masked_fill(unsupervised, -100)


def main():
    args = arguments()
    torch.set_num_threads(args.threads)
    model, embeddings, labels = build(args, getattr(torch, args.dtype))
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4)
    on_gpu = args.device.startswith("cuda")
    finish = torch.cuda.synchronize if on_gpu else lambda: None

    def step():
        embeddings.grad = None
        optimizer.zero_grad(set_to_none=True)
        loss = model(inputs_embeds=embeddings, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        return loss.item()

    losses, seconds = [], []
    for _ in range(args.warmup + args.steps):
        finish()
        began = time.perf_counter()
        losses.append(step())
        finish()
        seconds.append(time.perf_counter() - began)
    seconds = seconds[args.warmup:]

    median = statistics.median(seconds)
    quartiles = statistics.quantiles(seconds, n=4, method="inclusive") if len(seconds) > 1 else [median] * 3
    supervised = args.batch * min(args.answer, args.seq - 1)
    versions = f"torch {torch.__version__}, transformers {transformers.__version__}, peft {peft.__version__}"
    print(json.dumps({
        "stack": versions,
        "bench": "step",
        "shape": vars(args),
        "median_step_s": round(median, 5),
        "min_step_s": round(min(seconds), 5),
        "max_step_s": round(max(seconds), 5),
        "spread_step_s": round(quartiles[2] - quartiles[0], 5),
        "positions_per_s": round(args.batch * args.seq / median, 1),
        "supervised_per_s": round(supervised / median, 1),
        "trainable_params": sum(parameter.numel() for parameter in trained),
        "first_loss": round(losses[0], 4),
        "last_loss": round(losses[-1], 4),
        "peak_rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10,
        "peak_device_mib": torch.cuda.max_memory_allocated() >> 20 if on_gpu else None,
    }))


if __name__ == "__main__":
    main()
