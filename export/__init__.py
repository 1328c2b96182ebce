"""WebDataset shards, the dataset card, Croissant and the report page."""
