"""What `clipsyn/__init__.py` imports on first use, for type checkers."""

from clipsyn.analyses.accuracy import zeroshot as zeroshot
from clipsyn.analyses.cascade import cascade as cascade
from clipsyn.analyses.diversity import diversity as diversity
from clipsyn.analyses.oracle import oracle as oracle
from clipsyn.analyses.representation import representation as representation
from clipsyn.analyses.robustness import robustness as robustness
from clipsyn.analyses.selective import selective as selective
from clipsyn.evaluation.loop import evaluate as evaluate
from clipsyn.evaluation.paired import compare_methods as compare_methods
from clipsyn.evaluation.published.measure import compare as compare
from clipsyn.methods.ensembles.calibrated import CalibratedConfidence as CalibratedConfidence
from clipsyn.methods.ensembles.calibrated import CalibratedLogAverage as CalibratedLogAverage
from clipsyn.methods.ensembles.dynamic import KnoraUnion as KnoraUnion
from clipsyn.methods.ensembles.dynamic import OverallLocalAccuracy as OverallLocalAccuracy
from clipsyn.methods.ensembles.genetic import GeneticAlgorithm as GeneticAlgorithm
from clipsyn.methods.ensembles.greedy import GreedySelection as GreedySelection
from clipsyn.methods.ensembles.moe import MixtureOfExperts as MixtureOfExperts
from clipsyn.methods.ensembles.nlc import NLC as NLC
from clipsyn.methods.ensembles.residual import ResidualRouter as ResidualRouter
from clipsyn.methods.ensembles.stacking import Stacking as Stacking
from clipsyn.methods.ensembles.static import BestSingle as BestSingle
from clipsyn.methods.ensembles.static import Confidence as Confidence
from clipsyn.methods.ensembles.static import LogAverage as LogAverage
from clipsyn.methods.ensembles.static import ProbabilityAverage as ProbabilityAverage
from clipsyn.methods.ensembles.static import VoteTop1 as VoteTop1
from clipsyn.methods.ensembles.static import VoteTop3 as VoteTop3
from clipsyn.methods.ensembles.super_learner import SuperLearner as SuperLearner
from clipsyn.methods.heads.anchored import AnchoredProbe as AnchoredProbe
from clipsyn.methods.heads.lda import ShrinkageLDA as ShrinkageLDA
from clipsyn.methods.heads.linear import LinearProbe as LinearProbe
from clipsyn.methods.heads.tip import TipAdapter as TipAdapter
from clipsyn.methods.heads.tip import TipAdapterF as TipAdapterF
from clipsyn.methods.heads.zero_shot import ZeroShot as ZeroShot
from clipsyn.methods.numerics.fewshot import few_shot as few_shot
from clipsyn.methods.pool import Pool as Pool
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
