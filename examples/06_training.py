"""Training, every step written out: predict, measure, differentiate, correct."""

from __future__ import annotations

import numpy as np
from shared import options

from numpyvit import Tensor, create_model, functional, no_grad
from numpyvit.data import ArrayDataset, Loader, Normalize, make_shapes
from numpyvit.data.shapes import CLASS_NAMES
from numpyvit.explain import draw_curves
from numpyvit.models import INITIALIZATIONS, VisionTransformer
from numpyvit.optim import AdamW, warmup_cosine

IMAGES, EPOCHS, BATCH, LEARNING_RATE = 8000, 5, 32, 2e-3


def main() -> None:
    chosen = options(__file__)
    images, labels = make_shapes(IMAGES)
    data = ArrayDataset(images, labels, CLASS_NAMES)
    loader = Loader(data, BATCH, transform=Normalize())
    held_back, answers = make_shapes(500, stream=1)

    # Patches of 8 pixels instead of 4: a quarter of the tokens, a quarter of the time.
    model = create_model(
        "vit_cifar_patch4_32", patch_size=8, dropout=0.0, attention_dropout=0.0, seed=0
    )
    INITIALIZATIONS["structured"](model, np.random.default_rng(0))
    optimizer = AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.05)
    print(f"{model.num_parameters():,} parameters, {IMAGES:,} images of {', '.join(CLASS_NAMES)}")

    rows, step = [], 0
    for epoch in range(1, EPOCHS + 1):
        losses, right = [], 0
        for batch, targets in loader.epoch(epoch):
            rate = LEARNING_RATE * warmup_cosine(
                step, total_steps=EPOCHS * len(loader), warmup_steps=len(loader) // 2
            )
            optimizer.param_groups[0]["lr"] = rate

            logits = model(batch)  # predict: (32, 3, 32, 32) -> (32, 10)
            loss = functional.cross_entropy(logits, targets)  # measure
            optimizer.zero_grad()
            loss.backward()  # differentiate: every parameter gets its .grad
            optimizer.step()  # correct

            losses.append(loss.item())
            right += int((logits.numpy().argmax(axis=1) == targets).sum())
            step += 1
        val_loss, val_accuracy = evaluate(model, Normalize()(held_back), answers)
        row = {"epoch": epoch, "learning_rate": rate, "train_loss": np.mean(losses)}
        row |= {"train_accuracy": right / IMAGES}
        row |= {"val_loss": val_loss, "val_accuracy": val_accuracy}
        rows.append(row)
        print(f"epoch {epoch}: loss {row['train_loss']:.3f}, new images {val_accuracy:.1%} right")
    print("guessing would be right in 10%; `numpyvit train` goes on to over 95%")
    draw_curves(rows, chosen.picture)
    print(f"saved {chosen.picture}")


def evaluate(model: VisionTransformer, images: np.ndarray, labels: np.ndarray) -> tuple:
    """Loss and accuracy on images that the training has not seen."""
    model.eval()
    with no_grad():
        logits: Tensor = model(images)
        loss = functional.cross_entropy(logits, labels).item()
    model.train()
    return loss, float((logits.numpy().argmax(axis=1) == labels).mean())


if __name__ == "__main__":
    main()
