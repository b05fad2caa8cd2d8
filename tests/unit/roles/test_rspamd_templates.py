# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Templates of the roles rspamd and redis, rendered by Ansible's own templar; defaults held against the specs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template
from ansible_collections.postmeister.host.plugins.module_utils._service.rspamd import COMPILE

ROLES = Path(__file__).resolve().parents[3] / "roles"
OVERRIDES = {"trim_blocks": True, "lstrip_blocks": True}
KEYS = [
    {"domain": "example.test", "selector": "r", "type": "rsa", "path": "/k/example.test/r.key"},
    {"domain": "example.test", "selector": "e", "type": "ed25519", "path": "/k/example.test/e.key"},
    {"domain": "other.test", "selector": "r2", "type": "rsa", "path": "/k/other.test/r2.key"},
]


def load(role: str, name: str) -> dict[str, Any]:
    path = ROLES / role / name
    return yaml.safe_load(path.read_text(encoding="utf-8")) if path.exists() else {}


def trusted(value: Any) -> Any:
    if isinstance(value, str):
        return trust_as_template(value)
    if isinstance(value, list):
        return [trusted(item) for item in value]
    if isinstance(value, dict):
        return {key: trusted(item) for key, item in value.items()}
    return value


def templar(role: str, debian: int, given: dict[str, Any]) -> Templar:
    variables = {
        **trusted(load(role, "defaults/main.yml")),
        **trusted(load(role, "vars/main.yml")),
        "rspamd_hostname": "mail.example.test",
        **given,
        "ansible_managed": "Ansible managed",
        "ansible_facts": {"distribution_major_version": str(debian)},
    }
    return Templar(loader=DataLoader(), variables=variables)


def render(role: str, path: str, debian: int = 13, **given: Any) -> str:
    text = trust_as_template((ROLES / role / "templates" / f"{path}.j2").read_text(encoding="utf-8"))
    return str(templar(role, debian, given).template(text, escape_backslashes=False, overrides=OVERRIDES))


def rspamd(path: str, debian: int = 13, **given: Any) -> str:
    return render("rspamd", f"etc/rspamd/{path}", debian, **given)


def files(**given: Any) -> dict[str, dict[str, Any]]:
    """The files that service_config is given, by destination."""
    (service,) = templar("rspamd", 13, given).template(trust_as_template("{{ __rspamd_services }}"))
    return {entry["dest"]: dict(entry) for entry in service["files"]}


def settings(text: str) -> dict[str, str]:
    """Plain `name = value;` lines."""
    return dict(re.findall(r"(?m)^\s*(\w+) = (.+);$", text))


@pytest.mark.parametrize("role", ["rspamd", "redis"])
def test_defaults_equal_the_specs(role: str) -> None:
    defaults, specs = load(role, "defaults/main.yml"), load(role, "meta/argument_specs.yml")["argument_specs"]
    assert not specs.pop("compile", {}).get("options")
    assert set(specs) == {"main", "configure", "check"}
    for entry in specs.values():
        options = entry["options"]
        assert set(options) == set(defaults)
        for name, option in options.items():
            assert option["default"] == defaults[name], name


def test_the_role_compiles_ahead_what_the_module_would() -> None:
    (task,) = load("rspamd", "tasks/compile.yml")
    assert task["ansible.builtin.command"]["argv"] == [word for word in COMPILE if word != "--wait"]


def test_every_template_is_used() -> None:
    base = ROLES / "rspamd" / "templates"
    lying = {str(path.relative_to(base)) for path in base.rglob("*.j2")}
    assert {entry["template"] for entry in files().values()} == lying
    for dest, entry in files().items():
        assert entry["template"] == f"{dest[1:]}.j2"


@pytest.mark.parametrize("role", ["rspamd", "redis"])
def test_every_template_renders_under_its_head(role: str) -> None:
    base = ROLES / role / "templates"
    for path in base.rglob("*.j2"):
        text = render(role, str(path.relative_to(base))[: -len(".j2")], rspamd_dkim_keys=KEYS)
        assert "Ansible managed" in text.split("\n\n", maxsplit=1)[0], path
        assert "SPDX" not in text and "{{" not in text and "{%" not in text, path
        assert not re.search(r"(?i)\bundefined\b", text), path


def test_sockets_and_no_port() -> None:
    proxy = settings(rspamd("override.d/worker-proxy.inc"))
    assert proxy["bind_socket"] == '"/run/rspamd/milter.sock mode=0660 owner=_rspamd group=postfix"'
    assert (proxy["milter"], proxy["self_scan"], proxy["count"]) == ("true", "true", "1")
    controller = settings(rspamd("override.d/worker-controller.inc", rspamd_controller_group="vmail"))
    assert controller["bind_socket"] == '"/run/rspamd/controller.sock mode=0660 owner=_rspamd group=vmail"'
    assert "group=_rspamd" in rspamd("override.d/worker-controller.inc")
    for name in ("normal", "fuzzy"):
        assert settings(rspamd(f"override.d/worker-{name}.inc")) == {"enabled": "false"}


def test_groups_of_the_unit() -> None:
    unit = "etc/systemd/system/rspamd.service.d/postmeister.conf"
    assert "SupplementaryGroups=redis postfix\n" in render("rspamd", unit)
    assert "SupplementaryGroups=redis postfix vmail\n" in render("rspamd", unit, rspamd_controller_group="vmail")
    assert "SupplementaryGroups=postfix\n" in render("rspamd", unit, rspamd_redis_socket="")
    made = render("rspamd", "etc/sysusers.d/postmeister-rspamd.conf", rspamd_controller_group="postfix")
    assert re.findall(r"(?m)^g (\S+) -$", made) == ["redis", "postfix"]


def test_each_domain_signs_with_all_its_keys() -> None:
    text = rspamd("local.d/dkim_signing.conf", rspamd_dkim_keys=KEYS)
    head, _word, domains = text.partition("domain {")
    assert re.findall(r'^  "(\S+)" \{$', domains, re.MULTILINE) == ["example.test", "other.test"]
    pairs = re.findall(r'selector = "(\S+)"; path = "(\S+)";', domains)
    assert pairs == [(key["selector"], key["path"]) for key in KEYS]
    values = settings(head)
    assert values["use_domain"] == '"header"'
    for name in ("use_esld", "try_fallback", "sign_inbound"):
        assert values[name] == "false"
    for name in ("allow_username_mismatch", "sign_authenticated", "sign_local", "allow_envfrom_empty"):
        assert values[name] == "true"


def test_arc_seals_with_rsa_only() -> None:
    text = rspamd("local.d/arc.conf", rspamd_dkim_keys=KEYS)
    assert re.findall(r'path = "(\S+)";', text) == ["/k/example.test/r.key", "/k/other.test/r2.key"]
    assert settings(text)["sign_inbound"] == "true"
    without = rspamd("local.d/arc.conf", rspamd_dkim_keys=KEYS, rspamd_arc_seal=False)
    assert "path" not in without and settings(without)["sign_inbound"] == "false"


def test_local_is_loopback() -> None:
    assert settings(rspamd("override.d/options.inc"))["local_addrs"] == "[]"
    more = rspamd("override.d/options.inc", rspamd_local_networks=["198.51.100.0/24", "2001:db8::/64"])
    assert settings(more)["local_addrs"] == '["198.51.100.0/24", "2001:db8::/64"]'
    assert "nameserver" not in more
    assert 'nameserver = ["127.0.0.1"];' in rspamd("override.d/options.inc", rspamd_nameservers=["127.0.0.1"])


def test_size_limit_leaves_room_for_line_ends() -> None:
    # the shortest lines that mail consists of in practice are 60 bytes and more; a milter sees one byte more for each
    limit = int(settings(rspamd("override.d/options.inc", rspamd_message_size_limit=1_000_000))["max_message"])
    assert 1_000_000 * 61 / 60 < limit < 1_200_000


def test_switches() -> None:
    for name, variable, default in (
        ("fuzzy_check", "rspamd_fuzzy", "false"),
        ("greylist", "rspamd_greylist", "false"),
        ("rbl", "rspamd_public_lists", "true"),
        ("asn", "rspamd_public_lists", "true"),
        ("phishing", "rspamd_public_lists", "true"),
        ("multimap", "rspamd_public_lists", "true"),
        ("whitelist", "rspamd_public_lists", "true"),
    ):
        other = default == "false"
        assert settings(rspamd(f"local.d/{name}.conf"))["enabled"] == default, name
        assert settings(rspamd(f"local.d/{name}.conf", **{variable: other}))["enabled"] == str(other).lower(), name
    for name in ("neural", "history_redis", "ratelimit"):
        assert settings(rspamd(f"local.d/{name}.conf")) == {"enabled": "false"}
    assert settings(rspamd("local.d/actions.conf")) == {"reject": "15.0", "add_header": "6.0", "greylist": "null"}
    assert settings(rspamd("local.d/actions.conf", rspamd_greylist=True))["greylist"] == "4.0"
    assert settings(rspamd("local.d/dmarc.conf"))["reject"] == '"add_header"'
    assert settings(rspamd("local.d/dmarc.conf", rspamd_dmarc_reject=True))["reject"] == '"reject"'
    assert "autolearn" in rspamd("local.d/classifier-bayes.conf")
    assert "autolearn" not in rspamd("local.d/classifier-bayes.conf", rspamd_bayes_autolearn=False)


def test_rules_for_logins() -> None:
    rules = rspamd(
        "rspamd.local.lua",
        rspamd_sender_logins="/etc/map",
        rspamd_account_limits={"News@example.test": {"burst": 5000, "rate": 500}},
    )
    assert 'local sender_logins = table_at("/etc/map")' in rules
    assert 'user:find("+", 2, true)' in rules
    assert "default_limit = { burst = 200, rate = 60 }" in rules
    assert '["news@example.test"] = { burst = 5000, rate = 500 },' in rules
    off = rspamd("rspamd.local.lua", rspamd_account_limit={"burst": 0, "rate": 0}, rspamd_recipient_delimiter="")
    assert "table_at" not in off and "POSTMEISTER_FORWARD" not in off
    assert "default_limit = { burst = 0, rate = 0 }" in off
    assert "local extension" not in rspamd("rspamd.local.lua", rspamd_sender_logins="/m", rspamd_recipient_delimiter="")
    assert "ARC_SIGNED" in rspamd("rspamd.local.lua", 12) and "ARC_SIGNED" not in rspamd("rspamd.local.lua", 13)


def test_text_cannot_leave_its_quotes() -> None:
    rules = rspamd("rspamd.local.lua", rspamd_sender_logins='/m" .. os.exit() .. "')
    assert r'table_at("/m\" .. os.exit() .. \"")' in rules


def test_rules_for_forwards() -> None:
    keys = [{"domain": name, "selector": "s", "type": "rsa", "path": "/k"} for name in ("B.test", "a.test", "B.test")]
    rules = rspamd("rspamd.local.lua", rspamd_forwards="/etc/forwards", rspamd_dkim_keys=keys)
    assert 'local forwards = table_at("/etc/forwards")' in rules and "sender_logins" not in rules
    assert rules.count("] = true,\n") == 2 and '["b.test"] = true,' in rules


def test_files_of_the_operator() -> None:
    found = files(rspamd_files={"override.d/rbl.conf": "enabled = false;", "local.d/old.conf": ""})
    assert found["/etc/rspamd/override.d/rbl.conf"] == {
        "dest": "/etc/rspamd/override.d/rbl.conf",
        "content": "enabled = false;",
        "mode": "0640",
        "group": "_rspamd",
        "secret": True,
    }
    assert found["/etc/rspamd/local.d/old.conf"] == {"dest": "/etc/rspamd/local.d/old.conf", "state": "absent"}
    assert len(found) == len(files()) + 2


def test_redis() -> None:
    lines = render("redis", "etc/redis/redis.conf", redis_settings={"maxmemory": "1gb"}).splitlines()
    values = [tuple(line.split(" ", 1)) for line in lines if line and not line.startswith("#")]
    first = dict(reversed(values))
    assert (first["port"], first["unixsocket"], first["maxmemory"]) == ("0", "/run/redis/redis-server.sock", "64mb")
    assert first["maxmemory-policy"] == "volatile-lru"
    assert "-@admin" in first["user"]
    # the operator's stands last, and counts
    assert values[-1] == ("maxmemory", "1gb")
    unit = "etc/systemd/system/redis-server.service.d/postmeister.conf"
    assert "Group=mailfilter\n" in render("redis", unit, redis_socket_group="mailfilter")
