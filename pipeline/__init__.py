"""Batches, stages, units, the Beam graph, the ledger, recipes and the command line."""
