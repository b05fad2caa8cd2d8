# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import datetime
import os

import pytest

pytest.importorskip("cryptography")

from ansible_collections.postmeister.host.plugins.module_utils import _files
from ansible_collections.postmeister.host.plugins.module_utils._tls import manage, pem, renew
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import NameOID

HOST = "mail.example.test"
NOW = datetime.datetime.now(datetime.timezone.utc).replace(microsecond=0)
DAY = datetime.timedelta(days=1)
CA_KEY = pem.new_key()
CA_NAME = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Test CA")])
DIRECTORY = "https://ca.test/dir"


@pytest.fixture(autouse=True)
def plain_owner(monkeypatch):
    """Tests may run as any user; the mode still counts."""
    ids = {"root": os.geteuid()}
    monkeypatch.setattr(_files, "uid_of", lambda owner: ids.get(owner, owner))
    monkeypatch.setattr(_files, "gid_of", lambda group, missing=None: os.getegid())


def sign(public_key, begin, days):
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(CA_NAME)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(begin + days * DAY)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(HOST)]), True)
        .sign(CA_KEY, hashes.SHA256())
    )


class Host:
    """A host with a certificate authority and DNS, both only as far as manage() sees them."""

    def __init__(self, folder):
        self.folder = str(folder)
        self.dns = set()
        self.now = NOW
        self.reloaded = []
        self.fail = ""
        self.days = 90
        self.orders = 0

    def issue(self, settings, request):
        self.orders += 1
        if self.fail:
            raise pem.TlsError(self.fail)
        return (sign(x509.load_pem_x509_csr(request).public_key(), self.now, self.days),)

    def run(self, method="acme", check=False, timer=False, directory=DIRECTORY, **more):
        acme = {"directory": directory} if method == "acme" else {}
        settings = manage.Settings(HOST, method, acme=acme, reload=("svc",), **more)
        return manage.manage(settings, check, self.folder, self.now, timer, lambda name: self.dns, self.issue)

    def publish(self, outcome):
        self.dns = {item.split()[3] for item in outcome.tlsa}

    @property
    def store(self):
        return manage.Store(self.folder, HOST)


@pytest.fixture
def host(tmp_path, monkeypatch):
    result = Host(tmp_path / "ssl")
    monkeypatch.setattr(manage, "reload_services", result.reloaded.extend)
    return result


def test_the_first_run_makes_two_keys_and_the_second_changes_nothing(host):
    first = host.run()
    assert first.changed
    assert len(set(first.tlsa)) == 2
    second = host.run()
    assert not second.changed
    assert second.tlsa == first.tlsa
    assert host.orders == 1


def test_no_file_is_looser_than_the_owner(host):
    host.run(method="files", **operators(host, pem.new_key()))
    folder = os.path.join(host.folder, HOST)
    assert os.stat(folder).st_mode & 0o777 == 0o700
    modes = {name: oct(os.stat(os.path.join(folder, name)).st_mode & 0o777) for name in os.listdir(folder)}
    assert modes == dict.fromkeys(("mail.pem", "next.key", "next.csr", "settings.json", "state.json"), "0o600")


def test_check_mode_writes_nothing_and_tells_the_keys_that_are_there(host):
    assert host.run(check=True).changed
    assert host.run(check=True).tlsa == []
    assert not os.path.exists(host.folder)
    keys = host.run().tlsa
    assert host.run(method="selfsigned", check=True).changed
    assert host.run(method="selfsigned", check=True).tlsa == keys
    assert not host.run(check=True).changed
    assert host.orders == 1


def test_another_method_takes_the_published_next_key(host):
    old = host.run(method="selfsigned")
    host.publish(old)
    new = host.run(method="acme")
    assert new.tlsa[0] == old.tlsa[1]
    assert new.tlsa[0].split()[3] in host.dns
    assert new.tlsa[1] not in old.tlsa


def test_another_method_keeps_the_current_key_when_senders_know_only_that(host):
    old = host.run(method="selfsigned")
    host.dns = {old.tlsa[0].split()[3]}
    assert host.run(method="acme").tlsa == old.tlsa


def test_another_authority_is_another_certificate(host):
    host.run()
    assert host.run(directory="https://other.test/dir").changed
    assert not host.run(directory="https://other.test/dir").changed
    assert host.orders == 2


def test_a_renewal_promotes_the_next_key_only_after_it_was_seen_long_enough(host):
    first = host.run()
    host.now += 20 * DAY
    assert host.run(timer=True).tlsa == first.tlsa
    # unpublished: each renewal keeps the key
    host.now = NOW + 61 * DAY
    kept = host.run(timer=True)
    assert kept.changed and kept.tlsa == first.tlsa
    # published, but just now
    host.publish(kept)
    host.now += 61 * DAY
    assert host.run(timer=True).tlsa == first.tlsa
    # seen for a day by the daily timer
    host.now += 2 * DAY
    assert not host.run(timer=True).changed
    host.now += 61 * DAY
    promoted = host.run(timer=True)
    assert promoted.tlsa[0] == first.tlsa[1]
    # the new next key is not in DNS, so the key in use stays
    host.now += 61 * DAY
    assert host.run(timer=True).tlsa == promoted.tlsa


def test_without_a_waiting_time_the_next_key_still_has_to_be_in_dns(host):
    first = host.run()
    host.now += 61 * DAY
    host.dns = {first.tlsa[0].split()[3]}
    assert host.run(timer=True, next_key_age=0).tlsa == first.tlsa
    host.publish(first)
    host.now += 61 * DAY
    assert host.run(timer=True, next_key_age=0).tlsa[0] == first.tlsa[1]


def test_a_folder_that_others_can_enter_is_closed(host):
    host.run()
    os.chmod(host.store.folder, 0o750)  # noqa: S103 (that is the damage)
    assert host.run(check=True).changed
    assert host.run().changed
    assert os.stat(host.store.folder).st_mode & 0o777 == 0o700
    assert not host.run().changed


def test_a_next_key_that_left_dns_starts_anew(host):
    host.publish(host.run())
    host.run(timer=True)
    host.dns = set()
    host.run(timer=True)
    assert "next_seen" not in host.store.read_state()


def test_no_answer_from_dns_keeps_key_and_memory(host):
    first = host.run()
    host.publish(first)
    host.run(timer=True)
    host.dns = None
    host.now += 70 * DAY
    assert host.run(timer=True).tlsa == first.tlsa
    assert host.store.read_state()["next_seen"]["spki"] == first.tlsa[1].split()[3]


@pytest.mark.parametrize(("days", "age", "due"), [(90, 59, False), (90, 61, True), (6, 3, False), (6, 5, True)])
def test_renewed_in_the_last_third_at_most_thirty_days(host, days, age, due):
    host.days = days
    host.run()
    host.now += age * DAY
    assert host.run().changed is due


def test_renew_before_is_the_operators(host):
    host.run()
    host.now += 20 * DAY
    assert not host.run(renew_before=60).notes
    assert host.run(renew_before=80).notes[0].startswith("new certificate: it ends on")


def test_a_renewal_that_fails_is_a_warning_in_a_playbook_and_an_error_in_the_timer(host):
    first = host.run()
    host.now += 70 * DAY
    host.fail = "the authority is on holiday"
    outcome = host.run()
    assert not outcome.changed and outcome.tlsa == first.tlsa
    assert "on holiday" in outcome.warnings[0]
    with pytest.raises(pem.TlsError, match="on holiday"):
        host.run(timer=True)
    host.now += 30 * DAY
    with pytest.raises(pem.TlsError, match="on holiday"):
        host.run()


def test_a_failed_first_run_leaves_nothing(host):
    host.fail = "no"
    with pytest.raises(pem.TlsError):
        host.run()
    assert not os.path.exists(host.folder)


def test_a_certificate_for_another_key_is_not_taken(host, monkeypatch):
    monkeypatch.setattr(host, "issue", lambda settings, request: (sign(pem.new_key().public_key(), NOW, 90),))
    with pytest.raises(pem.TlsError, match="does not belong"):
        host.run()


@pytest.mark.parametrize("damage", ["remove", "text", "mode", "append"])
def test_a_damaged_mail_pem_is_repaired_without_leaving_the_published_keys(host, damage):
    first = host.run()
    path = host.store.mail
    if damage == "remove":
        os.unlink(path)
    elif damage == "mode":
        os.chmod(path, 0o644)
    else:
        with open(path, "ab" if damage == "append" else "wb") as handle:
            handle.write(b"garbage\n")
    assert host.run(check=True).changed
    repaired = host.run()
    assert repaired.changed
    assert repaired.tlsa[0] in first.tlsa
    assert os.stat(path).st_mode & 0o777 == 0o600
    assert not host.run().changed


def test_a_damaged_next_key_is_made_anew(host):
    first = host.run()
    with open(host.store.next, "w") as handle:
        handle.write("garbage")
    second = host.run()
    assert second.changed
    assert second.tlsa[0] == first.tlsa[0]
    assert second.tlsa[1] != first.tlsa[1]


def test_a_run_killed_between_certificate_and_next_key_is_completed(host):
    first = host.run()
    with open(host.store.next, "wb") as handle:
        handle.write(pem.dump_key(host.store.current().key))
    second = host.run()
    assert second.changed
    assert second.tlsa[0] == first.tlsa[0]
    assert second.tlsa[1] not in first.tlsa


def test_services_read_what_is_new_and_only_that(host):
    host.run()
    assert host.reloaded == ["svc"]
    host.run()
    assert host.reloaded == ["svc"]
    host.run(method="selfsigned")
    assert host.reloaded == ["svc", "svc"]


def test_a_reload_that_failed_is_made_up_for(host, monkeypatch):
    def broken(names):
        raise manage.CommandError("postfix: no")

    with monkeypatch.context() as patch:
        patch.setattr(manage, "reload_services", broken)
        with pytest.raises(manage.CommandError):
            host.run()
    assert not host.reloaded
    host.run()
    assert host.reloaded == ["svc"]
    host.run()
    assert host.reloaded == ["svc"]


@pytest.mark.parametrize("lost", [b'{"reload_due": true}', b"{}", b"{"], ids=["reload", "origin", "damaged"])
def test_check_mode_tells_what_a_run_would_note(host, lost):
    """mail_host_facts would else take a host for settled whose services are owed a reload."""
    assert host.run(check=True).pending
    host.run()
    assert not host.run(check=True).pending
    with open(host.store.state, "wb") as handle:
        handle.write(lost)
    seen = host.run(check=True)
    assert (seen.changed, seen.pending) == (False, True)
    host.run()
    assert not host.run(check=True).pending


def operators(host, key, begin=NOW, **more):
    return {
        "certificate_content": pem.dump_certificate(sign(key.public_key(), begin, 90)).decode(),
        "private_key_content": pem.dump_key(key).decode(),
        **more,
    }


def test_the_operators_pair_is_taken_and_a_next_key_offered(host):
    key = pem.new_key()
    given = operators(host, key)
    first = host.run(method="files", **given)
    assert first.tlsa[0] == pem.tlsa(key)
    assert not host.run(method="files", **given).changed
    with open(host.store.settings) as handle:
        assert "PRIVATE" not in handle.read()


def test_a_certificate_ordered_with_next_csr_promotes_the_next_key(host):
    first = host.run(method="files", **operators(host, pem.new_key()))
    with open(host.store.request, "rb") as handle:
        ordered = sign(x509.load_pem_x509_csr(handle.read()).public_key(), NOW, 90)
    second = host.run(method="files", certificate_content=pem.dump_certificate(ordered).decode())
    assert second.tlsa[0] == first.tlsa[1]
    assert second.warnings == []
    with open(host.store.request, "rb") as handle:
        assert pem.request_spki(handle.read()) == second.tlsa[1].split()[3]


def test_where_dns_has_no_tlsa_record_the_operators_key_is_taken_at_once(host):
    host.run()
    key = pem.new_key()
    taken = host.run(method="files", **operators(host, key))
    assert (taken.tlsa[0], taken.warnings) == (pem.tlsa(key), [])


def test_without_a_present_certificate_the_operators_key_is_taken_at_once(host):
    key = pem.new_key()
    host.dns = {pem.spki(pem.new_key())}
    first = host.run(method="files", **operators(host, key))
    assert (first.tlsa[0], first.warnings) == (pem.tlsa(key), [])
    # one that was lost
    host.publish(first)
    os.unlink(host.store.mail)
    key = pem.new_key()
    taken = host.run(method="files", **operators(host, key))
    assert taken.tlsa == [pem.tlsa(key), first.tlsa[1]]
    assert "is taken before DNS has shown" in taken.warnings[0]


def test_a_present_certificate_for_another_name_lets_nothing_wait(host, monkeypatch):
    host.publish(host.run())
    key = pem.new_key()
    given = operators(host, key)
    with monkeypatch.context() as patch:
        patch.setattr(pem, "names", lambda certificate: [HOST] if pem.spki(certificate) == pem.spki(key) else [])
        taken = host.run(method="files", **given)
    assert taken.tlsa[0] == pem.tlsa(key)
    assert "is taken before DNS has shown" in taken.warnings[0]


@pytest.mark.parametrize("method", ["acme", "selfsigned", "files"])
def test_an_operators_key_that_dns_does_not_show_waits_as_the_next_one(host, method):
    more = {"acme": {}, "selfsigned": {"validity": 90}, "files": operators(host, pem.new_key())}[method]
    first = host.run(method=method, **more)
    host.publish(first)
    key = pem.new_key()
    given = operators(host, key)
    foreseen = host.run(method="files", check=True, **given)
    waiting = host.run(method="files", **given)
    assert waiting.changed
    assert waiting.tlsa == [first.tlsa[0], pem.tlsa(key)]
    assert waiting.not_after == first.not_after
    assert host.reloaded == ["svc"]
    for word in ("waits", pem.tlsa(key), "publish the record", "86400 seconds", f"on {NOW + 88 * DAY:%Y-%m-%d}"):
        assert word in waiting.warnings[0]
    assert (foreseen.changed, foreseen.tlsa, foreseen.warnings) == (True, waiting.tlsa, waiting.warnings)
    assert host.run(method="files", check=True, **given).pending
    again = host.run(method="files", **given)
    assert (again.changed, again.tlsa, again.warnings) == (False, waiting.tlsa, waiting.warnings)
    assert os.stat(host.store.waiting).st_mode & 0o777 == 0o600


def test_an_operators_key_is_taken_once_dns_has_shown_it_long_enough(host):
    host.publish(host.run())
    key = pem.new_key()
    given = operators(host, key)
    host.publish(host.run(method="files", **given))
    shown = host.run(method="files", **given)
    assert not shown.changed and shown.tlsa[1] == pem.tlsa(key)
    assert f"after {NOW + DAY:%Y-%m-%d %H:%M} UTC" in shown.warnings[0]
    host.now += DAY - datetime.timedelta(seconds=1)
    assert host.run(method="files", **given).warnings == shown.warnings
    host.now += datetime.timedelta(seconds=1)
    assert host.run(method="files", check=True, **given).changed
    taken = host.run(method="files", **given)
    assert (taken.tlsa[0], taken.warnings) == (pem.tlsa(key), [])
    assert taken.tlsa[1].split()[3] not in host.dns
    assert host.reloaded == ["svc", "svc"]
    assert not os.path.exists(host.store.waiting)
    assert not host.run(method="files", **given).changed


@pytest.mark.parametrize("text", [True, False])
def test_the_timer_lets_an_operators_key_wait_in_silence_and_takes_it(host, tmp_path, text):
    """Of what was given as text it knows what the run left behind."""
    host.publish(host.run())
    key, given = pem.new_key(), {}
    content = operators(host, key)
    if not text:
        for name in ("certificate", "private_key"):
            given[name] = str(tmp_path / name)
            (tmp_path / name).write_text(content[f"{name}_content"])
    # what a program renewed at night, or a run before it
    waiting = host.run(method="files", timer=not text, **(content if text else given))
    assert waiting.tlsa[1] == pem.tlsa(key)
    host.now += DAY
    quiet = host.run(method="files", timer=True, **given)
    assert (quiet.changed, quiet.tlsa, quiet.warnings) == (False, waiting.tlsa, [])
    assert "does not show the TLSA record" in quiet.notes[0]
    host.publish(quiet)
    host.now += DAY
    assert "older answers" in host.run(method="files", timer=True, **given).notes[0]
    host.now += DAY
    taken = host.run(method="files", timer=True, **given)
    assert (taken.tlsa[0], taken.warnings, taken.notes) == (pem.tlsa(key), [], [])
    assert not host.run(method="files", timer=True, **given).changed


def test_no_answer_from_dns_lets_an_operators_key_wait_while_the_present_certificate_serves(host):
    first = host.run()
    host.dns = None
    key = pem.new_key()
    given = operators(host, key, NOW + 80 * DAY)
    host.now += 87 * DAY
    waiting = host.run(method="files", **given)
    assert waiting.tlsa == [first.tlsa[0], pem.tlsa(key)]
    assert "DNS gives no answer" in waiting.warnings[0]
    assert host.run(method="files", timer=True, **given).warnings == []
    host.now += 2 * DAY
    taken = host.run(method="files", timer=True, **given)
    assert taken.tlsa[0] == pem.tlsa(key)
    assert "is taken before DNS has shown" in taken.warnings[0]


def test_root_hears_once_of_a_record_that_is_missing_near_the_end(host):
    host.publish(host.run())
    given = operators(host, pem.new_key(), NOW + 60 * DAY)
    for day, told in ((61, 0), (75, 0), (77, 1), (78, 0), (87, 0), (88, 1), (89, 0)):
        host.now = NOW + day * DAY
        assert len(host.run(method="files", timer=True, **given).warnings) == told, day


def test_a_text_that_expired_while_it_waited_is_not_taken(host):
    first = host.run(method="selfsigned", validity=365)
    host.publish(first)
    host.run(method="files", **operators(host, pem.new_key()))
    host.now += 90 * DAY
    assert host.run(method="files", timer=True).tlsa[0] == first.tlsa[0]
    assert host.store.current().leaf.subject == host.store.current().leaf.issuer


def test_another_key_of_the_operator_replaces_the_one_that_waits(host):
    first = host.run()
    host.publish(first)
    host.publish(host.run(method="files", **operators(host, pem.new_key())))
    key = pem.new_key()
    host.now += 5 * DAY
    assert host.run(method="files", **operators(host, key)).tlsa == [first.tlsa[0], pem.tlsa(key)]


def test_a_way_back_while_an_operators_key_waits(host):
    first = host.run()
    host.publish(first)
    host.run(method="files", **operators(host, pem.new_key()))
    back = host.run()
    assert back.tlsa[0] == first.tlsa[0]
    assert (back.notes, host.orders) == ([], 1)
    assert not os.path.exists(host.store.waiting)


def test_the_published_next_key_that_the_operator_ordered_with_does_not_wait(host):
    first = host.run(method="files", **operators(host, pem.new_key()))
    with open(host.store.request, "rb") as handle:
        ordered = sign(x509.load_pem_x509_csr(handle.read()).public_key(), NOW, 90)
    given = {"certificate_content": pem.dump_certificate(ordered).decode()}
    host.dns = {first.tlsa[0].split()[3]}
    assert host.run(method="files", check=True, **given).warnings
    assert host.run(method="files", check=True, **given).tlsa == first.tlsa
    host.publish(first)
    assert host.run(method="files", **given).tlsa[0] == first.tlsa[1]


def test_senders_that_know_the_operators_key_alone_need_not_wait(host):
    host.run()
    key = pem.new_key()
    host.dns = {pem.spki(key)}
    assert host.run(method="files", **operators(host, key)).tlsa[0] == pem.tlsa(key)


def test_a_certificate_without_its_key_is_refused(host):
    host.run()
    given = operators(host, pem.new_key())
    with pytest.raises(pem.TlsError, match=r"neither the current nor the next key; order it with .*next.csr"):
        host.run(method="files", certificate_content=given["certificate_content"])


def test_a_missing_file_is_named(host):
    with pytest.raises(pem.TlsError, match=r"^/nowhere/cert.pem: there is no such file"):
        host.run(method="files", certificate="/nowhere/cert.pem")


def test_the_operators_certificate_near_its_end_is_warned_of(host):
    given = operators(host, pem.new_key())
    host.run(method="files", **given)
    host.now += 80 * DAY
    assert "put a new one in place" in host.run(method="files", **given).warnings[0]


def test_the_timer_renews_from_the_settings_alone(host, monkeypatch, capsys):
    first = host.run(method="selfsigned", validity=20, renew_before=19)
    host.now += 2 * DAY
    real = manage.manage

    def later(settings, check, folder, timer):
        assert settings.validity == 20
        return real(settings, check, folder, host.now, timer, lambda name: host.dns, host.issue)

    monkeypatch.setattr(renew, "manage", later)
    monkeypatch.setattr(renew, "locked", manage.contextlib.nullcontext)
    assert renew.main([host.folder]) == 0
    assert "its key: the current one" in capsys.readouterr().out
    assert host.run(method="selfsigned", validity=20, renew_before=1).tlsa == first.tlsa


def test_an_operators_key_that_waits_is_no_error_of_the_timer(host, monkeypatch, capsys):
    host.publish(host.run())
    host.run(method="files", **operators(host, pem.new_key()))
    real = manage.manage
    monkeypatch.setattr(
        renew,
        "manage",
        lambda settings, check, folder, timer: real(
            settings, check, folder, host.now, timer, lambda name: host.dns, host.issue
        ),
    )
    monkeypatch.setattr(renew, "locked", manage.contextlib.nullcontext)
    assert renew.main([host.folder]) == 0
    told = capsys.readouterr()
    assert f"{HOST}: the new certificate waits" in told.out
    assert told.err == ""


def test_the_timer_fails_loudly_and_goes_on(host, monkeypatch, capsys):
    host.run(method="selfsigned")
    other = os.path.join(host.folder, "a.example.test")
    os.mkdir(other)
    with open(os.path.join(other, "settings.json"), "w") as handle:
        handle.write("{")
    monkeypatch.setattr(renew, "locked", manage.contextlib.nullcontext)
    monkeypatch.setattr(renew, "manage", lambda settings, **more: manage.Outcome(not_after="some day"))
    assert renew.main([host.folder]) == 1
    told = capsys.readouterr()
    assert "a.example.test: " in told.err
    assert f"{HOST}: valid until some day" in told.out
