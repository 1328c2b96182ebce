"""The text-to-image trainer: base, align, domain, prune, guidance, steps, export, evaluate."""
