# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the collection: no promise is made to other code.

"""Programs: argv in, typed result out. No shell, C locale, secrets only through stdin."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Result:
    """What a program answered; out and err are text with undecodable bytes escaped."""

    argv: tuple[str, ...]
    rc: int
    out: str
    err: str

    @property
    def words(self) -> str:
        """The program's own words, standard error first, for an error message."""
        return "\n".join(part.strip() for part in (self.err, self.out) if part.strip())


class CommandError(Exception):
    """A program could not be started, ran too long, or failed; the message names it and quotes its words."""


def run(
    argv: Sequence[str],
    stdin: str | None = None,
    timeout: float = 60.0,
    check: bool = True,
    env: dict[str, str] | None = None,
) -> Result:
    """Run a program.

    timeout is in seconds. With check, an exit status other than 0 raises CommandError; without, it is returned.
    """
    environment = {**os.environ, "LC_ALL": "C", "LANGUAGE": "C", **(env or {})}
    try:
        # The one place where modules and the programs they leave on the host start processes.
        done = subprocess.run(  # pylint: disable=ansible-bad-function
            list(argv),
            input=None if stdin is None else stdin.encode(),
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            timeout=timeout,
            env=environment,
            check=False,
        )
    except FileNotFoundError as exc:
        raise CommandError(f"{argv[0]}: not installed") from exc
    except OSError as exc:
        raise CommandError(f"{argv[0]}: {exc.strerror}") from exc
    except subprocess.TimeoutExpired as exc:
        raise CommandError(f"{' '.join(argv)}: no answer after {timeout:g} s") from exc
    result = Result(
        tuple(argv),
        done.returncode,
        done.stdout.decode(errors="backslashreplace"),
        done.stderr.decode(errors="backslashreplace"),
    )
    if check and result.rc != 0:
        raise CommandError(f"{' '.join(argv)}: exit status {result.rc}\n{result.words}".rstrip())
    return result


def stream(argv: Sequence[str]) -> Iterator[str]:
    """Run a program and yield its lines as they come, for output that is too much to hold.

    Raises CommandError when it cannot be started, or failed. A reader that stops early ends it.
    """
    environment = {**os.environ, "LC_ALL": "C", "LANGUAGE": "C"}
    with tempfile.TemporaryFile() as errors:
        try:
            process = subprocess.Popen(  # pylint: disable=ansible-bad-function,consider-using-with
                list(argv), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, env=environment
            )
        except FileNotFoundError as exc:
            raise CommandError(f"{argv[0]}: not installed") from exc
        except OSError as exc:
            raise CommandError(f"{argv[0]}: {exc.strerror}") from exc
        with process:
            try:
                for line in process.stdout or ():
                    yield line.decode(errors="backslashreplace")
            except GeneratorExit:
                process.kill()
                raise
        if process.returncode != 0:
            errors.seek(0)
            words = errors.read().decode(errors="backslashreplace").strip()
            raise CommandError(f"{' '.join(argv)}: exit status {process.returncode}\n{words}".rstrip())
