from itertools import combinations

from clipsyn.analyses.representation import RepresentationSettings
from clipsyn.analyses.representation.view import tables
from tests.results import DASH, cells, texts, tidy
from tests.results import row as made

NAMES = ("tiny-RN/zoo", "tiny-ViT-16/zoo", "tiny-ViT-8/zoo")
CKA = (0.5, 0.25, 0.75)  # of the pairs in order
NAN = float("nan")
UNKNOWN = {"value": NAN, "ci_low": NAN, "ci_high": NAN}
VALUES = {
    "acc1": 0.4,
    "confidence_right": 0.7,
    "confidence_wrong": 0.5,
    "nll": 1.5,
    "ece": 0.2,
    "ece_floor": 0.05,
    "logit_scale": 15.0,
    "temperature": 1.25,
    "nll_calibrated": 1.4,
    "ece_calibrated": 0.1,
    "ece_calibrated_floor": 0.04,
}


def row(metric, value, backbones, **where):
    return made(metric, value, backbones, **{"prompts": None} | where)


def pairs(names=NAMES, cka=CKA, **where):
    """Procrustes is 1 - CKA, and neighbours half of it."""
    return [
        row(metric, value, pair, **where)
        for pair, alike in zip(combinations(names, 2), cka, strict=True)
        for metric, value in (("cka", alike), ("procrustes", 1 - alike), ("mutual_knn", alike / 2))
    ]


def logits(names=NAMES, *, without=(), **where):
    """Each backbone a tenth better than the one before."""
    where = {"prompts": "own", "n": 35} | where
    return [
        row(metric, value + number / 10 * (metric == "acc1"), [name], **where)
        for number, name in enumerate(names)
        for metric, value in VALUES.items()
        if metric not in without
    ]


def shown(*rows):
    return texts(tables(tidy(*rows), RepresentationSettings()))


def test_one_dataset_has_a_matrix_its_pairs_and_its_logits():
    said = shown(*pairs(), *logits())
    assert list(said) == ["similarity", "pairs", "logits"]
    title = "birds/test · clean · n 40 · backbones tiny-*/zoo\n"
    assert said["similarity"].startswith(title)
    assert said["pairs"].startswith(title)
    assert said["logits"].startswith(
        "birds/test · clean · prompts own · n 35 · backbones tiny-*/zoo\n"
    )


def test_the_matrix_has_cka_above_and_neighbours_below_the_diagonal(read_table):
    matrix = read_table(shown(*pairs())["similarity"])
    assert matrix.row("RN")["ViT-16"] == "0.50"
    assert matrix.row("RN")["ViT-8"] == "0.25"
    assert (
        matrix.row("ViT-16")
        == cells("""
    backbone | RN   | ViT-16 | ViT-8
    ViT-16   | 25.0 |        | 0.75
    """)[0]
    )
    assert matrix.row("ViT-8")["RN"] == "12.5"
    assert matrix.row("ViT-8")["ViT-16"] == "37.5"


def test_pairs_have_intervals_the_most_alike_first(read_table):
    table = read_table(shown(*pairs())["pairs"])
    assert table.column("backbone") == ["ViT-16", "RN", "RN"]
    assert table.column("and") == ["ViT-8", "ViT-16", "ViT-8"]
    assert table.column("CKA") == ["0.75", "0.50", "0.25"]
    assert (
        table.row("ViT-16", "ViT-8")
        == cells(f"""
    backbone | and   | CKA  | 95 % of CKA  | Procrustes | 95 % of Procrustes | neighbours
    ViT-16   | ViT-8 | 0.75 | 0.74 to 0.77 | 0.25       | 0.24 to 0.27       | 37.5

    95 % of neighbours
    36.5{DASH}39.5
    """)[0]
    )


def test_a_line_a_backbone(read_table):
    text = shown(*logits())["logits"]
    assert (
        read_table(text).row("ViT-16")
        == cells(f"""
    backbone | top-1 | 95 % of top-1  | scale | sure: right | sure: wrong | NLL | NLL after | ECE
    ViT-16   | 50.0  | 49.0{DASH}52.0 | 15    | 70.0        | 50.0        | 1.5 | 1.4       | 20.0

    95 % of ECE | by chance | ECE after | 95 % of ECE after | by chance of 95 % of ECE after | T
    19.0{DASH}22.0 | 5.0 | 10.0 | 9.0{DASH}12.0 | 4.0 | 1.25
    """)[0]
    )


def test_several_groups_have_a_mean_matrix(read_table):
    other = pairs(dataset="flags", cka=(0.7, 0.45, 0.35), n=20)
    said = shown(*pairs(), *other)
    assert list(said) == ["similarity, test, clean"]
    matrix = said["similarity, test, clean"]
    assert matrix.startswith("test · clean · mean over 2 datasets · backbones tiny-*/zoo\n")
    assert (
        read_table(matrix).row("RN")
        == cells("""
    backbone | RN | ViT-16 | ViT-8
    RN       |    | 0.60   | 0.35
    """)[0]
    )


def test_a_pair_that_a_dataset_lacks_is_said():
    everywhere = shown(*pairs(), *pairs(dataset="flags"))["similarity, test, clean"]
    assert "lack" not in everywhere
    fewer = shown(*pairs(), *pairs(NAMES[:2], (0.7,), dataset="flags"))["similarity, test, clean"]
    assert "A pair that some datasets lack: mean over the others." in fewer


def test_logits_are_means_over_datasets(read_table):
    rows = [
        r | ({"value": temperature} if r["metric"] == "temperature" else {})
        for dataset, temperature in (("birds", 1.0), ("flags", 1.25), ("food", 2.25))
        for r in logits(dataset=dataset)
    ]
    text = shown(*rows)["logits"]
    assert text.startswith("test · clean · prompts own · mean over 3 datasets · backbones")
    assert (
        read_table(text).row("ViT-16")
        == cells("""
    backbone | top-1 | scale | sure: right | sure: wrong | NLL | NLL after | ECE  | by chance
    ViT-16   | 50.0  | 15    | 70.0        | 50.0        | 1.5 | 1.4       | 20.0 | 5.0

    ECE after | by chance of ECE after | T
    10.0      | 4.0                    | 1.5
    """)[0]
    )
    assert "Only" not in text


def test_numbers_that_are_unknown_are_dashes_or_left_out(read_table):
    few = [r | UNKNOWN for r in pairs()]
    said = shown(*few, *[r | UNKNOWN for r in logits()])
    first = read_table(said["similarity"]).row("RN")
    assert (first["ViT-16"], first["ViT-8"]) == (DASH, DASH)
    line = read_table(said["pairs"]).row("RN", "ViT-16")
    assert list(line.values())[2:] == [DASH] * 6
    assert read_table(said["logits"]).row("RN") == {"backbone": "RN"}
    both = shown(*few, *pairs(dataset="flags"))
    matrix = read_table(both["similarity, test, clean"])
    assert matrix.row("RN")["ViT-16"] == "0.50"
