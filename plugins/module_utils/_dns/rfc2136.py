# Copyright: Postmeister contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the collection: no promise is made to other code.

"""RFC 2136 over TCP with TSIG (RFC 8945): read zones, and update them so that nobody's edit is lost.

Needs dnspython.
"""

from __future__ import annotations

import select
import socket
import struct
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .names import DnsError, below, longest, parents
from .ownership import Step
from .record import RRset, canonical_or_as_is, rrset_length
from .text import rdata as rdata_words

DNSPYTHON_IMPORT_ERROR: str | None = None
try:
    import dns.exception
    import dns.flags
    import dns.message
    import dns.name
    import dns.opcode
    import dns.query
    import dns.rcode
    import dns.rdataclass
    import dns.rdataset
    import dns.rdatatype
    import dns.tsig
    import dns.tsigkeyring
    import dns.update
except ImportError:
    DNSPYTHON_IMPORT_ERROR = traceback.format_exc()

#: Octets of an UPDATE as we count them: uncompressed, so the message is smaller. The limit is 65,535 (RFC 1035 4.2.2).
CHUNK = 60000
#: Answers that a server may give unsigned, because it could not or would not check our signature (RFC 8945 5.3).
_UNSIGNED = (1, 2, 4, 5, 9)
#: Types that DNSSEC signers make: RRSIG, NSEC, DNSKEY, NSEC3, NSEC3PARAM, CDS, CDNSKEY, TYPE65534. They are nobody's.
_SIGNER = (46, 47, 48, 50, 51, 59, 60, 65534)


class _Refused(Exception):
    """The server does not transfer the zone to us."""


class ChangedMeanwhile(DnsError):
    """A prerequisite did not hold: the zone is not what was read before."""


@dataclass(frozen=True)
class Key:
    """A TSIG key; the secret is base64 and never part of a message."""

    name: str
    secret: str = field(repr=False)
    algorithm: str


@dataclass
class ZoneState:
    """What was read of one zone, at the names of interest."""

    found: dict[str, dict[str, RRset]] = field(default_factory=dict)
    #: the same as dnspython has it, for prerequisites and deletions
    raw: dict[tuple[str, str], Any] = field(default_factory=dict)

    def add(self, name: str, rdataset: Any) -> None:
        if rdataset.rdtype in _SIGNER:
            return
        rrtype = dns.rdatatype.to_text(rdataset.rdtype)
        values = tuple(dict.fromkeys(as_text(rrtype, rdata) for rdata in rdataset))
        self.found.setdefault(name, {})[rrtype] = RRset(name, rrtype, rdataset.ttl, values)
        self.raw[name, rrtype] = rdataset


def as_text(rrtype: str, rdata: Any) -> str:
    """An rdata of dnspython as a canonical value."""
    if rrtype == "TXT":
        return bytes(b"".join(rdata.strings)).decode("latin-1")
    return canonical_or_as_is(rrtype, rdata.to_text())


class Server:
    """The primary server of the zones, spoken to over one TCP connection."""

    def __init__(self, address: str, port: int, key: Key, timeout: float = 10.0) -> None:
        """Raises DnsError for a key that cannot be one and for a server name that has no address."""
        self.title = f"DNS server {address} port {port}"
        self.port = port
        self.key = key
        self.timeout = timeout
        try:
            self._keyring = dns.tsigkeyring.from_text({key.name: (key.algorithm, key.secret)})
            self._keyname = dns.name.from_text(key.name)
        except (ValueError, dns.exception.DNSException):
            # The exception itself might quote the secret.
            raise DnsError(f"TSIG key {key.name!r}: the secret is not base64, or the name is no domain name") from None
        try:
            self.addresses = list(
                dict.fromkeys(str(entry[4][0]) for entry in socket.getaddrinfo(address, port, type=socket.SOCK_STREAM))
            )
        except OSError as exc:
            raise DnsError(f"{self.title}: its address is unknown ({exc.strerror})") from exc
        self.address = self.addresses[0]
        self._socket: socket.socket | None = None
        self._buffer = bytearray()
        self._states: dict[str, ZoneState] = {}

    # -- the wire

    def _connect(self) -> socket.socket:
        if self._socket is not None:
            return self._socket
        reasons = []
        for address in self.addresses:
            try:
                made = socket.create_connection((address, self.port), timeout=self.timeout)
            except OSError as exc:
                reasons.append(f"{address}: {exc.strerror or exc}")
                continue
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.address, self._socket = address, made
            self._buffer.clear()
            return made
        raise DnsError(f"{self.title}: not reachable over TCP ({'; '.join(reasons)})")

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _send(self, message: Any) -> None:
        message.use_tsig(self._keyring, self._keyname)
        wire = message.to_wire()
        self._connect().sendall(struct.pack("!H", len(wire)) + wire)

    def _fill(self, wait: bool) -> bool:
        """Take what has come; with wait, something must come within the timeout."""
        sock = self._connect()
        if not select.select([sock], [], [], self.timeout if wait else 0)[0]:
            if wait:
                raise socket.timeout
            return False
        chunk = sock.recv(1 << 20)
        if not chunk and wait:
            raise EOFError
        self._buffer += chunk
        return bool(chunk)

    def _receive(self) -> bytes:
        """One message off the wire. All that has come is taken at once: servers drop a client that reads slowly."""
        while True:
            while self._fill(wait=False):
                pass
            end = 2 + int.from_bytes(self._buffer[:2], "big")
            if len(self._buffer) >= max(end, 3):
                wire = bytes(self._buffer[2:end])
                del self._buffer[:end]
                return wire
            self._fill(wait=True)

    def _explain(self, exc: Exception) -> DnsError:
        name = self.key.name
        if isinstance(exc, dns.tsig.PeerBadKey):
            return self._bad_key("BADKEY")
        if isinstance(exc, (dns.tsig.PeerBadSignature, dns.tsig.BadSignature)):
            return DnsError(f"{self.title}: the secret of TSIG key {name!r} is not the server's (BADSIG)")
        if isinstance(exc, (dns.tsig.PeerBadTime, dns.tsig.BadTime)):
            return DnsError(f"{self.title}: its clock and ours differ by more than TSIG allows, 300 s (BADTIME)")
        if isinstance(exc, socket.timeout):
            return DnsError(f"{self.title}: no answer within {self.timeout:g} s")
        if isinstance(exc, EOFError):
            return DnsError(f"{self.title}: closed the connection without an answer")
        if isinstance(exc, dns.message.UnknownTSIGKey):
            return DnsError(f"{self.title}: answered with a TSIG key that is not ours")
        if isinstance(exc, dns.exception.DNSException):
            return DnsError(f"{self.title}: {type(exc).__name__}: {exc}")
        return DnsError(f"{self.title}: {exc}")

    def _bad_key(self, rcode: str) -> DnsError:
        return DnsError(
            f"{self.title}: does not accept the TSIG key {self.key.name!r} with {self.key.algorithm} ({rcode}):"
            " it is unknown there, or has no rights"
        )

    def _parse(self, wire: bytes, request: Any, unsigned: bool = False, **more: Any) -> Any:
        """Raise DnsError for an answer that is not signed as it must be; an error may come unsigned.

        unsigned: in the middle of a zone transfer a message may lack its signature (RFC 8945 5.3.1).
        """
        try:
            answer = dns.message.from_wire(wire, keyring=self._keyring, request_mac=request.mac, **more)
        except dns.exception.FormError:
            # Newer versions of dnspython refuse what is unsigned themselves.
            answer = dns.message.from_wire(wire, ignore_trailing=True)
            unsigned = False
        if answer.had_tsig or unsigned:
            return answer
        if answer.rcode() == dns.rcode.NOTAUTH and "xfr" not in more:
            raise self._bad_key("NOTAUTH")
        if answer.rcode() not in _UNSIGNED:
            raise DnsError(f"{self.title}: does not sign its answers with key {self.key.name!r}")
        return answer

    def ask(self, message: Any) -> Any:
        """Send a message signed, return the answer; a connection that the server closed in between is opened anew."""
        for attempt in (1, 2):
            fresh = self._socket is None
            try:
                self._send(message)
                answer = self._parse(self._receive(), message)
                if not message.is_response(answer):
                    raise dns.query.BadResponse
                return answer
            except (EOFError, ConnectionError) as exc:
                self.close()
                if fresh or attempt == 2:
                    raise self._explain(exc) from None
            except (OSError, dns.exception.DNSException) as exc:
                self.close()
                raise self._explain(exc) from None
        raise AssertionError("unreachable")

    def _query(self, name: str, rrtype: str) -> Any:
        query = dns.message.make_query(name, rrtype)
        query.flags &= ~dns.flags.RD
        return self.ask(query)

    # -- zones

    def check_zone(self, zone: str) -> None:
        """Raise DnsError unless the server is authoritative for the zone."""
        answer = self._query(zone, "SOA")
        owner = [str(rrset.name).lower() for rrset in answer.answer if rrset.rdtype == dns.rdatatype.SOA]
        if answer.rcode() != dns.rcode.NOERROR or not answer.flags & dns.flags.AA or owner != [zone]:
            raise DnsError(
                f"{self.title}: is not authoritative for zone {zone} (answers {dns.rcode.to_text(answer.rcode())})"
            )

    def find_zones(self, names: Iterable[str], needed: set[str]) -> tuple[dict[str, str], list[str]]:
        """Zone of each name, by the SOA record that the server shows for it (RFC 1034 4.3.2, RFC 2308 3).

        Names that are not needed and that lie in no zone of the server come back in the second value.
        """
        result: dict[str, str] = {}
        lost: list[str] = []
        for name in sorted(names):
            answer = self._query(name, "SOA")
            owners = [
                str(rrset.name).lower()
                for section in (answer.answer, answer.authority)
                for rrset in section
                if rrset.rdtype == dns.rdatatype.SOA and below(name, str(rrset.name).lower())
            ]
            if not owners or not answer.flags & dns.flags.AA:
                if name not in needed:
                    lost.append(name)
                    continue
                raise DnsError(
                    f"{name}: {self.title} is not authoritative for a zone that holds this name"
                    f" (answers {dns.rcode.to_text(answer.rcode())})"
                )
            result[name] = max(owners, key=len)
        return result, lost

    def zones_of(
        self, names: Iterable[str], zones: Sequence[str], needed: set[str]
    ) -> tuple[dict[str, str], list[str]]:
        """Zone of each name: the longest match of zones; found by queries when there are none, as find_zones does."""
        if not zones:
            return self.find_zones(names, needed)
        result = {}
        for name in names:
            zone = longest(name, zones)
            if zone is None:
                raise DnsError(f"{name}: lies in none of the zones {', '.join(zones)}")
            result[name] = zone
        for zone in sorted(set(result.values())):
            self.check_zone(zone)
        return result, []

    # -- reading

    def read(self, zone_of: Mapping[str, str], types: Mapping[str, set[str]]) -> dict[str, dict[str, RRset]]:
        """What stands at the names: by zone transfer, or by queries for the types where that is not allowed."""
        found: dict[str, dict[str, RRset]] = {}
        by_zone: dict[str, list[str]] = {}
        for name, zone in zone_of.items():
            by_zone.setdefault(zone, []).append(name)
        for zone, names in sorted(by_zone.items()):
            state = self._transfer(zone, names) or self._by_queries(zone, {name: types[name] for name in names})
            self._states[zone] = state
            found.update(state.found)
        return found

    def _transfer(self, zone: str, names: Sequence[str]) -> ZoneState | None:
        """By AXFR (RFC 5936); None when the server refuses that."""
        interest = {dns.name.from_text(name): name for name in names}
        origin = dns.name.from_text(zone)
        rdatasets: dict[tuple[str, Any], Any] = {}
        cuts: set[str] = set()
        try:
            for rrset in self._axfr(zone):
                if rrset.rdtype == dns.rdatatype.NS and rrset.name != origin:
                    cuts.add(str(rrset.name).lower())
                name = interest.get(rrset.name)
                if name is not None and rrset.rdtype not in _SIGNER:
                    # Records of one RRset may come in several messages.
                    rdatasets.setdefault(
                        (name, rrset.rdtype), dns.rdataset.Rdataset(rrset.rdclass, rrset.rdtype)
                    ).update(rrset)
        except (_Refused, dns.tsig.PeerBadKey):
            # The same key was good for a query; Knot 3.2 says it this way.
            return None
        except (OSError, EOFError, dns.exception.DNSException) as exc:
            self.close()
            raise self._explain(exc) from None
        state = ZoneState()
        for name in names:
            for parent in parents(name):
                if parent in cuts:
                    raise self._delegated(name, zone, parent)
                if parent == zone:
                    break
        for (name, _rdtype), rdataset in rdatasets.items():
            state.add(name, rdataset)
        return state

    def _axfr(self, zone: str) -> Iterator[Any]:
        query = dns.message.make_query(zone, "AXFR")
        query.flags &= ~dns.flags.RD
        self._send(query)
        context = None
        ends = 0
        while ends < 2:
            between = context is not None
            answer = self._parse(self._receive(), query, between, xfr=True, multi=True, tsig_ctx=context)
            if answer.rcode() != dns.rcode.NOERROR or not answer.answer:
                raise _Refused
            context = answer.tsig_ctx
            ends += sum(1 for rrset in answer.answer if rrset.rdtype == dns.rdatatype.SOA)
            if ends == 2 and not answer.had_tsig:
                raise DnsError(f"{self.title}: the end of the transfer of zone {zone} is not signed")
            yield from answer.answer

    def _delegated(self, name: str, zone: str, cut: str) -> DnsError:
        return DnsError(f"{name}: zone {zone} delegates {cut} to other servers (NS records); name that zone in `zones`")

    def _by_queries(self, zone: str, types: Mapping[str, set[str]]) -> ZoneState:
        state = ZoneState()
        for name in sorted(types):
            asked = sorted(types[name])
            if "CNAME" in asked:
                # A CNAME stands alone; these are what could stand there.
                asked = sorted({*asked, "A", "AAAA", "MX", "NS", "TXT"})
            for rrtype in asked:
                rdataset = self._lookup(zone, name, rrtype, state)
                if rdataset is not None:
                    state.add(name, rdataset)
        return state

    def _lookup(self, zone: str, name: str, rrtype: str, state: ZoneState) -> Any:
        answer = self._query(name, rrtype)
        rcode = answer.rcode()
        if rcode not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
            raise DnsError(f"{self.title}: answers {dns.rcode.to_text(rcode)} to a query for {rrtype} {name}")
        if not answer.flags & dns.flags.AA:
            cut = next(
                (str(rrset.name).lower() for rrset in answer.authority if rrset.rdtype == dns.rdatatype.NS), name
            )
            raise self._delegated(name, zone, cut)
        result = None
        for rrset in answer.answer:
            if str(rrset.name).lower() != name:
                continue
            if rrset.rdtype == dns.rdatatype.CNAME and rrtype != "CNAME":
                state.add(name, rrset.to_rdataset())
            elif rrset.rdtype == dns.rdatatype.from_text(rrtype):
                result = rrset.to_rdataset()
        if result is not None and name != zone and not name.startswith("*."):
            # The same answer at the wildcard: the name itself has no record. If it has, a prerequisite notices.
            wild = self._query("*." + name.partition(".")[2], rrtype)
            if any(rrset.rdtype == result.rdtype and rrset.to_rdataset() == result for rrset in wild.answer):
                return None
        return result

    # -- writing

    def check_key(self, zones: Iterable[str]) -> None:
        """Raise DnsError where the key may not update a zone, told by an UPDATE with a prerequisite and no change."""
        for zone in sorted(set(zones)):
            update = dns.update.UpdateMessage(zone)
            update.present(zone, "SOA")
            self._judge(self.ask(update), zone, "")

    def _judge(self, answer: Any, zone: str, progress: str) -> None:
        rcode = answer.rcode()
        if rcode == dns.rcode.NOERROR:
            return
        text = dns.rcode.to_text(rcode)
        if rcode in (dns.rcode.NXRRSET, dns.rcode.YXRRSET, dns.rcode.NXDOMAIN, dns.rcode.YXDOMAIN):
            raise ChangedMeanwhile(f"zone {zone}: somebody else changed it at the same time ({text}){progress}")
        reason = {
            dns.rcode.REFUSED: f"key {self.key.name!r} may not update this zone",
            dns.rcode.NOTAUTH: f"not authoritative, or key {self.key.name!r} may not update this zone",
            dns.rcode.NOTIMP: "the server does no updates",
            dns.rcode.NOTZONE: "a name lies outside of the zone",
        }.get(rcode, "the update failed")
        raise DnsError(f"{self.title}: zone {zone}: {reason} ({text}){progress}")

    def update(self, zone: str, groups: Sequence[Sequence[Step]]) -> int:
        """Apply groups of steps in order, in as few messages as they fit in; returns how many those were.

        Every message carries, as prerequisites, what the RRsets were when they were read. Raises ChangedMeanwhile
        when one does not hold; what earlier messages brought stays, and the zone works with it.
        """
        chunks = split(groups)
        for number, chunk in enumerate(chunks):
            update = dns.update.UpdateMessage(zone)
            for group in chunk:
                for step in group:
                    self._require(update, zone, step)
                for step in group:
                    self._change(update, zone, step)
            progress = f"; {number} of {len(chunks)} updates are done, the rest is not" if number else ""
            self._judge(self.ask(update), zone, progress)
        return len(chunks)

    def _require(self, update: Any, zone: str, step: Step) -> None:
        name, rrtype = step.key
        if step.before is None:
            update.absent(name, rrtype)
            if rrtype != "CNAME" and (name, "CNAME") not in self._states[zone].raw:
                # A server ignores what is added beside a CNAME, without a word (RFC 2136 3.4.2.2).
                update.absent(name, "CNAME")
            return
        wanted = dns.rdataset.Rdataset(dns.rdataclass.IN, self._states[zone].raw[name, rrtype].rdtype)
        for rdata in self._states[zone].raw[name, rrtype]:
            wanted.add(rdata, 0)
        update.present(name, wanted)

    def _change(self, update: Any, zone: str, step: Step) -> None:
        name, rrtype = step.key
        if step.after is None:
            update.delete(name, rrtype)
            return
        before = set(step.before.values) if step.before else set()
        add = [value for value in step.after.values if value not in before]
        if step.before and step.before.ttl != step.after.ttl:
            # All records anew: servers differ in what an added record's TTL does to the others.
            update.delete(name, rrtype)
            add = list(step.after.values)
        elif step.before:
            for rdata in self._states[zone].raw[name, rrtype]:
                if as_text(rrtype, rdata) not in step.after.values:
                    update.delete(name, rdata)
        for value in add:
            update.add(name, step.after.ttl, rrtype, " ".join(rdata_words(rrtype, value)))


def length(group: Sequence[Step]) -> int:
    """Octets that the steps may take in an UPDATE: prerequisites, deletions, additions."""
    total = 0
    for step in group:
        name, rrtype = step.key
        fixed = 3 * (len(name) + 11)
        before = rrset_length(name, rrtype, step.before.values) if step.before else 0
        after = rrset_length(name, rrtype, step.after.values) if step.after else 0
        total += fixed + 2 * before + after
    return total


def split(groups: Sequence[Sequence[Step]], limit: int = CHUNK) -> list[list[Sequence[Step]]]:
    """Fill messages up to the limit, in order. Raises DnsError for a group that fits in none."""
    chunks: list[list[Sequence[Step]]] = []
    room = 0
    for group in groups:
        size = length(group)
        if size > limit:
            step = group[0]
            raise DnsError(f"{step.key[1]} {step.key[0]}: the change takes {size} octets, {limit} fit into one update")
        if size > room:
            chunks.append([])
            room = limit
        chunks[-1].append(group)
        room -= size
    return chunks
