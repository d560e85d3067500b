"""Debian's Apache with `mod_shib` and its daemon `shibd`: two service providers, the second an override of the first."""

from __future__ import annotations

import os
import shutil
import subprocess

from tests.interop.apache import Httpd, page
from tests.interop.apache import why_not as apache_is_missing
from tests.interop.processes import stop, wait_for
from tests.interop.saml.documented import fitted
from tests.interop.saml.places import SHOWN, Place, write_keys

CONFIG = "/etc/shibboleth/shibboleth2.xml"
MAP = "/etc/shibboleth/attribute-map.xml"
APACHE = "/etc/apache2/conf-available/members-shib.conf"
REDIRECT, POST = (f"urn:oasis:names:tc:SAML:2.0:bindings:HTTP-{name}" for name in ("Redirect", "POST"))
LOGGER = """\
log4j.rootCategory=INFO, file
log4j.appender.file=org.apache.log4j.FileAppender
log4j.appender.file.fileName={file}
log4j.appender.file.layout=org.apache.log4j.PatternLayout
log4j.appender.file.layout.ConversionPattern=%d %p %c: %m%n
"""
#: where the processes meet and write, which Debian's defaults give to the system's own server
OURS = """\
<OutOfProcess logger="{folder}/shibd.logger"/><InProcess logger="{folder}/native.logger"/>
  <UnixListener address="{folder}/shibd.sock"/>
  <ApplicationDefaults """
#: the second service provider: all of the first, another name, and requests by POST
SEALED = """\
    <ApplicationOverride id="sealed" entityID="{origin}/sealed">
      <Sessions lifetime="28800" timeout="3600" relayState="ss:mem" checkAddress="false" handlerURL="/shib-sealed/Shibboleth.sso"
                handlerSSL="false" cookieProps="http" redirectLimit="exact">
        <SSO entityID="{idp}" outgoingBindings="{post}">SAML2</SSO>
        <Logout>SAML2 Local</Logout>
        <Handler type="MetadataGenerator" Location="/Metadata" signing="false"/>
      </Sessions>
    </ApplicationOverride>
  </ApplicationDefaults>"""


def why_not() -> str | None:
    """The reason to skip, or None."""
    if not _daemon():
        return "no shibd found (Debian: shibboleth-sp-utils)"
    return apache_is_missing("shib", "libapache2-mod-shib")


def _daemon() -> str | None:
    return shutil.which("shibd", path=f"{os.environ.get('PATH', '')}:/usr/sbin")


class Shibboleth(Httpd):
    """One server and one daemon with `shib` and `shib-sealed`."""

    def __init__(self, issuer: str) -> None:
        super().__init__()
        self._issuer = issuer
        self._shibd: subprocess.Popen[bytes] | None = None
        self.places = [self._place("shib", "", sealed=False), self._place("shib-sealed", "/shib-sealed", sealed=True)]

    def _place(self, slug: str, handlers: str, *, sealed: bool) -> Place:
        here, sso = f"{self.origin}/{slug}", f"{self.origin}{handlers}/Shibboleth.sso"
        return Place(
            slug, self.origin, page=f"{here}/", logout=f"{sso}/Logout?return={self.bye}", bye=self.bye, metadata_url=f"{sso}/Metadata",
            denied=f"{here}/adjust/", soap=True, sealed=sealed, posts=sealed, says_it_signs=False,
        )  # fmt: skip

    def start(self, metadata: bytes) -> None:
        """As the page says; the daemon first, because the module asks it at once."""
        folder = self.folder
        write_keys(folder)
        (folder / "sekisho.xml").write_bytes(metadata)
        (folder / "attribute-map.xml").write_text(fitted(MAP, {}), encoding="utf-8")
        for name in ("shibd", "native"):
            (folder / f"{name}.logger").write_text(LOGGER.format(file=folder / f"{name}.log"), encoding="utf-8")
        native = folder / "native.log"
        native.touch()
        native.chmod(0o666)
        idp = f"{self._issuer}/saml/metadata"
        config = fitted(CONFIG, {
            "https://app.example.jp": self.origin, "https://id.example.jp": self._issuer, "/etc/saml": str(folder),
            'path="attribute-map.xml"': f'path="{folder}/attribute-map.xml"', 'handlerSSL="true" cookieProps="https"': 'handlerSSL="false" cookieProps="http"',
            "<ApplicationDefaults ": OURS.format(folder=folder),
            "  </ApplicationDefaults>": SEALED.format(origin=self.origin, idp=idp, post=POST),
        })  # fmt: skip
        (folder / "shibboleth2.xml").write_text(config, encoding="utf-8")
        daemon = _daemon()
        assert daemon is not None
        with (folder / "shibd-out.log").open("ab") as log:
            self._shibd = subprocess.Popen(
                [daemon, "-F", "-c", f"{folder}/shibboleth2.xml", "-p", f"{folder}/shibd.pid"], cwd=folder, stdin=subprocess.DEVNULL,
                stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        first, second = (fitted(APACHE, {"/members": f"/{place.slug}"}) for place in self.places)
        second = second.replace("requireSession true", "requireSession true\n  ShibRequestSetting applicationId sealed")
        shared = f"ShibConfig {folder}/shibboleth2.xml\nShibCompatValidUser Off\n"
        shared += "<Location /shib-sealed/Shibboleth.sso>\n  ShibRequestSetting requireSession false\n</Location>\n"
        text = page({name: name for name in SHOWN})
        pages = {f"{place.slug}/{name}index.shtml": text for place in self.places for name in ("", "adjust/")}
        self._modules = (["shib"], f"{first}\n{second}\n{shared}", pages)

    def ready(self) -> None:
        """Wait until both answer."""
        wait_for("shibd", self._listens, within_s=20, failed=self.log)
        self.launch(*self._modules)
        super().ready()

    def _listens(self) -> bool:
        assert self._shibd is not None
        assert self._shibd.poll() is None, self.log()
        socket = self.folder / "shibd.sock"
        if not socket.exists():
            return False
        socket.chmod(0o666)  # the server's children are another user
        return True

    def close(self) -> None:
        """Stop both."""
        if self._shibd is not None:
            stop(self._shibd)
            self._shibd = None
        super().close()
