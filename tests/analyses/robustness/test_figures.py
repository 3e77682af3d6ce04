from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from clipsyn.analyses.robustness.figures import corruptions, severity
from clipsyn.analyses.robustness.view import under
from clipsyn.errors import UsageError
from clipsyn.evaluation.results.frame import RESULT

NAMES = ("a/m", "b/m")
CLEAN = {"a/m": 0.8, "b/m": 0.6}
LOST = {"a/m": 0.1, "b/m": 0.02}  # with each severity
SEVERITIES = {"fog": (1, 3), "jpeg": (2,)}
NAN = float("nan")


def row(value: float, backbones, perturbation="clean", severity=0, **about) -> dict:
    common = {"dataset": "birds", "split": "test", "prompts": "own", "metric": "acc1", "n": 50}
    common["ensemble"] = "single"
    numbers = {"value": value, "ci_low": value - 0.05, "ci_high": value + 0.05}
    where = {"perturbation": perturbation, "severity": severity, "backbones": list(backbones)}
    return common | numbers | where | about


def accuracies(name: str) -> dict[tuple[str, int | None], float]:
    """By perturbation and severity: each, the means over severities, and the mean of those."""
    known = {("clean", 0): CLEAN[name]}
    means = []
    for family, levels in SEVERITIES.items():
        values = [CLEAN[name] - level * LOST[name] for level in levels]
        known |= {
            (f"{family}-{level}", level): value for level, value in zip(levels, values, strict=True)
        }
        means.append(sum(values) / len(values))
        known[family, None] = means[-1]
    return known | {("all", None): sum(means) / len(means)}


def frame(*more: dict, oracle: float | None = 0.9, **about) -> pl.DataFrame:
    rows = []
    for name in NAMES:
        for where, value in accuracies(name).items():
            rows.append(row(value, [name], *where, **about))
            if where[0] != "clean":
                relative = value / CLEAN[name]
                rows.append(row(relative, [name], *where, metric="relative_robustness", **about))
            if oracle and name == NAMES[0]:
                rows.append(row(oracle, NAMES, *where, ensemble="oracle", **about))
    return pl.DataFrame([*rows, *more], schema=RESULT)


def of_ensemble(name: str, **about) -> list[dict]:
    return [
        row(0.7, NAMES, *where, ensemble=name, shots="1", **about) for where in accuracies("a/m")
    ]


def test_curves_begin_at_clean_images_and_go_by_severity():
    data = severity.data(frame())
    a = data.filter(backbone="a/m").select("perturbation", "severity", "value", "ci_low", "n")
    assert a.rows() == [
        ("fog", 0, 0.8, 0.75, 50),
        ("fog", 1, pytest.approx(0.7), pytest.approx(0.65), 50),
        ("fog", 3, pytest.approx(0.5), pytest.approx(0.45), 50),
        ("jpeg", 0, 0.8, 0.75, 50),
        ("jpeg", 2, pytest.approx(0.6), pytest.approx(0.55), 50),
    ]
    assert set(data["ensemble"]) == {None, "oracle"}
    about = data.select("dataset", "split", "prompts", "datasets").unique().rows()
    assert about == [("birds", "test", "own", 1)]


def test_each_perturbation_has_its_panel_with_all_curves():
    data = severity.data(frame())
    ax = severity(data)
    fog, jpeg = ax.child_axes
    assert [panel.get_title(loc="left") for panel in (fog, jpeg)] == ["fog", "jpeg"]
    curves = np.array([line.get_xydata() for line in fog.lines])
    of_a, of_b, oracle = ([80, 70, 50], [60, 58, 54], [90, 90, 90])
    assert curves[..., 0].tolist() == [[0, 1, 3]] * 3
    assert curves[..., 1] == pytest.approx(np.array([of_a, of_b, oracle]))
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["a", "b", "oracle"]
    assert (
        severity.about(data)
        == "birds/test · prompts own · n 50 · backbones */m · 95 % interval about ±5.0"
    )


def test_few_ensembles_have_curves_and_many_have_not():
    few = [one for name in ("log-avg", "vote-1", "nlc", "moe") for one in of_ensemble(name)]
    data = severity.data(frame(*few))
    assert set(data["ensemble"]) == {None, "oracle", "log-avg", "vote-1", "nlc", "moe"}
    data = severity.data(frame(*few, *of_ensemble("conf")))
    assert set(data["ensemble"]) == {None, "oracle"}
    matrix = corruptions.data(frame(*few, *of_ensemble("conf")))
    assert matrix["ensemble"].n_unique() == 7


def test_seeds_of_an_ensemble_are_a_mean():
    seeds = [
        row(value, NAMES, ensemble="nlc", shots="1", seed=seed)
        for seed, value in enumerate((0.6, 0.7))
    ]
    (clean,) = (
        corruptions.data(frame(*seeds)).filter(perturbation="clean", ensemble="nlc").to_dicts()
    )
    assert clean["value"] == pytest.approx(0.65)
    assert clean["ci_low"] is None


def test_the_matrix_has_clean_images_means_over_severities_and_their_mean():
    data = corruptions.data(frame())
    b = data.filter(backbone="b/m").select("perturbation", "value").rows()
    assert b == [
        ("clean", 0.6),
        ("fog", pytest.approx(0.56)),
        ("jpeg", pytest.approx(0.56)),
        ("all", pytest.approx(0.56)),
    ]
    ax = corruptions(data)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["clean", "fog", "jpeg", "mean"]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["a", "b", "oracle"]
    cells = {text.get_position(): text.get_text() for text in ax.texts}
    assert cells[1, 1] == "56.0"
    assert cells[2, 3] == "90.0"
    assert len(cells) == 12


def test_the_best_backbones_of_each_row_are_underlined_and_no_ensemble():
    even = pl.when(
        pl.col("perturbation") == "jpeg", pl.col("metric") == "acc1", pl.col("ensemble") == "single"
    )
    tied = frame().with_columns(value=even.then(0.5).otherwise("value"))
    lines = [line for line in corruptions(corruptions.data(tied)).lines if line.get_marker() == "_"]
    marks = {(x, round(y)) for line in lines for x, y in zip(*line.get_data(), strict=True)}
    assert marks == {(0, 0), (0, 1), (0, 2), (1, 2), (0, 3)}


def test_what_is_not_known_is_not_drawn():
    unknown = (pl.col("perturbation") == "fog-3") & (pl.col("metric") == "acc1")
    data = severity.data(frame().with_columns(value=pl.when(unknown).then(NAN).otherwise("value")))
    assert data.filter(perturbation="fog")["severity"].to_list() == [0, 0, 0, 1, 1, 1]


def test_several_datasets_are_drawn_by_their_mean():
    parts = [frame(), frame(dataset="cars"), frame(dataset=None, oracle=0.95)]
    data = severity.data(pl.concat(parts))
    assert data.select("dataset", "datasets").unique().rows() == [(None, 2)]
    assert data.filter(ensemble="oracle")["value"].unique().to_list() == [0.95]
    assert severity.about(data).startswith("mean over 2 datasets · test · prompts own")


def only(name: str, frame: pl.DataFrame) -> pl.DataFrame:
    """The rows about clean images and one perturbation."""
    return frame.filter(pl.col("perturbation").str.contains(f"^({name}(-.*)?|clean|all)$"))


def test_datasets_that_have_no_mean_stand_side_by_side():
    both = pl.concat([only("fog", frame()), only("jpeg", frame(dataset="cars"))])
    ax = severity(severity.data(both))
    titles = [panel.get_title(loc="left") for panel in ax.child_axes]
    assert titles == ["birds: fog", "cars: jpeg"]
    assert [line.get_xdata().tolist() for line in ax.child_axes[1].lines] == [[0, 2]] * 3
    assert severity.about(severity.data(both)).startswith("2 datasets · test · prompts own")
    matrix = corruptions(corruptions.data(both))
    rows = [label.get_text() for label in matrix.get_yticklabels()]
    assert rows == ["birds: clean", "birds: fog", "cars: clean", "cars: jpeg"]


def test_a_mean_beside_what_it_is_not_of_is_called_so():
    parts = [
        frame(),
        frame(dataset="cars"),
        frame(dataset=None),
        only("fog", frame(dataset="dogs")),
    ]
    titles = [
        panel.get_title(loc="left")
        for panel in severity(severity.data(pl.concat(parts))).child_axes
    ]
    assert titles == ["mean: fog", "mean: jpeg", "dogs: fog"]


def test_the_mean_of_one_perturbation_is_no_row():
    data = corruptions.data(only("fog", frame()))
    assert data["perturbation"].unique(maintain_order=True).to_list() == ["clean", "fog"]


def shown(frame: pl.DataFrame, *chosen: str) -> list[str]:
    labels = under(frame, chosen)["perturbation"]
    return labels.unique(maintain_order=True).to_list()


def test_chosen_perturbations_stand_beside_clean_images():
    assert shown(frame(), "fog-1", "fog-3") == ["clean", "fog-1", "fog-3", "fog"]
    assert shown(frame(), "fog") == ["clean", "fog-1", "fog-3", "fog"]
    assert shown(frame(), "fog-3") == ["clean", "fog-3"]
    assert shown(frame(), "fog-3", "jpeg-2") == ["clean", "fog-3", "jpeg-2", "jpeg"]
    for everything in (["fog-1", "fog-3", "jpeg-2"], ["fog", "jpeg-2"], ["all"]):
        assert under(frame(), everything).equals(frame())
    assert shown(frame(), "clean") == []


def test_datasets_without_chosen_perturbations_are_left_out():
    both = pl.concat([only("fog", frame()), only("jpeg", frame(dataset="cars"))])
    assert under(both, ["jpeg-2"]).equals(only("jpeg", frame(dataset="cars")))


def test_what_all_are_compared_with_stays():
    reference = row(0.4, ["b/m"], None, None, ensemble="reference", metric="error")
    assert under(frame(reference), ["fog"]).filter(ensemble="reference").height == 1


def test_a_severity_alone_is_the_mean_of_its_perturbation():
    data = corruptions.data(under(frame(), ["fog-3"]))
    b = data.filter(backbone="b/m").select("perturbation", "value").rows()
    assert b == [("clean", 0.6), ("fog", pytest.approx(0.54))]


def test_the_mean_of_severities_chosen_out_of_more_is_not_known():
    more = [row(0.5, [name], "fog-5", 5) for name in NAMES]
    chosen = under(frame(*more), ["fog-1", "fog-3"])
    assert severity.data(chosen)["severity"].unique().to_list() == [0, 1, 3]
    with pytest.raises(UsageError, match="over fog-1 and fog-3 is not in the results: choose one"):
        corruptions.data(chosen)


def test_white_lines_part_clean_images_and_the_mean_or_datasets():
    def across(*frames: pl.DataFrame) -> list[float]:
        lines = corruptions(corruptions.data(pl.concat(frames))).lines
        return [line.get_ydata()[0] for line in lines if line.get_color() == "white"][:-1]

    assert across(frame()) == [0.5, 2.5]
    assert across(frame(), only("jpeg", frame(dataset="cars"))) == [3.5]


def test_other_severities_have_their_own_scale():
    fog, jpeg = severity(severity.data(frame())).child_axes
    assert fog.get_xticks().tolist() == [0, 1, 3]
    assert jpeg.get_xticks().tolist() == [0, 2]
    assert all(panel.xaxis.get_major_ticks()[0].label1.get_visible() for panel in (fog, jpeg))
    assert jpeg.get_xlim()[1] < 2.5


@pytest.mark.parametrize("figure", [severity, corruptions])
def test_prompt_sets_and_splits_are_not_mixed(figure):
    for other, kinds in (({"prompts": "short"}, "prompt sets"), ({"split": "val"}, "splits")):
        with pytest.raises(UsageError, match=f"there are 2 {kinds}, .* and this shows one"):
            figure.data(pl.concat([frame(), frame(**other)]))


@pytest.mark.parametrize("figure", [severity, corruptions])
def test_more_than_can_be_read_is_refused(figure):
    parts = [only("fog", frame(dataset=f"set{number}")) for number in range(61)]
    with pytest.raises(UsageError, match="61 perturbations of 61 datasets cannot be read: choose"):
        figure.data(pl.concat(parts))


@pytest.mark.parametrize("figure", [severity, corruptions])
def test_accuracies_of_another_command_are_refused(figure):
    foreign = frame().filter(metric="acc1")
    with pytest.raises(UsageError, match="no accuracy under perturbation to draw: give a store"):
        figure.data(foreign)
    with pytest.raises(UsageError, match="no accuracy under perturbation to draw: give a store"):
        figure.data(foreign.clear())
