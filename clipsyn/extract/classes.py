"""Write class embeddings: their texts are encoded in parts, each kept when it is finished."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from clipsyn import __version__
from clipsyn.errors import DamagedStore
from clipsyn.extract.plan import ClassesPlan
from clipsyn.extract.text import ClassTexts
from clipsyn.names import fingerprint
from clipsyn.show.progress import Progress
from clipsyn.text import running


def write_classes(classes: ClassesPlan, shard: tuple[int, int], progress: Progress) -> None:
    """Encode the texts that no worker has encoded, then make the class embeddings of all.

    Workers begin at different parts, so that together they encode most of them once.
    """
    draft, encoder = classes.draft, classes.encoder
    if not draft.pending():
        return
    texts = ClassTexts(encoder, classes.class_names, classes.prompts)
    name = f"{encoder.backbone.name}: prompts {classes.prompts.name}"
    done = sum(len(part) for part in texts.parts if draft.is_kept(_part_name(part)))
    counter = progress.add(name, len(texts), done, unit="texts")
    first = len(texts.parts) * shard[0] // shard[1]
    for part in texts.parts[first:] + texts.parts[:first]:
        if not draft.is_kept(_part_name(part)) and draft.pending():
            draft.keep(_part_name(part), encoder.encode_text(part))
            progress.advance(counter, len(part))
    progress.finish(counter)
    try:
        embedding = texts.class_embeddings(
            lambda part: draft.kept(_part_name(part), (len(part), encoder.embed_dim))
        )
    except DamagedStore:
        if draft.pending():  # else another worker was faster, and has cleared up
            raise
        return
    draft.write(0, {"class_embedding": embedding}, {})


def _part_name(texts: Sequence[str]) -> str:
    """What a part is kept under: it is found again only where it is cut in the same way."""
    return fingerprint({"texts": list(texts)})[:20]


def publish_classes(classes: ClassesPlan, replace: bool) -> None:
    """Make class embeddings visible that are whole."""
    encoder = classes.encoder
    attributes = {
        "logit_scale": encoder.logit_scale,
        "provenance": {
            "encoder": encoder.provenance,
            "clipsyn": __version__,
            "command": running(),
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        },
    }
    classes.draft.publish(lambda _: attributes, replace=replace)
