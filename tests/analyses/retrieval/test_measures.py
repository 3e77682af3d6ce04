"""Ranks, fusions and corrections of hubs, against plain loops; recall against CLIP_benchmark."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from clipsyn.analyses.retrieval import measures

SCALES = (100.0, 50.0)


def unit(rng, rows, width):
    values = rng.standard_normal((rows, width))
    return (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(name="search", params=["text-to-image", "image-to-text"])
def _search(request):
    """30 images with 1 to 4 texts each; the last two texts are equal in both backbones."""
    rng = np.random.default_rng(3)
    image = np.repeat(np.arange(30), rng.integers(1, 5, 30))
    images = [unit(rng, 30, width) for width in (6, 9)]
    texts = [unit(rng, len(image), of.shape[1]) + 0.5 * of[image] for of in images]
    texts = [of / np.linalg.norm(of, axis=1, keepdims=True) for of in texts]
    for of in texts:
        of[-1] = of[-2]
    if request.param == "text-to-image":
        return measures.Search(texts, images, SCALES, np.arange(len(image)), image)
    return measures.Search(images, texts, SCALES, image, np.arange(len(image)))


@pytest.fixture(name="cosines")
def _cosines(search):
    """(query, backbone, item) times the share of the scale, one by one."""
    out = np.empty(search.shape)
    for q, b, g in np.ndindex(*search.shape):
        shared = search.scales[b] / sum(search.scales)
        out[q, b, g] = shared * sum(search.queries[b][q].astype(float) * search.gallery[b][g])
    return out


def order(scores):
    return sorted(range(len(scores)), key=lambda item: (-round(float(scores[item]), 6), item))


def expected(search, scores):
    """The place of each item that is to be found: scores (query, item)."""
    return [order(scores[q]).index(g) + 1 for q, g in zip(search.query, search.item, strict=True)]


def fused(cosines, points):
    """As mteb's functions have it: sums over lists, nothing for what is in no list."""
    out = np.zeros((len(cosines), cosines.shape[2]))
    for q, of_backbones in enumerate(cosines):
        for values in of_backbones:
            listed = order(values)[: measures.LISTED]
            for item, given in zip(listed, points(values[listed]), strict=True):
                out[q, item] += given
    return out


POINTS: dict[str, Any] = {
    "rrf": lambda values: [1 / (60 + place) for place in range(1, len(values) + 1)],
    "dbsf": lambda values: np.clip(
        (values - (values.mean() - 3 * values.std())) / (6 * values.std()), 0, 1
    ),
    "rsf": lambda values: (values - values.min()) / (values.max() - values.min()),
}


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    """Several blocks, lists that leave items out, and fewer neighbours than queries of a bank."""
    for name, value in {"_BLOCK": 900, "LISTED": 7, "NNN_NEAREST": 5, "CSLS_NEAREST": 3}.items():
        monkeypatch.setattr(measures, name, value)


def test_places_are_those_of_a_sorted_list_and_an_earlier_item_wins(search, cosines):
    found = measures.ranks(search, [measures.alone(0), measures.alone(1), measures.FUSIONS["mean"]])
    for of, scores in zip(found, (cosines[:, 0], cosines[:, 1], cosines.sum(axis=1)), strict=True):
        assert of.tolist() == expected(search, scores)
    assert len(search.blocks()) > 1


@pytest.mark.parametrize("name", POINTS)
def test_fusions_are_those_of_mteb(search, cosines, name):
    scores = measures.FUSIONS[name](
        measures.Block(slice(0, len(cosines)), cosines.astype(np.float32))
    )
    np.testing.assert_allclose(scores, fused(cosines, POINTS[name]), atol=2e-5)


@pytest.mark.parametrize("name", ["dbsf", "rsf"])
def test_a_list_of_equal_similarities_gives_a_half_to_each(name):
    block = measures.Block(slice(0, 1), np.full((1, 2, 4), 0.25, np.float32))
    assert measures.FUSIONS[name](block).tolist() == [[1.0] * 4]


def test_weights_of_each_query_are_those_of_a_sum(search, cosines):
    weights = np.random.default_rng(0).random((len(cosines), 2), np.float32)
    found = measures.ranks(search, [measures.weighted(weights)])[0]
    assert found.tolist() == expected(search, np.einsum("qb,qbg->qg", weights, cosines))


def test_what_is_done_about_hubs_is_its_formula(search, cosines):
    """Of the same queries as a bank, over the whole array."""
    scores = cosines.sum(axis=1)
    largest = np.sort(scores, axis=0)[::-1]
    softmax = np.exp(20 * scores) / np.exp(20 * scores).sum(axis=0)
    hubs = {order(row)[0] for row in scores}
    is_hub = [order(row)[0] in hubs for row in scores]
    by_name = {
        "inverted-softmax": softmax,
        "qb-norm": np.where(np.array(is_hub)[:, None], softmax, scores),
        "nnn": scores - 0.75 * largest[:5].mean(axis=0),
        "csls": 2 * scores - largest[:3].mean(axis=0),
    }
    found = measures.ranks(search, [*measures.Bank.of(search, search.queries).scorers.values()])
    for places, (name, of) in zip(found, by_name.items(), strict=True):
        assert places.tolist() == expected(search, 1e3 * of), name


def test_qb_norm_leaves_a_query_whose_first_item_is_no_hub():
    """The bank is at item 0: by cosines 1, 0.6 and 0 to the items. Biases are these but for one."""
    items = np.array([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]], np.float32)
    queries = np.array([[0.8, 0.6], [0.96, 0.28]], np.float32)  # cosines .8 .96 .6, and .96 .8 .28
    asked = measures.Search([queries], [items], [1.0], np.arange(2), np.array([1, 2]))
    bank = measures.Bank.of(asked, [items[:1]])
    assert bank.hubs.tolist() == [True, False, False]
    raw, normed, softmax = measures.ranks(
        asked, [measures.alone(0), bank.qb_norm, bank.scorers["inverted-softmax"]]
    )
    assert raw.tolist() == [1, 3]
    assert normed.tolist() == [1, 1]
    assert softmax.tolist() == [2, 1]


def test_average_precision_is_scikit_learns(search, cosines):
    from sklearn.metrics import average_precision_score

    places = measures.ranks(search, [measures.FUSIONS["mean"]])[0]
    scores, total = cosines.sum(axis=1), np.arange(search.shape[2])
    for q, found in enumerate(measures.average_precision(search, places)):
        wanted = np.isin(total, search.item[search.query == q])
        by_place = np.empty(len(total))
        by_place[order(scores[q])] = -total  # equal scores one after the other
        assert found == pytest.approx(average_precision_score(wanted, by_place))


def test_recall_is_that_of_clip_benchmark():
    """Their metric, on encoders that hand the same embeddings through; in both directions."""
    torch = pytest.importorskip("torch")
    theirs = pytest.importorskip("clip_benchmark.metrics.zeroshot_retrieval")
    rng = np.random.default_rng(5)
    counts = rng.integers(1, 6, 60)
    image, images = np.repeat(np.arange(60), counts), unit(rng, 60, 12)
    texts = unit(rng, len(image), 12) + 0.4 * images[image]
    texts /= np.linalg.norm(texts, axis=1, keepdims=True)
    model = SimpleNamespace(
        encode_image=lambda rows: torch.from_numpy(images)[rows],
        encode_text=lambda rows: torch.from_numpy(texts)[rows],
    )
    captions = np.split(np.arange(len(image)), np.cumsum(counts)[:-1])
    batches = [
        (torch.arange(start, start + 20), [captions[i].tolist() for i in range(start, start + 20)])
        for start in range(0, 60, 20)
    ]
    found = theirs.evaluate(
        model, batches, torch.tensor, "cpu", amp=False, recall_k_list=[1, 5, 10]
    )
    pairs = np.arange(len(image))
    for name, search in {
        "image": measures.Search([texts], [images], [1.0], pairs, image),
        "text": measures.Search([images], [texts], [1.0], image, pairs),
    }.items():
        best = measures.best_ranks(search, measures.ranks(search, [measures.alone(0)])[0])
        for k in (1, 5, 10):
            assert (best <= k).mean() == pytest.approx(found[f"{name}_retrieval_recall@{k}"])
