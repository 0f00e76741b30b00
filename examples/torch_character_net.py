"""A small character LSTM beside charstat: train it, then mix it in four ways on two windows of val.

    pip install 'charstat[examples]'
    python examples/torch_character_net.py --data DIR            # wiki.train.raw and wiki.valid.raw; about 10 minutes on 2 cores

Both start each window cold. charstat.Advice takes the net's columns to the stream's symbols by name. The rows of the table:

    linear      a p + (1 - a) q                    a tuned on 10,000 characters elsewhere: what submissions write by hand
    softmax     the same with online weights       one weight for each model, learned by gradient
    advice      stream(experts=1), advice=         the net is one input of the mixture, at every decision of the code tree
"""

import argparse
import time

import numpy as np
import torch
from torch import nn

import charstat

UNKNOWN = "<unk>"


class CharacterNet(nn.Module):
    """One LSTM over characters: 1.26 M parameters at hidden=512."""

    def __init__(self, vocab: int, hidden: int):
        super().__init__()
        self.embedding, self.lstm = nn.Embedding(vocab, 64), nn.LSTM(64, hidden, batch_first=True)
        self.out = nn.Linear(hidden, vocab)

    def forward(self, ids, state=None):
        hidden, state = self.lstm(self.embedding(ids), state)
        return self.out(hidden), state


def encode(text: str, vocab: list[str]) -> torch.Tensor:
    ids = {c: i for i, c in enumerate(vocab)}
    return torch.tensor([ids.get(c, ids[UNKNOWN]) for c in text], dtype=torch.int16)


def train(ids: torch.Tensor, vocab: int, hidden: int, cpu_s: float, batch: int = 32, length: int = 100) -> CharacterNet:
    """Train for so many seconds of CPU time, so that a busy machine gets the same net."""
    torch.manual_seed(1)
    net = CharacterNet(vocab, hidden)
    optimizer = torch.optim.AdamW(net.parameters(), lr=3e-3)
    lanes = ids[: len(ids) // batch * batch].view(batch, -1)
    state, at, started, shown, steps = None, 0, time.process_time(), 0.0, 0
    while (used := time.process_time() - started) < cpu_s:
        optimizer.param_groups[0]["lr"] = 6e-3 * min(1.0, used / (0.03 * cpu_s)) * (1 - used / cpu_s) + 1e-4
        if at + length + 1 > lanes.shape[1]:
            at, state = 0, None
        piece = lanes[:, at : at + length + 1].long()
        logits, state = net(piece[:, :-1], state)
        state = tuple(part.detach() for part in state)
        loss = nn.functional.cross_entropy(logits.reshape(-1, vocab), piece[:, 1:].reshape(-1))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        at, steps = at + length, steps + 1
        if used - shown > 30:
            shown = used
            print(f"  {used:4.0f} s, {steps:,} steps: {loss.item() / np.log(2):.3f} bits/char", flush=True)
    return net.eval()


@torch.no_grad()
def distributions(net: CharacterNet, ids: torch.Tensor) -> np.ndarray:
    """What the net says before each character: float32 [n, vocabulary]; before the first, as after "unknown" (the last entry)."""
    before = torch.cat([torch.tensor([net.out.out_features - 1]), ids[:-1].long()])
    rows, state = [], None
    for piece in before.split(2000):
        logits, state = net(piece[None], state)
        rows.append(torch.softmax(logits[0], -1))
    return torch.cat(rows).numpy()


def softmax_mix(p: np.ndarray, q: np.ndarray, came: np.ndarray, rate: float = 0.02) -> np.ndarray:
    """Rows of w p + (1 - w) q, with the logit of w learned online: each row is mixed before its character is looked at."""
    logit, rows = 0.0, np.empty_like(p)
    for i, s in enumerate(came):
        w = 1 / (1 + np.exp(-logit))
        rows[i] = w * p[i] + (1 - w) * q[i]
        logit += rate * w * (1 - w) * (p[i, s] - q[i, s]) / rows[i, s]
    return rows


def main(argv: list[str] | None = None) -> dict[str, list[tuple[float, float]]]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="wikitext-103", help="as charstat build --data")
    parser.add_argument("--chars", type=int, default=20_000_000, help="characters of train that are counted and trained on")
    parser.add_argument("--held-out", type=int, default=0, help="characters of these that the warm start is learned from")
    parser.add_argument("--order", type=int, default=14)
    parser.add_argument("--cpu-seconds", type=float, default=600.0, help="of training")
    parser.add_argument("--threads", type=int, default=1, help="of training; the steps are small, and two waste CPU time on waiting")
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--windows", type=int, nargs="+", default=[120_000, 200_000], help="where they start in val")
    parser.add_argument("--window-chars", type=int, default=30_000)
    parser.add_argument("--tune-at", type=int, default=100_000, help="where the 10,000 characters of val for the linear mix start")
    o = parser.parse_args(argv)
    torch.set_num_threads(o.threads)
    corpus = charstat.open_corpus(o.data)
    text, val = corpus.text("train", limit=o.chars), corpus.text("val")
    print(f"counting {len(text):,} characters of {corpus.description}", flush=True)
    model = charstat.build_model(text, order=o.order, held_out_chars=o.held_out)
    alphabet = model.alphabet
    vocab = [*sorted(alphabet.chars), UNKNOWN]
    print(f"training a character LSTM for {o.cpu_seconds:g} s of CPU time", flush=True)
    net = train(encode(text, vocab), len(vocab), o.hidden, o.cpu_seconds)

    def said(start: int, chars: int) -> tuple[str, np.ndarray, charstat.Advice, np.ndarray]:
        """A window of val, what charstat says before each character, what the net says, and that over charstat's symbols."""
        window, stream = val[start : start + chars], model.stream()
        stream.reset()
        advice = charstat.Advice(vocab, distributions(net, encode(window, vocab)), unknown=UNKNOWN)
        return window, stream.distributions(window), advice, advice.aligned(alphabet)

    def measured(window: str, rows: np.ndarray) -> tuple[float, float]:
        """(bits per character, accuracy) of rows over the alphabet's symbols; rare characters cost what they cost charstat."""
        symbols = alphabet.encode(window)
        p = rows[np.arange(len(window)), symbols]
        rare = [alphabet.rare_probability(c) if s == 127 else 1.0 for c, s in zip(window, symbols, strict=True)]
        return float(-np.log2(p * rare).mean()), float((rows.argmax(axis=1) == symbols).mean())

    window, p, _, q = said(o.tune_at, 10_000)
    best = min(np.linspace(0, 1, 21), key=lambda a: measured(window, a * p + (1 - a) * q)[0])
    results: dict[str, list[tuple[float, float]]] = {}
    for start in o.windows:
        window, p, advice, q = said(start, o.window_chars)
        stream = model.stream(experts=1)
        stream.reset()
        for name, rows in {
            "charstat alone": p,
            "character LSTM alone": q,
            f"linear mix, {best:.2f} charstat": best * p + (1 - best) * q,
            "online softmax mix": softmax_mix(p, q, alphabet.encode(window)),
            "stream(experts=1), advice=": stream.distributions(window, advice=advice),
        }.items():
            results.setdefault(name, []).append(measured(window, rows))
    print(f"{'val, bits/char and accuracy':30}" + "".join(f"  {f'{s:,} to {s + o.window_chars:,}':>20}" for s in o.windows))
    for name, row in results.items():
        print(f"{name:30}" + "".join(f"  {f'{bits:.4f}  {accuracy:.4f}':>20}" for bits, accuracy in row))
    return results


if __name__ == "__main__":
    main()
