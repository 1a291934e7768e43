"""What comes from the Hugging Face Hub as text: rows of a dataset, a tokenizer's files.

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
from llama_bench.measure.text.rows import Row, require
from llama_bench.sources import TOKENIZER_FILES
from llama_bench.specs import Corpus, Pretrained


def rows(
    corpus: Corpus, folder: list[Path], columns: list[str], key: str, setting: str
) -> Iterator[Row]:
    """Row by row; `folder` holds a local dataset's folder. `key` names the corpus in the
    configuration, `setting` its columns."""
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
            require(row, columns, f"{key}: {where}:", setting)
            yield row
    except (UserError, errors.LocalEntryNotFoundError) as error:
        raise error if isinstance(error, UserError) else unreachable(where, error) from None
    except (FileNotFoundError, ValueError) as error:  # its own errors of what is not there
        raise UserError(f"{key}: {where}: {_line(error)}") from None
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
