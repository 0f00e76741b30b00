"""n-gram counts: named contexts, static tables, word n-grams, the chain of orders, online overlay, match model, Kneser-Ney baseline."""
