"""What texts are to a backbone, written in parts that whatever stops a run leaves for the next."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from clipsyn import __version__
from clipsyn.errors import DamagedStore
from clipsyn.extract.encoder import RowTexts
from clipsyn.extract.work import Texts
from clipsyn.names import fingerprint
from clipsyn.show.progress import Progress
from clipsyn.text import now, running


def write_texts(asked: Texts, shard: tuple[int, int], progress: Progress) -> None:
    """Encode the texts that no worker has encoded, then make the embeddings of all rows.

    Workers begin at different parts, so that together they encode most of them once.
    """
    draft, encoder = asked.draft, asked.encoder
    if not draft.pending():
        return
    if encoder.classes is not None:  # which no text stands for
        draft.write_all({"class_embedding": encoder.classes})
        return
    texts = RowTexts(encoder, asked.rows)
    named = {_part_name(part): part for part in texts.parts}
    done = sum(len(part) for name, part in named.items() if draft.is_kept(name))
    title = f"{encoder.backbone.name}: {asked.what}"
    counter = progress.add(title, len(texts), done, unit="texts")
    first = len(named) * shard[0] // shard[1]
    for name, part in [*named.items()][first:] + [*named.items()][:first]:
        if not draft.is_kept(name) and draft.pending():
            draft.keep(name, encoder.encode_text(part))
            progress.advance(counter, len(part))
    progress.finish(counter)
    (array,), sums = draft.arrays, np.float32 if draft.kind == "texts" else np.float64
    try:
        embedding = texts.embeddings(
            lambda part: draft.kept(_part_name(part), (len(part), encoder.embed_dim)), sums
        )
    except DamagedStore:
        if draft.pending():  # else another worker was faster, and has cleared up
            raise
        return
    draft.write_all({array: embedding})


def _part_name(texts: Sequence[str]) -> str:
    """What a part is kept under: it is found again only where it is cut in the same way."""
    return fingerprint({"texts": list(texts)})[:20]


def publish_texts(texts: Texts, replace: bool) -> None:
    """Make embeddings of texts visible that are whole."""
    encoder = texts.encoder
    made = {"encoder": encoder.provenance, "clipsyn": __version__, "command": running()}
    attributes = {"logit_scale": encoder.logit_scale, "provenance": {**made, "finished": now()}}
    texts.draft.publish(lambda _: attributes, replace=replace)
