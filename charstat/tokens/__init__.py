"""Models of token ids: counted n-grams of tokens and words, mixed at the decisions of a binary tree of the vocabulary."""
