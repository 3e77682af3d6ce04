from __future__ import annotations

import polars as pl
import pytest

from clipsyn.analyses.cascade.tables import LEFT_OUT, RUN, tables
from clipsyn.results.frame import RESULT

DASH = "\N{EN DASH}"
NAMES = ("tiny-RN/zoo", "tiny-ViT-16/zoo", "tiny-ViT-8/zoo")  # in order of the cascade
ALL = "+".join(NAMES)
GFLOPS = (1.0, 2.0, 5.0)
NAN = float("nan")


def rows(ensemble: str | None, backbones: str, where: dict, **values: float) -> list[dict]:
    common = {"dataset": "birds", "split": "test", "perturbation": "clean", "prompts": "own"}
    common |= {"severity": 0, "head": "zero-shot", "classes": "all", "n": 40, "fingerprint": "f"}
    return [
        common
        | {"ensemble": ensemble, "backbones": backbones, "metric": metric, "value": value}
        | {"ci_low": value - 0.01, "ci_high": value + 0.02}
        | where
        for metric, value in values.items()
    ]


def chosen(accuracy: float, gflops: float, front: bool) -> dict[str, float]:
    return {"support_acc1": accuracy, "support_mean_gflops": gflops, "front": float(front)}


def cascade_rows(name: str, accuracy: float, gflops: float, where: dict) -> list[dict]:
    exits = {"exit_1": 0.5, "exit_2": 0.125, "exit_3": 0.375}
    return rows(
        f"cascade:{name}",
        ALL,
        where,
        acc1=accuracy,
        mean_gflops=gflops,
        gain_over_full=accuracy - 0.7,
        gain_over_chosen=accuracy - 0.6,
        threshold=0.45,
        **exits,
        **chosen(accuracy, gflops, front=False),
    )


def group(*, memory: str = "process_memory_mb", plus: float = 0.0, **where) -> list[dict]:
    """What `cascade` makes of three backbones on forty images."""
    found = []
    for place in (1, 0, 2):  # costs are in order of the store
        found += rows(
            None, NAMES[place], where, image_params_m=10.0, encode_ms=place + 0.5, **{memory: 800.0}
        )
    for name, gflops, accuracy in zip(NAMES, GFLOPS, (0.4, 0.6, 0.5), strict=True):
        support = chosen(accuracy, gflops, front=True)
        found += rows(None, name, where, acc1=accuracy + plus, mean_gflops=gflops, **support)
    for names, gflops, accuracy in (
        (NAMES[:2], 3.0, 0.65),
        (NAMES, 8.0, 0.7),
        (NAMES[1:], 7.0, 0.55),  # neither a stage of the cascade nor in front
    ):
        found += rows(
            "log-avg",
            "+".join(names),
            where,
            acc1=accuracy,
            mean_gflops=gflops,
            **chosen(accuracy, gflops, front=True),
        )
    found += cascade_rows("log-avg@0.5", 0.625, 2.5, where)
    return found + cascade_rows("log-avg@within-1", 0.7, 4.0, where)


def frame(*found: dict) -> pl.DataFrame:
    return pl.DataFrame(list(found), schema=RESULT)


def lines(text: str, start: str) -> list[list[str]]:
    return [line.split() for line in text.split("\n") if line.startswith(start)]


def test_one_group_has_four_tables():
    found = tables(frame(*group()), terminal=False)
    assert list(found) == ["costs", "curve", "fixed", "front"]
    title = "birds/test · clean · prompts own · n 40 · backbones tiny-*/zoo"
    title += " · best on support ViT-16"
    assert all(found[name].startswith(f"{title}\n") for name in list(found)[1:])


def test_costs_and_their_sum():
    text = tables(frame(*group()), terminal=False)["costs"]
    assert lines(text, "RN") == [["RN", "1", "10", "0.5", "800"]]
    assert lines(text, "ViT-8") == [["ViT-8", "5", "10", "2.5", "800"]]
    assert lines(text, "all") == [["all", "8", "30", "4.5", DASH]]  # one process held all
    assert "process memory: the most that the process" in text


def test_memory_of_a_gpu_is_a_sum():
    text = tables(frame(*group(memory="peak_memory_mb")), terminal=False)["costs"]
    assert lines(text, "all") == [["all", "8", "30", "4.5", "2,400"]]
    assert "peak memory: of the image tower and a batch" in text
    assert "process" not in text


def test_seconds_are_means_and_memory_the_largest():
    other = [
        row | {"value": row["value"] + (2 if row["metric"] == "encode_ms" else -300)}
        if row["metric"] in {"encode_ms", "process_memory_mb"}
        else row
        for row in group(dataset="flags")
    ]
    text = tables(frame(*group(), *other), terminal=False)["costs"]
    assert lines(text, "RN") == [["RN", "1", "10", "1.5", "800"]]


def test_what_is_not_known_of_any_backbone_has_no_column():
    known = [row for row in group() if row["metric"] not in {"encode_ms", "process_memory_mb"}]
    text = tables(frame(*known), terminal=False)["costs"]
    assert lines(text, "all") == [["all", "8", "30"]]
    assert "memory" not in text
    one = [row for row in known if row["metric"] != "image_params_m" or "RN" in row["backbones"]]
    text = tables(frame(*one), terminal=False)["costs"]
    assert lines(text, "ViT-8") == [["ViT-8", "5", DASH]]
    assert lines(text, "all") == [["all", "8", DASH]]  # no sum of what is half known


def test_accuracy_against_cost_by_threshold():
    text = tables(frame(*group()), terminal=False)["curve"]
    first, second = lines(text, "log-avg")
    assert first[:6] == ["log-avg", "0.5", "2.5", "31.2", "62.5", f"61.5{DASH}64.5"]
    assert first[6:9] == ["-7.5", "2.5", f"1.5{DASH}4.5"]
    assert first[9:] == ["50", "12", "38"]
    assert second[:5] == ["log-avg", "within-1", "4.0", "50.0", "70.0"]
    assert "leave at stage, %" in text


def test_fixed_choices_are_backbones_and_the_first_k():
    text = tables(frame(*group()), terminal=False)["fixed"]
    assert lines(text, "RN")[0][:5] == ["RN", "1", "1", "12.5", "40.0"]
    assert [line[:5] for line in lines(text, "log-avg")] == [
        ["log-avg", "2", "3", "37.5", "65.0"],
        ["log-avg", "3", "8", "100.0", "70.0"],
    ]


def test_the_front_is_what_nothing_beats_on_the_support():
    text = tables(frame(*group()), terminal=False)["front"]
    shown = text.split("\n\n")[0].split("\n")[3:]
    assert [line.split()[:3] for line in shown] == [
        [DASH, DASH, "1.0"],
        [DASH, DASH, "2.0"],
        ["log-avg", "0.5", "2.5"],
        ["log-avg", DASH, "3.0"],
        ["log-avg", "within-1", "4.0"],
    ]
    assert shown[1].split()[-3:] == [LEFT_OUT, RUN, LEFT_OUT]
    assert shown[3].split()[-3:] == [RUN, RUN, LEFT_OUT]
    assert shown[4].split()[-3:] == [RUN, RUN, RUN]


def test_several_groups_are_means_and_a_line_each():
    found = tables(frame(*group(), *group(dataset="flags", plus=0.1)), terminal=False)
    assert list(found) == ["costs", "chosen", "curve", "fixed", "front"]
    assert found["curve"].startswith("mean over 2 datasets · backbones tiny-*/zoo\n")
    assert lines(found["fixed"], "RN")[0] == ["RN", "1", "1", "12.5", "45.0"]
    assert f"61.5{DASH}64.5" not in found["curve"]
    (birds,), (flags,) = lines(found["chosen"], "birds"), lines(found["chosen"], "flags")
    assert birds[:7] == ["birds", "log-avg", "0.45", "4", "50.0", "70.0", "0.0"]
    assert birds[7:] == ["-1.0", "to", "2.0", "10.0", f"9.0{DASH}12.0", "ViT-16"]
    assert flags[1:] == birds[1:]


def test_the_front_of_several_is_chosen_by_means_over_the_support():
    better = [
        row | {"value": 0.8}
        if row["metric"] == "support_acc1" and row["ensemble"] == "log-avg"
        else row
        for row in group(dataset="flags")
    ]
    text = tables(frame(*group(), *better), terminal=False)["front"]
    # within-1 has 0.7 for 4, two backbones now 0.725 for 3, and all 0.75
    assert [line[:3] for line in lines(text, "log-avg")] == [
        ["log-avg", "0.5", "2.5"],
        ["log-avg", DASH, "3.0"],
        ["log-avg", DASH, "8.0"],
    ]


def test_details_come_after_the_means():
    two = frame(*group(), *group(perturbation="jpeg-3", severity=3))
    found = tables(two, details=True, terminal=False)
    assert list(found)[:5] == ["costs", "chosen", "curve", "fixed", "front"]
    assert list(found)[5:] == [
        f"{kind}, birds/test, {label}, own"
        for label in ("clean", "jpeg-3")
        for kind in ("curve", "fixed", "front")
    ]
    assert found["curve"].startswith("mean over 2 perturbations")
    one = tables(frame(*group()), terminal=False)
    assert found["front, birds/test, clean, own"] == one["front"]
    assert list(tables(frame(*group()), details=True)) == list(one)


def test_what_several_things_tell_apart_is_said():
    found = [*group(), *group(dataset="flags"), *group(dataset="flags", perturbation="jpeg-3")]
    text = tables(frame(*found), terminal=False)
    assert text["curve"].startswith("mean over 3 combinations of dataset, perturbation · ")
    assert [line[1] for line in lines(text["chosen"], "flags")] == ["clean", "jpeg-3"]
    prompts = tables(frame(*group(), *group(prompts="openai")), terminal=False)
    assert prompts["curve"].startswith("mean over 2 prompt sets · ")


def test_orders_and_backbones_may_differ_between_groups():
    """Another order, as greedy ones are, and one backbone fewer."""
    pair = f"{NAMES[1]}+{NAMES[0]}"
    where = {"dataset": "flags"}
    support = chosen(0.5, 1.0, front=True)
    fewer = [
        *rows(None, NAMES[1], where, acc1=0.5, mean_gflops=2.0, **support),
        *rows(None, NAMES[0], where, acc1=0.3, mean_gflops=1.0, **support),
        *rows("log-avg", pair, where, acc1=0.6, mean_gflops=3.0, **support),
        *rows(
            "cascade:log-avg@0.5",
            pair,
            where,
            acc1=0.5,
            mean_gflops=2.5,
            gain_over_full=-0.1,
            gain_over_chosen=0.0,
            threshold=0.5,
            exit_1=0.5,
            exit_2=0.5,
            **support,
        ),
    ]
    found = tables(frame(*group(), *fewer), terminal=False)
    (curve,) = lines(found["curve"], "log-avg")
    assert curve[-3:] == ["50", "31", "19"]
    assert lines(found["fixed"], "stage 1 alone")[0][-1] == "45.0"
    assert lines(found["fixed"], "log-avg")[0][-1] == "62.5"
    assert len(lines(found["chosen"], "flags")) == 0
    assert lines(found["costs"], "ViT-8")[0][1] == "5"


def test_numbers_that_are_unknown_are_dashes():
    nothing = {"value": NAN, "ci_low": NAN, "ci_high": NAN, "n": 0}
    measured = {"acc1", "gain_over_full", "gain_over_chosen", "exit_1", "exit_2", "exit_3"}
    unknown = [row | (nothing if row["metric"] in measured else {"n": 0}) for row in group()]
    text = tables(frame(*unknown), terminal=False)
    assert lines(text["fixed"], "RN")[0] == ["RN", "1", "1", "12.5", DASH, DASH]
    assert lines(text["curve"], "log-avg")[0][4:9] == [DASH] * 5


def test_free_backbones_have_no_share_of_nothing():
    free = [row | ({"value": 0.0} if "mean_gflops" in row["metric"] else {}) for row in group()]
    text = tables(frame(*free), terminal=False)["fixed"]
    assert lines(text, "RN")[0][:4] == ["RN", "1", "0", DASH]


def test_an_empty_frame_has_no_tables():
    assert tables(pl.DataFrame(schema=RESULT)) == {}


@pytest.mark.parametrize("details", [None, True])
def test_nine_backbones_fit_the_page(details):
    """The paper's nine, each number as wide as it gets."""
    kinds = ("ViT-B-32", "RN50", "RN101", "ViT-B-16", "RN50x4", "RN50x16", "ViT-L-14")
    names = [f"{kind}/openai" for kind in (*kinds, "ViT-L-14-336", "RN50x64")]
    joined, where = "+".join(names), {"dataset": "stanford-cars", "n": 50_000}
    support = chosen(0.75, 1341.0, front=True)
    gains = {"gain_over_full": -0.25, "gain_over_chosen": 0.125, "threshold": 0.955}
    found = []
    for name in names:
        found += rows(
            None, name, where, acc1=0.75, mean_gflops=149.0, image_params_m=420.0, **support
        )
    for ensemble in ("log-avg", "masked-super-learner"):
        found += rows(ensemble, joined, where, acc1=0.75, mean_gflops=1341.0, **support)
        for threshold in ("0.95", "within-1"):
            exits = {f"exit_{stage}": 0.111 for stage in range(1, 10)}
            found += rows(
                f"cascade:{ensemble}@{threshold}",
                joined,
                where,
                acc1=0.75,
                mean_gflops=1341.0,
                **gains,
                **exits,
                **support,
            )
    noisy = [row | {"perturbation": "gaussian_noise-3"} for row in found]
    text = tables(frame(*found, *noisy), details=details, terminal=False)
    widths = {name: max(map(len, one.split("\n"))) for name, one in text.items()}
    assert max(widths.values()) <= 145, widths
