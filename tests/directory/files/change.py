# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs inside the container: what mail_directory does there, without Ansible's part, so that it can be killed often."""

from __future__ import annotations

import json
import sys

sys.path.insert(0, "/root/collections")

from ansible_collections.postmeister.host.plugins.module_utils._mail.apply import Request, run_request
from ansible_collections.postmeister.host.plugins.module_utils._mail.lists import Lists
from ansible_collections.postmeister.host.plugins.module_utils._mail.store_files import FileStore

with open(sys.argv[1], encoding="utf-8") as handle:
    lists = Lists(**json.load(handle))
print(run_request(FileStore(), Request(lambda: lists, sys.argv[1]), False)["changed"])
