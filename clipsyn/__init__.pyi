"""What `clipsyn/__init__.py` imports on first use, for type checkers."""

from clipsyn.analyses.accuracy import zeroshot as zeroshot
from clipsyn.analyses.cascade import cascade as cascade
from clipsyn.analyses.diversity import diversity as diversity
from clipsyn.analyses.oracle import oracle as oracle
from clipsyn.analyses.representation import representation as representation
from clipsyn.analyses.robustness import robustness as robustness
from clipsyn.analyses.selective import selective as selective
from clipsyn.ensembles.calibrated import CalibratedConfidence as CalibratedConfidence
from clipsyn.ensembles.calibrated import CalibratedLogAverage as CalibratedLogAverage
from clipsyn.ensembles.dynamic import KnoraUnion as KnoraUnion
from clipsyn.ensembles.dynamic import OverallLocalAccuracy as OverallLocalAccuracy
from clipsyn.ensembles.genetic import GeneticAlgorithm as GeneticAlgorithm
from clipsyn.ensembles.greedy import GreedySelection as GreedySelection
from clipsyn.ensembles.moe import MixtureOfExperts as MixtureOfExperts
from clipsyn.ensembles.nlc import NLC as NLC
from clipsyn.ensembles.residual import ResidualRouter as ResidualRouter
from clipsyn.ensembles.stacking import Stacking as Stacking
from clipsyn.ensembles.static import BestSingle as BestSingle
from clipsyn.ensembles.static import Confidence as Confidence
from clipsyn.ensembles.static import LogAverage as LogAverage
from clipsyn.ensembles.static import ProbabilityAverage as ProbabilityAverage
from clipsyn.ensembles.static import VoteTop1 as VoteTop1
from clipsyn.ensembles.static import VoteTop3 as VoteTop3
from clipsyn.ensembles.super_learner import SuperLearner as SuperLearner
from clipsyn.heads.anchored import AnchoredProbe as AnchoredProbe
from clipsyn.heads.lda import ShrinkageLDA as ShrinkageLDA
from clipsyn.heads.linear import LinearProbe as LinearProbe
from clipsyn.heads.tip import TipAdapter as TipAdapter
from clipsyn.heads.tip import TipAdapterF as TipAdapterF
from clipsyn.heads.zero_shot import ZeroShot as ZeroShot
from clipsyn.numerics.fewshot import few_shot as few_shot
from clipsyn.paired import compare_methods as compare_methods
from clipsyn.pool import Pool as Pool
from clipsyn.protocol.loop import evaluate as evaluate
from clipsyn.published.measure import compare as compare
from clipsyn.report.page import write_report as write_report
from clipsyn.report.plot import plot as plot
from clipsyn.router.artefact import load_router as load_router
from clipsyn.router.artefact import save_router as save_router
from clipsyn.router.fit import fit_router as fit_router
from clipsyn.router.fitted import FittedRouter as FittedRouter
from clipsyn.router.predict import predict_store as predict_store
from clipsyn.store.features import FeatureStore as FeatureStore
from clipsyn.store.samples import SampleTable as SampleTable

__version__: str
