"""The edge student: distilled from a teacher, exported for onnxruntime, and photo search with it."""
