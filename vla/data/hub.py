"""Finding a dataset by a folder or by its name on the hub, in the places where LeRobot keeps them."""

from __future__ import annotations

import re
from pathlib import Path

from vla.contracts import VlaError

REVISION = "v3.0"


def find_dataset(name: str) -> Path:
    """The folder of a dataset.

    Args:
        name: a folder, or ``owner/name`` of a dataset on the hub. It counts as a folder if it is there, or if the
            folder ``owner`` is. LeRobot's own folders are looked into first; only what they lack is fetched.

    Raises:
        VlaError: the hub cannot be asked, has no such dataset, or has it only in an older format.
    """
    folder = Path(name)
    if folder.exists() or not re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", name) or folder.parent.exists():
        return folder
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError
    from lerobot.utils.constants import HF_LEROBOT_HOME, HF_LEROBOT_HUB_CACHE

    kept = HF_LEROBOT_HOME / name
    if (kept / "meta" / "info.json").is_file():
        return kept
    try:
        return Path(
            snapshot_download(
                name,
                repo_type="dataset",
                revision=REVISION,
                cache_dir=HF_LEROBOT_HUB_CACHE,
                allow_patterns=["meta/*", "data/*", "videos/*"],
            )
        )
    except RepositoryNotFoundError as error:
        raise VlaError(f"there is no folder {name}, and the hub has no dataset of that name") from error
    except RevisionNotFoundError as error:
        raise VlaError(f"the hub has {name}, but not in LeRobot's format {REVISION}") from error
    except (HfHubHTTPError, OSError, ValueError) as error:
        raise VlaError(
            f"there is no folder {name}, it is not in {HF_LEROBOT_HOME}, and the hub cannot be asked: "
            f"{str(error).strip().splitlines()[0]}"
        ) from error
