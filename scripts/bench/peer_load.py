#!/usr/bin/env python3
"""Time of transformers' `from_pretrained` on a folder, until every page of every weight has been touched.

Prints one JSON object: seconds of each run, the folder's size and the peak memory of this process.

    python scripts/bench/peer_load.py FOLDER --dtype bfloat16
"""

import argparse
import json
import pathlib
import resource
import time

import torch
from transformers import AutoModelForCausalLM

# Of two bytes each, one a page.
STRIDE = 2048


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--dtype", choices=["float32", "bfloat16", "float16"], default="float32")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    size = sum(path.stat().st_size for path in options.folder.glob("*.safetensors"))

    seconds = []
    for _ in range(options.runs):
        begin = time.perf_counter()
        model = AutoModelForCausalLM.from_pretrained(options.folder, dtype=getattr(torch, options.dtype))
        for weight in model.parameters():
            weight.detach().flatten()[::STRIDE].float().sum().item()
        seconds.append(round(time.perf_counter() - begin, 4))
        del model
    print(
        json.dumps(
            {
                "stack": f"torch {torch.__version__} + transformers",
                "folder_bytes": size,
                "dtype": options.dtype,
                "seconds": seconds,
                "gb_per_s": round(size / 1e9 / min(seconds), 3),
                "peak_rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
            }
        )
    )


if __name__ == "__main__":
    main()
