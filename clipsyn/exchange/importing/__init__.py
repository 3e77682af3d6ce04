"""Predictions, logits and embeddings made elsewhere, brought into a store as cells of their own.

`tables` and `numpy_files` turn files into parts, one for each backbone and perturbation; `cells`
aligns these with the sample table by id; `write` publishes them. docs/importing.md lists the files
that can be read.
"""
