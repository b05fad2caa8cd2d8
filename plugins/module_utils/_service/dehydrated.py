# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the collection: no promise is made to other code.

"""Renewal of certificates: a systemd timer, the service it starts, and the program that this runs."""

from __future__ import annotations

from ._timer import TimedProgram


class Dehydrated(TimedProgram):
    """Nothing is issued here, module mail_certificate does that."""

    name = "dehydrated"
    units = ("postmeister-certificate.timer",)
    folders = ("/usr/local/lib/postmeister/certificate",)


SERVICE = Dehydrated
