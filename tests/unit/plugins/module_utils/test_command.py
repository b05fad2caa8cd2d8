# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os

import pytest
from ansible_collections.postmeister.host.plugins.module_utils._command import CommandError, stream


def test_stream_yields_lines_as_they_come():
    lines = stream(["sh", "-c", r"printf 'one\n\377two\n'; echo ignored >&2; printf three"])
    assert list(lines) == ["one\n", "\\xfftwo\n", "three"]


def test_stream_tells_of_a_failure_after_the_last_line():
    lines = stream(["sh", "-c", "echo one; echo no such thing >&2; exit 3"])
    assert next(lines) == "one\n"
    with pytest.raises(CommandError, match=r"exit status 3\nno such thing"):
        next(lines)


def test_stream_tells_what_is_not_installed():
    with pytest.raises(CommandError, match=r"^no-such-program-here: not installed"):
        next(stream(["no-such-program-here"]))


def test_stream_ends_the_program_of_a_reader_that_has_enough(tmp_path):
    path = tmp_path / "pid"
    lines = stream(["sh", "-c", f"echo $$ > {path}; while echo more; do :; done"])
    assert next(lines) == "more\n"
    lines.close()
    with pytest.raises(ProcessLookupError):
        os.kill(int(path.read_text()), 0)
