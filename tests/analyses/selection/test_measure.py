"""Choices without labels against plain loops over a store."""

import math
from itertools import combinations

import numpy as np
import polars as pl
import pytest

from clipsyn.analyses.selection import selection
from clipsyn.errors import UsageError

NAMES = ("RN50/openai", "fake/two", "fake/three")
SETS = {"toy": 90, "birds": 31}


@pytest.fixture(scope="module")
def make(fakes, tmp_path_factory):
    """Function (labelled, names) -> a store of two datasets, on which backbones guess."""

    class Guessing(fakes.Encoder):
        def encode_images(self, pixels):
            return self._drawn([int(image.sum()) for image in pixels]).astype(np.float16)

        def encode_text(self, texts):
            return self._drawn([sum(text.encode()) for text in texts])

        def _drawn(self, seeds):
            seeds = [[seed, len(self.backbone.name)] for seed in seeds]
            rows = [np.random.default_rng(seed).normal(size=self.embed_dim) for seed in seeds]
            return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)

    def filled(*, labelled=True, names=NAMES):
        sources = [fakes.Source(name, "test", count=count) for name, count in SETS.items()]
        if not labelled:
            sources[1].labels = np.full(SETS["birds"], -1)
        return fakes.fill(tmp_path_factory.mktemp("store"), [*map(Guessing, names)], sources)

    return filled


@pytest.fixture(scope="module")
def store(make):
    return make()


@pytest.fixture(scope="module")
def theirs(tmp_path_factory):
    rows = [("toy", name, 0.9) for name in NAMES]  # of the dataset itself: not to be used
    rows += [("cars", name, acc) for name, acc in zip(NAMES, (0.3, 0.2, 0.7), strict=True)]
    rows += [("pets", name, acc) for name, acc in zip(NAMES, (0.5, 0.6, 0.1), strict=True)]
    rows += [("dtd", NAMES[0], 1.0)]  # not of all backbones
    path = tmp_path_factory.mktemp("theirs") / "theirs.csv"
    lines = ["dataset,backbone,accuracy,source", *(f"{a},{b},{c},talk" for a, b, c in rows)]
    path.write_text("\n".join(lines))
    return path


def of(frame, by, metric):
    rows = frame.filter(metric=metric, by=by, dataset="toy").rows(named=True)
    return {",".join(row["backbones"]): row["value"] for row in rows}


def accuracies(store, dataset):
    pool = store.pool(dataset, "test")
    right = pool.logits.argmax(axis=2) == pool.labels[:, None]
    return dict(zip(pool.backbones, right.mean(axis=0).tolist(), strict=True))


def test_each_score_against_a_loop(store, theirs):
    frame = selection(store, reference=str(theirs))
    assert of(frame, "published", "score") == pytest.approx(dict.fromkeys(NAMES, 0.4))
    assert of(frame, "elsewhere", "score") == pytest.approx(accuracies(store, "birds"))
    pool = store.pool("toy", "test")
    shares = np.exp(pool.logits.astype(float))
    sure = (shares / shares.sum(axis=2, keepdims=True)).max(axis=2).mean(axis=0)
    found = of(frame, "confidence", "score")
    assert found == pytest.approx(dict(zip(pool.backbones, sure, strict=True)), rel=1e-5)
    for name, score in of(frame, "text", "score").items():
        texts = pool.class_embeddings[name].astype(float)
        nearest = [max(t @ u for j, u in enumerate(texts) if i != j) for i, t in enumerate(texts)]
        margin = sum(1 - it for it in nearest) / len(nearest)
        assert score == pytest.approx(pool.logit_scales[name] * margin, rel=1e-4)


@pytest.mark.parametrize("by", ["elsewhere", "confidence", "text"])
def test_how_well_a_score_ranks_and_what_its_choice_loses(store, by):
    frame = selection(store)
    scores, true = of(frame, by, "score"), accuracies(store, "toy")
    signs = [
        np.sign(scores[a] - scores[b]) * np.sign(true[a] - true[b])
        for a, b in combinations(scores, 2)
    ]
    assert len(set(true.values())) == 3  # no ties, which tau corrects for
    (tau,) = of(frame, by, "kendall_tau").values()
    assert tau == pytest.approx(sum(signs) / 3)
    chosen = max(scores, key=lambda name: scores[name])
    lost = of(frame, by, "gain_over_best_on_test")
    assert lost == {chosen: pytest.approx(true[chosen] - max(true.values()))}


def test_without_labels_there_are_scores_and_no_truth(make):
    frame = selection(make(labelled=False), datasets=["birds"])
    assert not frame.filter(metric="score", by="confidence")["value"].is_nan().any()
    for metric in ("kendall_tau", "gain_over_best_on_test"):
        values = frame.filter(metric=metric)["value"]
        assert len(values)
        assert values.is_nan().all()
    elsewhere = frame.filter(metric="score", by="elsewhere")["value"]
    assert elsewhere.is_nan().all()  # toy is not asked for


def test_what_is_not_known_has_no_rank(store):
    """OpenAI's table knows one of the three backbones."""
    frame = selection(store).filter(by="published")
    assert frame.filter(metric="score")["value"].is_nan().all()
    assert set(frame["metric"]) == {"score"}
    assert math.isnan(frame["value"][0])


def test_a_single_backbone_is_no_choice(make):
    with pytest.raises(UsageError):
        selection(make(names=NAMES[:1]))


def test_the_tables_have_a_line_for_each_score_and_means(store):
    from clipsyn.analyses.selection import SelectionSettings

    frame = selection(store)
    shown = selection.tables(frame, SelectionSettings())
    assert [*shown] == ["means", "choices"]
    (means,), (choices,) = shown.values()
    assert [cell.text for cell in means.columns[0].cells] == ["elsewhere", "confidence", "text"]
    assert len(choices.columns[0].cells) == 6
    taus = frame.filter(metric="kendall_tau").group_by("by", maintain_order=True)
    means_by = taus.agg(pl.col("value").mean())["value"].to_list()
    tau = next(column for column in means.columns if column.name == "tau")
    assert [float(cell.text) for cell in tau.cells] == pytest.approx(means_by, abs=0.006)
