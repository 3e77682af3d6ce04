"""Train one model of the zoo: `python train.py tiny-RN WORK ../../data/zoo`.

All models see the same images and captions under the same multi-positive contrastive loss: every
caption of a batch that names the image's concept (or its group, or its garment) is right for it,
all others are wrong.
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import open_clip
import torch
import torch.nn.functional as F
from batches import Batch, Batches
from checkpoint import Plan, Vocabulary, names, read_config, save, tokenizer
from evaluate import accuracies
from open_clip.model import CLIP
from torch import Tensor, nn

log = logging.getLogger("zoo")
WARM_UP = 0.05
GROUP_WEIGHT = 0.3
HOTTEST = math.log(100.0)  # CLIP's own bound on the learned logit scale


def multi_positive_loss(logits: Tensor, positive: Tensor) -> Tensor:
    """Cross-entropy against all positives alike, averaged over both directions.

    logits, positive: (image, text). An image or text without a positive in the batch is left out.
    """
    losses = []
    for scores, hits in ((logits, positive), (logits.T, positive.T)):
        rows = hits.any(1)
        target = hits[rows].float()
        losses.append(F.cross_entropy(scores[rows], target / target.sum(1, keepdim=True)))
    return (losses[0] + losses[1]) / 2


def open_residuals(model: nn.Module) -> None:
    """Give residual branches a scale at which they matter from the start.

    ConvNeXt scales them by 1e-6 at first, which suits runs that are a thousand times longer.
    """
    for name, value in model.named_parameters():
        if name.rsplit(".", 1)[-1].startswith("gamma"):
            nn.init.constant_(value, 0.1)


def loss_of(model: CLIP, batch: Batch, autocast: bool) -> Tensor:
    """The loss of name captions and that of group captions, which zero-shot use asks apart."""
    # Channels last makes small convolutions faster on a CPU (1.4 times and more).
    pixels = batch.images.contiguous(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        images = model.encode_image(pixels)
    images = F.normalize(images.float(), dim=-1)
    texts = model.encode_text(batch.tokens, normalize=True)
    logits = model.logit_scale.exp() * images @ texts.T
    named = batch.names
    by_name = multi_positive_loss(logits[:, :named], batch.positive[:, :named])
    by_group = multi_positive_loss(logits[:, named:], batch.positive[:, named:])
    return by_name + GROUP_WEIGHT * by_group


def optimiser(model: nn.Module, plan: Plan) -> torch.optim.AdamW:
    """AdamW with weight decay for matrices only, not for gains, biases and tables."""
    decayed: list[nn.Parameter] = []
    free: list[nn.Parameter] = []
    for name, value in model.named_parameters():
        matrix = value.ndim > 1 and "embedding" not in name
        (decayed if matrix else free).append(value)
    groups = [
        {"params": decayed, "weight_decay": plan.weight_decay},
        {"params": free, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=plan.learning_rate, betas=(0.9, 0.98))


def learning_rates(plan: Plan) -> Iterator[float]:
    """Linear warm-up, then half a cosine to zero."""
    warm = max(1, round(WARM_UP * plan.steps))
    for step in range(plan.steps):
        if step < warm:
            yield plan.learning_rate * (step + 1) / warm
        else:
            done = (step - warm) / max(1, plan.steps - warm)
            yield plan.learning_rate * (1 + math.cos(math.pi * done)) / 2


def fit(model: CLIP, batches: Iterator[Batch], plan: Plan) -> None:
    """Train in place for exactly plan.steps batches."""
    adam = optimiser(model, plan)
    model.train()
    for step, rate in enumerate(learning_rates(plan), start=1):
        for group in adam.param_groups:
            group["lr"] = rate
        loss = loss_of(model, next(batches), plan.autocast)
        adam.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        adam.step()
        with torch.no_grad():
            model.logit_scale.clamp_(max=HOTTEST)
        if step % 50 == 0:
            log.info("step %d of %d, loss %.3f", step, plan.steps, loss.item())


def train(name: str, plan: Plan, work: Path, fashion: Path, out: Path) -> dict[str, Any]:
    """Train, save under out/name and return the facts of the run."""
    model_cfg, _ = read_config(name)
    torch.manual_seed(plan.seed)
    batches = Batches(work, fashion, tokenizer(model_cfg), plan.seed)
    vocabulary = Vocabulary(batches.tokens)
    model = CLIP(**model_cfg)
    open_residuals(model)
    model.visual.to(memory_format=torch.channels_last)
    vocabulary.shrink(model)
    batches.tokens = vocabulary.compact(batches.tokens)
    start, busy = time.perf_counter(), time.process_time()
    fit(model, iter(batches), plan)
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - busy
    save(out / name, model, vocabulary, model_cfg, (batches.mean, batches.std))
    return asdict(plan) | {
        "samples_seen": plan.steps * batches.size,
        "seconds": round(seconds),
        "cpu_seconds": round(cpu_seconds),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "open_clip": open_clip.__version__,
        "image_parameters": sum(p.numel() for p in model.visual.parameters()),
    }


@click.command(help=__doc__)
@click.argument("name", type=click.Choice(names()))
@click.argument("work", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("out", type=click.Path(file_okay=False, path_type=Path))
@click.option(
    "--fashion",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default="/usr/share/datasets/fashion-mnist",
    show_default=True,
    help="Folder of the four Fashion-MNIST files.",
)
@click.option("--steps", type=int, help="Train for fewer steps than the config says.")
@click.option("--threads", default=2, show_default=True)
def main(
    name: str, work: Path, out: Path, *, fashion: Path, steps: int | None, threads: int
) -> None:
    """Train NAME and write OUT/NAME, with what it reached in training.json."""
    logging.basicConfig(format="%(asctime)s %(message)s")
    log.setLevel(logging.INFO)
    torch.set_num_threads(threads)
    _, plan = read_config(name)
    if steps is not None:
        plan = Plan(**asdict(plan) | {"steps": steps})
    facts = train(name, plan, work, fashion, out)
    facts["zero_shot_top1"] = {
        split: accuracies(out / name, out.parent / "eval", split) for split in ("train", "test")
    }
    (out / name / "training.json").write_text(json.dumps(facts, indent=2) + "\n", "utf-8")
    click.echo(json.dumps(facts))


if __name__ == "__main__":
    main()
