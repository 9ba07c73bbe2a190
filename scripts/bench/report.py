#!/usr/bin/env python3
"""The JSON lines of vs_peer.sh and scaling.sh as Markdown, with the machine that they come from.

    report.py LINES
"""
import collections
import json
import os
import platform
import statistics
import sys


def machine(lines):
    """What the numbers depend on."""
    cpu = {}
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        for line in file.read().split("\n\n")[0].splitlines():
            key, _, value = line.partition(":")
            cpu[key.strip()] = value.strip()
    flags = cpu.get("flags", "").split()
    wide = [flag for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "amx_int8") if flag in flags]
    with open("/proc/meminfo", encoding="utf-8") as file:
        memory = int(file.readline().split()[1]) / 2**20
    stacks = sorted({line["stack"] for line in lines})
    threads = sorted({line["shape"]["threads"] for line in lines})
    return [
        f"- CPU: {cpu.get('model name', platform.processor())}, {os.cpu_count()} cores, {', '.join(wide)}; {memory:.0f} GiB",
        f"- {platform.system()} {platform.release()}; threads: {', '.join(map(str, threads))}; load at the end {os.getloadavg()[0]:.1f}",
        *(f"- {stack}" for stack in stacks),
    ]


def groups(lines):
    """By shape and stack, the medians over all rounds of seconds and memory."""
    found = collections.defaultdict(list)
    for line in lines:
        found[line["name"], line.get("value"), line["who"]].append(line)
    keys = ("median_step_s", "peak_rss_mib")
    return {key: [statistics.median(line[of] for line in runs) for of in keys] for key, runs in found.items()}


def unique(values):
    return list(dict.fromkeys(values))


def table(lines):
    """A row a shape; where a number was varied, its value stands in a column of its own."""
    of = groups(lines)
    peers = unique(line["who"] for line in lines if line["who"] != "limbic")
    is_varied = any("value" in line for line in lines)
    header = ["number", "value"] if is_varied else ["shape"]
    header += ["limbic s", "MiB"]
    for peer in peers:
        header += [f"peer {peer} s", "MiB", "steps/s, times the peer's", "memory, share of the peer's"]
    yield header
    for name, value in unique((line["name"], line.get("value")) for line in lines):
        seconds, memory = of[name, value, "limbic"]
        row = [name, str(value)] if is_varied else [name]
        row += [f"{seconds:.3f}", f"{memory:.0f}"]
        for peer in peers:
            its_seconds, its_memory = of[name, value, peer]
            row += [f"{its_seconds:.3f}", f"{its_memory:.0f}", f"{its_seconds / seconds:.2f}", f"{memory / its_memory:.2f}"]
        yield row


def main():
    (path,) = sys.argv[1:]
    with open(path, encoding="utf-8") as file:
        lines = [json.loads(line) for line in file]
    print("\n".join(machine(lines)), end="\n\n")
    header, *rows = table(lines)
    print("| " + " | ".join(header) + " |")
    print("|" + " --- |" * len(header))
    for row in rows:
        print("| " + " | ".join(row) + " |")


if __name__ == "__main__":
    main()
