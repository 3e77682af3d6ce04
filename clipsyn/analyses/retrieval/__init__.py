"""Retrieval with the captions in STORE: images by their captions, captions by their images.

Recall at 1, 5 and 10, median rank and mean average precision of each backbone; of scores fused
over backbones, with weights learned on a few pairs, too; of what is done about hubs; and of the
oracle, which for each query knows the backbone that ranks best what it should find.

\b
clipsyn retrieval store
clipsyn retrieval store -d flickr30k -b '*/openai' --pairs 200 -o retrieval.csv
clipsyn retrieval store --bank test --details

>>> import clipsyn
>>> frame = clipsyn.retrieval("store", perturbations="clean")
>>> of_oracle = frame.filter(ensemble="oracle", metric="recall_at_10")
>>> dict(of_oracle.select("direction", "value").iter_rows())
{'text-to-image': 0.95, 'image-to-text': 0.8}
"""

from __future__ import annotations

from clipsyn.analyses import Analysis
from clipsyn.evaluation import Cells, allow_overlap, perturbations, seed, support
from clipsyn.settings import FLAG, NAMES, TEXT, WHOLE, setting

RECALLS = (1, 5, 10)  # how many of the first items may have what is searched
DIRECTIONS = TEXT_TO_IMAGE, IMAGE_TO_TEXT = "text-to-image", "image-to-text"
TRANSDUCTIVE = " (transductive)"  # after the name of what looked at the queries it is measured on
_WEIGHTED = ("c-log-avg", "super-learner", "gac", "greedy", "nlc")
_MOST_PAIRS = 4096  # each is a class to all others


class RetrievalSettings(Cells):
    """What `clipsyn retrieval` is asked for."""

    perturbations: tuple[str, ...] | None = perturbations(("clean",))
    ensembles: tuple[str, ...] = setting(
        ("super-learner", "nlc"),
        NAMES,
        "What weighs backbones, fitted on pairs of the support.",
        choices=_WEIGHTED,
    )
    support: str = support()
    pairs: int = setting(
        500,
        WHOLE,
        "Images of the support to fit and choose on, each with a caption.",
        least=2,
        most=_MOST_PAIRS,
    )
    bank: str = setting(
        "train",
        TEXT,
        "Split whose queries tell hubs; of the measured one itself, rows are marked transductive.",
        metavar="SPLIT",
    )
    seed: int = seed()
    allow_overlap: bool = allow_overlap()
    details: bool = setting(False, FLAG, "Which backbones miss the same, too.")


retrieval = Analysis(
    name="retrieval",
    short="Images found by captions, and captions by images.",
    settings=RetrievalSettings,
    over_datasets=False,
    lacking="captions",
)
