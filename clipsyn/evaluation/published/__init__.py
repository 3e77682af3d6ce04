"""Our zero-shot accuracies beside published ones."""

from __future__ import annotations

from clipsyn.settings import FLAG, NUMBER, SOURCE, Settings, setting


class CompareSettings(Settings):
    """What `clipsyn compare --reference` is asked for."""

    reference: str = setting(
        "openai-zeroshot",
        SOURCE,
        "Published numbers: openai-zeroshot (OpenAI's nine backbones on 27 datasets, by OpenCLIP), "
        "or a CSV file with the columns dataset, backbone, accuracy, source.",
        metavar="NAME|FILE",
    )
    tolerance: float = setting(
        0.5, NUMBER, "Points beyond which a difference is flagged.", least=0, most=100
    )
    details: bool = setting(
        False, FLAG, "A line for every number, not only for those that are flagged.", display=True
    )
