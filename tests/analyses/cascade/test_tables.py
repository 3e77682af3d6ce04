from clipsyn.analyses.cascade import GIVEN, WITHIN, CascadeSettings
from clipsyn.analyses.cascade import view as module
from clipsyn.analyses.cascade.measure import CASCADE
from tests.results import DASH, cells, row, texts, tidy

RUN, LEFT_OUT = "\N{BLACK CIRCLE}", "\N{MIDDLE DOT}"
NAMES = ("tiny-RN/zoo", "tiny-ViT-16/zoo", "tiny-ViT-8/zoo")  # in order of the cascade
GFLOPS = (1.0, 2.0, 5.0)
EXITS = (0.5, 0.125, 0.375)


def rows(ensemble, backbones, about, **values):
    return [row(metric, value, backbones, ensemble, **about) for metric, value in values.items()]


def chosen(accuracy, gflops, front):
    return {"support_acc1": accuracy, "support_mean_gflops": gflops, "front": float(front)}


def cascade_rows(rule, accuracy, gflops, where, *, names=NAMES, exits=EXITS):
    about = where | {"rule": rule, "threshold": 0.5 if rule == GIVEN else 0.45}
    measured = rows(
        "log-avg",
        names,
        about,
        acc1=accuracy,
        mean_gflops=gflops,
        gain_over_full=accuracy - 0.7,
        gain=accuracy - 0.6,
        **chosen(accuracy, gflops, front=False),
    )
    for stage, share in enumerate(exits, 1):
        measured += rows("log-avg", names, about | {"stage": stage}, exit=share)
    return measured


def group(*, plus=0.0, **where):
    """What `cascade` makes of three backbones on forty images."""
    made = []
    for place in (1, 0, 2):  # costs are in order of the store
        costs = {"image_params_m": 10.0, "encode_ms": place + 0.5}
        made += rows(None, (NAMES[place],), where, **costs)
    for name, gflops, accuracy in zip(NAMES, GFLOPS, (0.4, 0.6, 0.5), strict=True):
        support = chosen(accuracy, gflops, front=True)
        made += rows(None, (name,), where, acc1=accuracy + plus, mean_gflops=gflops, **support)
    for names, gflops, accuracy in (
        (NAMES[:2], 3.0, 0.65),
        (NAMES, 8.0, 0.7),
        (NAMES[1:], 7.0, 0.55),  # neither a stage of the cascade nor in front
    ):
        support = chosen(accuracy, gflops, front=True)
        made += rows("log-avg", names, where, acc1=accuracy, mean_gflops=gflops, **support)
    made += cascade_rows(GIVEN, 0.625, 2.5, where)
    return made + cascade_rows(WITHIN, 0.7, 4.0, where)


def frame(*made):
    return tidy(*made, columns=CASCADE)


def tables(shown, **settings):
    return texts(module.tables(shown, CascadeSettings(**settings)))


def test_costs_and_their_sum(read_table):
    text = tables(frame(*group()))["costs"]
    table = read_table(text)
    assert table.column("backbone") == ["RN", "ViT-16", "ViT-8", "all"]
    assert table.column("GFLOPs") == ["1", "2", "5", "8"]
    assert table.column("parameters M") == ["10", "10", "10", "30"]
    assert table.column("ms") == ["0.5", "1.5", "2.5", "4.5"]


def test_accuracy_against_cost_by_threshold(read_table):
    text = tables(frame(*group()))["curve"]
    assert (
        read_table(text).row("log-avg", "0.5")
        == cells(f"""
    ensemble | θ | GFLOPs | % | top-1 | 95 % of top-1 | vs all | vs best | 95 % of vs best | 1
    log-avg | 0.5 | 2.5 | 31.2 | 62.5 | 61.5{DASH}64.5 | -7.5 | 2.5 | 1.5{DASH}4.5 | 50

    2  | 3
    12 | 38
    """)[0]
    )
    within = read_table(text).row("log-avg", "within-1")
    assert [within[name] for name in ("GFLOPs", "%", "top-1")] == ["4.0", "50.0", "70.0"]
    assert "leave at stage, %" in text


def test_the_front_is_what_nothing_beats_on_the_support(read_table):
    table = read_table(tables(frame(*group()))["front"])
    assert table.column("ensemble") == [DASH, DASH, "log-avg", "log-avg", "log-avg"]
    assert table.column("θ") == [DASH, DASH, "0.5", DASH, "within-1"]
    assert table.column("GFLOPs") == ["1.0", "2.0", "2.5", "3.0", "4.0"]
    assert table.column("RN") == [RUN, LEFT_OUT, RUN, RUN, RUN]
    assert table.column("ViT-16") == [LEFT_OUT, RUN, RUN, RUN, RUN]
    assert table.column("ViT-8") == [LEFT_OUT, LEFT_OUT, RUN, LEFT_OUT, RUN]


def test_several_groups_are_means_and_a_line_each(read_table):
    texts = tables(frame(*group(), *group(dataset="flags", plus=0.1)))
    assert list(texts) == ["costs", "chosen", "curve", "front"]
    assert texts["curve"].startswith("mean over 2 datasets · backbones tiny-*/zoo\n")
    assert read_table(texts["front"]).column("top-1")[0] == "45.0"
    assert not [name for name in read_table(texts["curve"]).columns if name.startswith("95 %")]
    birds, flags = (read_table(texts["chosen"]).row(name) for name in ("birds", "flags"))
    assert (
        birds
        == cells(f"""
    dataset | ensemble | θ    | GFLOPs | %    | top-1 | vs all | 95 % of vs all | vs best
    birds   | log-avg  | 0.45 | 4      | 50.0 | 70.0  | 0.0    | -1.0 to 2.0    | 10.0

    95 % of vs best | best
    9.0{DASH}12.0   | ViT-16
    """)[0]
    )
    assert flags == birds | {"dataset": "flags"}


def test_orders_and_backbones_may_differ_between_groups(read_table):
    """Another order, and one backbone fewer."""
    second, first = NAMES[:2]
    where = {"dataset": "flags"}
    support = chosen(0.5, 1.0, front=True)
    fewer = [
        *rows(None, (first,), where, acc1=0.5, mean_gflops=2.0, **support),
        *rows(None, (second,), where, acc1=0.3, mean_gflops=1.0, **support),
        *rows("log-avg", (first, second), where, acc1=0.6, mean_gflops=3.0, **support),
        *cascade_rows(GIVEN, 0.5, 2.5, where, names=(first, second), exits=(0.5, 0.5)),
    ]
    texts = tables(frame(*group(), *fewer))
    (curve,) = read_table(texts["curve"]).rows
    assert [curve[stage] for stage in "123"] == ["50", "31", "19"]
    assert read_table(texts["chosen"]).column("dataset") == ["birds"]
    assert read_table(texts["costs"]).row("ViT-8")["GFLOPs"] == "5"
