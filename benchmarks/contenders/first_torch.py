"""A first prediction with PyTorch: `first_torch.py STATE PHOTO` prints a top-5.

STATE.json, beside it, has the model's sizes. As in numpyvit, no weights are drawn that are then
overwritten: the model is built on PyTorch's "meta" device and takes the tensors that were read.
"""

import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy
import torch
from PIL import Image

from benchmarks.contenders.torch_vit import TorchViT


def main(state: str, photo: str) -> None:
    """Read, resize, crop, normalise, run."""
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    config = SimpleNamespace(**json.loads(Path(f"{state}.json").read_text()))
    with torch.device("meta"):
        model = TorchViT(config, fused=True).eval()
    model.load_state_dict(torch.load(state, weights_only=True), assign=True)
    picture = Image.open(photo).convert("RGB").resize((256, 256), Image.Resampling.BICUBIC)
    pixels = numpy.asarray(picture.crop((16, 16, 240, 240)), numpy.float32)
    images = ((pixels / 255 - 0.5) / 0.5).transpose(2, 0, 1)[None]
    with torch.inference_mode():
        logits = model(torch.from_numpy(images))[0]
    print(json.dumps(logits.topk(5).indices.tolist()))


if __name__ == "__main__":
    main(*sys.argv[1:])
