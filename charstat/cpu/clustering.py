"""Clustering rows of counts: every row joins the cluster whose counts explain its own best, over and over.

A row is a word with the counts of its neighbours, or a passage with the counts of its words. With q[j, c] the count of column j in the
rows of cluster c, s[c] the cluster's sum, and n[j] and N the same of all rows, the score of a column in a cluster is

    log ratio[j, c] = ln( (q[j, c] + PRIOR n[j] / N) / ((s[c] + PRIOR) n[j] / N) )

that is ln P(j | c) / P(j), where every cluster has seen PRIOR counts more of what all rows hold. A row joins the cluster c with the
largest sum of n[row, j] log ratio[j, c]; that makes the mutual information of clusters and columns grow. It is the exchange of
Brown et al. (1992) and Martin, Liermann, Ney (1998) in its predictive form (Uszkoreit and Brants 2008), all rows at once, as
k-means with the divergence of Kullback and Leibler (Dhillon, Mallela, Kumar 2003). A row may be left out of its own cluster's
counts, without which a passage finds no reason to leave a cluster that it is itself a good part of. An empty cluster's ratios are 0,
so that a row which fits nowhere can begin it anew.

Columns may fall into blocks (the neighbours at different distances), each a distribution of its own: s and N are then the block's.
Counts are added up as integers, and every row is scored by one thread: any number of threads gives the same.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numba import njit

SPANS = 16  # of rows, handed to threads


class Counts(NamedTuple):
    """A sparse matrix of counts, by rows."""

    starts: np.ndarray  # int64 [rows + 1]
    columns: np.ndarray  # uint32
    counts: np.ndarray  # float32: whole numbers
    width: int  # columns

    @property
    def n(self) -> int:
        return self.starts.size - 1


def run_spans(pool: ThreadPoolExecutor, n: int, spans: int, task: Callable[[int, int, int], None]) -> None:
    """task(i, lo, hi) for every span of 0..n, on the pool's threads."""
    for done in [pool.submit(task, i, lo, hi) for i, (lo, hi) in enumerate(pairwise(n * s // spans for s in range(spans + 1)))]:
        done.result()


@njit(cache=True, nogil=True)
def _add_up(starts, columns, counts, labels, lo, hi, out):
    for i in range(lo, hi):
        c = labels[i]
        if c >= 0:
            for p in range(starts[i], starts[i + 1]):
                out[columns[p], c] += np.int64(counts[p])


@njit(cache=True, nogil=True)
def _log_ratios(totals, of_column, of_cluster, of_all, block, prior, lo, hi, out):
    for j in range(lo, hi):
        b = j // block
        share = of_column[j] / max(of_all[b], 1)
        for c in range(totals.shape[1]):
            out[j, c] = np.float32(np.log((totals[j, c] / share + prior) / (of_cluster[b, c] + prior))) if share > 0.0 else np.float32(0.0)


@njit(cache=True, nogil=True)
def _join(starts, columns, counts, ratios, totals, of_column, of_cluster, of_all, block, prior, leave_out, labels, lo, hi, new):
    """new[i] := the best cluster of row i, the lower of equals; 0 for rows without counts."""
    clusters = ratios.shape[1]
    scores, own = np.empty(clusters, np.float32), np.zeros(of_all.shape[0], np.float64)
    for i in range(lo, hi):
        scores[:] = np.float32(0.0)
        for p in range(starts[i], starts[i + 1]):
            j, n = columns[p], counts[p]
            for c in range(clusters):
                scores[c] += n * ratios[j, c]
        c = labels[i]
        if leave_out and c >= 0:
            own[:] = 0.0
            for p in range(starts[i], starts[i + 1]):
                own[columns[p] // block] += counts[p]
            score = 0.0
            for p in range(starts[i], starts[i + 1]):
                j, n = columns[p], np.float64(counts[p])
                b = j // block
                share = of_column[j] / of_all[b]
                score += n * np.log(((totals[j, c] - n) / share + prior) / (of_cluster[b, c] - own[b] + prior))
            scores[c] = np.float32(score)
        best = 0
        for c in range(1, clusters):
            if scores[c] > scores[best]:
                best = c
        new[i] = best


class Clustering:
    """The clusters of some rows.

    labels: int32 [rows], -1 for rows in none yet. block: so many columns have a distribution of their own. prior: PRIOR, in counts.
    """

    def __init__(self, rows: Counts, labels: np.ndarray, clusters: int, block: int, prior: float, pool: ThreadPoolExecutor, threads: int):
        self.rows, self.labels, self.clusters, self.block, self.prior = rows, labels, clusters, block, prior
        self._pool, self._threads = pool, threads

    def join(self, leave_out: bool) -> int:
        """Every row joins its best cluster; returns how many have changed. leave_out: a row does not count where it is scored itself."""
        totals, marginals = self._totals()
        ratios = self._ratios(totals, marginals)
        new = np.empty_like(self.labels)
        rows = self.rows[:3]

        def task(i: int, lo: int, hi: int) -> None:
            _join(*rows, ratios, totals, *marginals, self.block, self.prior, leave_out, self.labels, lo, hi, new)

        run_spans(self._pool, self.rows.n, SPANS, task)
        changed = int(np.count_nonzero(new != self.labels))
        self.labels = new
        return changed

    def log_ratios(self) -> np.ndarray:
        """The log ratio of every column in every cluster: float32 [columns, clusters]."""
        return self._ratios(*self._totals())

    def _totals(self) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """q (int64 [columns, clusters]), and n, s and N: int64 [columns], [blocks, clusters], [blocks]."""
        parts = [np.zeros((self.rows.width, self.clusters), np.int64) for _ in range(self._threads)]
        run_spans(self._pool, self.rows.n, self._threads, lambda i, lo, hi: _add_up(*self.rows[:3], self.labels, lo, hi, parts[i]))
        totals = parts[0]
        for part in parts[1:]:
            totals += part
        blocks = range(0, self.rows.width, self.block)
        of_cluster = np.stack([totals[at : at + self.block].sum(axis=0) for at in blocks])
        return totals, (totals.sum(axis=1), of_cluster, of_cluster.sum(axis=1))

    def _ratios(self, totals: np.ndarray, marginals: tuple[np.ndarray, ...]) -> np.ndarray:
        ratios = np.empty(totals.shape, np.float32)
        run_spans(
            self._pool, totals.shape[0], SPANS, lambda i, lo, hi: _log_ratios(totals, *marginals, self.block, self.prior, lo, hi, ratios)
        )
        return ratios
