"""The same answers by plain numpy, torch and scikit-learn, from `.npy` files.

    python benchmarks/plain.py ANSWER FOLDER

FOLDER has `labels.npy` and, for each backbone, `logits-0.npy` and `embeddings-0.npy` of the test
split, and the same of the train split behind `train-`; `paper_scale.py` writes them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

RESAMPLES = 1_000
PROBED = 200  # classes of the linear probe that scikit-learn fits, one backbone
PENALTY = 0.1


def arrays(folder: Path, name: str) -> Iterator[NDArray[Any]]:
    """One array after the other, of backbone 0, 1, …"""
    for number in range(len(list(folder.glob(f"{name}-[0-9].npy")))):
        yield np.load(folder / f"{name}-{number}.npy")


def predicted(folder: Path) -> NDArray[np.intp]:
    """(backbone, sample), from files that hold predictions alone."""
    return np.load(folder / "predictions.npy")  # type: ignore[no-any-return]


def zeroshot(folder: Path) -> Any:
    """Accuracy with its interval, top-5 and mean per class of each backbone."""
    labels, rng, rows = np.load(folder / "labels.npy"), np.random.default_rng(0), []
    for logits in arrays(folder, "logits"):
        right = logits.argmax(axis=1) == labels
        true = np.take_along_axis(logits, labels[:, None].astype(int), axis=1)
        accuracy = right.mean()
        drawn = rng.binomial(len(labels), accuracy, RESAMPLES) / len(labels)
        per_class = np.bincount(labels, right) / np.bincount(labels)
        low, high = np.quantile(drawn, [0.025, 0.975])
        top5 = ((logits > true).sum(axis=1) < 5).mean()
        rows.append([accuracy, low, high, top5, per_class.mean()])
    return np.array(rows).round(4).tolist()


def oracle(folder: Path) -> Any:
    """Accuracy of the oracle of every subset of backbones."""
    right = predicted(folder) == np.load(folder / "labels.npy")
    subsets = [s for size in range(1, len(right) + 1) for s in combinations(right, size)]
    return [float(np.any(subset, axis=0).mean()) for subset in subsets][-1]


def diversity(folder: Path) -> Any:
    """Kappa of the errors of every pair of backbones."""
    right = predicted(folder) == np.load(folder / "labels.npy")
    rows = []
    for one, other in combinations(right, 2):
        chance = one.mean() * other.mean() + (1 - one.mean()) * (1 - other.mean())
        rows.append(float(((one == other).mean() - chance) / (1 - chance)))
    return np.round(rows, 4).tolist()


def predict(folder: Path) -> Any:
    """A network's weights for every image, with random parameters, and the class of their sum."""
    features = np.concatenate(list(arrays(folder, "embeddings")), axis=1)
    logits = list(arrays(folder, "logits"))
    rng = np.random.default_rng(0)
    first = rng.standard_normal((features.shape[1], 128), np.float32)
    last = rng.standard_normal((128, len(logits)), np.float32)
    classes = []
    for start in range(0, len(features), 1024):
        rows = slice(start, start + 1024)
        weights = np.maximum(features[rows].astype(np.float32) @ first, 0) @ last
        scores = sum(weights[:, [b]] * one[rows] for b, one in enumerate(logits))
        shares = np.exp(scores - scores.max(axis=1, keepdims=True))
        shares /= shares.sum(axis=1, keepdims=True)
        classes.append(np.column_stack([shares.argmax(axis=1), shares.max(axis=1)]))
    return float(np.concatenate(classes)[:, 1].mean())


def probe(folder: Path) -> Any:
    """scikit-learn's logistic regression on the embeddings of one backbone, some classes."""
    from sklearn.linear_model import LogisticRegression

    labels = np.load(folder / "train-labels.npy")
    kept = labels < PROBED
    features = np.load(folder / "train-embeddings-0.npy")[kept].astype(np.float32)
    model = LogisticRegression(C=1 / PENALTY, max_iter=1000, tol=1e-3)
    return float(model.fit(features, labels[kept]).score(features, labels[kept]))


def our_probe(folder: Path) -> Any:
    """The same fit by ours."""
    from clipsyn.methods.numerics.optimise import fit_probe

    labels = np.load(folder / "train-labels.npy")
    kept = labels < PROBED
    features = np.load(folder / "train-embeddings-0.npy")[kept].astype(np.float32)
    fitted = fit_probe(features, labels[kept], PENALTY, 1e-7)
    scores = features @ fitted.coef.T + fitted.intercept
    return float((scores.argmax(axis=1) == labels[kept]).mean())


def nlc(folder: Path) -> Any:
    """A torch loop for NLC: a batch is a gather of rows, 600 steps of 512, no early stop."""
    import torch

    features = np.concatenate(list(arrays(folder, "train-embeddings")), axis=1)
    x = torch.from_numpy(features.astype(np.float32))
    z = torch.from_numpy(np.stack(list(arrays(folder, "train-logits")), axis=1))
    y = torch.from_numpy(np.load(folder / "train-labels.npy").astype(int))
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Linear(x.shape[1], 128),
        torch.nn.ReLU(),
        torch.nn.Linear(128, z.shape[1]),
        torch.nn.Softplus(),
    )
    optimiser = torch.optim.Adam(model.parameters(), lr=2e-4, weight_decay=0.01)
    for _ in range(STEPS):
        rows = torch.randint(len(x), (512,))
        scores = (model(x[rows])[:, None] @ z[rows])[:, 0] / z.shape[1]
        loss = torch.nn.functional.cross_entropy(scores, y[rows])
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    return float(loss)


STEPS = 600
ANSWERS: dict[str, Callable[[Path], Any]] = {
    "zeroshot": zeroshot,
    "oracle": oracle,
    "diversity": diversity,
    "predict": predict,
    "nlc": nlc,
    "probe": probe,
    "our-probe": our_probe,
}


@click.command()
@click.argument("answer", type=click.Choice(list(ANSWERS)))
@click.argument("folder", type=click.Path(path_type=Path, exists=True))
def main(answer: str, folder: Path) -> None:
    """Compute one answer."""
    click.echo(json.dumps(ANSWERS[answer](folder)))


if __name__ == "__main__":
    main()
