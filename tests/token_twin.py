"""The token mixer once more: dictionaries, tuples and floats instead of tables, hashes and arrays. Slow, and written from the descriptions."""

import math
from collections import Counter, defaultdict

from charstat.mixers.evidence import COUNT_EDGES, COUNT_TYPICAL, RATIO_EDGES, RATIO_TYPICAL
from charstat.tokens.layout import TokenRates

UNIT, CHAIN_PRIOR, ONLINE_WEIGHT = 4096, 4.0, 4.0
P_MIN, PRUNE = 1e-5, 1e-5


def logit(p):
    p = min(max(p, P_MIN), 1 - P_MIN)
    return math.log(p / (1 - p))


def logistic(z):
    return 1 / (1 + math.exp(-z))


class Node:
    def __init__(self, lo, mid, hi):
        self.lo, self.mid, self.hi = lo, mid, hi


class TokenTwin:
    """A stream of tokens. ids counted, then observe() returns P(token) and learns from it."""

    def __init__(self, counted, vocab, contexts, token_bytes=None, id_of=None, rates=None):
        self.vocab, self.contexts, self.rates = vocab, contexts, rates or TokenRates()
        self.token_bytes = token_bytes
        self.id_of = id_of if id_of is not None else sorted(range(vocab), key=lambda i: (token_bytes[i], i))
        self.leaf_of = {token: leaf for leaf, token in enumerate(self.id_of)}
        self.seen = Counter(counted)
        floor = max(1, len(counted) // (64 * vocab))
        self.weight = [max(self.seen[i], floor) for i in self.id_of]
        self.nodes = {}
        self._split(0, vocab)
        self.static = [defaultdict(Counter) for _ in contexts]
        self.restart()
        for token in counted:
            for table, key in zip(self.static, self.keys(), strict=True):
                if key is not None:
                    table[key][self.leaf_of[token]] += 1
            self.push(token)
        self.restart()
        self.online = [defaultdict(dict) for _ in contexts]
        orders = sum(c.order > 0 for c in contexts)
        r, f = self.rates, len(contexts)
        self.orders, self.columns = orders, 2 * f + 6
        one = [r.initial_evidence / (1.2 * f)] * (2 * f) + [r.initial_chain] * 3 + [r.initial_evidence / (1.2 * f), 0.0, 0.0]
        self.node_weights = {v: list(one) for v in self.nodes}
        self.rows = defaultdict(lambda: [0.0] * self.columns)
        self.logits, self.match_logits = {}, {}
        self.node_p = {v: [self.frequency(n.mid, n.hi) / self.frequency(n.lo, n.hi), r.node_least] for v, n in self.nodes.items()}
        self.time = 0

    def restart(self):
        self.history, self.words, self.match = [], ["", "", "", ""], (0, 0)

    def frequency(self, lo, hi):
        return sum(self.seen[self.id_of[leaf]] + 0.5 for leaf in range(lo, hi))

    def _split(self, lo, hi):
        """The border that leaves both sides closest to half of the weight, the upper one of equals."""
        if hi - lo == 1:
            return
        half = sum(self.weight[lo:hi]) / 2
        mid = min(range(lo + 1, hi), key=lambda m: (abs(sum(self.weight[lo:m]) - half), -m))
        self.nodes[mid] = Node(lo, mid, hi)
        self._split(lo, mid)
        self._split(mid, hi)

    def push(self, token):
        self.history.append(token)
        if self.token_bytes is not None:
            piece = self.token_bytes[token]
            inside = piece and (piece[:1].isalnum() or piece[0] >= 128 or piece[:1] == b"'")
            if not inside:
                self.words = ["", *self.words[:-1]]
            self.words[0] += piece.lower().strip(b" ").decode("latin-1")

    def keys(self):
        """What each context looks at now; None where it reaches beyond the start."""
        found = []
        for c in self.contexts:
            if len(self.history) < c.reach:
                found.append(None)
                continue
            parts = [f"t{k}" for k in range(1, c.order + 1)] if c.order else c.name.split(".")
            names = {"p": 0, "w1": 1, "w2": 2, "w3": 3}
            found.append(tuple(self.words[names[p]] if p in names else self.history[-int(p[1:])] for p in parts))
        return found

    def path(self, leaf):
        lo, hi, out = 0, self.vocab, []
        while hi - lo > 1:
            v = next(v for v, n in self.nodes.items() if (n.lo, n.hi) == (lo, hi))
            out.append((v, int(leaf >= v)))
            lo, hi = (v, hi) if leaf >= v else (lo, v)
        return out

    def counts(self, f, key, lo, hi):
        """(static counts, with the stream's own; recent ones in units; how many rows and entries) of leaves lo..hi."""
        if key is None:
            return 0, 0, 0
        table, own = self.static[f].get(key, {}), self.online[f].get(key, {})
        static = sum(n for leaf, n in table.items() if lo <= leaf < hi)
        seen = sum(n for leaf, (_, n) in own.items() if lo <= leaf < hi)
        recent = sum(r for leaf, (r, _) in own.items() if lo <= leaf < hi)
        kinds = sum(lo <= leaf < hi for leaf in table) + sum(lo <= leaf < hi for leaf in own)
        return static + seen, recent, kinds

    def evidence(self, source, count, n, n1):
        """(state, its logit): None where the source is silent."""
        if n == 0:
            return None, 0.0
        share = 0.0 if n1 == 0 else n1 / n
        bucket = sum(count >= edge for edge in COUNT_EDGES)
        step = math.floor(share * 1024)
        ratio = 0 if n1 == 0 else len(RATIO_EDGES) + 2 if n1 == n else 1 + sum((step + 0.5) / 1024 >= edge for edge in RATIO_EDGES)
        state = (source, bucket, ratio)
        if state not in self.logits:
            q, m = (0.0, *RATIO_TYPICAL, 1.0)[ratio], COUNT_TYPICAL[bucket]
            p = (q * m + 0.2) / (m + 0.4)
            self.logits[state] = math.log(p / (1 - p))
        return state, self.logits[state]

    def expected(self):
        pointer, length = self.match
        return (self.leaf_of[self.history[pointer]], self.bucket(length)) if length else (None, 0)

    @staticmethod
    def bucket(length):
        return length - 4 if length < 12 else min(8 + (length - 12) // 8, 15)

    def selected(self, keys):
        f = range(self.orders)
        longest = max((i + 1 for i in f if keys[i] is not None and self.static[i].get(keys[i])), default=0)
        recent = max((i + 1 for i in f if keys[i] is not None and self.online[i].get(keys[i])), default=0)
        hits = sum(key is not None and bool(self.static[i].get(key)) for i, key in enumerate(keys))
        leaf, bucket = self.expected()
        previous = self.leaf_of[self.history[-1]] if self.history else 0
        level = 0 if leaf is None else 1 + bucket
        return ("orders", longest, recent), ("previous", previous), ("match_hits", level, min(hits, 15))

    def decision(self, v, keys, rows, experts):
        """(p, x, w, states) at a node."""
        n, f, r = self.nodes[v], len(self.contexts), self.rates
        both = [self.counts(i, key, n.lo, n.hi) for i, key in enumerate(keys)]
        ones = [self.counts(i, key, n.mid, n.hi) for i, key in enumerate(keys)]
        x, states = [0.0] * self.columns, []
        for i in range(f):
            state, x[i] = self.evidence(i, both[i][0], both[i][0], ones[i][0])
            states.append(state)
        for i in range(f):
            m, m1 = both[i][1], ones[i][1]
            state, x[f + i] = self.evidence(f + i, (m + UNIT // 2) // UNIT, m, m1)
            states.append(state)
        total = self.frequency(0, self.vocab)
        p, q = self.frequency(n.lo, n.hi) / total, self.frequency(n.mid, n.hi) / total
        for i in range(self.orders):
            whole, _, kinds = self.counts(i, keys[i], 0, self.vocab)
            if whole:
                left = r.discount * kinds / whole
                p = (both[i][0] - r.discount * both[i][2]) / whole + left * p
                q = (ones[i][0] - r.discount * ones[i][2]) / whole + left * q
        x[2 * f] = logit(q / p)
        chain = 0.5
        for i in range(f):
            m, m1 = (c[0] + ONLINE_WEIGHT / UNIT * c[1] for c in (both[i], ones[i]))
            chain = (m1 + CHAIN_PRIOR * chain) / (m + CHAIN_PRIOR)
            if i < self.orders:
                x[2 * f + 1] = logit(chain)
        x[2 * f + 1] = x[2 * f + 1] if self.orders else logit(0.5)
        x[2 * f + 2] = logit(chain)
        leaf, bucket = self.expected()
        hit = None
        if leaf is not None and n.lo <= leaf < n.hi:
            hit = (bucket, int(leaf >= n.mid))
            strength = math.log(4 + 3 * bucket)
            x[2 * f + 3] = self.match_logits.setdefault(hit, strength if hit[1] else -strength)
        x[2 * f + 4], x[2 * f + 5] = 0.3, logit(self.node_p[v][0])
        for e, row in enumerate(experts):
            zero = sum(row[self.id_of[leaf]] for leaf in range(n.lo, n.mid))
            one = sum(row[self.id_of[leaf]] for leaf in range(n.mid, n.hi))
            x.append(logit(one / (zero + one)) if zero + one > 0 else 0.0)
        node = self.node_weights[v]
        node += [self.rates.initial_expert] * (len(x) - len(node))
        others = [row + [0.0] * (len(x) - len(row)) for row in rows]
        w = [node[k] + sum(row[k] for row in others) for k in range(len(x))]
        return min(max(logistic(sum(a * b for a, b in zip(w, x, strict=True))), P_MIN), 1 - P_MIN), x, w, states, hit

    def probability(self, token, experts=()):
        """P(token), and what learning from it needs."""
        keys = self.keys()
        names = self.selected(keys)
        rows = [self.rows[name] for name in names]
        reach, steps = 1.0, []
        for v, bit in self.path(self.leaf_of[token]):
            n = self.nodes[v]
            if reach < PRUNE:
                p = self.frequency(n.mid, n.hi) / self.frequency(n.lo, n.hi)
            else:
                p, *rest = self.decision(v, keys, rows, experts)
                steps.append((v, bit, p, *rest))
            reach *= p if bit else 1 - p
        return reach, (keys, names, steps)

    def observe(self, token, experts=()):
        """P(token); then learn from it and move on."""
        p, (keys, names, steps) = self.probability(token, experts)
        r, f, leaf = self.rates, len(self.contexts), self.leaf_of[token]
        rate = r.weights * (1 + r.boost * r.boost_tokens / (r.boost_tokens + self.time))
        totals = None
        for v, bit, q, x, w, states, hit in steps:
            error = bit - q
            for k, state in enumerate(states):
                if state is not None:
                    self.logits[state] += r.evidence * error * w[k]
            if hit is not None:
                self.match_logits[hit] += r.evidence * error * w[2 * f + 3]
            mean, n = self.node_p[v]
            self.node_p[v] = [mean + (bit - mean) / (n + 1.5), n + 1 if n < r.node_most else n]
            self.node_weights[v] = [a + rate * error * b for a, b in zip(self.node_weights[v], x, strict=True)]
            totals = [a + rate * error * b for a, b in zip(totals or [0.0] * len(x), x, strict=True)]
        for name in names:
            row = self.rows[name] + [0.0] * (len(totals) - len(self.rows[name]))
            self.rows[name] = [a + b for a, b in zip(row, totals, strict=True)]
        for i, key in enumerate(keys):
            if key is not None:
                own = self.online[i][key]
                factor = round((0.95 if self.contexts[i].needs_words or not self.contexts[i].order else 0.4) * 65536)
                for other in own:
                    if other != leaf:
                        own[other] = (max((own[other][0] * factor) >> 16, 1), own[other][1])
                recent, seen = own.get(leaf, (0, 0))
                own[leaf] = (recent + UNIT, seen + 1)
        self._follow(token)
        self.push(token)
        self.time += 1
        return p

    def _follow(self, token):
        """The match: as long as the text goes on as it did after an earlier run of four tokens, else the last run that is like this one."""
        pointer, length = self.match
        text = [*self.history, token]
        if length and self.history[pointer] == token:
            self.match = (pointer + 1, min(length + 1, 400))
            return
        self.match = (0, 0)
        for at in range(len(text) - 1, 3, -1):
            if text[at - 4 : at] == text[-4:]:
                length = 0
                while length < at and text[at - 1 - length] == text[len(text) - 1 - length]:
                    length += 1
                self.match = (at, min(length, 400))
                return
