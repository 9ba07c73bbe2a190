"""What the checking scripts share: the environment with PyTorch and transformers, and the built limbic."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def ensure():
    """Goes on in the environment of setup.sh, which is made if need be, where this interpreter lacks what is needed."""
    try:
        import peft, safetensors, torch, transformers  # noqa: F401, E401
    except ImportError:
        if os.environ.get("LIMBIC_GOLDEN_ENTERED"):
            raise
        print("making the Python environment; see scripts/golden/setup.sh", file=sys.stderr)
        setup = ROOT / "scripts" / "golden" / "setup.sh"
        python = subprocess.run([setup], check=True, capture_output=True, text=True).stdout.strip()
        os.environ["LIMBIC_GOLDEN_ENTERED"] = "1"
        os.execv(python, [python, *sys.argv])


def binary():
    """LIMBIC, or the release build, made if it is not there."""
    named = os.environ.get("LIMBIC")
    path = Path(named or Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release" / "limbic")
    if not path.is_file():
        if named or not shutil.which("cargo"):
            sys.exit(f"{path} is not there; name the built limbic in LIMBIC")
        subprocess.run(["cargo", "build", "--release", "--package", "limbic"], cwd=ROOT, check=True)
    return path


def limbic(*arguments, cwd):
    """Runs a command that must succeed, and returns what it prints."""
    done = subprocess.run([binary(), *map(str, arguments)], cwd=cwd, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"limbic {' '.join(map(str, arguments))} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout


def probe(model, *arguments, cwd):
    """The tensors that `limbic probe` writes."""
    from safetensors.torch import load_file

    out = Path(cwd) / "probe.safetensors"
    out.unlink(missing_ok=True)
    limbic("probe", model, *arguments, "--out", out, cwd=cwd)
    return load_file(out)


def byte_tokenizer(folder, bos="<s>", eos="</s>"):
    """A tokenizer.json whose tokens are the 256 bytes and two special ones; returns the ids of these."""
    import tokenizers
    from tokenizers import decoders, models, pre_tokenizers, processors

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate(alphabet)}
    tokenizer = tokenizers.Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([bos, eos])
    ids = tokenizer.token_to_id(bos), tokenizer.token_to_id(eos)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A", pair=f"{bos} $A {bos} $B", special_tokens=[(bos, ids[0])])
    tokenizer.save(str(Path(folder) / "tokenizer.json"))
    return ids


def randomise(model, seed):
    """Weights far larger than an initialisation, so that attention is sharp and no bias or norm hides."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if name.endswith("bias"):
                parameter.copy_(0.2 * noise)
            elif parameter.dim() < 2 or "original0" in name or "gru_rel_pos_const" in name:
                # Norms, scales and lengths.
                parameter.copy_(1 + 0.2 * noise)
            else:
                parameter.copy_(noise * 1.2 / parameter[0].numel() ** 0.5)
            if name.endswith("qkv.bias"):
                # EVA has none on its keys; transformers stores zeros.
                width = len(parameter) // 3
                parameter[width : 2 * width] = 0.0
