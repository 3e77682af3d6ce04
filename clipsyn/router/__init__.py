"""Fitted routers: what was learned and from what, kept in a folder, applied to other images.

settings, fit       store, method and shots in, `FittedRouter` out
fitted              a fitted head and ensemble, which predicts from pools
artefact            it as a folder, and back
predict             class, probability and weights for every image of a store's split
"""
