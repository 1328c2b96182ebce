"""Contrastive scorers, calibration, captioners and hard negatives."""
