"""Models cut to a size: which contexts, rows and words are worth their bytes, and the model that is left."""
