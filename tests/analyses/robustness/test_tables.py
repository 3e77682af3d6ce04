from clipsyn.analyses.robustness import RobustnessSettings
from clipsyn.analyses.robustness import view as module
from tests.results import DASH, cells, row, texts, tidy

NAMES = ("tiny-RN/zoo", "tiny-ViT-8/zoo")
NAN = float("nan")
# accuracy of the two backbones and the oracle under each setting
ACCURACY = {
    "clean": (0.8, 0.6, 0.9),
    "fog-2": (0.2, 0.4, 0.5),
    "jpeg-1": (0.7, 0.5, 0.8),
    "jpeg-3": (0.5, 0.4, 0.7),
    "fog": (0.2, 0.4, 0.5),
    "jpeg": (0.6, 0.45, 0.75),
    "all": (0.4, 0.425, 0.625),
}
MEANS = ("fog", "jpeg", "all")


def setting(label):
    number = label.rpartition("-")[2]
    severity = 0 if label == "clean" else int(number) if number.isdigit() else None
    return {"perturbation": label, "severity": severity}


def methods(names):
    return [([name], None) for name in names] + ([(names, "oracle")] if len(names) > 1 else [])


def group(names=NAMES, **where):
    """What `robustness` makes of two backbones on forty images, fog at one severity, jpeg at two.

    The reference is the first; the corruption error of the second is 75 % under fog.
    """
    rows = [row("error", 0.2, names[:1], "reference", **where)]
    for label, accuracy in ACCURACY.items():
        here = setting(label) | where
        for column, (subset, ensemble) in enumerate(methods(names)):
            value, clean = accuracy[column], ACCURACY["clean"][column]
            numbers = {"acc1": value}
            if label != "clean":
                numbers |= {"drop": clean - value, "relative_robustness": value / clean}
            if label in MEANS:
                error = (1 - value) / (1 - accuracy[0])
                numbers["mce" if label == "all" else "ce"] = error
            rows += [row(metric, v, subset, ensemble, **here) for metric, v in numbers.items()]
        if len(names) > 1:
            best = [names[accuracy[1] > accuracy[0]]]
            lead = abs(accuracy[0] - accuracy[1])
            gain = accuracy[2] - max(accuracy[:2])
            rows.append(row("gain_over_best_on_test", gain, names, "oracle", **here))
            rows.append(row("acc1_independent", accuracy[2] + 0.05, names, "oracle", **here))
            rows.append(row("lead", lead, best, **here))
            if label != "clean":
                rows.append(row("switch", lead if best == [names[1]] else 0.0, best, **here))
                tau = 1.0 if best == [names[0]] else -1.0
                rows.append(row("kendall_tau", tau, names, **here))
    return rows


def ensemble(name, seeds=(None,), names=NAMES, **where):
    """An ensemble ten points above the first backbone, eleven with seed 1."""
    rows = []
    for label, accuracy in ACCURACY.items():
        for seed in seeds:
            value = accuracy[0] + 0.1 + 0.01 * (seed or 0)
            numbers = {"acc1": value, "gain_over_best_on_test": value - max(accuracy[:2])}
            if label != "clean":
                numbers |= {"drop": 0.9 - value, "relative_robustness": value / 0.9}
            if label in MEANS:
                error = (1 - value) / (1 - accuracy[0])
                numbers["mce" if label == "all" else "ce"] = error
            none = {"ci_low": None, "ci_high": None, "seed": seed}
            here = setting(label) | none | where
            rows += [row(metric, v, names, name, **here) for metric, v in numbers.items()]
    return rows


def tables(frame, **settings):
    return texts(module.tables(frame, RobustnessSettings(**settings)))


def test_the_summary_has_a_line_a_method(read_table):
    text = tables(tidy(*group()))["summary"]
    table = read_table(text)
    assert (
        table.row("ViT-8")
        == cells(f"""
    method | clean | 95 % of clean  | perturbed | 95 % of perturbed | drop | 95 % of drop
    ViT-8  | 60.0  | 59.0{DASH}62.0 | 42.5      | 41.5{DASH}44.5    | 17.5 | 16.5{DASH}19.5

    relative | mCE  | 95 % of mCE
    70.8     | 95.8 | 94.8{DASH}97.8
    """)[0]
    )
    assert table.row("RN")["mCE"] == "100.0"
    assert table.row("oracle")["clean"] == "90.0"
    assert "in % of those of RN (Hendrycks & Dietterich 2019)" in text
    assert "Ensembles" not in text


def test_accuracy_and_errors_by_perturbation(read_table):
    shown = tables(tidy(*group()))
    accuracy = read_table(shown["accuracy"])
    assert accuracy.columns == ["perturbation", "RN", "ViT-8", "oracle"]
    assert accuracy.column("perturbation") == ["clean", "fog", "jpeg", "all"]
    assert accuracy.column("RN") == ["80.0", "20.0", "60.0", "40.0"]
    assert accuracy.column("ViT-8") == ["60.0", "40.0", "45.0", "42.5"]
    assert accuracy.column("oracle") == ["90.0", "50.0", "75.0", "62.5"]
    errors = read_table(shown["errors"])
    fog = {"perturbation": "fog", "RN": "100.0", "ViT-8": "75.0", "oracle": "62.5"}
    assert errors.row("fog") == fog
    mce = {"perturbation": "all", "RN": "100.0", "ViT-8": "95.8", "oracle": "62.5"}
    assert errors.row("all") == mce
    assert "in % of those of RN;" in shown["errors"]


def test_gains_of_oracle_and_ensembles(read_table):
    alone = tables(tidy(*group()))["gains"]
    gain = {"perturbation": "all", "oracle": "20.0", "95 % of oracle": f"19.0{DASH}22.0"}
    assert read_table(alone).row("all") == gain
    rows = [*group(), *ensemble("log-avg"), *ensemble("nlc", (0, 1), shots="16")]
    shown = tables(tidy(*rows))
    fog = read_table(shown["gains"]).row("fog")
    assert (fog["log-avg"], fog["nlc"]) == ("-10.0", "-9.5")
    assert shown["gains"].endswith("Ensembles: head zero-shot, 16 shots, means over seeds.")
    nlc = read_table(shown["summary"]).row("nlc")
    assert (nlc["clean"], nlc["95 % of clean"], nlc["perturbed"]) == ("90.5", DASH, "50.5")


def test_several_datasets_are_shown_by_their_mean(read_table):
    rows = [*group(), *group(dataset="flags"), *group(dataset=None, n=80)]
    shown = tables(tidy(*rows))
    assert list(shown)[:2] == ["datasets", "summary"]
    assert len(shown) == 5
    title = "mean over 2 datasets · split test · prompts own · n 80 · backbones tiny-*/zoo"
    assert shown["gains"].startswith(f"{title}\n")
    assert (
        read_table(shown["datasets"]).row("flags")
        == cells(f"""
    dataset | n  | clean | top-1 | drop | 95 % of drop   | perturbed | top-1 of perturbed
    flags   | 40 | RN    | 80.0  | 40.0 | 39.0{DASH}42.0 | ViT-8     | 42.5

    gain clean | gain perturbed | tau
    10.0       | 20.0           | -1.00
    """)[0]
    )


def test_what_is_in_no_mean_stands_beside_it(read_table):
    other = [r for r in group(dataset="odd") if "jpeg" not in r["perturbation"]]
    rows = [*group(), *group(dataset="flags"), *other, *group(dataset=None, n=80)]
    shown = tables(tidy(*rows))
    assert {"summary, mean, test, own", "summary, odd/test, own"} <= set(shown)
    assert "summary, birds/test, own" not in shown
    assert shown["summary, mean, test, own"].startswith("mean over 2 datasets")
    assert read_table(shown["datasets"]).column("dataset") == ["birds", "flags", "odd"]


def test_one_backbone_has_no_order(read_table):
    shown = tables(tidy(*group(NAMES[:1])))
    assert list(shown) == ["datasets", "summary", "accuracy", "errors"]
    del shown["datasets"]
    assert "oracle" not in "".join(shown.values())
    two = tables(tidy(*group(NAMES[:1]), *group(NAMES[:1], dataset="flags")))
    line = read_table(two["datasets"]).row("flags")
    assert (line["clean"], line["top-1"]) == (NAMES[0], "80.0")
    assert (line["drop"], line["95 % of drop"]) == ("40.0", f"39.0{DASH}42.0")
    assert (line["perturbed"], line["top-1 of perturbed"]) == (NAMES[0], "40.0")
    assert (line["gain clean"], line["gain perturbed"], line["tau"]) == (DASH, DASH, DASH)


def test_what_is_unknown_is_a_dash(read_table):
    """All wrong on clean images, and a reference without errors."""
    unknown = ("relative_robustness", "ce", "mce", "kendall_tau")
    nan = {"value": NAN, "ci_low": NAN, "ci_high": NAN}
    rows = [r | (nan if r["metric"] in unknown else {}) for r in group()]
    shown = {name: read_table(text) for name, text in tables(tidy(*rows)).items()}
    line = shown["summary"].row("ViT-8")
    assert (line["relative"], line["mCE"]) == (DASH, DASH)
    assert "95 % of mCE" not in line
    assert [*shown["errors"].row("all").values()] == ["all", DASH, DASH, DASH]
    assert shown["datasets"].row("birds")["tau"] == DASH
    rows = [r | nan | {"n": 0} for r in group()]
    nothing = {name: read_table(text) for name, text in tables(tidy(*rows)).items()}
    columns = ["method", "clean", "perturbed", "drop", "relative", "mCE"]
    assert nothing["summary"].row("RN") == dict.fromkeys(columns, DASH) | {"method": "RN"}
    assert nothing["datasets"].row("birds")["clean"] == DASH
