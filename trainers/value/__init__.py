"""``curate value``: what a dataset is worth, and what each part of its curation was."""
