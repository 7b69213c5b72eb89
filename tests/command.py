"""Running the `effnet-fast` command as a user does: its output piped, or on a terminal."""

from __future__ import annotations

import contextlib
import os
import pty
import subprocess
import sys
import threading

from click.testing import CliRunner

from effnet_fast import cli


def invoke(*arguments: object):
    done = CliRunner().invoke(cli.main, [str(argument) for argument in arguments])
    assert "Traceback" not in done.output
    if done.exception is not None:
        assert isinstance(done.exception, SystemExit), done.exception
    return done


def on_a_terminal(*arguments: object, pipe_results: bool) -> tuple[int, str, str]:
    """Run the command with standard error, and unless `pipe_results` standard output, on a terminal.

    Returns the exit status, what was piped, and what the terminal showed.
    """
    main, side = pty.openpty()
    command = [sys.executable, "-c", "from effnet_fast.cli import main; main()", *map(str, arguments)]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    shown = bytearray()

    def read() -> None:
        with contextlib.suppress(OSError):  # how a terminal ends on Linux
            while part := os.read(main, 4096):
                shown.extend(part)

    with subprocess.Popen(
        command, stdout=subprocess.PIPE if pipe_results else side, stderr=side, env=environment
    ) as process:
        os.close(side)
        reader = threading.Thread(target=read)
        reader.start()
        piped = process.stdout.read().decode() if pipe_results else ""
        status = process.wait(timeout=100)
        reader.join()
    os.close(main)
    return status, piped, shown.decode()
