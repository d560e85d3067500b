"""Debian's Apache, unmodified: a configuration of our own in a folder of its own, on loopback; and one with `mod_auth_openidc`.

Its cookies carry the port in their names: all servers of a test are `localhost`, and browsers do not tell ports apart.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.interop.installation import RegisteredClient
from tests.interop.processes import Server

MODULES = Path("/usr/lib/apache2/modules")
WANTED = ("mpm_event", "authn_core", "authz_core", "authz_user", "mime", "dir", "include")
CHILDREN = "www-data"

SERVER = """\
ServerRoot {folder}
PidFile {folder}/httpd.pid
DefaultRuntimeDir {folder}
Mutex file:{folder} default
ErrorLog {folder}/error.log
LogLevel warn
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
<Directory {folder}/pages>
  Options +Includes
  Require all granted
</Directory>
"""

OPENID = """\
LogLevel warn auth_openidc:debug
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


def page(variables: Mapping[str, str]) -> str:
    """A page that shows environment variables. variables: name of the line → variable."""
    return "".join(f'{name}=<!--#echo encoding="none" var="{var}" -->\n' for name, var in variables.items())


PAGE = page({
    "user": "REMOTE_USER", "sub": "OIDC_CLAIM_sub", "name": "OIDC_CLAIM_name", "functions": "OIDC_CLAIM_functions",
    "company": "OIDC_CLAIM_company", "stores": "OIDC_CLAIM_stores", "sid": "OIDC_CLAIM_sid", "access_token": "OIDC_access_token",
})  # fmt: skip


def why_not(module: str = "auth_openidc", package: str = "libapache2-mod-auth-openidc") -> str | None:
    """The reason to skip, or None when Apache and this module are here."""
    if not program():
        return "no Apache found (Debian: apache2)"
    if not (MODULES / f"mod_{module}.so").exists():
        return f"no mod_{module} found (Debian: {package})"
    return None


def program() -> str | None:
    """Where Apache is, if it is here."""
    return shutil.which("apache2", path=f"{os.environ.get('PATH', '')}:/usr/sbin")


class Httpd(Server):
    """One Apache."""

    def __init__(self) -> None:
        super().__init__("sekisho-apache-")
        self.folder.chmod(0o755)

    def launch(self, modules: Sequence[str], config: str, pages: Mapping[str, str]) -> None:
        """Write configuration and pages, and start. config: what follows on the server's own; pages: by their paths."""
        root = os.geteuid() == 0
        children = f"User {CHILDREN}\nGroup {CHILDREN}" if root else ""
        load = "\n".join(f"LoadModule {one}_module {MODULES}/mod_{one}.so" for one in (*WANTED, *modules))
        load = load.replace("LoadModule shib_module", "LoadModule mod_shib")  # it is named so
        server = SERVER.format(folder=self.folder, load=load, children=children, port=self.port)
        file = self.folder / "httpd.conf"
        file.touch(mode=0o600)
        file.write_text(server + config, encoding="utf-8")
        self._write(pages)
        httpd = program()
        assert httpd is not None
        self.run([httpd, "-f", str(file), "-DFOREGROUND"], TMPDIR=str(self.folder))

    def _write(self, pages: Mapping[str, str]) -> None:
        folder = self.folder / "pages"
        for path, text in {"bye.html": "bye\n", **pages}.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(text, encoding="utf-8")
        for made in (folder, *folder.rglob("*")):
            made.chmod(0o755 if made.is_dir() else 0o644)

    def answers(self, request: str) -> list[int]:
        """The statuses of all requests so far whose method, path and query are these."""
        lines = (self.folder / "access.log").read_text(encoding="utf-8").splitlines()
        return [int(line.rpartition(" ")[2]) for line in lines if line.rpartition(" ")[0] == request]


class Apache(Httpd):
    """One server that is a relying party of OpenID Connect."""

    def __init__(self) -> None:
        super().__init__()
        self.page = f"{self.origin}/protected/"
        self.redirect_uri = f"{self.origin}/protected/redirect_uri"
        self.backchannel_uri = f"{self.redirect_uri}?logout=backchannel"

    def start(self, issuer: str, client: RegisteredClient, *, alg: str) -> None:
        """Configure, start, wait until it answers."""
        config = OPENID.format(
            port=self.port, issuer=issuer, client_id=client.client_id, secret=client.secret, redirect_uri=self.redirect_uri, alg=alg,
            passphrase=secrets.token_hex(16),
        )  # fmt: skip
        places = ("protected", "protected/view", "protected/adjust")
        self.launch(["auth_openidc"], config, {f"{place}/index.shtml": PAGE for place in places})
        self.ready()
