"""Words for a process that cannot say them itself: Ray's core ends the process that it is in, without a word, when the
cluster's head or the raylet of this machine is gone; and so does whoever kills it.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

#: A process that waits for the end of its input, and says something unless it was told that all is well. It knows
#: nothing but Python: it takes some megabytes and milliseconds.
_LISTENER = """
import sys
if sys.stdin.buffer.read() != b".":
    print(sys.argv[1], file=sys.stderr, flush=True)
"""


@contextmanager
def last_words(text: str) -> Iterator[None]:
    """Print a line on standard error if this process ends, however it ends, before the block is left."""
    try:
        listener = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _LISTENER, text],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for this process
        )
    except OSError:
        yield  # no room for one more process: then without
        return
    try:
        yield
    finally:
        with suppress(OSError):
            listener.communicate(b".")
