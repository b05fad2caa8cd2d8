# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the collection: no promise is made to other code.

"""The daemons that service_config knows, by name.

The imports are written out because Ansible packs the files that it finds by reading them; they stand in the function so
that a run on one daemon loads that daemon's file only.
"""

from __future__ import annotations

from ._base import Service

NAMES = ("postfix", "dovecot", "rspamd", "redis", "unbound", "postsrsd", "fail2ban")


def service_class(name: str) -> type[Service]:
    """Return the class of a daemon; raises KeyError for a name that is not in NAMES."""
    if name == "postfix":
        from .postfix import SERVICE as postfix

        return postfix
    if name == "dovecot":
        from .dovecot import SERVICE as dovecot

        return dovecot
    if name == "rspamd":
        from .rspamd import SERVICE as rspamd

        return rspamd
    if name == "redis":
        from .redis import SERVICE as redis

        return redis
    if name == "unbound":
        from .unbound import SERVICE as unbound

        return unbound
    if name == "postsrsd":
        from .postsrsd import SERVICE as postsrsd

        return postsrsd
    if name == "fail2ban":
        from .fail2ban import SERVICE as fail2ban

        return fail2ban
    raise KeyError(name)
