"""What `clipsyn/__init__.py` imports on first use: made by `python docs/stub.py`."""

from collections.abc import Collection, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Literal

import polars as pl
from matplotlib.axes import Axes  # noqa: TID253
from polars import DataFrame

from clipsyn.methods.ensembles.base import BestSingle as BestSingle
from clipsyn.methods.ensembles.base import Confidence as Confidence
from clipsyn.methods.ensembles.base import LogAverage as LogAverage
from clipsyn.methods.ensembles.base import ProbabilityAverage as ProbabilityAverage
from clipsyn.methods.ensembles.base import VoteTop1 as VoteTop1
from clipsyn.methods.ensembles.base import VoteTop3 as VoteTop3
from clipsyn.methods.ensembles.caches import CacheFusion as CacheFusion
from clipsyn.methods.ensembles.dynamic import KnoraUnion as KnoraUnion
from clipsyn.methods.ensembles.dynamic import OverallLocalAccuracy as OverallLocalAccuracy
from clipsyn.methods.ensembles.mixtures import MixtureOfExperts as MixtureOfExperts
from clipsyn.methods.ensembles.mixtures import SampleAwareWeights as SampleAwareWeights
from clipsyn.methods.ensembles.nlc import NLC as NLC
from clipsyn.methods.ensembles.residual import ResidualRouter as ResidualRouter
from clipsyn.methods.ensembles.search import GeneticAlgorithm as GeneticAlgorithm
from clipsyn.methods.ensembles.search import GreedySelection as GreedySelection
from clipsyn.methods.ensembles.transductive import SOTA as SOTA
from clipsyn.methods.ensembles.transductive import TransCLIP as TransCLIP
from clipsyn.methods.ensembles.transductive import TransCLIPFewShot as TransCLIPFewShot
from clipsyn.methods.ensembles.transductive import ZLaP as ZLaP
from clipsyn.methods.ensembles.trusted import EntropyAverage as EntropyAverage
from clipsyn.methods.ensembles.trusted import ModelLabels as ModelLabels
from clipsyn.methods.ensembles.trusted import PrecisionSwitch as PrecisionSwitch
from clipsyn.methods.ensembles.trusted import TunedEnsemble as TunedEnsemble
from clipsyn.methods.ensembles.trusted import Zero as Zero
from clipsyn.methods.ensembles.trusted import ZeroShotEnsemble as ZeroShotEnsemble
from clipsyn.methods.ensembles.weighted import CalibratedConfidence as CalibratedConfidence
from clipsyn.methods.ensembles.weighted import CalibratedLogAverage as CalibratedLogAverage
from clipsyn.methods.ensembles.weighted import Stacking as Stacking
from clipsyn.methods.ensembles.weighted import SuperLearner as SuperLearner
from clipsyn.methods.heads.base import ZeroShot as ZeroShot
from clipsyn.methods.heads.cache import APE as APE
from clipsyn.methods.heads.cache import TipAdapter as TipAdapter
from clipsyn.methods.heads.cache import TipAdapterF as TipAdapterF
from clipsyn.methods.heads.kernel import ProKeR as ProKeR
from clipsyn.methods.heads.lda import ShrinkageLDA as ShrinkageLDA
from clipsyn.methods.heads.linear import AnchoredProbe as AnchoredProbe
from clipsyn.methods.heads.linear import LinearProbe as LinearProbe
from clipsyn.methods.heads.trained import CLAP as CLAP
from clipsyn.methods.heads.trained import LPPlusPlus as LPPlusPlus
from clipsyn.methods.heads.trained import ResidualAdapter as ResidualAdapter
from clipsyn.methods.numerics.samples import few_shot as few_shot
from clipsyn.methods.pool import Pool as Pool
from clipsyn.report.evidence import Source
from clipsyn.router.artefact import load_router as load_router
from clipsyn.router.artefact import save_router as save_router
from clipsyn.router.fit import FittedRouter as FittedRouter
from clipsyn.router.predict import predict_store as predict_store
from clipsyn.show.progress import Progress
from clipsyn.store.features import FeatureStore as FeatureStore
from clipsyn.store.samples import CaptionTable as CaptionTable
from clipsyn.store.samples import SampleTable as SampleTable

__version__: str

def cascade(
    store: FeatureStore | Path | str,
    *,
    datasets: str | Collection[str] | None = None,
    splits: str | Collection[str] | None = ("test",),
    perturbations: str | Collection[str] | None = ("clean",),
    backbones: str | Collection[str] | None = None,
    prompts: str | Collection[str] | None = None,
    support: str = "train",
    shots: int | Literal["full"] = "full",
    seed: int = 0,
    allow_overlap: bool = False,
    ensembles: str | Collection[str] = ("log-avg",),
    thresholds: Collection[float] = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99),
    within_points: float = 1.0,
    agreement: Collection[float] = (),
    tier: int = 3,
    costs: Mapping[str, float] = {},
) -> DataFrame: ...
def compare(
    results: pl.DataFrame | Path | str,
    *,
    reference: str = "openai-zeroshot",
    tolerance: float = 0.5,
) -> pl.DataFrame: ...
def compare_methods(
    path: Path | str,
    first: str | None = None,
    second: str | None = None,
    *,
    datasets: str | Collection[str] | None = None,
    splits: str | Collection[str] | None = None,
    perturbations: str | Collection[str] | None = None,
    backbones: str | Collection[str] | None = None,
    prompts: str | Collection[str] | None = None,
    head: str = "zero-shot",
    shots: int | Literal["full"] | None = None,
) -> pl.DataFrame: ...
def diversity(
    store: FeatureStore | Path | str,
    *,
    datasets: str | Collection[str] | None = None,
    splits: str | Collection[str] | None = ("test",),
    perturbations: str | Collection[str] | None = None,
    backbones: str | Collection[str] | None = None,
    prompts: str | Collection[str] | None = None,
    pooled: bool = False,
    results: str | PathLike[str] | None = None,
    head: str = "zero-shot",
    shots: int | Literal["full"] | None = None,
) -> DataFrame: ...
def evaluate(
    store: FeatureStore | Path | str,
    *,
    progress: Progress | None = None,
    datasets: str | Collection[str] | None = None,
    splits: str | Collection[str] | None = ("test",),
    perturbations: str | Collection[str] | None = ("clean",),
    backbones: str | Collection[str] | None = None,
    prompts: str | Collection[str] | None = None,
    heads: str | Collection[str] = ("zero-shot", "lda"),
    ensembles: str | Collection[str] = ("super-learner", "log-avg", "nlc", "vote-1", "chosen"),
    shots: Collection[int | Literal["full"]] = (1, 2, 4, 8, 16, "full"),
    seeds: int = 3,
    support: str | None = None,
    allow_overlap: bool = False,
    support_prompts: str | None = None,
    views: str | Collection[str] = (),
    base_to_new: bool = False,
    coop: str | PathLike[str] | None = None,
    output: str | PathLike[str] | None = None,
    predictions: bool = True,
    budget: float = 10.0,
    workers: int = 1,
    shard: str | None = None,
) -> pl.DataFrame: ...
def fit_router(
    store: FeatureStore | Path | str,
    dataset: str | None = None,
    ensemble: str = "chosen",
    *,
    head: str | None = None,
    shots: int | Literal["full"] | None = "full",
    seed: int = 0,
    support: str = "train",
    allow_overlap: bool = False,
    backbones: str | Collection[str] | None = None,
    prompts: str | None = None,
    views: str | Collection[str] = (),
) -> FittedRouter: ...
def oracle(
    store: FeatureStore | Path | str,
    *,
    datasets: str | Collection[str] | None = None,
    splits: str | Collection[str] | None = ("test",),
    perturbations: str | Collection[str] | None = None,
    backbones: str | Collection[str] | None = None,
    prompts: str | Collection[str] | None = None,
    pooled: bool = False,
    weights: bool = False,
    samples: str | PathLike[str] | None = None,
) -> DataFrame: ...
def plot(
    name: str,
    source: Source | Sequence[Source],
    ax: Axes | None = None,
    *,
    datasets: str | Collection[str] | None = None,
    splits: str | Collection[str] | None = None,
    perturbations: str | Collection[str] | None = None,
    backbones: str | Collection[str] | None = None,
    prompts: str | Collection[str] | None = None,
    heads: str | Collection[str] | None = None,
    ensembles: str | Collection[str] | None = None,
) -> Axes: ...
def representation(
    store: FeatureStore | Path | str,
    *,
    datasets: str | Collection[str] | None = None,
    splits: str | Collection[str] | None = ("test",),
    perturbations: str | Collection[str] | None = ("clean",),
    backbones: str | Collection[str] | None = None,
    prompts: str | Collection[str] | None = None,
    samples: int = 2000,
    neighbours: int = 10,
    support: str | None = None,
    allow_overlap: bool = False,
    seed: int = 0,
) -> DataFrame: ...
def retrieval(
    store: FeatureStore | Path | str,
    *,
    datasets: str | Collection[str] | None = None,
    splits: str | Collection[str] | None = ("test",),
    perturbations: str | Collection[str] | None = ("clean",),
    backbones: str | Collection[str] | None = None,
    ensembles: str | Collection[str] = ("super-learner", "nlc"),
    support: str = "train",
    pairs: int = 500,
    bank: str = "train",
    seed: int = 0,
    allow_overlap: bool = False,
    details: bool = False,
) -> DataFrame: ...
def robustness(
    store: FeatureStore | Path | str,
    *,
    datasets: str | Collection[str] | None = None,
    splits: str | Collection[str] | None = ("test",),
    perturbations: str | Collection[str] | None = None,
    backbones: str | Collection[str] | None = None,
    prompts: str | Collection[str] | None = None,
    reference: str | None = None,
    results: str | PathLike[str] | None = None,
    head: str = "zero-shot",
    shots: int | Literal["full"] | None = None,
) -> DataFrame: ...
def search(
    store: FeatureStore | Path | str,
    *,
    text: str | None = None,
    like: str | None = None,
    image: str | PathLike[str] | None = None,
    dataset: str | None = None,
    split: str | None = None,
    backbones: str | Collection[str] | None = None,
    most: int = 10,
    images: str | PathLike[str] | None = None,
    output: str | PathLike[str] | None = None,
) -> pl.DataFrame: ...
def selection(
    store: FeatureStore | Path | str,
    *,
    datasets: str | Collection[str] | None = None,
    splits: str | Collection[str] | None = ("test",),
    perturbations: str | Collection[str] | None = None,
    backbones: str | Collection[str] | None = None,
    prompts: str | Collection[str] | None = None,
    reference: str = "openai-zeroshot",
) -> DataFrame: ...
def selective(
    store: FeatureStore | Path | str,
    *,
    datasets: str | Collection[str] | None = None,
    splits: str | Collection[str] | None = ("test",),
    perturbations: str | Collection[str] | None = ("clean",),
    backbones: str | Collection[str] | None = None,
    prompts: str | Collection[str] | None = None,
    support: str = "train",
    shots: int | Literal["full"] = "full",
    seed: int = 0,
    allow_overlap: bool = False,
    ensembles: str | Collection[str] = ("log-avg",),
    scores: str | Collection[str] = ("max-softmax", "margin", "entropy", "agreement"),
    accuracies: Collection[float] = (0.95,),
    ood: str | Collection[str] | None = None,
) -> DataFrame: ...
def write_report(
    store: FeatureStore | Path | str,
    *,
    datasets: str | Collection[str] | None = None,
    splits: str | Collection[str] | None = ("test",),
    perturbations: str | Collection[str] | None = None,
    backbones: str | Collection[str] | None = None,
    prompts: str | Collection[str] | None = None,
    output: str | PathLike[str],
    title: str | None = None,
    pooled: bool = False,
    results: str | PathLike[str] | None = None,
    measured: Mapping[str, str] = {},
    images: str | PathLike[str] | None = None,
) -> Path: ...
def zeroshot(
    store: FeatureStore | Path | str,
    *,
    datasets: str | Collection[str] | None = None,
    splits: str | Collection[str] | None = ("test",),
    perturbations: str | Collection[str] | None = None,
    backbones: str | Collection[str] | None = None,
    prompts: str | Collection[str] | None = None,
    pooled: bool = False,
    summary: bool = False,
) -> DataFrame: ...
