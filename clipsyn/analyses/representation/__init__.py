"""How alike the embeddings of the backbones in STORE are, and how sure their logits.

Linear CKA and mutual nearest neighbours of every pair of backbones: they need no labels. With
labels, for each backbone: confidence where it is right and where it is wrong, cross-entropy and
calibration error before and after temperature scaling. What -o writes has every dataset and pair
with intervals.

\b
clipsyn representation store
clipsyn representation store -d emoji-food --neighbours 5
clipsyn representation store -b '*/openai' --samples 10000 -o representation.csv

>>> import clipsyn
>>> store = clipsyn.FeatureStore.open("store")
>>> frame = clipsyn.representation(store, perturbations="clean")
>>> frame.filter(metric="cka")["value"].round(2).to_list()  # one pair of backbones
[0.11]
"""

from __future__ import annotations

from clipsyn.analyses import Analysis
from clipsyn.evaluation import Selection, allow_overlap, perturbations
from clipsyn.names import MOST
from clipsyn.settings import TEXT, WHOLE, setting


class RepresentationSettings(Selection):
    """What `clipsyn representation` is asked for."""

    perturbations: tuple[str, ...] | None = perturbations(("clean",))
    samples: int = setting(  # a pool of neighbours as large as in the literature, and seconds
        2000,
        WHOLE,
        "Images, drawn at random from those that every backbone could read.",
        least=2,
        most=MOST,
    )
    neighbours: int = setting(
        10, WHOLE, "Nearest images that two backbones should agree on.", least=1, most=MOST
    )
    support: str | None = setting(
        None,
        TEXT,
        "Split that temperatures are fitted on.",
        instead_of_none="train, if there is one",
    )
    allow_overlap: bool = allow_overlap()
    seed: int = setting(0, WHOLE, "Which images are drawn.", least=0, most=MOST)


representation = Analysis(
    name="representation",
    short="How alike embeddings are, how sure logits.",
    settings=RepresentationSettings,
    lacking="",
)
