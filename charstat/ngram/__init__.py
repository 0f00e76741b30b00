"""n-gram counts: named contexts, static tables, word n-grams, online overlay, match model, Kneser-Ney baseline."""
