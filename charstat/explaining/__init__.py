"""Pages to look at: what a model says of a text, character by character, and how models compare on one."""
