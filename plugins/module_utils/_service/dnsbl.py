# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the collection: no promise is made to other code.

"""The test of the DNS lists every ten minutes."""

from __future__ import annotations

from ._timer import TimedProgram


class Dnsbl(TimedProgram):
    """No list is tested here, module dnsbl does that."""

    name = "dnsbl"
    units = ("postmeister-dnsbl.timer",)
    folders = ("/usr/local/lib/postmeister/dnsbl",)


SERVICE = Dnsbl
