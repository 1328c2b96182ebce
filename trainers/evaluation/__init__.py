"""``curate evaluate``: retrieval, details, classes, each with intervals."""
