"""Certificates of servers at 127.0.0.1."""

from __future__ import annotations

import datetime
import ipaddress
import ssl
import subprocess
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat


@dataclass(frozen=True)
class Certificate:
    """A certificate that clients trust if they trust `chain`."""

    chain: Path
    key: Path

    @property
    def openssl_hash(self) -> str:
        """The name that OpenSSL looks for in a folder of certificates, without `.0`."""
        command = ["openssl", "x509", "-noout", "-subject_hash", "-in", str(self.chain)]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    def server_context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.chain, self.key)
        return context


def new_certificate(directory: Path) -> Certificate:
    """Write a certificate for 127.0.0.1 and a day."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "syncapp.example")])
    now = datetime.datetime.now(datetime.UTC)
    signed = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    certificate = Certificate(directory / "chain.pem", directory / "key.pem")
    certificate.chain.write_bytes(signed.public_bytes(Encoding.PEM))
    certificate.key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return certificate
