"""A finished run in the browser of the same machine: paging, search, one pair's story, lists of keys."""
