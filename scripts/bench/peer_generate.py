#!/usr/bin/env python3
"""Greedy generation by transformers on random weights, after prompts of input embeddings of one length.

Prints one JSON object: seconds of the whole (median, fastest, slowest), of a run that stops after the first token, and
tokens per second of the whole and between the first token and the last.

    python scripts/bench/peer_generate.py --batch 8 --prompt 340 --new 64
"""

import argparse
import json
import resource
import statistics
import time

import torch
from transformers import LlamaConfig, LlamaForCausalLM


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sizes = {
        "dim": (512, "width of the residual stream"),
        "layers": (8, "blocks"),
        "heads": (8, "query heads"),
        "kv-heads": (8, "key-value heads"),
        "ffn": (1376, "width inside the SwiGLU"),
        "vocab": (32000, "rows of the embedding table"),
        "batch": (1, "prompts"),
        "prompt": (340, "positions of each"),
        "new": (64, "tokens to generate"),
        "threads": (2, "threads of torch"),
        "runs": (3, "timed runs, after one that is not"),
    }
    for name, (default, meaning) in sizes.items():
        parser.add_argument(f"--{name}", type=int, default=default, help=f"{meaning} (default {default})")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    return parser.parse_args()


def build(options):
    config = LlamaConfig(
        hidden_size=options.dim,
        intermediate_size=options.ffn,
        num_hidden_layers=options.layers,
        num_attention_heads=options.heads,
        num_key_value_heads=options.kv_heads,
        vocab_size=options.vocab,
        max_position_embeddings=max(4096, options.prompt + options.new),
        tie_word_embeddings=False,
    )
    return LlamaForCausalLM(config).to(getattr(torch, options.dtype)).eval()


def main():
    options = arguments()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    model = build(options)
    prompts = 0.02 * torch.randn(options.batch, options.prompt, options.dim, dtype=model.dtype)
    mask = torch.ones(options.batch, options.prompt, dtype=torch.long)

    def seconds(count):
        """A run that gives exactly `count` tokens a prompt, since no token ends a text."""
        begin = time.perf_counter()
        tokens = model.generate(
            inputs_embeds=prompts,
            attention_mask=mask,
            max_new_tokens=count,
            do_sample=False,
            eos_token_id=None,
            pad_token_id=0,
        )
        assert tokens.shape == (options.batch, count), tokens.shape
        return time.perf_counter() - begin

    seconds(2)
    first = statistics.median(seconds(1) for _ in range(options.runs))
    whole = [seconds(options.new) for _ in range(options.runs)]
    median = statistics.median(whole)
    steps = options.batch * (options.new - 1)
    print(
        json.dumps(
            {
                "stack": f"torch {torch.__version__} + transformers",
                "shape": vars(options),
                "median_s": round(median, 4),
                "min_s": round(min(whole), 4),
                "max_s": round(max(whole), 4),
                "first_token_s": round(first, 4),
                "tokens_per_s": round(options.batch * options.new / median, 2),
                "decode_tokens_per_s": round(steps / max(median - first, 1e-9), 2),
                "peak_rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
            }
        )
    )


if __name__ == "__main__":
    main()
