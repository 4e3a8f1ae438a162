"""The cluster's keys and certificates, and the kubeconfigs that carry them."""

from __future__ import annotations

import base64
import datetime
import ipaddress
import json
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from infra.local.layout import Layout

_DAY = datetime.timedelta(days=1)
_YEARS = 3650 * _DAY

_CLIENTS = {
    "admin": ("kubernetes-admin", "system:masters"),
    "controller-manager": ("system:kube-controller-manager", ""),
    "scheduler": ("system:kube-scheduler", ""),
    "kube-router": ("kube-router", "system:masters"),
    "apiserver-kubelet": ("kube-apiserver-kubelet-client", "system:masters"),
}

_Key = ec.EllipticCurvePrivateKey


def create(layout: Layout) -> None:
    """Write all keys, certificates and kubeconfigs of a new cluster."""
    layout.pki.mkdir(parents=True, exist_ok=True, mode=0o700)
    authority = ec.generate_private_key(ec.SECP256R1())
    subject = _name(f"{layout.context}-ca", "")
    certificate = (
        _builder(subject, subject, authority)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(authority, hashes.SHA256())
    )
    _write(layout.pki / "ca.crt", certificate.public_bytes(serialization.Encoding.PEM))
    addresses = [layout.node_address, "127.0.0.1", "10.96.0.1"]
    names = [layout.node, "localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"]
    for server in ("apiserver", "kubelet"):
        _issue(layout, server, (server, ""), subject, authority, addresses=addresses, names=names)
    clients = {**_CLIENTS, "node": (f"system:node:{layout.node}", "system:nodes")}
    for client, identity in clients.items():
        _issue(layout, client, identity, subject, authority)
        _write(layout.pki / f"{client}.kubeconfig", _kubeconfig(layout, client))
    signer = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    _write(layout.pki / "service-account.key", _private(signer))
    public = signer.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    _write(layout.pki / "service-account.pub", public)
    _write(layout.kubeconfig, _kubeconfig(layout, "admin"))


def _issue(
    layout: Layout,
    file: str,
    identity: tuple[str, str],
    issuer: x509.Name,
    authority: _Key,
    *,
    addresses: list[str] | None = None,
    names: list[str] | None = None,
) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    builder = _builder(_name(*identity), issuer, key)
    usage = ExtendedKeyUsageOID.SERVER_AUTH if addresses else ExtendedKeyUsageOID.CLIENT_AUTH
    builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
    if addresses:
        alternatives: list[x509.GeneralName] = [x509.IPAddress(ipaddress.ip_address(item)) for item in addresses]
        alternatives += [x509.DNSName(item) for item in names or []]
        builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
    certificate = builder.sign(authority, hashes.SHA256())
    _write(layout.pki / f"{file}.crt", certificate.public_bytes(serialization.Encoding.PEM))
    _write(layout.pki / f"{file}.key", _private(key))


def _builder(subject: x509.Name, issuer: x509.Name, key: _Key) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _DAY)
        .not_valid_after(now + _YEARS)
    )


def _name(common: str, organisation: str) -> x509.Name:
    attributes = [x509.NameAttribute(NameOID.COMMON_NAME, common)]
    if organisation:
        attributes.insert(0, x509.NameAttribute(NameOID.ORGANIZATION_NAME, organisation))
    return x509.Name(attributes)


def _private(key: _Key | rsa.RSAPrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _kubeconfig(layout: Layout, client: str) -> bytes:
    def data(file: str) -> str:
        return base64.b64encode((layout.pki / file).read_bytes()).decode("ascii")

    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {
                "name": layout.context,
                "cluster": {"server": layout.server, "certificate-authority-data": data("ca.crt")},
            }
        ],
        "users": [
            {
                "name": client,
                "user": {
                    "client-certificate-data": data(f"{client}.crt"),
                    "client-key-data": data(f"{client}.key"),
                },
            }
        ],
        "contexts": [{"name": layout.context, "context": {"cluster": layout.context, "user": client}}],
        "current-context": layout.context,
    }
    return json.dumps(document, indent=2).encode() + b"\n"


def _write(path: Path, data: bytes) -> None:
    path.touch(mode=0o600)
    path.write_bytes(data)
