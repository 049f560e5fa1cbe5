"""The rack as each stage left it, kept so that another run can begin there.

    stages/0002/rack/  state/     the checkpoint at the end of stage 2, as in the run's own folder

Files of a checkpoint are named by content and never changed, so that one which a later checkpoint
still has takes no room here: it is the same file under a second name. What the others take is in
`memory/disk.py`; how a run begins at one of these is in `forking.py`.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from stackwise.atomic import PART, flush, make_folder, write_text
from stackwise.jsontext import dumps
from stackwise.runs.records import MANIFEST
from stackwise.training.manifest import CheckpointError, read_manifest, verify_part
from stackwise.training.ownership import RACK, WHOLE
from stackwise.training.part_names import home_of
from stackwise.training.work import Work

FOLDER = "stages"


def keep_stage(work: Work) -> None:
    """Keep the checkpoint of the stage that has just ended, if there is one and it is not kept.

    Raises:
        OSError: If it cannot be written.
    """
    if not work.placement.keep_stages or work.at.step or not work.at.stage:
        return
    kept = folder_of(work.run.path, work.at.stage - 1)
    if not is_kept(work.run.path / RACK, kept):
        keep(work.run.path / RACK, kept)
        work.writer.event("stage_kept", stage=work.at.stage - 1)


def is_kept(rack: Path, kept: Path) -> bool:
    """Whether a folder has the files of a checkpoint; not what was there before it was gone back.

    Of files that were damaged there are others by then, of the same names. Stacks that the next
    stage has put into the checkpoint meanwhile are none of the end's.
    """
    if not (kept / RACK / MANIFEST).exists():
        return False
    try:
        there, end = read_manifest(rack), read_manifest(kept / RACK)
        same = all(there["counters"][key] == end["counters"][key] for key in WHOLE)
        return same and all(
            (home_of(rack, name) / entry["file"]).samefile(
                home_of(kept / RACK, name) / entry["file"]
            )
            for name, entry in end["parts"].items()
        )
    except (CheckpointError, FileNotFoundError, LookupError, TypeError):
        return False


def folder_of(run: Path, number: int) -> Path:
    """Where the end of a stage is kept."""
    return run / FOLDER / f"{number:04d}"


def kept_stages(run: Path) -> list[int]:
    """The stages whose end is kept, in order."""
    found = (path.parents[1].name for path in (run / FOLDER).glob(f"*/{RACK}/{MANIFEST}"))
    return sorted(int(name) for name in found if name.isascii() and name.isdigit())


def keep(rack: Path, target: Path) -> None:
    """Give a checkpoint a second folder, whole or not at all."""
    draft = target.with_name(f".{target.name}{PART}")
    make_folder(target.parent)
    shutil.rmtree(draft, ignore_errors=True)
    copy_checkpoint(rack, draft)
    shutil.rmtree(target, ignore_errors=True)
    os.replace(draft, target)
    flush(target.parent)


def drop_drafts(folder: Path) -> None:
    """Remove what a kill left half made, or half removed, of checkpoints that are kept in one."""
    for draft in folder.glob(f".*{PART}"):
        shutil.rmtree(draft, ignore_errors=True)


def copy_checkpoint(rack: Path, target: Path) -> None:
    """Give the files of a checkpoint second names, in a folder of its name and in `target/state`.

    Args:
        rack: Its folder, with the manifest: `rack`, or `best`.
        target: Where the new folders are made; it does not hold them yet.

    Raises:
        CheckpointReplaced: If a newer checkpoint has been written meanwhile.
        CheckpointError: If its manifest is damaged, or a file of it is missing or cut.
        OSError: If it cannot be written.
    """
    copy, manifest = target / rack.name, read_manifest(rack)
    copy.mkdir(parents=True)
    homes = {target, copy}
    for name in manifest["parts"]:
        home = home_of(copy, name)
        home.mkdir(exist_ok=True)
        homes.add(home)
        file = verify_part(rack, manifest, name, whole=False)
        try:
            same_file(file, home / file.name)
        except FileNotFoundError:
            verify_part(rack, manifest, name, whole=False)  # says why it went just now
            raise
    write_text(copy / MANIFEST, dumps(manifest, indent=1))
    for folder in homes:
        flush(folder)


def same_file(source: Path, target: Path) -> None:
    """A second name for a file; a copy where the disk gives none."""
    try:
        os.link(source, target)
    except FileNotFoundError:
        raise
    except OSError:
        shutil.copyfile(source, target)
        flush(target)
