"""Adaptation of a light model to a device without back-propagation there (after CDC-MMPG, arXiv 2406.01601)."""
