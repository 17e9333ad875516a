"""``python -m tests.sources.watched FOLDER WARM...``: read files as an ingest would, watched by an audit hook.

The files WARM are read first, so that what reading loads is loaded. Then every file of the folder is read, by name,
with an address space that may grow by 600 MB. A line of JSON tells of each: its name, the outcome in words, seconds,
the resident memory so far in bytes, and events that no file may cause.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path

from registry.errors import RegistryError
from registry.sources import expand, layer_matrix, open_ref, plan_weights

GROWTH = 600 * 2**20
FORBIDDEN = (
    "import", "exec", "compile", "subprocess.", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork",
    "os.startfile", "pty.spawn", "socket.", "ctypes.", "pickle.find_class", "marshal.", "code.__new__", "urllib.",
    "http.client.", "ftplib.", "smtplib.", "webbrowser.", "os.putenv", "os.mkdir", "os.rename", "os.remove", "os.chmod",
    "os.link", "os.symlink", "shutil.", "sys.settrace", "sys.setprofile", "signal.", "function.__new__",
)  # fmt: skip

events: list[str] = []
watching = False


def hook(event: str, arguments: tuple[object, ...]) -> None:
    if watching and event.startswith(FORBIDDEN):
        events.append(f"{event} {str(arguments)[:100]}")


def attempt(path: Path) -> str:
    """The outcome of reading a file: ``read`` and its matrices, or the error."""
    try:
        with open_ref(expand(path)[0]) as checkpoint:
            layers = plan_weights(checkpoint).layers
            for layer in layers:
                layer_matrix(checkpoint, layer)
    except RegistryError as error:
        if "\n" in str(error) or not error.remedy or len(str(error)) > 2000:
            return f"WRONG: not one line with a remedy: {error!r}"
        return f"{type(error).__name__}: {error}"
    except BaseException as error:  # noqa: BLE001 - whatever it is, it is what is looked for
        return f"WRONG: {type(error).__name__}: {str(error)[:300]}"
    return f"read {len(layers)}"


def peak() -> int:
    """The most resident memory so far in bytes; that of `resource` counts what was there before this program."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


def address_space() -> int:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    return pages * resource.getpagesize()


def main(folder: str, *warm: str) -> None:
    global watching
    for name in warm:
        attempt(Path(name))
    limit = address_space() + GROWTH
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    sys.addaudithook(hook)
    for path in sorted(Path(folder).iterdir()):
        events.clear()
        begun = time.monotonic()
        watching = True
        outcome = attempt(path)
        watching = False
        told = {
            "name": path.name, "outcome": outcome, "seconds": time.monotonic() - begun, "events": list(events),
            "memory": peak(),
        }  # fmt: skip
        sys.stdout.write(json.dumps(told) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
