"""A certificate for 127.0.0.1 and the authority that vouches for it, made anew for each run.

`made` is what the tests call. Run as a program, with the interpreter that has the package
cryptography, the file writes `ca.pem`, `cert.pem` and `key.pem` into the folder named.
"""

import datetime
import ipaddress
import pathlib
import subprocess
import sys

from harness import PYTHON, Failed

SECONDS = 30


class Certificates:
    """Paths of PEM files: `ca`, `cert`, `key`."""

    def __init__(self, folder):
        self.ca, self.cert, self.key = (folder / name for name in ("ca.pem", "cert.pem", "key.pem"))


def made(work):
    folder = work.file("certificates")
    folder.mkdir()
    result = subprocess.run([PYTHON, __file__, str(folder)], capture_output=True, text=True, timeout=SECONDS, check=False)
    if result.returncode:
        raise Failed(f"no certificates: {result.stderr[-400:]}")
    return Certificates(folder)


def write(folder):
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    now = datetime.datetime.now(datetime.UTC)
    whole = serialization.Encoding.PEM

    def sign(name, key, issuer, issuer_key, *extensions):
        builder = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(issuer)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(days=1))
        )
        for extension, critical in extensions:
            builder = builder.add_extension(extension, critical=critical)
        return builder.sign(issuer_key, hashes.SHA256()).public_bytes(whole)

    def called(name):
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])

    authority, own = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    who, root = called("127.0.0.1"), called("authority of the tests")
    names = x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    files = Certificates(folder)
    files.ca.write_bytes(sign(root, authority, root, authority, (x509.BasicConstraints(ca=True, path_length=0), True)))
    files.cert.write_bytes(sign(who, own, root, authority, (names, False), (x509.BasicConstraints(ca=False, path_length=None), True)))
    private = own.private_bytes(whole, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    files.key.touch(mode=0o600)
    files.key.write_bytes(private)


if __name__ == "__main__":
    write(pathlib.Path(sys.argv[1]))
