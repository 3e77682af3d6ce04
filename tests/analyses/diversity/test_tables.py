from itertools import combinations

from clipsyn.analyses.diversity import DiversitySettings
from clipsyn.analyses.diversity.view import tables
from tests.results import DASH, cells, texts, tidy
from tests.results import row as made

NAMES = ("tiny-RN/zoo", "tiny-ViT-16/zoo", "tiny-ViT-8/zoo")
NAN = float("nan")
OF_PAIRS = ("error_inconsistency", "disagreement", "double_fault", "yules_q", "error_consistency")
MEASURES = (*OF_PAIRS, "fleiss_kappa", "vote_entropy")


def row(metric, value, backbones=NAMES, **where):
    return made(metric, value, backbones, off=(0.125, 0.25), **where)


def group(names=NAMES, *, kappa=0.5, p=0.02, **where):
    """What `diversity` makes of some backbones: pairs differ more and more."""
    rows = []
    for number, pair in enumerate(combinations(names, 2)):
        values = (0.2 + number / 10, 0.4, 0.3, 0.8, kappa - number / 10)
        for metric, value in zip(OF_PAIRS, values, strict=True):
            rows.append(row(metric, value, pair, **where))
        rows.append(row("mcnemar_p_holm", p, pair, **where))
    for number, metric in enumerate(MEASURES):
        name = f"mean_{metric}" if metric in OF_PAIRS else metric
        rows.append(row(name, 0.25 + number / 20, names, **where))
    for number, name in enumerate(names):
        rows.append(row("unique_correct", 0.05 * number, [name], **where))
        rows.append(row("unique_correct_floor", 0.03 + 0.01 * number, [name], **where))
    return rows


def correlations(*, ensemble="log-avg", value=0.5, **where):
    where = {"dataset": None, "ensemble": ensemble, "n": 17} | where
    return [
        row(f"{kind}_{metric}", value - number / 4, **where)
        for kind in ("pearson", "spearman")
        for number, metric in enumerate(MEASURES)
    ]


def shown(*rows):
    return texts(tables(tidy(*rows), DiversitySettings()))


def test_one_group_has_means_and_pairs(read_table):
    said = shown(*group())
    assert list(said) == ["means", "pairs"]
    assert said["means"].startswith("diversity of the backbones · test · clean · prompts own\n")
    assert read_table(said["means"]).rows == cells(f"""
    dataset | n  | incons. | 95 % of incons. | disagree | double fault | Q    | kappa | Fleiss
    birds   | 40 | 25.0    | 12.5{DASH}50.0  | 30.0     | 35.0         | 0.40 | 0.45  | 0.50

    entropy
    0.55
    """)
    title = "birds/test · clean · prompts own · n 40 · backbones tiny-*/zoo"
    assert said["pairs"].split("\n")[0] == title


def test_pairs_that_differ_most_come_first(read_table):
    table = read_table(shown(*group())["pairs"])
    assert table.column("backbone") == ["ViT-16", "RN", "RN"]
    assert table.column("and") == ["ViT-8", "ViT-8", "ViT-16"]
    assert table.column("incons.") == ["40.0", "30.0", "20.0"]
    assert (
        table.row("ViT-16", "ViT-8")
        == cells(f"""
    backbone | and   | incons. | 95 % of incons. | disagree | double fault | Q    | kappa
    ViT-16   | ViT-8 | 40.0    | 27.5{DASH}65.0  | 40.0     | 30.0         | 0.80 | 0.30

    95 % of kappa | p
    0.17 to 0.55  | 0.020
    """)[0]
    )


def test_several_groups_have_a_line_each_and_matrices(read_table):
    said = shown(*group(), *group(dataset="cars", kappa=0.7))
    assert list(said) == ["means", "pairs, test, clean, own"]
    assert read_table(said["means"]).row("cars")["n"] == "40"
    matrix = said["pairs, test, clean, own"]
    title = "test · clean · prompts own · backbones tiny-*/zoo · mean over 2 datasets\n"
    assert matrix.startswith(title)
    assert read_table(matrix).rows == [
        {"backbone": "RN", "RN": "0.0", "ViT-16": "0.60", "ViT-8": "0.50"},  # kappa on the right
        {"backbone": "ViT-16", "RN": "20.0", "ViT-16": "5.0", "ViT-8": "0.40"},
        {"backbone": "ViT-8", "RN": "30.0", "ViT-16": "40.0", "ViT-8": "10.0"},
    ]


def test_0_over_0_is_a_dash(read_table):
    unknown = {"value": NAN, "ci_low": NAN, "ci_high": NAN}
    kappas = ("yules_q", "error_consistency", "fleiss_kappa")
    rows = [r | (unknown if r["metric"].endswith(kappas) else {}) for r in group()]
    said = shown(*rows)
    means = read_table(said["means"]).row("birds")
    assert [means[name] for name in ("Q", "kappa", "Fleiss", "entropy")] == [*[DASH] * 3, "0.55"]
    first = read_table(said["pairs"]).rows[0]
    assert [first[name] for name in ("Q", "kappa", "95 % of kappa")] == [DASH] * 3
    assert (first["incons."], first["p"]) == ("40.0", "0.020")


def test_correlations_have_a_line_an_ensemble_in_order(read_table):
    rows = [
        *correlations(ensemble="nlc", shots="16"),
        *correlations(ensemble="oracle", value=0.125),
    ]
    said = shown(*group(), *rows)
    assert list(said) == ["means", "pairs", "pearson", "spearman"]
    assert said["pearson"].split("\n")[0] == (
        "Pearson's r with the gain · test · clean · prompts own · "
        "head zero-shot · 16 shots · 17 datasets"
    )
    table = read_table(said["pearson"])
    assert table.column("ensemble") == ["oracle", "nlc"]
    assert (
        table.row("nlc")
        == cells("""
    ensemble | incons. | 95 % of incons. | disagree | double fault | Q     | kappa  | Fleiss
    nlc      | +0.50*  | 0.38 to 0.75    | +0.25*   | +0.00        | -0.25 | -0.50* | -0.75*

    entropy
    -1.00*
    """)[0]
    )
    oracle = table.row("oracle")
    assert oracle["incons."] == "+0.12"
    assert oracle["95 % of incons."] == "0.00 to 0.38"  # 0 is its end
