# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from ansible_collections.postmeister.host.plugins.module_utils._service import postsrsd
from ansible_collections.postmeister.host.plugins.module_utils._service._base import ServiceError, Stage


@contextmanager
def table(answer: Callable[[str], str]) -> Iterator[int]:
    """A tcp_table(5) server; yields its port."""

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            for line in self.rfile:
                self.wfile.write(answer(line.decode().strip()).encode())

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server.server_address[1]
        server.shutdown()


def rewrite(line: str) -> str:
    assert line == f"get {postsrsd.SAMPLE}"
    return "200 SRS0%3Dab=probe@mail.example.org\n"


def find(line: str) -> str:
    assert line == "get SRS0%3Dab%3Dprobe@mail.example.org"
    return f"200 {postsrsd.SAMPLE}\n"


def service(forward: int, reverse: int) -> postsrsd.Postsrsd:
    return postsrsd.Postsrsd(13, {"forward_port": forward, "reverse_port": reverse})


def test_an_address_goes_there_and_back() -> None:
    with table(rewrite) as forward, table(find) as reverse:
        service(forward, reverse).probe()


@pytest.mark.parametrize(
    ("forward", "reverse", "words"),
    [
        (lambda _line: "500 Invalid request\n", find, "500 Invalid request"),
        (rewrite, lambda _line: "500 Hash invalid in SRS address\n", "500 Hash invalid"),
        (rewrite, lambda _line: "200 other@postsrsd.invalid\n", "other@postsrsd.invalid"),
    ],
)
def test_a_wrong_answer_is_quoted(forward: Callable[[str], str], reverse: Callable[[str], str], words: str) -> None:
    with table(forward) as one, table(reverse) as two, pytest.raises(ServiceError, match=words):
        service(one, two).probe()


def test_nobody_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postsrsd, "PATIENCE", 0.3)
    with table(rewrite) as port:
        pass
    with pytest.raises(ServiceError, match="does not answer"):
        service(port, port).probe()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("SRS_DOMAIN='x\n", "/etc/default/postsrsd: "),
        ("SRS_DOMAIN=\n", "SRS_DOMAIN is empty"),
        ("", "SRS_DOMAIN is empty"),
    ],
)
def test_a_file_that_does_not_start_is_refused(tmp_path: Path, text: str, words: str) -> None:
    config = tmp_path / "etc/default/postsrsd"
    config.parent.mkdir(parents=True)
    config.write_text(text)
    with pytest.raises(ServiceError) as caught:
        service(1, 2).check(Stage(str(tmp_path)))
    assert words in str(caught.value)
    assert str(tmp_path) not in str(caught.value)


def test_a_good_file_passes(tmp_path: Path) -> None:
    config = tmp_path / "etc/default/postsrsd"
    config.parent.mkdir(parents=True)
    config.write_text("SRS_DOMAIN=mail.example.org\nSRS_SEPARATOR==\n")
    service(1, 2).check(Stage(str(tmp_path)))
