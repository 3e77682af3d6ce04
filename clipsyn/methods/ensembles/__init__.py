"""Ensembles: what turns the logits of several backbones into one. See `ensembles.base`.

The group is where help and documentation list an ensemble. Static ones learn nothing, fitted ones
learn one rule for all images, those per image how far to trust each backbone for each of them.
Transductive ones see all unlabelled test images together, and are compared with no other.
"""

from __future__ import annotations

from clipsyn.registry import Registry

CHOSEN = "chosen"  # in place of a head and an ensemble: what the support chooses of the others
ORACLE = "oracle"  # right where any backbone is: a reference
BEST_SINGLE = "best-single"  # one backbone, the best on the support: what gains are over
PLAIN = "log-avg"  # the average of the logits: of one backbone these themselves
USUAL_ENSEMBLES = "super-learner", "log-avg", "nlc", "vote-1"  # the likeliest choice first
STATIC, FITTED, PER_IMAGE, TRANSDUCTIVE = "Static", "Fitted", "Per image", "Transductive"

ENSEMBLES = Registry(
    "ensemble",
    {
        BEST_SINGLE: ("clipsyn.methods.ensembles.base:BestSingle", FITTED),
        "vote-1": ("clipsyn.methods.ensembles.base:VoteTop1", STATIC),
        "vote-3": ("clipsyn.methods.ensembles.base:VoteTop3", STATIC),
        "conf": ("clipsyn.methods.ensembles.base:Confidence", STATIC),
        "log-avg": ("clipsyn.methods.ensembles.base:LogAverage", STATIC),
        "prob-avg": ("clipsyn.methods.ensembles.base:ProbabilityAverage", STATIC),
        "entropy-avg": ("clipsyn.methods.ensembles.trusted:EntropyAverage", STATIC),
        "zero": ("clipsyn.methods.ensembles.trusted:Zero", STATIC),
        "c-conf": ("clipsyn.methods.ensembles.weighted:CalibratedConfidence", FITTED),
        "c-log-avg": ("clipsyn.methods.ensembles.weighted:CalibratedLogAverage", FITTED),
        "super-learner": ("clipsyn.methods.ensembles.weighted:SuperLearner", FITTED),
        "gac": ("clipsyn.methods.ensembles.search:GeneticAlgorithm", FITTED),
        "greedy": ("clipsyn.methods.ensembles.search:GreedySelection", FITTED),
        "zs-en": ("clipsyn.methods.ensembles.trusted:ZeroShotEnsemble", FITTED),
        "tf-en": ("clipsyn.methods.ensembles.trusted:TunedEnsemble", FITTED),
        "precision-switch": ("clipsyn.methods.ensembles.trusted:PrecisionSwitch", FITTED),
        "mll": ("clipsyn.methods.ensembles.trusted:ModelLabels", FITTED),
        "cafo": ("clipsyn.methods.ensembles.caches:CacheFusion", FITTED),
        "stacking": ("clipsyn.methods.ensembles.weighted:Stacking", FITTED),
        "ola": ("clipsyn.methods.ensembles.dynamic:OverallLocalAccuracy", PER_IMAGE),
        "knora-u": ("clipsyn.methods.ensembles.dynamic:KnoraUnion", PER_IMAGE),
        "moe": ("clipsyn.methods.ensembles.mixtures:MixtureOfExperts", PER_IMAGE),
        "swig": ("clipsyn.methods.ensembles.mixtures:SampleAwareWeights", PER_IMAGE),
        "nlc": ("clipsyn.methods.ensembles.nlc:NLC", PER_IMAGE),
        "residual-router": ("clipsyn.methods.ensembles.residual:ResidualRouter", PER_IMAGE),
        "transclip": ("clipsyn.methods.ensembles.transductive:TransCLIP", TRANSDUCTIVE),
        "transclip-fs": ("clipsyn.methods.ensembles.transductive:TransCLIPFewShot", TRANSDUCTIVE),
        "zlap": ("clipsyn.methods.ensembles.transductive:ZLaP", TRANSDUCTIVE),
        "sota": ("clipsyn.methods.ensembles.transductive:SOTA", TRANSDUCTIVE),
    },
    groups=(STATIC, FITTED, PER_IMAGE, TRANSDUCTIVE),
)


def place_of(text: str) -> int:
    """Where an ensemble, ``NAME`` or ``NAME:parameter=value``, stands in the registry.

    After all others for one that is not ours.
    """
    names = [*ENSEMBLES]
    name = text.partition(":")[0]
    return names.index(name) if name in names else len(names)


def is_transductive(text: str) -> bool:
    """Whether an ensemble, ``NAME`` or ``NAME:parameter=value``, sees all test images together."""
    return text.partition(":")[0] in ENSEMBLES.groups[TRANSDUCTIVE]
