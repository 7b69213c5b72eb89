"""`python -m benchmarks`: without a subcommand, the main job: photographs, then the sweep over phi."""

from __future__ import annotations

import signal

from benchmarks.commands import main

if __name__ == "__main__":
    # A polite kill ends a sweep as Ctrl-C does: workers stopped, finished cases kept and shown.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    main(prog_name="python -m benchmarks")
