"""Which backbone to take in STORE where nothing is labelled: four scores that need no label.

The best elsewhere, by published accuracies (published) and by the other datasets of the store
(elsewhere); the mean confidence in the images (confidence); how far texts of classes lie apart
(text). Where there are labels after all, how well each score ranks the backbones, and what its
choice loses.

\b
clipsyn selection store
clipsyn selection store -d photos -s test -p clean
clipsyn selection store --reference theirs.csv -o selection.csv

>>> import clipsyn
>>> store = clipsyn.FeatureStore.open("store")
>>> frame = clipsyn.selection(store, perturbations="clean")
>>> frame.filter(metric="score")["by"].unique(maintain_order=True).to_list()
['published', 'elsewhere', 'confidence', 'text']
"""

from __future__ import annotations

from clipsyn.analyses import Analysis
from clipsyn.evaluation import Selection
from clipsyn.settings import TEXT, setting


class SelectionSettings(Selection):
    """What `clipsyn selection` is asked for."""

    reference: str = setting(
        "openai-zeroshot", TEXT, "Published accuracies: a name as for `compare`, or a CSV file."
    )


selection = Analysis(
    name="selection",
    short="Which backbone to take without labels.",
    settings=SelectionSettings,
    lacking="a second backbone",
)
