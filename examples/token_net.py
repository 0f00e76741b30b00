"""A small token LSTM beside charstat: BPE ids, score-first, hints and tilt, and an audit at the end.

    pip install 'charstat[examples]'
    python examples/token_net.py --data DIR            # wiki.train.raw and wiki.valid.raw; about 15 minutes on 2 cores

Everything is scored before it is learned from. "counted" is charstat's token stream on what was counted, "empty" on nothing: all it knows
is the window. "tilted" is the net, tilted towards the stream's hints; "advice_logp=" stream(experts=1), with the net as one of its inputs.
"""

import argparse
import copy
import time

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from torch import nn

import charstat
from charstat.tokens.stream import learn_start

torch.set_num_threads(1)  # the steps are small, and two waste CPU time on waiting


class TokenNet(nn.Module):
    """One LSTM over tokens, which are embedded in and out by the same matrix; before the first one it has seen token 0."""

    def __init__(self, vocab: int, hidden: int, width: int = 128):
        super().__init__()
        self.embedding, self.lstm = nn.Embedding(vocab, width), nn.LSTM(width, hidden, batch_first=True)
        self.down, self.out = nn.Linear(hidden, width, bias=False), nn.Linear(width, vocab)
        nn.init.normal_(self.embedding.weight, std=0.08)
        nn.init.zeros_(self.out.bias)
        self.out.weight = self.embedding.weight

    def forward(self, ids, state=None):
        hidden, state = self.lstm(self.embedding(ids), state)
        return self.out(self.down(hidden)), state

    @torch.no_grad()
    def log_probs(self, ids: np.ndarray, last: int = 0, state=None):
        """(what the net says before each token, float32 [n, V], the state after them). last: the token before the first."""
        before, rows = torch.tensor([last, *ids.tolist()])[: len(ids)], [torch.zeros(0, self.out.out_features)]
        for piece in before.split(1000) if len(ids) else ():
            logits, state = self(piece[None], state)
            rows.append(torch.log_softmax(logits[0], -1))
        return torch.cat(rows).numpy(), state


def byte_pairs(parts: list[str], size: int) -> tuple[Tokenizer, list[bytes]]:
    """A BPE tokenizer trained on texts, and the bytes of its tokens."""
    tokenizer, level = Tokenizer(models.BPE()), pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.pre_tokenizer = level
    alphabet = sorted(level.alphabet())
    tokenizer.train_from_iterator(parts, trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False))
    shown = {chr(b): b for b in (*range(33, 127), *range(161, 173), *range(174, 256))}  # how the tokenizer writes bytes
    shown |= {chr(256 + i): b for i, b in enumerate(sorted(set(range(256)) - set(shown.values())))}
    return tokenizer, [bytes(shown[c] for c in tokenizer.id_to_token(i)) for i in range(tokenizer.get_vocab_size())]


def train(ids: np.ndarray, vocab: int, hidden: int, cpu_s: float, batch: int = 16, length: int = 64) -> TokenNet:
    """Train for so many seconds of CPU time, so that a busy machine gets the same net. The learning rate rises for 3 % of it, then falls to 0."""
    torch.manual_seed(1)
    net, state, at, started = TokenNet(vocab, hidden), None, 0, time.process_time()
    lanes, optimizer = torch.tensor(ids[: len(ids) // batch * batch].astype(np.int32)).view(batch, -1), torch.optim.AdamW(net.parameters())
    while (used := (time.process_time() - started) / cpu_s) < 1:
        optimizer.param_groups[0]["lr"] = 6e-3 * min(1, used / 0.03) * (1 - used)
        at = at if at + length < lanes.shape[1] else 0
        piece = lanes[:, at : at + length + 1].long()
        logits, state = net(piece[:, :-1], state and tuple(part.detach() for part in state))
        optimizer.zero_grad()
        nn.functional.cross_entropy(logits.reshape(-1, vocab), piece[:, 1:].reshape(-1)).backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        at += length
    return net.eval()


class Beside:
    """The net and the stream as one model of tokens, as an audit asks for it: the net's state goes on where the last call ended."""

    def __init__(self, net: TokenNet, stream: charstat.TokenStream):
        self.net, self.stream, self.vocab_size, self.token_bytes = net, stream, stream.vocab_size, stream.token_bytes

    def reset(self) -> None:
        self.stream.reset()
        self.last, self.state = 0, None

    def fork(self) -> "Beside":
        other = copy.copy(self)
        other.stream = self.stream.fork()
        return other

    def nll(self, ids: np.ndarray) -> np.ndarray:
        rows, self.state = self.net.log_probs(ids, self.last, self.state)
        self.last = int(ids[-1]) if len(ids) else self.last
        return self.stream.score(ids, rows)


def main(argv: list[str] | None = None) -> dict[str, list[float]]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="wikitext-103", help="as charstat build --data")
    parser.add_argument("--chars", type=int, default=20_000_000, help="characters of train that are counted and trained on")
    parser.add_argument("--vocab", type=int, default=2048, help="tokens of the BPE")
    parser.add_argument("--held-out", type=int, default=60_000, help="tokens of these that warm starts are learned from; 0 for none")
    parser.add_argument("--cpu-seconds", type=float, default=600.0, help="of training")
    parser.add_argument("--hidden", type=int, default=384)
    parser.add_argument("--windows", type=int, nargs="+", default=[120_000, 200_000], help="where they start in val")
    parser.add_argument("--window-chars", type=int, default=30_000)
    o = parser.parse_args(argv)
    corpus = charstat.open_corpus(o.data)
    text, val = corpus.text("train", o.chars), corpus.text("val")
    tokenizer, pieces = byte_pairs(parts := [text[at : at + 100_000] for at in range(0, len(text), 100_000)], o.vocab)
    vocab, ids = len(pieces), np.concatenate([np.array(e.ids, np.uint16) for e in tokenizer.encode_batch(parts)])
    print(f"{len(text):,} characters of {corpus.description}: {ids.size:,} tokens. Training a token LSTM", flush=True)
    ids, held = np.split(ids, [ids.size - o.held_out])
    net = train(ids, vocab, o.hidden, o.cpu_seconds)
    counted, empty = (charstat.build_tokens(part, vocab, token_bytes=pieces) for part in (ids, ids[:1]))
    said = net.log_probs(held)[0] if o.held_out else None
    starts = {(m, e): learn_start(m, held, said if e else None, e) if o.held_out else False for m in (counted, empty) for e in (0, 1)}

    def stream(model: charstat.TokenModel, experts: int = 0) -> charstat.TokenStream:
        fresh = model.stream(experts=experts, warm_start=starts[model, experts])
        fresh.reset()
        return fresh

    results: dict[str, list[float]] = {}
    for start in o.windows:
        new = np.array(tokenizer.encode(val[start : start + o.window_chars]).ids, np.uint16)
        p, q, hints = stream(counted).log_probs(new), net.log_probs(new)[0], stream(counted).hints(new)
        own, nets = (-rows[np.arange(len(new)), new] for rows in (p, q))
        net_says = q[np.arange(len(new)), np.maximum(hints.token, 0)]
        odds = np.log(hints.confidence / (1 - hints.confidence)) - (net_says - np.log1p(-np.exp(net_says)))
        nats = {
            "charstat counted, alone": own, "charstat empty, alone": stream(empty).score(new), "token LSTM alone": nets,
            "linear mix, 0.9 charstat": -np.logaddexp(np.log(0.9) - own, np.log(0.1) - nets),
            "token LSTM, tilted": charstat.tilt(nets, net_says, hints.token, new, np.maximum(odds, 0.0)),
            "empty, advice_logp=": stream(empty, 1).score(new, q.astype(np.float16)),
            "counted, advice_logp=": stream(counted, 1).score(new, q.astype(np.float16)),
        }  # fmt: skip
        for name, charges in nats.items():
            results.setdefault(name, []).append(float(charges.sum() / np.log(2) / o.window_chars))
        print(f"accuracy from {start:,}: charstat {np.mean(p.argmax(1) == new):.4f}, LSTM {np.mean(q.argmax(1) == new):.4f}")
    print(f"{'val, bits/char from':32}" + "".join(f"  {s:20,}" for s in o.windows))
    print("\n".join(f"{name:32}" + "".join(f"  {bits:20.4f}" for bits in row) for name, row in results.items()))
    report = charstat.audit(Beside(net, stream(counted, 1)), new[:200], probes=30, positions=1, tolerance=1e-3)
    print("audit:", "clean" if report.clean else f"caught: {report.caught}", f"({len(report.checks)} checks, {report.tokens} tokens)")
    return results


if __name__ == "__main__":
    main()
