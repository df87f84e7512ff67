"""Commands that give an encoder to others: export, push."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from terrasieve.cli.app import Overwrite, RunPath, app
from terrasieve.console import console


@app.command()
def export(
    run: RunPath,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="The folder; a file `.pt2` for `torch`, `.onnx` for `onnx`.")
    ],
    form: Annotated[
        Literal["timm", "transformers", "torch", "onnx"],
        typer.Option(
            "--format",
            help="`timm`: a folder for `timm.create_model`; `transformers`: one for `AutoModel` (ResNets and ViTs); "
            "`torch`: a program for `torch.export.load`; `onnx`: one for ONNX runtimes.",
        ),
    ] = "timm",
    shown: Annotated[
        str | None,
        typer.Option("--input", help="Bands that fill the channels, e.g. `s2:rgb`, in this order. The first that fit."),
    ] = None,
    size: Annotated[
        int | None,
        typer.Option(min=1, help="Height and width of the input in pixels; those of the training views."),
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Write an encoder in a form that other libraries load without terrasieve, with a STAC item beside it.

    Programs (`torch`, `onnx`) take pixels in the unit of the bands, any number of samples, and clip and standardise
    them by themselves. For the folders (`timm`, `transformers`) the caller does that, by the numbers in the item.

    **Examples**

    ```
    terrasieve export runs/first --format torch --input s2:B03 --out first.pt2
    terrasieve export runs/first --format onnx --input s2:B03 --size 64 --out first.onnx
    terrasieve export runs/first --format transformers --input s2:B03 --out first-transformers
    ```
    """
    from terrasieve.embeddings.inputs import EncoderInput
    from terrasieve.exports.exporting import export_encoder

    wanted = None if shown is None else EncoderInput.parse(shown)
    written = export_encoder(run, out, form, wanted, size, overwrite)
    console.print(written.summary(), highlight=False)
    console.print(f"Model: {written.path}  STAC: {written.item}", highlight=False)


@app.command()
def push(
    run: RunPath,
    repository: Annotated[str, typer.Argument(help="The repository on Hugging Face's hub, `OWNER/NAME`.")],
    private: Annotated[
        bool, typer.Option("--private", help="If the repository has to be made, let nobody else see it.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only list what would be uploaded; needs no network and no token.")
    ] = False,
) -> None:
    """Upload an encoder and its model card to Hugging Face's hub, where timm loads it by name.

    The card is README.md beside the encoder, which `terrasieve card` writes; without one it is made for the upload,
    with the licence `other`.

    **Examples**

    ```
    terrasieve push runs/first somebody/first --dry-run
    terrasieve push runs/first somebody/first --private
    ```
    """
    from rich.console import Console
    from rich.filesize import decimal

    from terrasieve.exports.pushing import prepare_upload
    from terrasieve.tables import Table, row_of

    upload = prepare_upload(run, repository)
    rows = tuple(row_of(name, decimal(len(content))) for name, content in upload.files.items())
    Console().print(Table(f"To {repository}", ("file", "size"), rows, align="lr"))
    if upload.made_card:
        console.print(
            "The model card is made for the upload, with the licence `other`. `terrasieve card` writes one to edit.",
            highlight=False,
        )
    if dry_run:
        console.print("Nothing was uploaded.", highlight=False)
        return
    console.print(f"Uploaded: {upload.send(private)}", highlight=False)
    console.print(f'Load it: timm.create_model("hf-hub:{repository}", pretrained=True)', highlight=False)
