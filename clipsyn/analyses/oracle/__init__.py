"""The oracle of the backbones in STORE, which for each image knows one that gets it right.

Its gain over the best single backbone; the best backbones of each number; what each backbone adds;
which images only one gets right, or none; which backbones are right together.

\b
clipsyn oracle store
clipsyn oracle store -d emoji-food -p clean --samples food.csv
clipsyn oracle store -b '*/openai' --weights -o oracle.csv

>>> import clipsyn
>>> store = clipsyn.FeatureStore.open("store")
>>> frame = clipsyn.oracle(store, perturbations="clean")
>>> frame.filter(metric="unique_correct").select("backbones", "value").rows()
[(['fake/one'], 0.25), (['fake/two'], 0.25)]
"""

from __future__ import annotations

from pathlib import Path

from clipsyn.analyses import Analysis
from clipsyn.errors import UsageError
from clipsyn.evaluation import Selection, pooled
from clipsyn.settings import FLAG, OUTPUT, setting


class OracleSettings(Selection):
    """What `clipsyn oracle` is asked for."""

    pooled: bool = pooled()
    weights: bool = setting(
        False, FLAG, "What weighted sums of logits could reach; reads the logits."
    )
    samples: Path | None = setting(
        None,
        OUTPUT,
        "Write what each backbone says of each image to this .csv or .parquet.",
        endings=(".csv", ".parquet"),
    )

    def _check(self) -> None:
        if self.samples and self.samples.suffix not in (".csv", ".parquet"):
            raise UsageError(
                f"{self.samples} is neither CSV nor Parquet: end its name in .csv or .parquet"
            )


oracle = Analysis(
    name="oracle",
    short="How far the best choice of backbones could go.",
    settings=OracleSettings,
    over_datasets=False,
)
