"""HTTPS and HTTP/2, with a certificate that is given or made."""

from __future__ import annotations

import asyncio
import json
import ssl
import subprocess
from pathlib import Path

import pytest

from outgrow.engines.envoy import certificate
from outgrow.engines.envoy.certificate import WANTED
from outgrow.engines.envoy.tls import certify
from tests.support.balancing import Balanced, balanced, request

TLS = "balancer.tls.enabled = true\n"


async def fetch(it: Balanced, ca: Path, *, protocols: list[str]) -> tuple[str | None, bytes]:
    context = ssl.create_default_context(cafile=str(ca))
    context.set_alpn_protocols(protocols)
    reader, writer = await asyncio.open_connection(it.address.host, it.address.port, ssl=context)
    chosen = writer.get_extra_info("ssl_object").selected_alpn_protocol()
    if chosen == "h2":  # the connection preface and empty settings: its first answer are its own settings
        writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + b"\x04" + bytes(5))
    else:
        writer.write(request(connection="close"))
    async with asyncio.timeout(10):
        answer = await reader.read(9)
    writer.close()
    return chosen, answer


async def test_a_certificate_is_made(tmp_path: Path) -> None:
    async with balanced(tmp_path, TLS) as it:
        ca = it.engine.certificates / "ca.crt"
        assert await fetch(it, ca, protocols=["http/1.1"]) == ("http/1.1", b"HTTP/1.1 ")
        chosen, answer = await fetch(it, ca, protocols=["h2", "http/1.1"])
        assert chosen == "h2" and answer[3] == 4, "a settings frame"
        seen = [each for server in it.upstreams.values() for each in server.seen]
        assert seen[0].headers["x-forwarded-proto"] == "https"
        with pytest.raises(ssl.SSLError):
            await fetch(it, Path(ssl.get_default_verify_paths().openssl_cafile), protocols=["h2"])
        argv = ["openssl", "s_client", "-tls1_1", "-cipher", "ALL:@SECLEVEL=0", "-connect", str(it.address)]
        told = await asyncio.to_thread(subprocess.run, argv, input=b"", capture_output=True, check=False)
        assert told.returncode != 0 and b"alert protocol version" in told.stderr
        modes = {path.name: oct(path.stat().st_mode & 0o777) for path in it.engine.certificates.iterdir()}
        assert {modes["ca.key"], modes["server.key"]} == {"0o600"}


async def test_a_certificate_of_ones_own_and_its_successor(tmp_path: Path) -> None:
    certify(tmp_path / "one", ["127.0.0.1"])
    made = tmp_path / "one"
    given = '[balancer.tls]\nenabled = true\ncertificate = "one/server.crt"\nkey = "one/server.key"\n'
    async with balanced(tmp_path, given) as it:
        it_host = it.address.host
        certify(tmp_path / "two", [it_host])
        context = ssl.create_default_context(cafile=str(made / "ca.crt"))
        with pytest.raises(ssl.SSLCertVerificationError, match="IP address mismatch"):
            await asyncio.open_connection(it_host, it.address.port, ssl=context)
        it.change(given.replace("one/", "two/"))
        await asyncio.sleep(0.5)
        assert (await fetch(it, tmp_path / "two" / "ca.crt", protocols=["http/1.1"]))[1] == b"HTTP/1.1 "


async def shown(it: Balanced) -> bytes:
    """The certificate of a new connection."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    _, writer = await asyncio.open_connection(it.address.host, it.address.port, ssl=context)
    found: bytes = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    return found


async def until_shown(it: Balanced, certificate: Path) -> None:
    wanted = ssl.PEM_cert_to_DER_cert(certificate.read_text())
    async with asyncio.timeout(10):
        while await shown(it) != wanted:
            await asyncio.sleep(0.1)


async def test_one_that_is_renewed_in_its_place_is_shown_and_no_connection_ends(tmp_path: Path) -> None:
    for name in ("live", "next"):
        certify(tmp_path / name, ["127.0.0.1"])
    live, following = tmp_path / "live", tmp_path / "next"
    given = '[balancer.tls]\nenabled = true\ncertificate = "live/server.crt"\nkey = "live/server.key"\n'
    async with balanced(tmp_path, given) as it:
        await until_shown(it, live / "server.crt")
        before = await shown(it)
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        reader, writer = await asyncio.open_connection(it.address.host, it.address.port, ssl=context)
        (live / "server.key").write_bytes((following / "server.key").read_bytes())
        await asyncio.sleep(1)  # a pair that does not fit, for longer than it takes to be looked at
        assert await shown(it) == before
        (live / "server.crt").write_bytes((following / "server.crt").read_bytes())
        await until_shown(it, following / "server.crt")
        writer.write(request())
        assert (await reader.readline()).startswith(b"HTTP/1.1 200"), "on the connection of the old one"
        writer.close()
        copies = [path for path in it.folder.glob("tls-*") if path.is_dir()]
        assert len(copies) == 2, "of the pair that did not fit nothing is left"
        assert {oct(path.stat().st_mode & 0o777) for copy in copies for path in copy.iterdir()} == {"0o600"}


def test_one_of_our_own_is_made_anew_in_time(tmp_path: Path) -> None:
    made, folder = tmp_path / "made", tmp_path / "balancer-1"
    folder.mkdir()
    certify(made, ["localhost"])
    (folder / WANTED).write_text(
        json.dumps({"certificate": f"{made}/server.crt", "key": f"{made}/server.key", "hosts": ["localhost"]})
    )
    it = certificate.begin(folder)
    first = (folder / "tls" / "server.crt").read_text()
    it.renew()
    it.turn()
    assert (folder / "tls" / "server.crt").read_text() == first, "it has a year to live"
    short_lived(made)
    for _ in range(4):
        it.turn()
        it.renew()
        it.turn()
        short_lived(made)
    current = folder / "tls" / "server.crt"
    assert current.read_text() != first
    argv = ["openssl", "x509", "-in", str(current), "-noout", "-checkend", str(300 * 86_400)]
    assert subprocess.run(argv, capture_output=True, check=False).returncode == 0
    assert len(list(folder.glob("tls-*"))) == certificate.KEPT


def short_lived(made: Path) -> None:
    """What is there has a month to live."""
    argv = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc"]
    argv += ["-subj", "/CN=soon", "-days", "30", "-keyout", "server.key", "-out", "server.crt"]
    subprocess.run(argv, cwd=made, capture_output=True, check=True)


def test_it_is_made_again_only_for_other_hosts_or_when_it_is_old(tmp_path: Path) -> None:
    certify(tmp_path, ["localhost", "127.0.0.1"])
    first, ca = (tmp_path / "server.crt").read_bytes(), (tmp_path / "ca.crt").read_bytes()
    certify(tmp_path, ["localhost", "127.0.0.1"])
    assert (tmp_path / "server.crt").read_bytes() == first
    certify(tmp_path, ["*.example.org", "::1"])
    assert (tmp_path / "server.crt").read_bytes() != first and (tmp_path / "ca.crt").read_bytes() == ca
    told = subprocess.run(
        ["openssl", "verify", "-x509_strict", "-CAfile", "ca.crt", "server.crt"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert told.stdout == "server.crt: OK\n", told.stderr
    assert all(path.stat().st_mode & 0o077 == 0 for path in tmp_path.glob("*.key"))


async def test_layer_4_encrypts_as_well(tmp_path: Path) -> None:
    async with balanced(tmp_path, TLS + "balancer.layer = 4\n") as it:
        ca = it.engine.certificates / "ca.crt"
        assert (await fetch(it, ca, protocols=["http/1.1"]))[1] == b"HTTP/1.1 "
