"""A GPU that is not here: what is copied to it and how, its memory, and cards that are too old."""

from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch

from clipsyn.cli import output
from clipsyn.errors import UsageError
from clipsyn.extract.device import Fitting, resolve_device, resolve_precision, to_device
from clipsyn.extract.encoder import Encoder, Model
from clipsyn.names import Backbone

GPU = torch.device("cuda:1")


class Card:
    """Stands for `torch.cuda`: two cards, the streams of the second, and what was done with it."""

    def __init__(self):
        self.done: list[tuple[Any, ...]] = []
        self.current = "computing"
        self.capabilities = {0: (7, 5), 1: (9, 0)}
        self.taken = self.peak = 0

    @contextmanager
    def stream(self, name):
        self.current, before = name, self.current
        yield
        self.current = before

    def current_stream(self, device):
        assert (device, self.current) == (GPU, "computing")
        return self

    def wait_stream(self, other):
        self.done.append((self.current, "waits for", other))

    def get_device_capability(self, device):
        return self.capabilities[torch.device(device).index or 0]

    def take(self, count):
        self.taken += count
        self.peak = max(self.peak, self.taken)

    def reset_peak_memory_stats(self, device):
        self.peak = self.taken

    def memory_allocated(self, device):
        return self.taken

    def max_memory_allocated(self, device):
        return self.peak


@pytest.fixture
def card(monkeypatch):
    it = Card()
    for name in vars(Card):
        if not name.startswith("_"):
            monkeypatch.setattr(torch.cuda, name, getattr(it, name), raising=False)
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: f"copying to {device}")
    return it


class Pixels:
    """A tensor, of which it is known where it is and in which memory."""

    def __init__(self, card, *, pinned=False):
        self.card, self.pinned = card, pinned

    def pin_memory(self):
        return Pixels(self.card, pinned=True)

    def to(self, device, *, non_blocking=False):
        assert self.pinned or not non_blocking
        self.card.done.append((self.card.current, "copies", device, non_blocking))
        return self

    def record_stream(self, stream):
        self.card.done.append((self.card.current, "keeps"))


def test_a_copy_runs_beside_what_is_computed(card):
    for _ in range(2):
        to_device(Pixels(card), GPU)
    once = [
        ("copying to cuda:1", "copies", GPU, True),
        ("computing", "waits for", "copying to cuda:1"),
        ("computing", "keeps"),
    ]
    assert card.done == once * 2


def test_nothing_is_pinned_for_a_cpu(card):
    assert not to_device(Pixels(card), torch.device("cpu")).pinned


class Tower(torch.nn.Module):
    """As large as the memory says: so many images at once."""

    def __init__(self, holds=1000):
        super().__init__()
        torch.manual_seed(0)
        self.product = torch.nn.Linear(3 * 8 * 8, 12)
        self.holds, self.batches = holds, list[int]()

    def forward(self, batch):
        self.batches.append(len(batch))
        if len(batch) > self.holds:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return self.product(batch.flatten(1))


def encoder(holds=1000):
    model = Model(
        visual=Tower(holds),
        embed_dim=12,
        identity={"weights": "of a tower", "preprocess": {"size": [8, 8]}},
        geometry=lambda image: image.convert("RGB").resize((8, 8)),
        normalize=((0.5,) * 3, (0.5,) * 3),
    )
    return Encoder(Backbone("tower", "a/b"), model, device=torch.device("cpu"), precision="fp32")


PIXELS = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 3), np.uint8)


def test_a_batch_that_does_not_fit_is_halved_until_it_does(caplog):
    small, large = encoder(holds=6), encoder()
    with caplog.at_level("WARNING", "clipsyn"):
        found = small.to_host([small.encode_images(PIXELS)])
    whole = large.to_host([large.encode_images(PIXELS)])
    np.testing.assert_allclose(found, whole, atol=2**-10)
    assert small._visual.batches == [20, 10, 5, 5, 5, 5]
    assert len(caplog.records) == 2
    small.encode_images(PIXELS[:9])  # later batches begin with what fits
    assert small._visual.batches[6:] == [5, 4]


def test_where_no_image_fits(monkeypatch):
    it = encoder(holds=0)
    with pytest.raises(torch.OutOfMemoryError) as caught:
        it.encode_images(PIXELS)
    assert it._visual.batches == [20, 10, 5, 3, 2, 1]
    assert output._of_machine(caught.value)  # a sentence, where a bug would be None


def test_peak_memory_is_of_a_backbone_with_its_weights(card):
    tower = Tower()
    fitting = Fitting("tower", GPU, tower)
    card.take(5_000_000)  # the weights of others

    def work(rows):
        card.take(3_000_000)
        card.take(-2_000_000)
        return torch.ones(1)

    assert fitting.peak_mb is None
    fitting.run(work, 8)
    fitting.most = 4
    fitting.run(work, 8)
    weights = 4 * (3 * 8 * 8 * 12 + 12)
    assert fitting.peak_mb == pytest.approx((4_000_000 + weights) / 1e6, abs=0.05)
    it = Fitting("tower", torch.device("cpu"), tower)
    it.run(work, 8)
    assert it.peak_mb is None


@pytest.mark.parametrize(("device", "want"), [("cuda:0", "amp_fp16"), ("cuda:1", "amp_bf16")])
def test_automatic_precision_is_that_of_the_card(device, want, card):
    assert resolve_precision("auto", torch.device(device)) == want


def test_a_card_that_this_torch_is_not_built_for(card, monkeypatch):
    def refuse(*_, **__):
        raise RuntimeError("CUDA error: no kernel image is available\nCompile with ...")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_80", "sm_90"])
    monkeypatch.setattr(torch, "zeros", refuse)
    for name in ("auto", "cuda"):
        with pytest.raises(UsageError, match=r"7\.5.*sm_80, sm_90") as caught:
            resolve_device(name)
        assert "\n" not in str(caught.value)
