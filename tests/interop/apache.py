"""Debian's Apache with `mod_auth_openidc`, unmodified: a configuration of our own in a folder of its own, on loopback.

Its cookies carry the port in their names: all servers of a test are `localhost`, and browsers do not tell ports apart.
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Self

import httpx2

from tests.interop.installation import RegisteredClient
from tests.interop.processes import free_port, stop, wait_for

MODULES = Path("/usr/lib/apache2/modules")
WANTED = ("mpm_event", "authn_core", "authz_core", "authz_user", "mime", "dir", "include", "auth_openidc")
CHILDREN = "www-data"

CONFIG = """\
ServerRoot {folder}
PidFile {folder}/httpd.pid
DefaultRuntimeDir {folder}
Mutex file:{folder} default
ErrorLog {folder}/error.log
LogLevel warn auth_openidc:debug
LogFormat "%m %U%q %>s" short
CustomLog {folder}/access.log short
{load}
{children}
StartServers 1
ServerLimit 2
ThreadsPerChild 8
MinSpareThreads 1
MaxSpareThreads 16
MaxRequestWorkers 16
Listen 127.0.0.1:{port}
ServerName localhost:{port}
DocumentRoot {folder}/pages
TypesConfig /dev/null
AddType text/html .shtml
AddOutputFilter INCLUDES .shtml
DirectoryIndex index.shtml

OIDCProviderMetadataURL {issuer}/.well-known/openid-configuration
OIDCClientID {client_id}
OIDCClientSecret {secret}
OIDCRedirectURI {redirect_uri}
OIDCIDTokenSignedResponseAlg {alg}
OIDCPKCEMethod S256
OIDCScope "openid profile"
OIDCRemoteUserClaim preferred_username
OIDCPassClaimsAs environment
OIDCInfoHook access_token id_token userinfo refresh_token
OIDCRedirectURLsAllowed ^http://localhost:{port}/
OIDCCacheType shm
OIDCCookie session-{port}
OIDCStateCookiePrefix state-{port}-
OIDCCryptoPassphrase {passphrase}

<Directory {folder}/pages>
  Options +Includes
  Require all granted
</Directory>
<Location /protected>
  AuthType openid-connect
  Require valid-user
</Location>
<Location /protected/view>
  Require claim functions:points.view
</Location>
<Location /protected/adjust>
  Require claim functions:points.adjust
</Location>
"""

PAGE = "".join(
    f'{name}=<!--#echo encoding="none" var="{variable}" -->\n'
    for name, variable in {
        "user": "REMOTE_USER", "sub": "OIDC_CLAIM_sub", "name": "OIDC_CLAIM_name", "functions": "OIDC_CLAIM_functions",
        "company": "OIDC_CLAIM_company", "stores": "OIDC_CLAIM_stores", "sid": "OIDC_CLAIM_sid", "access_token": "OIDC_access_token",
    }.items()
)  # fmt: skip


def why_not() -> str | None:
    """The reason to skip, or None when Apache and the module are here."""
    if not _program():
        return "no Apache found (Debian: apache2)"
    if not (MODULES / "mod_auth_openidc.so").exists():
        return "no mod_auth_openidc found (Debian: libapache2-mod-auth-openidc)"
    return None


def _program() -> str | None:
    return shutil.which("apache2", path=f"{os.environ.get('PATH', '')}:/usr/sbin")


class Apache:
    """One server. Its addresses are known before it starts, because the client is registered with them."""

    def __init__(self) -> None:
        # not pytest's folder: as root, Apache's children run as another user and could not reach it
        self.folder = tempfile.mkdtemp(prefix="sekisho-apache-", dir="/tmp")
        Path(self.folder).chmod(0o755)
        self.port = free_port()
        self.origin = f"http://localhost:{self.port}"
        self.page = f"{self.origin}/protected/"
        self.redirect_uri = f"{self.origin}/protected/redirect_uri"
        self.backchannel_uri = f"{self.redirect_uri}?logout=backchannel"
        self.bye = f"{self.origin}/bye.html"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self, issuer: str, client: RegisteredClient, *, alg: str) -> None:
        """Write configuration and pages, start, wait until it answers."""
        self._write(issuer, client, alg)
        program = _program()
        assert program is not None
        with Path(self.folder, "out.log").open("ab") as log:
            self._process = subprocess.Popen(
                [program, "-f", f"{self.folder}/httpd.conf", "-DFOREGROUND"], cwd=self.folder, stdin=subprocess.DEVNULL, stdout=log,
                stderr=log, env={"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "TMPDIR": self.folder}, start_new_session=True,
            )  # fmt: skip
        wait_for("Apache", self._is_up, within_s=15, failed=self.log)

    def _write(self, issuer: str, client: RegisteredClient, alg: str) -> None:
        root = os.geteuid() == 0
        children = f"User {CHILDREN}\nGroup {CHILDREN}" if root else ""
        load = "\n".join(f"LoadModule {name}_module {MODULES}/mod_{name}.so" for name in WANTED)
        config = Path(self.folder, "httpd.conf")
        config.touch(mode=0o600)
        config.write_text(
            CONFIG.format(
                folder=self.folder, load=load, children=children, port=self.port, issuer=issuer, client_id=client.client_id,
                secret=client.secret, redirect_uri=self.redirect_uri, alg=alg, passphrase=secrets.token_hex(16),
            ),
            encoding="utf-8",
        )  # fmt: skip
        pages = Path(self.folder, "pages")
        for place in ("protected", "protected/view", "protected/adjust"):
            (pages / place).mkdir(parents=True)
            (pages / place / "index.shtml").write_text(PAGE, encoding="utf-8")
        (pages / "bye.html").write_text("bye\n", encoding="utf-8")
        for path in (pages, *pages.rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)

    def _is_up(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.log()
        try:
            return httpx2.get(self.bye, timeout=2).status_code == 200
        except httpx2.TransportError:
            return False

    def close(self) -> None:
        """Stop it and take its folder away."""
        if self._process is not None:
            stop(self._process)
            self._process = None
        shutil.rmtree(self.folder, ignore_errors=True)

    def log(self) -> str:
        """What it and its module wrote."""
        names = ("out.log", "error.log", "access.log")
        return "\n".join(
            Path(self.folder, n).read_text(errors="replace")[-6000:] for n in names if Path(self.folder, n).exists()
        )

    def answers(self, request: str) -> list[int]:
        """The statuses of all requests so far whose method, path and query are these."""
        lines = Path(self.folder, "access.log").read_text(encoding="utf-8").splitlines()
        return [int(line.rpartition(" ")[2]) for line in lines if line.rpartition(" ")[0] == request]
