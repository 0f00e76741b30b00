"""The arrays of a stored model: their names, which are those of its files, and their dtypes."""

import numpy as np

COLUMNS = {
    "buckets": np.uint32,
    "records": np.uint64,
    "rows": np.uint32,
    "sums": np.uint32,
    "first_child": np.uint32,
    "trie_symbol": np.uint8,
    "first_id": np.uint32,
    "class_hashes": np.uint64,
    "class_labels": np.uint16,
    "topic_scores": np.int8,
    "betas": np.float32,
    "start": np.float32,
}
# The others are empty in most models: classes of words, weights of a context tree, the mixture's start.
TABLE_COLUMNS = ("buckets", "records", "rows", "sums", "first_child", "trie_symbol", "first_id")
CLASS_COLUMNS = ("class_hashes", "class_labels", "topic_scores")
PACKED = "packed.bin"  # all of them in one file (packing/form.py), in place of the others

TOKEN_COLUMNS = {  # of a token model: tokens/model.py
    "buckets": np.uint32,
    "records": np.uint64,
    "rows": np.uint16,
    "sums": np.uint32,
    "id_of": np.uint16,
    "counts": np.uint32,
    "piece_bytes": np.uint8,
    "piece_ends": np.uint32,
    "start": np.float32,
}
