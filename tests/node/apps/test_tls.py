"""TLS of proxies in a real process: who is trusted, names, versions, the end, and STARTTLS (A1)."""

import asyncio
import os
import socket
import ssl
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from locum.node.config.settings import AppLimits
from tests.node.apps.driven import Driven
from tests.node.apps.world import install

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], object]


@pytest.fixture(autouse=True)
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, monkeypatch)


class Authority:
    """A certificate authority of its own, and servers with its certificates."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._key = ec.generate_private_key(ec.SECP256R1())
        self.certificate = self._issue("authority", self._key.public_key(), authority=True)
        self.file = directory / "authority.pem"
        self.file.write_text("# of a test\n" + self._pem(self.certificate))

    @staticmethod
    def _pem(certificate: x509.Certificate) -> str:
        return certificate.public_bytes(serialization.Encoding.PEM).decode()

    def _issue(
        self, name: str, key: ec.EllipticCurvePublicKey, *, authority: bool = False, days: int = 10
    ) -> x509.Certificate:
        now = datetime.now(UTC)
        issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "authority")])
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(issuer)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=20))
            .not_valid_after(now + timedelta(days=days))
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        )
        return builder.sign(self._key, hashes.SHA256())

    def context(self, name: str, days: int = 10) -> ssl.SSLContext:
        """A server's, with a certificate for this name that ends in so many days."""
        key = ec.generate_private_key(ec.SECP256R1())
        file = self._directory / f"{name}.pem"
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        file.write_text(private.decode() + self._pem(self._issue(name, key.public_key(), days=days)))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(file)
        return context


async def serving(context: ssl.SSLContext | None, talk: Talk) -> tuple[asyncio.Server, int]:
    server = await asyncio.start_server(talk, "127.0.0.1", 0, ssl=context)  # type: ignore[arg-type]
    port: int = server.sockets[0].getsockname()[1]
    return server, port


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Until the word "end"."""
    last = b""
    while not last.endswith(b"end"):
        last = await reader.read(1 << 16)
        writer.write(last)
        await writer.drain()
    writer.close()


def limits(authority: Authority) -> AppLimits:
    return AppLimits(trust=authority.file)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_encrypted_connection_carries_bytes_both_ways(tmp_path: Path, version: ssl.TLSVersion) -> None:
    authority = Authority(tmp_path)
    context = authority.context("good.test")
    context.minimum_version = context.maximum_version = version
    server, port = await serving(context, echo)
    driven = await Driven(tmp_path / "data", limits(authority), forget=True).begin()
    driven.do(["Connect", 1, "good.test", port, True], ["Send", 1, "hello"], ["Truncate", "zeros", 5 << 20])
    await driven.wait("Opened", connection=1)
    driven.do(["SendFile", 1, "zeros", 0, 5 << 20], ["Send", 1, "end"])
    wanted = b"hello" + bytes(5 << 20) + b"end"
    await driven.wait("Data", length=0)
    driven.do(["Finish", 1])
    await driven.wait("Ended", connection=1, reason="")
    state = (await driven.end())["result"]
    assert state == {"heard": len(wanted), "digest": sha256(wanted).hexdigest()}
    server.close()


async def test_encrypted_download_is_whole(tmp_path: Path) -> None:
    authority, content = Authority(tmp_path), os.urandom(20 << 20)

    async def send(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(content)
        await writer.drain()
        writer.close()

    server, port = await serving(authority.context("good.test"), send)
    driven = await Driven(tmp_path / "data", limits(authority), save=True).begin()
    driven.do(["Connect", 1, "good.test", port, True])
    await driven.wait("Data", length=0)
    state = (await driven.end())["result"]
    assert state == {"heard": len(content), "digest": sha256(content).hexdigest()}
    server.close()


async def test_end_without_the_end_of_tls_has_a_reason(tmp_path: Path) -> None:
    """RFC 8446 section 6.1: the data may have been cut off."""
    authority = Authority(tmp_path)

    async def cut(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"half")
        await writer.drain()
        sock = socket.socket(fileno=os.dup(writer.get_extra_info("socket").fileno()))
        sock.shutdown(socket.SHUT_RDWR)
        sock.close()

    server, port = await serving(authority.context("good.test"), cut)
    driven = await Driven(tmp_path / "data", limits(authority)).begin()
    driven.do(["Connect", 1, "good.test", port, True])
    await driven.wait("Data", data="half")
    assert "without the end of TLS" in (await driven.wait("Ended", connection=1))["reason"]
    await driven.end()
    server.close()


@pytest.mark.parametrize(
    "case, word",
    [
        ("other name", "not valid for 'good.test'"),
        ("other authority", "the certificate is not accepted: certificate signature failure"),
        ("expired", "expired"),
        ("no TLS", "TLS: "),
        ("old", "TLS: "),
    ],
)
@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1:DeprecationWarning")
async def test_servers_that_are_not_accepted(tmp_path: Path, case: str, word: str) -> None:
    authority = Authority(tmp_path)
    trust = limits(authority)
    context: ssl.SSLContext | None = authority.context("bad.test" if case == "other name" else "good.test")
    if case == "other authority":
        (tmp_path / "other").mkdir()
        trust = limits(Authority(tmp_path / "other"))
    if case == "expired":
        context = authority.context("good.test", days=-1)
    if case == "no TLS":
        context = None
    if case == "old":
        assert context is not None
        context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
        context.maximum_version = ssl.TLSVersion.TLSv1_1
        context.set_ciphers("ALL:@SECLEVEL=0")

    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 plain text\r\n")
        await writer.drain()

    server, port = await serving(context, greet)
    driven = await Driven(tmp_path / "data", trust).begin()
    driven.do(["Connect", 1, "good.test", port, True])
    reason = (await driven.wait("Ended", connection=1))["reason"]
    assert word in reason, reason
    assert not any(kind in ("Data", "Opened") for kind, _ in driven.happened)
    await driven.end()
    server.close()


async def test_silent_server_ends_in_time(tmp_path: Path) -> None:
    authority = Authority(tmp_path)

    async def silent(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read()

    server, port = await serving(None, silent)
    driven = await Driven(tmp_path / "data", limits(authority)).begin()
    driven.do(["Connect", 1, "good.test", port, True, 0.5])
    assert (await driven.wait("Ended", connection=1))["reason"] == os.strerror(110)
    await driven.end()
    server.close()


async def test_encryption_in_an_open_connection(tmp_path: Path) -> None:
    """STARTTLS: everything before goes out in clear, everything behind encrypted."""
    authority = Authority(tmp_path)
    context = authority.context("mail.test")

    async def mail(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 ready\r\n")
        assert await reader.readline() == b"STARTTLS\r\n"
        writer.write(b"220 go\r\n")
        await writer.drain()
        await writer.start_tls(context)
        writer.write(b"secret " + await reader.readline())
        await writer.drain()
        writer.close()

    server, port = await serving(None, mail)
    driven = await Driven(tmp_path / "data", limits(authority)).begin()
    driven.do(["Connect", 1, "127.0.0.1", port])
    await driven.wait("Data", data="220 ready\r\n")
    driven.do(["Send", 1, "STARTTLS\r\n"])
    await driven.wait("Data", data="220 go\r\n")
    driven.do(["StartTls", 1, "mail.test"], ["Send", 1, "word\n"])
    await driven.wait("Opened", connection=1)
    await driven.wait("Opened", connection=1)
    await driven.wait("Data", data="secret word\n")
    driven.do(["HandOver", 1, "x", ""])
    assert "not encrypted" in (await driven.wait("Ended", connection=1))["reason"]
    await driven.end()
    server.close()


async def test_missing_certificates_are_reported(tmp_path: Path) -> None:
    driven = Driven(tmp_path / "data", AppLimits(trust=tmp_path / "missing.pem"))
    assert "missing.pem" in await asyncio.wait_for(asyncio.shield(driven.reason), 60)
