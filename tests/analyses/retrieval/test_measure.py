"""Retrieval of a store: its numbers from plain arrays, what is learned from which split, notes."""

import numpy as np
import polars as pl
import pytest

import clipsyn
from clipsyn.analyses.retrieval import DIRECTIONS, TRANSDUCTIVE
from clipsyn.errors import DatasetError, LeakError, MissingCell, UnknownName
from clipsyn.methods.ensembles.nlc import NLC
from clipsyn.methods.ensembles.weighted import SuperLearner
from clipsyn.methods.pool import Pool
from clipsyn.show.formats import text_of
from clipsyn.store.features import FeatureStore
from clipsyn.store.samples import SampleTable
from tests.results import DASH

SCALES = {"a/x": 100.0, "b/x": 40.0, "c/x": 60.0}
WIDTHS = {"a/x": 6, "b/x": 8, "c/x": 5}
HUBS = ("inverted-softmax", "qb-norm", "nnn", "csls")


def unit(values):
    return (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float16)


def counts_of(split, n):
    """Captions of each image: the second has none."""
    counts = 1 + np.arange(n) % 3
    counts[1] = 0
    return counts


def written(path, sizes, names=tuple(SCALES), **about):
    """A store of pictures, and its embeddings by split; about: of a perturbation, or what is bare.

    bare: backbones that embed no captions. The third image of a split cannot be read by b/x.
    """
    store, made = FeatureStore.create(path), {}
    for split, n in sizes.items():
        rng = np.random.default_rng(n)
        samples = SampleTable.of("pics", split, [f"{split}-{i}" for i in range(n)])
        counts = counts_of(split, n)
        texts = [[f"{i}, {j}" for j in range(count)] for i, count in enumerate(counts)]
        made[split] = {}
        for name in names:
            images = unit(rng.standard_normal((n, WIDTHS[name])))
            captions = images[np.repeat(np.arange(n), counts)]
            captions = unit(captions + 0.4 * rng.standard_normal(captions.shape))
            made[split][name] = images, captions
            with store.writer(samples, name) as cell:
                readable = np.arange(n) != (2 if name == "b/x" else -1)
                cell.embeddings(np.where(readable[:, None], images, np.nan), valid=readable)
                if name not in about.get("bare", ()):
                    cell.captions(texts, captions, SCALES[name])
    return store, made


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    path = tmp_path_factory.mktemp("pictures") / "store"
    return written(path, {"test": 30, "train": 24, "val": 9})


def searched(arrays, direction, n, split):
    """Scaled similarities (backbone, query, item), and which item belongs to which query."""
    image = np.repeat(np.arange(n), counts_of(split, n))
    images = np.flatnonzero(np.arange(n) != 2)  # that all can read
    texts = np.flatnonzero(image != 2)
    scaled = np.stack(
        [
            SCALES[name] * (of[1].astype(float) @ of[0].astype(float).T)[np.ix_(texts, images)]
            for name, of in arrays.items()
        ]
    )
    belongs = image[texts][:, None] == images
    if direction == "text-to-image":
        return scaled, belongs
    asked = belongs.any(axis=0)
    return scaled.transpose(0, 2, 1)[:, asked], belongs.T[asked]


def best(scores, belongs):
    """(query,) the place of the first item that belongs to each."""
    order = np.argsort(-scores, axis=1, kind="stable")
    return np.take_along_axis(belongs, order, axis=1).argmax(axis=1) + 1


def value(frame, metric, direction, **about):
    rows = frame.filter(metric=metric, direction=direction)
    if names := about.pop("names", None):
        rows = rows.filter(pl.col("backbones") == pl.Series([names], dtype=pl.List(pl.String)))
    (row,) = rows.filter(**about).iter_rows(named=True)
    return row


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_numbers_are_those_of_whole_matrices(pictures, direction):
    store, made = pictures
    scaled, belongs = searched(made["test"], direction, 30, "test")
    frame = clipsyn.retrieval(store, ensembles=["super-learner"])
    by_backbone = [best(scores, belongs) for scores in scaled]
    expected = {"mean": best(scaled.sum(axis=0), belongs), "oracle": np.min(by_backbone, axis=0)}
    for name, found in expected.items():
        for k in (1, 5, 10):
            row = value(frame, f"recall_at_{k}", direction, ensemble=name)
            assert row["value"] == pytest.approx((found <= k).mean())
            assert row["n"] == len(found)
    for name, found in zip(SCALES, by_backbone, strict=True):
        of = {"ensemble": "single", "names": [name]}
        assert value(frame, "recall_at_1", direction, **of)["value"] == (found == 1).mean()
        assert value(frame, "median_rank", direction, **of)["value"] == np.median(found)
        others = [it for it in by_backbone if it is not found]
        only = (found == 1) & (np.min(others, axis=0) > 1)
        assert value(frame, "unique_correct", direction, **of)["value"] == only.mean()
    missed = [it > 1 for it in by_backbone]
    both, either = missed[0] & missed[2], missed[0] | missed[2]
    pair = {"names": ["a/x", "c/x"]}
    assert value(frame, "double_fault", direction, **pair)["value"] == both.mean()
    assert value(frame, "failure_overlap", direction, **pair)["value"] == pytest.approx(
        both.sum() / either.sum()
    )
    assert value(frame, "none_correct", direction)["value"] == np.all(missed, axis=0).mean()


def test_gains_are_over_the_backbone_that_the_support_chooses_and_paired(pictures):
    """With all pairs: the class of a query is its item."""
    store, _ = pictures
    frame = clipsyn.retrieval(store)
    for direction in DIRECTIONS:
        recalls = {
            name: value(frame, "recall_at_1", direction, ensemble="single", names=[name])["value"]
            for name in SCALES
        }
        gained = {
            round(
                value(frame, "recall_at_1", direction, ensemble=name)["value"]
                - value(frame, "gain", direction, ensemble=name)["value"],
                9,
            )
            for name in ("mean", "rrf", "nlc", "qb-norm", "oracle")
        }
        assert len(gained) == 1
        assert gained <= {round(it, 9) for it in recalls.values()}
        row = value(frame, "gain", direction, ensemble="mean")
        assert row["ci_low"] < row["value"] < row["ci_high"]
        assert row["support"] == "train"


@pytest.mark.parametrize(
    ("name", "make"), [("super-learner", SuperLearner), ("nlc", NLC)], ids=["weights", "nlc"]
)
def test_weights_are_those_of_an_ensemble_on_pairs_of_the_support(tmp_path, name, make):
    """Every image of the support has one caption, so that the draw is known."""
    store, made = written(tmp_path / "one", {"test": 30, "train": 2})
    rng = np.random.default_rng(0)
    samples = SampleTable.of("pics", "val", [f"val-{i}" for i in range(20)])
    pairs = {}
    for backbone, width in WIDTHS.items():
        images = unit(rng.standard_normal((20, width)))
        texts = unit(images + 0.5 * rng.standard_normal(images.shape))
        pairs[backbone] = images, texts
        with store.writer(samples, backbone) as cell:
            cell.embeddings(images)
            cell.captions([str(i) for i in range(20)], texts, SCALES[backbone])
    frame = clipsyn.retrieval(store, support="val", bank="val", ensembles=[name])
    scaled, belongs = searched(made["test"], "text-to-image", 30, "test")
    logits = np.stack(
        [SCALES[it] * of[1].astype(float) @ of[0].astype(float).T for it, of in pairs.items()], 1
    )
    queries = [of[1] for of in pairs.values()]
    ensemble = make().fit(Pool.of(logits, np.arange(20), queries))
    image = np.repeat(np.arange(30), counts_of("test", 30))
    asked = [of[1][image != 2] for of in made["test"].values()]
    weights = ensemble.weights(Pool.of(np.zeros((len(belongs), 3, 20)), None, asked))
    found = best(np.einsum("qb,bqg->qg", weights, scaled), belongs)
    row = value(frame, "recall_at_5", "text-to-image", ensemble=name)
    assert row["value"] == pytest.approx((found <= 5).mean(), abs=1.5 / len(found))
    assert (row["support"], row["shots"]) == ("val", "500")


def test_what_tells_hubs_is_a_named_split_and_marked_where_it_is_the_measured_one(pictures):
    store, _ = pictures
    rows = clipsyn.retrieval(store, bank="val").filter(pl.col("ensemble").is_in(HUBS))
    assert set(rows["support"]) == {"val", "train"}  # of gains, which the support decides
    assert set(rows.filter(metric="recall_at_1")["support"]) == {"val"}
    marked = clipsyn.retrieval(store, bank="test")
    names = set(marked["ensemble"].drop_nulls())
    assert {f"{name}{TRANSDUCTIVE}" for name in HUBS} <= names
    assert not names & {*HUBS}


def test_intervals_are_over_images_whose_captions_go_together(tmp_path):
    """Five equal captions of an image say no more than one."""
    rng, found = np.random.default_rng(2), {}
    images = unit(rng.standard_normal((60, 8)))
    texts = unit(images + rng.standard_normal(images.shape))
    for count in (1, 5):
        store = FeatureStore.create(tmp_path / str(count))
        samples = SampleTable.of("pics", "test", [str(i) for i in range(60)])
        with store.writer(samples, "a/x") as cell:
            cell.embeddings(images)
            cell.captions([[f"{i}"] * count for i in range(60)], np.repeat(texts, count, 0), 100.0)
        found[count] = value(clipsyn.retrieval(store), "recall_at_5", DIRECTIONS[0])
    assert found[5]["n"] == 5 * found[1]["n"]
    assert found[5]["value"] == pytest.approx(found[1]["value"])
    ends = [[found[count][end] for end in ("ci_low", "ci_high")] for count in (1, 5)]
    assert ends[0] == pytest.approx(ends[1])


def test_without_captions_to_learn_from_gains_are_over_the_best_on_test(tmp_path, caplog):
    store, made = written(tmp_path / "store", {"test": 30})
    with caplog.at_level("INFO", "clipsyn"):
        frame = clipsyn.retrieval(store)
    assert "pics/train" in caplog.text
    assert not {"nlc", *HUBS} & set(frame["ensemble"].drop_nulls())
    assert "gain" not in set(frame["metric"])
    scaled, belongs = searched(made["test"], DIRECTIONS[0], 30, "test")
    most = max((best(scores, belongs) == 1).mean() for scores in scaled)
    lead = (best(scaled.sum(axis=0), belongs) == 1).mean() - most
    row = value(frame, "gain_over_best_on_test", DIRECTIONS[0], ensemble="mean")
    assert row["value"] == pytest.approx(lead)
    assert row["support"] is None


def test_a_backbone_without_captions_is_left_out_and_named(tmp_path, caplog):
    store, _ = written(tmp_path / "store", {"test": 12, "train": 12}, bare=["b/x"])
    with caplog.at_level("INFO", "clipsyn"):
        frame = clipsyn.retrieval(store)
    assert "b/x" in caplog.text
    assert set(frame["backbones"].explode()) == {"a/x", "c/x"}


def test_one_backbone_has_no_fusion_and_hubs_are_told_of_it(pictures):
    frame = clipsyn.retrieval(pictures[0], backbones="c/x")
    assert set(frame["ensemble"]) == {"single", *HUBS}
    assert set(frame["backbones"].explode()) == {"c/x"}


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"support": "test"}, LeakError),
        ({"ensembles": ["stacking"]}, UnknownName),
        ({"splits": "train"}, LeakError),
        ({"datasets": "bare"}, MissingCell),
        ({"support": "few"}, DatasetError),
    ],
    ids=str,
)
def test_what_cannot_be_asked(pictures, fakes, tmp_path, settings, error):
    store = fakes.copy(pictures[0], tmp_path / "store")
    written(store.path, {"few": 2})  # of its two images one has captions
    with store.writer(SampleTable.of("bare", "test", ["a", "b"]), "a/x") as cell:
        cell.embeddings(unit(np.eye(2, 6)))
    with pytest.raises(error):
        clipsyn.retrieval(store, **settings)


def test_images_that_one_backbone_cannot_read_are_nothing_to_search(tmp_path):
    store = FeatureStore.create(tmp_path / "store")
    with store.writer(SampleTable.of("pics", "test", ["a", "b"]), "a/x") as cell:
        cell.embeddings(unit(np.eye(2)), valid=[True, False])
        cell.captions([[], "a text"], [[1.0, 0.0]], 100.0)
    with pytest.raises(DatasetError):
        clipsyn.retrieval(store)


def test_a_store_without_captions_says_how_to_make_them(tiny_store):
    with pytest.raises(MissingCell, match="clipsyn extract"):
        clipsyn.retrieval(tiny_store)


def test_recalls_stand_beside_published_ones(pictures, tmp_path):
    store, _ = pictures
    clipsyn.retrieval(store).write_parquet(tmp_path / "found.parquet")
    frame = pl.read_parquet(tmp_path / "found.parquet")
    ours = value(frame, "recall_at_5", DIRECTIONS[0], ensemble="single", names=["a/x"])["value"]
    lines = ["dataset,backbone,accuracy,source,metric"]
    lines += [f"pics,a/x,{it},a paper,{DIRECTIONS[0]} recall_at_5" for it in (ours - 0.25,)]
    lines += [f"pics,b/x,0.5,a paper,{direction} recall_at_1" for direction in DIRECTIONS]
    (tmp_path / "theirs.csv").write_text("\n".join(lines))
    compared = clipsyn.compare(tmp_path / "found.parquet", reference=str(tmp_path / "theirs.csv"))
    assert len(compared) == 3
    row = compared.filter(backbone="a/x").row(0, named=True)
    assert row["difference"] == pytest.approx(0.25)
    assert row["beyond"]


def test_tables_have_a_line_for_each_method_of_a_direction(pictures, read_table):
    frame = clipsyn.retrieval(pictures[0], bank="test")
    asked = clipsyn.retrieval.settings(details=True)
    shown = {
        name: [text_of((table,), terminal=False) for table in of]
        for name, of in clipsyn.retrieval.tables(frame, asked).items()
    }
    assert set(clipsyn.retrieval.tables(frame, asked.replaced(details=False))) == {"retrieval"}
    for direction, text, failures in zip(DIRECTIONS, *shown.values(), strict=True):
        table = read_table(text)
        row = value(frame, "recall_at_1", direction, ensemble="mean")
        assert table.row("mean")["R@1"] == f"{100 * row['value']:.1f}"
        assert table.column("method")[:4] == ["a", "b", "c", "mean"]
        assert table.row(f"csls{TRANSDUCTIVE}")["alone"] == DASH
        assert table.row("oracle")["mAP"] == DASH
        both = value(frame, "double_fault", direction, names=["a/x", "c/x"])["value"]
        assert read_table(failures).row("a")["c"] == f"{100 * both:.1f}"
