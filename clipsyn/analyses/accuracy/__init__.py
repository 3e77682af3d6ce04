"""Zero-shot accuracy of every backbone in STORE: top-1 with a 95 % interval, top-5, mean per class,
n; and of the oracle, which for each image knows a backbone that gets it right.

Needs no image, no model and no GPU.

\b
clipsyn zeroshot store
clipsyn zeroshot store -d 'emoji-*' -p clean,jpeg-3 --summary
clipsyn zeroshot store -o - -o results.csv

>>> import clipsyn
>>> store = clipsyn.FeatureStore.open("store")
>>> frame = clipsyn.zeroshot(store, perturbations="clean")
>>> frame.filter(metric="acc1").select("ensemble", "backbones", "value").row(0)
('single', ['fake/one'], 0.35)
"""

from __future__ import annotations

from clipsyn.analyses import Analysis
from clipsyn.evaluation import Selection, pooled
from clipsyn.settings import FLAG, setting


class ZeroshotSettings(Selection):
    """What `clipsyn zeroshot` is asked for."""

    pooled: bool = pooled()
    summary: bool = setting(False, FLAG, "One table for everything: a line a dataset.")


zeroshot = Analysis(
    name="zeroshot",
    short="Zero-shot accuracy of what a store holds.",
    settings=ZeroshotSettings,
    over_datasets=False,
)
