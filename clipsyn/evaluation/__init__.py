"""The few-shot protocol: fit every method on a few labelled images, measure it on others."""
