"""Arithmetic on arrays that knows no store and no frame."""
