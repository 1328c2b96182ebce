"""Retrieval, generation, adaptation, compression and dataset value."""
