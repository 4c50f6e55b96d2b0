"""A first prediction with numpyvit: `first_numpyvit.py CHECKPOINT PHOTO` prints a top-5."""

import json
import sys

import numpy
from PIL import Image

from numpyvit import no_grad
from numpyvit.models import load_model


def main(checkpoint: str, photo: str) -> None:
    """Read, resize, crop, normalise, run."""
    saved = load_model(checkpoint)
    picture = Image.open(photo).convert("RGB").resize((256, 256), Image.Resampling.BICUBIC)
    pixels = numpy.asarray(picture.crop((16, 16, 240, 240)), numpy.float32)
    images = ((pixels / 255 - 0.5) / 0.5).transpose(2, 0, 1)[None]
    with no_grad():
        logits = saved.model(images).numpy()[0]
    print(json.dumps(numpy.argsort(-logits)[:5].tolist()))


if __name__ == "__main__":
    main(*sys.argv[1:])
