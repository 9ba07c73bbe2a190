"""Reference texts for llama2.c checkpoints, computed as llama2.c's run.c does, from its files alone.

    python scripts/golden/llama2c.py FOLDER   # holds stories260K.bin and tok512.bin; writes tests/golden/llama2c.json

The forward pass keeps Meta's interleaved rotary pairs and the file's own cosines and sines; the tokenizer is the greedy
merge by score of `encode` in run.c, with its dummy space and byte fallback. Written from the format's description
(github.com/karpathy/llama2.c: run.c, export.py `legacy_export`, tokenizer.py `export`). Needs numpy.
"""

import json
import random
import struct
import sys
from pathlib import Path

import numpy as np

OUT = Path(__file__).resolve().parents[2] / "tests" / "golden" / "llama2c.json"
BOS = 1


class Model:
    def __init__(self, path):
        data = path.read_bytes()
        dim, hidden, layers, heads, kv_heads, vocab, positions = struct.unpack("7i", data[:28])
        self.dim, self.layers, self.heads, self.kv_heads = dim, layers, heads, kv_heads
        self.head = dim // heads
        numbers = np.frombuffer(data, dtype="<f4", offset=28)
        place = 0

        def take(*shape):
            nonlocal place
            count = int(np.prod(shape))
            place += count
            return numbers[place - count:place].reshape(shape)

        kv = kv_heads * self.head
        self.embedding = take(abs(vocab), dim)
        self.attention_norm = take(layers, dim)
        self.wq, self.wk = take(layers, dim, dim), take(layers, kv, dim)
        self.wv, self.wo = take(layers, kv, dim), take(layers, dim, dim)
        self.ffn_norm = take(layers, dim)
        self.w1, self.w2, self.w3 = take(layers, hidden, dim), take(layers, dim, hidden), take(layers, hidden, dim)
        self.final_norm = take(dim)
        self.cos, self.sin = take(positions, self.head // 2), take(positions, self.head // 2)
        self.head_matrix = self.embedding if vocab > 0 else take(abs(vocab), dim)
        assert place == len(numbers)
        self.keys = [[] for _ in range(layers)]
        self.values = [[] for _ in range(layers)]

    def turn(self, x, position):
        pairs = x.reshape(-1, self.head // 2, 2)
        cos, sin = self.cos[position], self.sin[position]
        turned = np.stack([pairs[..., 0] * cos - pairs[..., 1] * sin, pairs[..., 0] * sin + pairs[..., 1] * cos], -1)
        return turned.reshape(-1, self.head)

    @staticmethod
    def norm(x, weight):
        return x / np.sqrt((x * x).mean() + np.float32(1e-5)) * weight

    def step(self, token, position):
        x = self.embedding[token].copy()
        for i in range(self.layers):
            y = self.norm(x, self.attention_norm[i])
            q = self.turn(self.wq[i] @ y, position)
            self.keys[i].append(self.turn(self.wk[i] @ y, position))
            self.values[i].append((self.wv[i] @ y).reshape(-1, self.head))
            keys, values = np.stack(self.keys[i]), np.stack(self.values[i])
            out = []
            for h in range(self.heads):
                group = h // (self.heads // self.kv_heads)
                scores = keys[:, group] @ q[h] / np.sqrt(np.float32(self.head))
                weights = np.exp(scores - scores.max())
                out.append((weights / weights.sum()) @ values[:, group])
            x = x + self.wo[i] @ np.concatenate(out)
            y = self.norm(x, self.ffn_norm[i])
            gate = self.w1[i] @ y
            x = x + self.w2[i] @ (gate / (1 + np.exp(-gate)) * (self.w3[i] @ y))
        return self.head_matrix @ self.norm(x, self.final_norm)


class Tokenizer:
    def __init__(self, path):
        data, place = path.read_bytes(), 4
        self.pieces, self.scores = [], []
        while place < len(data):
            score, length = struct.unpack("fi", data[place:place + 8])
            place += 8 + length
            self.pieces.append(data[place - length:place])
            self.scores.append(score)
        self.ids = {}
        for index, piece in enumerate(self.pieces):
            self.ids.setdefault(piece, index)

    def encode(self, text):
        tokens = [self.ids[b" "]] if text else []
        for character in text:
            piece = character.encode()
            tokens += [self.ids[piece]] if piece in self.ids else [byte + 3 for byte in piece]
        while True:
            best, where = -1e10, None
            for i in range(len(tokens) - 1):
                merged = self.ids.get(self.pieces[tokens[i]] + self.pieces[tokens[i + 1]])
                if merged is not None and self.scores[merged] > best:
                    best, where = self.scores[merged], (i, merged)
            if where is None:
                return tokens
            tokens[where[0]:where[0] + 2] = [where[1]]

    def decode(self, tokens):
        text, previous = b"", BOS
        for token in tokens:
            piece = self.pieces[token]
            if previous == BOS and piece.startswith(b" "):
                piece = piece[1:]
            if len(piece) == 6 and piece.startswith(b"<0x"):
                piece = bytes([int(piece[3:5], 16)])
            text += piece
            previous = token
        return text.decode(errors="replace")


def texts(story):
    """200 texts: stretches of the story, and what tries a tokenizer: runs, blanks, other scripts, spelt-out tokens."""
    rng = random.Random(7)
    words = story.split() + ["Zebra", "emotion", "x1", "3.14", "...", "!!", "aaaa", "lll", "  ", "\n", "\t", "naïve", "Ärger",
                             "愤怒", "\U0001f600", "▁", "<s>", "</s>", "<0x41>", "ee", "the the", "\u00a0", "''\"\""]
    found = ["", " ", "a", "  a", "a ", "\n", "Once upon a time", "<unk>", "▁a"]
    while len(found) < 200:
        kind = rng.randrange(4)
        if kind == 0:
            start = rng.randrange(len(story) - 80)
            found.append(story[start:start + rng.randrange(1, 80)])
        elif kind == 1:
            found.append(rng.choice(["a", "e", ".", " ", "l", "he", "an", "t", "o"]) * rng.randrange(1, 24))
        elif kind == 2:
            found.append("".join(rng.choice("aehlnost  .,!\n") for _ in range(rng.randrange(1, 40))))
        else:
            found.append(rng.choice(["", " "]).join(rng.choice(words) for _ in range(rng.randrange(1, 9))))
    return found


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    model, tokenizer = Model(folder / "stories260K.bin"), Tokenizer(folder / "tok512.bin")
    token, story, gap = BOS, [], float("inf")
    for position in range(200):
        logits = model.step(token, position)
        top = np.sort(logits)[-2:]
        gap = min(gap, float(top[1] - top[0]))
        token = int(logits.argmax())
        if token == BOS:
            break
        story.append(token)
    text = tokenizer.decode(story)
    print(f"smallest gap between best and second {gap:.2e}\n{text}")
    encodings = [{"text": t, "ids": tokenizer.encode(t)} for t in texts(text)]
    lines = ",\n".join("  " + json.dumps(e) for e in encodings)
    OUT.write_text(f'{{"made_by": "scripts/golden/llama2c.py",\n "story": {json.dumps({"tokens": story, "text": text})},\n'
                   f' "encodings": [\n{lines}\n]}}\n')
