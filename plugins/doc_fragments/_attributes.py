# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This fragment is private to the collection.

from __future__ import annotations


class ModuleDocFragment:
    # What a module that changes something promises.
    DOCUMENTATION = r"""
options: {}
attributes:
  check_mode:
    description: Says what would change, and changes nothing.
    support: full
  diff_mode:
    description: Shows what changed, or would change, without any secret.
    support: full
  idempotent:
    description: A second run with the same options changes nothing.
    support: full
"""

    # What a module that only reads promises.
    INFO = r"""
options: {}
attributes:
  check_mode:
    description: Only reads, so check mode makes no difference.
    support: full
  diff_mode:
    description: Changes nothing, so there is no difference to show.
    support: N/A
  idempotent:
    description: Changes nothing.
    support: full
"""
