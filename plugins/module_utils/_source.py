# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the collection: no promise is made to other code.

"""The source of the collection's own modules, also out of the archive in which Ansible brings them to a host."""

from __future__ import annotations

from types import ModuleType


def source_of(module: ModuleType) -> bytes:
    """Its source; raises OSError where there is none.

    Not inspect.getsource, which takes an empty file for one that is not there.
    """
    loader = getattr(module, "__loader__", None)
    source = loader.get_source(module.__name__) if loader else None
    if source is None:
        raise OSError(f"{module.__name__}: its source cannot be read")
    # Text from Python's own loaders, bytes from Ansible's.
    return source if isinstance(source, bytes) else source.encode()
