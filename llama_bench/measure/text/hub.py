"""What comes from the Hugging Face Hub for `prepare`: rows of a dataset, a tokenizer's files.

A dataset is streamed: read once, row by row, and never kept as a whole. A folder that the
`datasets` library can load stands in for a repository and is read in the same way. A Hub that
cannot be reached is an accident, to be tried again; a name that it does not know is a mistake.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from llama_bench.fields import UserError
from llama_bench.measure.job import Failure
from llama_bench.sources import TOKENIZER_FILES
from llama_bench.specs import Corpus, Pretrained


def rows(corpus: Corpus, folder: list[Path]) -> Iterator[object]:
    """What stands under the text key, row by row; `folder` holds a local dataset's folder."""
    import datasets
    from huggingface_hub import errors

    where = str(folder[0]) if corpus.revision is None else corpus.repo
    try:
        dataset = datasets.load_dataset(
            where,
            name=corpus.subset,
            split=corpus.split or "train",
            revision=corpus.revision,
            streaming=True,
        )
        for row in dataset:
            if corpus.text_key not in row:
                raise UserError(
                    f"data.corpus: {where}: has no column {corpus.text_key!r} (columns: "
                    f"{', '.join(row)}); set data.text_key"
                )
            yield row[corpus.text_key]
    except (UserError, errors.LocalEntryNotFoundError) as error:
        raise error if isinstance(error, UserError) else unreachable(where, error) from None
    except (FileNotFoundError, ValueError) as error:  # its own errors of what is not there
        raise UserError(f"data.corpus: {where}: {_line(error)}") from None
    except (OSError, RuntimeError) as error:
        raise unreachable(where, error) from None


def tokenizer_files(tokenizer: Pretrained) -> Path:
    """The folder of a Hub tokenizer's files, fetched where they are not yet here."""
    from huggingface_hub import errors, snapshot_download

    repo, revision = tokenizer.repo, tokenizer.revision
    try:
        return Path(
            snapshot_download(repo, revision=revision, allow_patterns=list(TOKENIZER_FILES))
        )
    except (
        errors.RepositoryNotFoundError,
        errors.RevisionNotFoundError,
        errors.HFValidationError,
    ) as error:
        raise UserError(f"data.tokenizer: {repo} at {revision}: {_line(error)}") from None
    except (OSError, RuntimeError) as error:
        raise unreachable(repo, error) from None


def unreachable(what: str, error: Exception) -> Failure:
    offline = os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")
    why = "HF_HUB_OFFLINE is set; unset it" if offline else _line(error)
    return Failure(f"{what} cannot be had from the Hub ({why}); start again once it can")


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
