"""Token models: bits, accuracy and speed on one core: python bench/tokens.py MODEL IDS [--n N] [--repeats N]
and how long counting takes:                            python bench/tokens.py --count IDS --vocab-size N [--contexts NAMES]

score          nats of each token                                     TokenStream.score
with advice    the same, beside an expert's float16 log-probabilities  TokenStream.score(ids, advice_logp)
log_probs      all log-probabilities before each token                TokenStream.log_probs
hints          the likeliest token before each                        TokenStream.hints

Each repeat runs all four after a run that is not counted (JIT, page cache). Speeds are given by the wall and by CPU time: on a machine that
is shared, the second is nearer to what a machine of one's own would do.
"""

from __future__ import annotations

import argparse
import tempfile
import time

import numpy as np
from common import header, spread

from charstat import TokenModel, build_tokens
from charstat.tokens.shards import read_ids, read_pieces


def count(a: argparse.Namespace) -> None:
    ids, pieces = read_ids(a.count), None if a.pieces is None else read_pieces(a.pieces)
    build_tokens(ids[:1000], a.vocab_size, contexts=a.contexts, token_bytes=pieces, backend="cpu")  # compiles
    header(f"Counting {ids.size:,} tokens of {a.vocab_size:,}, {a.contexts or 'default contexts'}")
    for _ in range(a.repeats):
        with tempfile.TemporaryDirectory(dir=a.dir) as folder:
            wall, cpu = time.perf_counter(), time.process_time()
            model = build_tokens(ids, a.vocab_size, contexts=a.contexts, token_bytes=pieces, backend="cpu", out=f"{folder}/m")
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            print(
                f"{wall:.1f} s, {cpu:.1f} s of CPU time; {sum(t.n_rows for t in model.tables.values()):,} rows, {model.n_bytes / 1e9:.2f} GB"
            )
            del model


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("model", nargs="?")
    p.add_argument("ids", nargs="?")
    p.add_argument("--n", type=int, default=10_000)
    p.add_argument("--rows", type=int, default=2_000, help="tokens for log_probs and hints")
    p.add_argument("--repeats", type=int, default=3)
    p.add_argument("--cold", action="store_true", help="leave the model's warm start out")
    p.add_argument("--count")
    p.add_argument("--vocab-size", type=int)
    p.add_argument("--contexts")
    p.add_argument("--pieces")
    p.add_argument("--dir", help="where --count writes")
    a = p.parse_args()
    if a.count:
        return count(a)
    model, ids = TokenModel.load(a.model, verify="fast"), read_ids(a.ids)[: a.n]
    few, options = ids[: a.rows], {"warm_start": not a.cold}
    stream, advised = model.stream(**options), model.stream(experts=1, **options)
    advice = np.random.default_rng(1).normal(size=(few.size, model.vocab_size)).astype(np.float32) * 3
    advice = (advice - np.log(np.exp(advice).sum(axis=1, keepdims=True))).astype(np.float16)
    header(f"Token streams, {model.vocab_size:,} ids, {len(model.contexts)} contexts, {model.tokens:,} tokens counted, one core")
    ways = {
        "score": (stream, lambda: stream.score(ids), ids.size),
        "with advice": (advised, lambda: advised.score(few, advice), few.size),
        "log_probs": (stream, lambda: stream.log_probs(few), few.size),
        "hints": (stream, lambda: stream.hints(few), few.size),
    }
    speeds: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for repeat in range(a.repeats + 1):
        for name, (used, run, n) in ways.items():
            used.reset()
            wall, cpu = time.perf_counter(), time.process_time()
            run()
            if repeat:
                speeds[name].append((n / (time.perf_counter() - wall), n / (time.process_time() - cpu)))
    print(f"{'':12} tokens/s: median (min .. max) of {a.repeats}, by the wall and by CPU time")
    for name, values in speeds.items():
        print(f"{name:12} {spread([w for w, _ in values])}   {spread([c for _, c in values])}")
    stream.reset()
    right, nats = 0, 0.0
    for part in np.split(ids, range(500, ids.size, 500)):
        rows = stream.log_probs(part)
        right += int((rows.argmax(axis=1) == part).sum())
        nats -= float(rows[np.arange(part.size), part].sum(dtype=np.float64))
    text = f", {nats / np.log(2) / sum(len(model.token_bytes[i]) for i in ids):.4f} bits/byte" if model.token_bytes else ""
    print(f"\n{ids.size:,} tokens: {nats / np.log(2) / ids.size:.4f} bits/token{text}, accuracy {right / ids.size:.4f}")


if __name__ == "__main__":
    main()
