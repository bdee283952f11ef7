"""Each key is for one algorithm, and settings that hold no usable key are refused without being repeated."""

from __future__ import annotations

import hashlib
import hmac
import time
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from syncapp.access.tokens import Authenticator
from syncapp.config import Settings, SettingsError
from syncapp.errors import Unauthorized
from tests.support.jwks import EC, ED, PRIVATE, RSA, public_pem
from tests.support.tokens import SECRET, token

PUBLIC = "".join(map(public_pem, (RSA, EC, ED)))
NOT_ACCEPTED = "the algorithm of the token is not accepted here, only"


def signed(algorithm: str, key: Any = None) -> str:
    return jwt.encode({"sub": "ada", "exp": int(time.time()) + 60}, key or PRIVATE[algorithm], algorithm)


def read(**environ: str) -> Settings:
    return Settings.from_env({"AUTH": "required", **environ})


def fault(**environ: str) -> str:
    with pytest.raises(SettingsError) as refused:
        read(**environ)
    assert not [value for value in environ.values() if len(value) > 8 and value in str(refused.value)]
    return str(refused.value)


def refusal(settings: Settings, text: str) -> str:
    with pytest.raises(Unauthorized) as refused:
        Authenticator(settings).principal(text)
    return refused.value.message


@pytest.mark.parametrize(
    "pem",
    [
        PUBLIC,
        PUBLIC.replace("\n", "\\n"),
        PUBLIC.replace("\n", "\\r\\n"),
        PUBLIC.replace("\n", " "),
        f"  {PUBLIC}\n\n",
        PUBLIC.replace("-----\n-----", "----- -----"),
    ],
    ids=["lines", "escaped", "escaped CRLF", "spaces", "blank lines", "one after the other"],
)
def test_public_keys_of_all_kinds_verify_whatever_became_of_their_line_breaks(pem: str) -> None:
    authenticator = Authenticator(read(AUTH_PUBLIC_KEYS=pem))
    for algorithm in PRIVATE:
        assert authenticator.principal(signed(algorithm)).sub == "ada"


def test_secrets_and_public_keys_may_be_used_together() -> None:
    authenticator = Authenticator(read(AUTH_PUBLIC_KEYS=PUBLIC, AUTH_SECRETS=SECRET))
    assert authenticator.principal(token()).sub == authenticator.principal(signed("ES256")).sub == "ada"


@pytest.mark.parametrize("algorithm", PRIVATE)
def test_a_key_verifies_only_its_own_algorithm(algorithm: str) -> None:
    for other, key in PRIVATE.items():
        if other != algorithm:
            said = refusal(read(AUTH_PUBLIC_KEYS=public_pem(key)), signed(algorithm))
            assert said == f"{NOT_ACCEPTED} {other}"
    assert refusal(read(AUTH_SECRETS=SECRET), signed(algorithm)) == f"{NOT_ACCEPTED} HS256"


@pytest.mark.parametrize("form", [Encoding.PEM, Encoding.DER])
def test_a_public_key_is_not_a_secret(form: Encoding) -> None:
    secret = RSA.public_key().public_bytes(form, PublicFormat.SubjectPublicKeyInfo)
    header, payload, _ = token().split(".")
    made = hmac.new(secret, f"{header}.{payload}".encode(), hashlib.sha256).digest()
    forged = f"{header}.{payload}.{jwt.utils.base64url_encode(made).decode()}"
    assert refusal(read(AUTH_PUBLIC_KEYS=PUBLIC), forged) == f"{NOT_ACCEPTED} ES256, EdDSA, RS256"
    both = read(AUTH_PUBLIC_KEYS=PUBLIC, AUTH_SECRETS=SECRET)
    assert refusal(both, forged) == "the signature of the token does not match any key"


@pytest.mark.parametrize("algorithm", ["RS384", "RS512", "PS256"])
def test_an_rsa_key_verifies_rs256_only(algorithm: str) -> None:
    assert refusal(read(AUTH_PUBLIC_KEYS=public_pem(RSA)), signed(algorithm, RSA)) == f"{NOT_ACCEPTED} RS256"


def test_a_header_that_names_another_family_does_not_choose_the_check() -> None:
    """An ES256 signature under a header that says RS256."""
    header = jwt.encode({}, RSA, "RS256").split(".")[0]
    payload = signed("ES256").split(".")[1]
    signature = jwt.get_algorithm_by_name("ES256").sign(f"{header}.{payload}".encode(), EC)
    forged = f"{header}.{payload}.{jwt.utils.base64url_encode(signature).decode()}"
    assert refusal(read(AUTH_PUBLIC_KEYS=PUBLIC), forged) == "the signature of the token does not match any key"


def test_a_short_secret_is_a_fault_that_does_not_show_it() -> None:
    said = "AUTH_SECRETS must have at least 32 bytes in each secret; secret 2 is shorter"
    assert fault(AUTH_SECRETS=f"{SECRET},only-thirty-one-characters-here") == said
    assert read(AUTH_SECRETS="é" * 16).auth_secrets == "é" * 16


def test_a_key_in_place_of_a_secret_is_a_fault() -> None:
    said = "AUTH_SECRETS must hold secrets, and no keys in PEM or JSON; secret 1 looks like one"
    assert fault(AUTH_SECRETS=public_pem(RSA)) == said
    assert fault(AUTH_SECRETS='{"kty": "oct"                           }') == said


PRIVATE_PEM = RSA.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
NO_PEM = "AUTH_PUBLIC_KEYS must be public keys in PEM, one after the other, from -----BEGIN to -----END"
WANTED = "AUTH_PUBLIC_KEYS must hold keys that are RSA of at least 2048 bits, EC P-256 or Ed25519; entry"


@pytest.mark.parametrize(
    ("pem", "said"),
    [
        (
            "/etc/keys/public.pem",
            NO_PEM,
        ),
        (f"{PUBLIC}and so on", NO_PEM),
        (PUBLIC[:-30], NO_PEM),
        (PUBLIC + PRIVATE_PEM, "AUTH_PUBLIC_KEYS must hold public keys only; entry 4 is a private key"),
        (PUBLIC.replace("PUBLIC KEY", "CERTIFICATE"), "AUTH_PUBLIC_KEYS must hold public keys only; entry 1 is a cert"),
        (PUBLIC + public_pem(rsa.generate_private_key(65_537, 1024)), f"{WANTED} 4 is not"),
        (public_pem(ec.generate_private_key(ec.SECP384R1())), f"{WANTED} 1 is not"),
        (public_pem(ed448.Ed448PrivateKey.generate()), f"{WANTED} 1 is not"),
        ("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----", f"{WANTED} 1 is not"),
        ("-----BEGIN PUBLIC KEY-----\né\n-----END PUBLIC KEY-----", f"{WANTED} 1 is not"),
    ],
)
def test_what_is_no_public_key_is_a_fault(pem: str, said: str) -> None:
    assert fault(AUTH_PUBLIC_KEYS=pem).startswith(said)


@pytest.mark.parametrize(
    ("url", "valid"),
    [
        ("https://login.example/jwks.json", True),
        ("http://127.0.0.1:8080/jwks", True),
        ("http://[::1]/jwks", True),
        ("http://localhost/jwks", True),
        ("http://login.example/jwks", False),
        ("http://10.0.0.1/jwks", False),
        ("http://127.0.0.1.example/", False),
        ("https://", False),
        ("https://h:x/", False),
        ("file:///etc/jwks.json", False),
        ("login.example/jwks", False),
    ],
)
def test_the_url_of_a_jwks_is_https_or_of_this_machine(url: str, valid: bool) -> None:
    if valid:
        assert read(AUTH_JWKS_URL=url).auth_jwks_url == url
    else:
        assert fault(AUTH_JWKS_URL=url).startswith(
            "AUTH_JWKS_URL must be a URL that starts with https:// (http:// only "
        )


def test_settings_that_were_not_checked_are_checked_by_the_authenticator() -> None:
    with pytest.raises(ValueError, match="at least 32 bytes"):
        Authenticator(Settings(auth_secrets="short"))
