"""An exported encoder in a repository of Hugging Face's hub: its files, model card and STAC item, in one commit."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from terrasieve.errors import ArchiveError, ConfigError, RemoteError
from terrasieve.exports.exporting import ITEM, item_of
from terrasieve.exports.prepared import prepare_encoder
from terrasieve.models.export import encoder_files, load_encoder
from terrasieve.reporting.card import README, card_text
from terrasieve.reporting.run import read_runs
from terrasieve.runs import CARD, WEIGHTS
from terrasieve.schema import parse_json

_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


class Hub(Protocol):
    """What is needed of ``huggingface_hub.HfApi``."""

    def create_repo(self, repo_id: str, *, private: bool | None = None, exist_ok: bool = False) -> Any:
        """Make a repository, unless it is there."""

    def create_commit(self, repo_id: str, operations: Any, *, commit_message: str) -> Any:
        """Upload files in one commit."""


@dataclass(frozen=True)
class Upload:
    """What is to go to a repository.

    Attributes:
        repository: Its name, ``owner/name``.
        files: The content of each file by its name there.
        made_card: Whether the model card was made for the upload, because none lay beside the encoder.
    """

    repository: str
    files: Mapping[str, bytes]
    made_card: bool

    def send(self, private: bool, hub: Hub | None = None) -> str:
        """Make the repository where it is absent, and upload the files in one commit.

        Args:
            private: Whether a repository that is made is seen by its owner alone; one that is there stays as it is.
            hub: The hub; Hugging Face's with the token of ``hf auth login`` or ``HF_TOKEN`` when None.

        Returns:
            The address of the repository.

        Raises:
            ConfigError: The package huggingface_hub is missing, or nobody is logged in.
            RemoteError: The hub cannot be reached, or refuses.
        """
        try:
            from huggingface_hub import CommitOperationAdd, HfApi, get_token
        except ImportError as error:
            raise ConfigError("Uploading needs huggingface_hub: pip install 'terrasieve[hub]'.") from error
        if hub is None:
            if get_token() is None:
                raise ConfigError(
                    "Nobody is logged in to Hugging Face's hub. Run `hf auth login`, or set HF_TOKEN to a token that "
                    f"may write to {self.repository}; `--dry-run` needs none."
                )
            hub = HfApi(library_name="terrasieve")
        operations = [CommitOperationAdd(path_in_repo=name, path_or_fileobj=part) for name, part in self.files.items()]
        try:
            address = hub.create_repo(self.repository, private=private or None, exist_ok=True)
            hub.create_commit(self.repository, operations, commit_message="Upload encoder with terrasieve")
        # Its errors, and those of whichever library it asks for connections, have no common class.
        except Exception as error:
            raise RemoteError(
                f"Nothing was uploaded to {self.repository}: {str(error).strip()} Check the name, and that your token "
                "may write there."
            ) from error
        return str(address)


def prepare_upload(run: Path, repository: str) -> Upload:
    """Everything that goes to a repository; nothing is sent.

    The model card is the ``README.md`` beside the encoder, as ``terrasieve card`` writes it and its owner may have
    edited it. In the encoder's own card, folders of this machine are named without those that they stand in.

    Args:
        run: A run folder with an exported encoder, or the encoder's own folder.
        repository: Name of the repository, ``owner/name``.

    Raises:
        CheckpointError: There is no encoder, or a file is damaged.
        ConfigError: The name is none.
    """
    if not _REPOSITORY.fullmatch(repository) or ".." in repository or "--" in repository or len(repository) > 96:
        raise ConfigError(
            f"{repository!r} is no name of a repository: write owner/name, with letters, digits, '-', '_' and '.'."
        )
    files = encoder_files(run)
    read = read_runs([run])[0]
    folder = read.at.exported()
    if folder is None or read.card is None:
        raise ArchiveError(f"{run} holds no encoder, looked for encoder/{CARD}. Name the folder of a finished run.")
    public = json.dumps(_without_folders(parse_json(files[CARD])), indent=1).encode()
    beside = folder / README
    text = beside.read_bytes() if beside.is_file() else card_text(read, read.card, "other").encode()
    files = {README: text, **files, CARD: public}
    if read.card.sensors:
        interface = prepare_encoder(*load_encoder(run)).interface("before")
        item = item_of(interface, WEIGHTS, files[WEIGHTS], "timm")
        files[ITEM] = json.dumps(item, indent=1).encode()
    return Upload(repository, files, not beside.is_file())


def _without_folders(value: Any) -> Any:
    """JSON values with the last name alone of every absolute path."""
    if isinstance(value, dict):
        return {key: _without_folders(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_without_folders(part) for part in value]
    return PurePosixPath(value).name if isinstance(value, str) and value.startswith("/") else value
