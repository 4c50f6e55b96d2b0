"""`numpyvit convert`: write a model for other libraries."""

from __future__ import annotations

import argparse
from pathlib import Path

from numpyvit.cli import errors, opening, output, parsing
from numpyvit.weights import TARGETS, Pretrained, convert

ABOUT = f"""\
Write a model under the names and in the layout that another library opens.
The numbers stay as they are, to the bit.

{opening.FORMATS}

targets:
  timm            timm's names, which are also DeiT's, MAE's and DINO's
  torchvision     for ImageModel.load_state_dict, once
                  safetensors.torch.load_file has read it
  hugging-face    a folder that transformers' from_pretrained opens
  google          vit_jax's names, .npz alone
  numpyvit        numpyvit's own checkpoint, .npz
The ending of --out chooses the form where there is a choice: .safetensors or
.npz."""

ENDINGS = {"google": (".npz",), "numpyvit": (".npz",)}  # of others .safetensors or .npz
OF_FILES = {".safetensors", ".npz", ".pth", ".pt", ".bin", ".json"}

EXAMPLES = """
numpyvit convert vit_b_16.pth --to timm --out vit_b_16.safetensors
numpyvit convert runs/photos --to hugging-face --out photos-vit/
numpyvit convert ViT-B_16.npz --to numpyvit --out vit.npz --image-size 384
"""


def add_parser(commands: parsing.Commands) -> None:
    """Add the command."""
    parser = parsing.add_command(
        commands, "convert", "write a model for other libraries", ABOUT, EXAMPLES
    )
    parser.set_defaults(run=run)
    parser.add_argument("file", metavar="FILE", help="the model, see above")
    parser.add_argument(
        "--to", metavar="TARGET", required=True, choices=TARGETS, help="whom it is for, see above"
    )
    parser.add_argument("--out", metavar="PATH", required=True, help="the file or folder to write")
    opening.add_changes(parser)


def run(args: argparse.Namespace) -> int:
    """Convert; the files written go to stdout, what to know about them to stderr."""
    out = Path(args.out)
    _check_not_the_input(Path(args.file), out)
    _check_ending(args.to, out)
    opened = opening.open_model(args.file, args.image_size, args.settings)
    if opened.report:
        output.note(output.summary(opened.report, args.file))
    model = Pretrained(
        opened.name, opened.model, opened.labelling, opened.preprocessing, opened.report
    )
    folder = out.absolute().parent
    with output.undone_on_failure(folder):
        output.writable_folder(folder)
        done = convert(model, args.to, out)
    for text in done.notes:
        output.note(f"note: {text}")
    sizes = [(str(file), f"{file.stat().st_size:,} bytes") for file in done.files]
    print(output.table(sizes))
    return errors.SUCCESS


def _check_ending(target: str, out: Path) -> None:
    """ValueError for a file or folder that the target's readers would not open."""
    if target == "hugging-face":
        if out.suffix in OF_FILES:
            raise ValueError(
                f"expected a folder to write for hugging-face, got {out}; leave out {out.suffix}"
            )
        return
    endings = ENDINGS.get(target, (".safetensors", ".npz"))
    if out.suffix not in endings:
        advice = "; safetensors.torch.load_file reads .safetensors for load_state_dict"
        raise ValueError(
            f"expected --out for {target} that ends in {' or '.join(endings)}, got {out}"
            f"{advice if target == 'torchvision' else ''}"
        )


def _check_not_the_input(file: Path, out: Path) -> None:
    """ValueError where the result would take the place of what it is made from."""
    if (
        out.exists()
        and file.exists()
        and out.resolve()
        in (
            file.resolve(),
            opening.weights_file(file).resolve(),
        )
    ):
        raise ValueError(f"expected --out to be another file than the one that is read, got {out}")
