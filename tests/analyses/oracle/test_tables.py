from clipsyn.analyses.oracle import OracleSettings
from clipsyn.analyses.oracle import view as module
from tests.results import DASH, cells, row, texts, tidy

RIGHT, WRONG = "\N{BLACK CIRCLE}", "\N{MIDDLE DOT}"
NAMES = ("tiny-RN/zoo", "tiny-ViT-16/zoo", "tiny-ViT-8/zoo")
NAN = float("nan")
SINGLE = ("acc1", "unique_correct", "shapley", "unique_correct_floor", "shapley_floor")


def class_oracle(accuracy, best, names, **where):
    """The best backbone for each class; chosen on other images it is two points lower."""
    return [
        row(f"{metric}{end}", value - less, names, "class-oracle", **where)
        for metric, value in (("acc1", accuracy), ("gain_over_best_on_test", accuracy - best))
        for end, less in (("", 0.0), ("_left_out", 0.02))
    ]


def group(names=NAMES, *, best=0.5, weights=None, **where):
    """What `oracle` makes of three backbones on forty images; 20 to 30 right."""
    pair = [names[0], names[2]]
    rows = [
        row(metric, value, [name], **where)
        for name, *values in (
            (names[0], best, 0.125, 0.3, 0.05, 0.11),
            (names[1], 0.4, 0.025, 0.2, 0.06, 0.12),
            (names[2], 0.45, 0.1, 0.25, 0.04, 0.13),
        )
        for metric, value in zip(SINGLE, values, strict=True)
    ]
    for subset, accuracy in ((pair, 0.7), (names, 0.75)):
        rows += [
            row("acc1", accuracy, subset, "oracle", **where),
            row("acc1_independent", accuracy + 0.1, subset, "oracle", **where),
            row("gain_over_best_on_test", accuracy - best, subset, "oracle", **where),
            row("relative_gain_over_best_on_test", accuracy / best - 1, subset, "oracle", **where),
        ]
    rows += class_oracle(0.55, best, names, **where)
    rows += [
        row("none_correct", 0.25, names, "oracle", **where),
        row("all_correct", 0.15, names, "oracle", **where),
        *(
            row("region", value, subset, "oracle", **where)
            for subset, value in (([], 0.25), (pair, 0.2), (names, 0.15), (names[:1], 0.125))
        ),
    ]
    if weights is not None:
        rows.append(row("acc1", weights, names, "weight-oracle", **where))
    return rows


def tables(frame, **settings):
    return texts(module.tables(frame, OracleSettings(**settings)))


def test_backbones_and_the_oracle(read_table):
    text = tables(tidy(*group()))["backbones"]
    table = read_table(text)
    assert (
        table.row("RN")
        == cells(f"""
    backbone | top-1 | 95 % of top-1  | Shapley | 95 % of Shapley | guess | only it right
    RN       | 50.0  | 49.0{DASH}52.0 | 30.0    | 29.0{DASH}32.0  | 11.0  | 12.5

    95 % of only it right | guess of 95 % of only it right
    11.5{DASH}14.5        | 5.0
    """)[0]
    )


def test_the_best_subset_of_each_size(read_table):
    table = read_table(tables(tidy(*group()))["subsets"])
    assert table.column("size") == ["1", "2", "3"]
    assert table.column("oracle") == ["50.0", "70.0", "75.0"]
    assert table.column("indep.") == [DASH, "80.0", "85.0"]
    assert table.column("step") == [DASH, "20.0", "5.0"]
    assert table.column("lead") == [DASH, "20.0", "25.0"]
    assert table.column("95 % of lead") == [DASH, f"19.0{DASH}22.0", f"24.0{DASH}27.0"]
    assert table.column("RN") == [RIGHT, RIGHT, RIGHT]
    assert table.column("ViT-16") == [WRONG, WRONG, RIGHT]
    assert table.column("ViT-8") == [WRONG, RIGHT, RIGHT]


def test_regions_are_images_and_marks(read_table):
    text = tables(tidy(*group()))["regions"]
    table = read_table(text)
    assert table.column("images") == ["10", "8", "6", "5"]
    assert table.column("%") == ["25.0", "20.0", "15.0", "12.5"]
    assert table.column("RN") == [WRONG, RIGHT, RIGHT, RIGHT]
    assert table.column("ViT-16") == [WRONG, WRONG, RIGHT, WRONG]
    assert table.column("ViT-8") == [WRONG, RIGHT, RIGHT, WRONG]
    assert "more regions" not in text


def test_the_largest_regions_and_the_smallest_sizes_are_shown(read_table, monkeypatch):
    monkeypatch.setattr(module, "_TOP", 2)
    shown = tables(tidy(*group()))
    assert "2 more regions" in shown["regions"]
    assert read_table(shown["regions"]).column("images") == ["10", "8"]
    assert "1 more numbers of backbones" in shown["subsets"]


def test_several_groups_have_an_overview(read_table):
    shown = tables(tidy(*group(), *group(perturbation="jpeg-3", best=0.6)))
    assert list(shown) == ["oracle", "choices", "shapley", "unique_correct"]
    for text in shown.values():
        assert text.endswith("split test; prompts own; backbones tiny-*/zoo.")
    read = {name: read_table(text) for name, text in shown.items()}
    assert all(table.column("perturbation") == ["clean", "jpeg-3"] for table in read.values())
    assert (
        read["oracle"].row("birds", "clean")
        == cells(f"""
    dataset | perturbation | n  | best | top-1 | oracle | indep. | lead | 95 % of lead   | lead %
    birds   | clean        | 40 | RN   | 50.0  | 75.0   | 85.0   | 25.0 | 24.0{DASH}27.0 | 50.0

    none | all
    25.0 | 15.0
    """)[0]
    )
    about = {"dataset": "birds", "perturbation": "clean"}
    assert read["choices"].row("birds", "clean") == about | {
        "best": "50.0",
        "class": "55.0",
        "left out": "53.0",
        "oracle": "75.0",
        "share": "20.0",  # 5 and 3 of 25 points
        "share left out": "12.0",
    }
    unique = {"RN": "12.5", "ViT-16": "2.5", "ViT-8": "10.0", "guess": "6.0"}
    assert read["unique_correct"].row("birds", "clean") == about | unique
    about["perturbation"] = "jpeg-3"
    shapley = {"RN": "30.0", "ViT-16": "20.0", "ViT-8": "25.0", "guess": "13.0"}
    assert read["shapley"].row("birds", "jpeg-3") == about | shapley  # the largest guess


def test_numbers_that_are_unknown_are_dashes(read_table):
    rows = [r | {"value": NAN, "ci_low": NAN, "ci_high": NAN, "n": 0} for r in group()]
    rows = [r for r in rows if r["metric"] != "region"]
    one = tables(tidy(*rows))
    numbers = read_table(one["backbones"]).row("RN")
    assert numbers.pop("backbone") == "RN"
    assert set(numbers.values()) == {DASH}
    two = tables(tidy(*rows, *group(perturbation="jpeg-3")))
    about = {"dataset": "birds", "perturbation": "clean"}
    for name, known in (("oracle", about | {"n": "0"}), ("choices", about)):
        line = read_table(two[name]).row("birds", "clean")
        assert line == dict.fromkeys(line, DASH) | known


def test_one_backbone_has_one_size_and_no_gain(read_table):
    name = ["RN50/openai"]
    rows = [
        *(row(metric, 0.5, name) for metric in SINGLE),
        *(row(metric, 0.5, name, "oracle") for metric in ("acc1", "acc1_independent")),
        *class_oracle(0.5, 0.5, name),
        *(
            row(metric, 0.0, name, "oracle")
            for metric in ("gain_over_best_on_test", "relative_gain_over_best_on_test")
        ),
        *(row(metric, 0.5, name, "oracle") for metric in ("none_correct", "all_correct")),
        row("region", 0.5, name, "oracle"),
        row("region", 0.5, [], "oracle"),
    ]
    shown = tables(tidy(*rows))
    (line,) = read_table(shown["subsets"]).rows
    assert line == dict.fromkeys(line, DASH) | {"size": "1", "oracle": "50.0", name[0]: RIGHT}
    assert read_table(shown["oracle"]).row("birds", "clean")["lead"] == "0.0"
