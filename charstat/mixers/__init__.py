"""The mixing layer: evidence of every source, turned into learned logits, mixed by online logistic regression."""
