"""Debian's SimpleSAMLphp behind PHP's own web server: two service providers in one installation, a source each."""

from __future__ import annotations

import secrets
import shutil
import subprocess
from pathlib import Path

from tests.interop.processes import Server
from tests.interop.saml.documented import fitted
from tests.interop.saml.places import Place, write_keys

CONFIG = "/etc/simplesamlphp/config.php"
SOURCES = "/etc/simplesamlphp/authsources.php"
PAGE = "/var/www/members.php"
WWW = Path("/usr/share/simplesamlphp/www")


def why_not() -> str | None:
    """The reason to skip, or None."""
    php = shutil.which("php")
    if php is None:
        return "no PHP found (Debian: php-cli)"
    if not WWW.is_dir():
        return "no SimpleSAMLphp found (Debian: simplesamlphp)"
    have = subprocess.run([php, "-m"], capture_output=True, text=True, timeout=30, check=True).stdout.split()
    lacks = [name for name in ("pdo_sqlite", "dom", "mbstring") if name not in have]
    return f"PHP lacks {', '.join(lacks)} (Debian: php-sqlite3, php-xml, php-mbstring)" if lacks else None


class SimpleSaml(Server):
    """One server with `ssp` and `ssp-sealed`."""

    def __init__(self, issuer: str) -> None:
        super().__init__("sekisho-php-")
        self._issuer = issuer
        self.places = [self._place("ssp", sealed=False), self._place("ssp-sealed", sealed=True)]

    def _place(self, slug: str, *, sealed: bool) -> Place:
        here = f"{self.origin}/{slug}.php"
        return Place(
            slug, self.origin, page=here, logout=f"{here}?logout", bye=self.bye,
            metadata_url=f"{self.origin}/simplesaml/module.php/saml/sp/metadata.php/{slug}", soap=True, sealed=sealed,
        )  # fmt: skip

    def start(self, metadata: bytes) -> None:
        """As the page says."""
        pages, tmp = self.folder / "pages", self.folder / "tmp"
        for one in (pages, tmp):
            one.mkdir()
        write_keys(self.folder)
        (self.folder / "sekisho.xml").write_bytes(metadata)
        (pages / "simplesaml").symlink_to(WWW)
        (pages / "bye.html").write_text("bye\n", encoding="utf-8")
        for place in self.places:
            text = fitted(PAGE, {"https://app.example.jp": self.origin, "'members'": f"'{place.slug}'"})
            (pages / f"{place.slug}.php").write_text(text, encoding="utf-8")
        config = fitted(CONFIG, {
            "https://app.example.jp": self.origin, "/etc/saml": str(self.folder), "/var/lib/simplesamlphp": str(self.folder),
            "SECRET-SALT": secrets.token_hex(16), "ADMIN-PASSWORD": secrets.token_hex(16),
            "'session.cookie.secure' => true": "'session.cookie.secure' => false", "'session.cookie.samesite' => 'None'": "'session.cookie.samesite' => null",
        })  # fmt: skip
        (self.folder / "config.php").write_text(config, encoding="utf-8")
        sources = [self._source(place) for place in self.places]
        both = sources[0].rpartition("];")[0] + sources[1].partition("$config = [")[2]
        (self.folder / "authsources.php").write_text(both, encoding="utf-8")
        php = shutil.which("php")
        assert php is not None
        options = {
            "session.save_path": tmp,
            "sys_temp_dir": tmp,
            "error_log": "",
            "log_errors": "1",
            "display_errors": "0",
        }
        command = [php, "-S", f"127.0.0.1:{self.port}", "-t", str(pages)]
        command += [f"-d{name}={value}" for name, value in options.items()]
        self.run(command, SIMPLESAMLPHP_CONFIG_DIR=str(self.folder), TMPDIR=str(tmp))

    def _source(self, place: Place) -> str:
        return fitted(SOURCES, {
            "https://app.example.jp/members": f"{self.origin}/{place.slug}", "https://id.example.jp": self._issuer,
            "'members' =>": f"'{place.slug}' =>",
        })  # fmt: skip
