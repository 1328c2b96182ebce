"""One rule per file: text and image measures, sensitive words, names, duplicates."""
