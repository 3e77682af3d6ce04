"""Predictions, logits and embeddings made elsewhere, brought into a store as cells of their own.

`read` turns files into parts, one a backbone and perturbation; `cells` aligns them with the sample
table by id; `write` does both and publishes. docs/importing.md says which files there can be.
"""
