"""The store: is it there, can it be written, of which version is it, who uses it."""

import os
import time
from pathlib import Path

from bot.config.mistakes import safe
from bot.findings import Finding, failed, ok, warning
from storage.database import open_database
from storage.errors import StorageError, StoreTooOld
from storage.figures import try_writing
from storage.lock import holder_of


async def check_store(path: Path) -> list[Finding]:
    """Write something small into it, as a command beside a running bot does."""
    if not path.exists():
        return [_new(path)]
    findings = []
    try:
        async with open_database(path, is_alone=False) as store:
            await store.write(try_writing, time.time_ns() // 1_000_000)
    except StoreTooOld:
        findings.append(
            ok("store", f"{safe(str(path))} was written by an older Murmur: the next start upgrades it")
        )
    except StorageError as error:
        findings.append(failed("store", str(error)))
    else:
        findings.append(ok("store", f"{safe(str(path))} can be written, and its schema is this version's"))
    return [*findings, _instance(path)]


def _new(path: Path) -> Finding:
    folder = path.absolute().parent
    if not folder.is_dir():
        return failed("store", f"there is no folder {safe(str(folder))}: make it, for the bot's user")
    if not os.access(folder, os.W_OK | os.X_OK):
        return failed("store", f"the folder {safe(str(folder))} may not be written: check who owns it")
    return ok("store", f"{safe(str(path))} is made at the first start")


def _instance(path: Path) -> Finding:
    try:
        holder = holder_of(path)
    except StorageError as error:
        return failed("instance", str(error))
    if holder is None:
        return ok("instance", "no bot uses this store now")
    return warning("instance", f"a bot runs on this store, process {holder}: a second one will not start")
