"""`python -m tests.bench.peer`: our SAML answer beside SimpleSAMLphp's, in turns on the same machine.

A budget in µs belongs to the machine that it was set on, and here a signature alone may cost three times as much. What can
be compared anywhere is the ratio: the design allows us 4,200 µs where SimpleSAMLphp takes 3,744, each with its database on one
core. So it is here: where two processes wake each other across cores, most of what is measured is the waking. The peer is Debian's, behind
Apache's module with its opcode cache: the same key size, both signatures, the same request inside an existing login, its
sessions in files. It keeps neither ledger, log of its own nor replay memory, and asks nobody whether the person still works.
"""

from __future__ import annotations

import argparse
import base64
import html
import http.client
import os
import re
import secrets
import shutil
import statistics
import sys
from collections.abc import Callable
from pathlib import Path

from tests.bench import drive, machine
from tests.bench.install import Installation
from tests.interop import apache
from tests.interop.processes import Server
from tests.saml import pair

WWW = Path("/usr/share/simplesamlphp/www")
#: what the design allows us for each µs of the peer; one signature is meant with RSA-2048, and ours is of RSA-3072
MUST = {"saml_both": 4200 / 3744, "saml_one": 2900 / 3744}
TITLES = {
    "saml_both": "CPU of a SAML answer, both signed, of SimpleSAMLphp's in turns",
    "saml_one": "CPU of a SAML answer, one signature, of the same",
}

HTTPD = """\
ServerRoot {folder}
PidFile {folder}/httpd.pid
DefaultRuntimeDir {folder}
Mutex file:{folder} default
ErrorLog {folder}/error.log
LogLevel warn
LoadModule mpm_prefork_module {modules}/mod_mpm_prefork.so
LoadModule authz_core_module {modules}/mod_authz_core.so
LoadModule mime_module {modules}/mod_mime.so
LoadModule alias_module {modules}/mod_alias.so
LoadModule env_module {modules}/mod_env.so
LoadModule php_module {modules}/libphp{php}.so
{children}
StartServers 1
MinSpareServers 1
MaxSpareServers 1
MaxRequestWorkers 4
MaxKeepAliveRequests 0
KeepAliveTimeout 60
Listen 127.0.0.1:{port}
ServerName localhost:{port}
DocumentRoot {folder}/pages
TypesConfig /dev/null
<Directory {folder}/pages>
  Require all granted
</Directory>
Alias /simplesaml {www}
<Directory {www}>
  Require all granted
  AddHandler application/x-httpd-php .php
</Directory>
SetEnv SIMPLESAMLPHP_CONFIG_DIR {folder}
php_admin_value session.save_path {folder}/sessions
php_admin_value sys_temp_dir {folder}/sessions
php_admin_value opcache.enable 1
php_admin_value opcache.validate_timestamps 0
"""

CONFIG = """\
<?php
$config = [
    'baseurlpath' => '{origin}/simplesaml/', 'certdir' => '{folder}/', 'metadatadir' => '{folder}/metadata/', 'loggingdir' => '{folder}/',
    'datadir' => '{folder}/', 'tempdir' => '{folder}/sessions', 'timezone' => 'UTC', 'secretsalt' => '{salt}', 'auth.adminpassword' => '{password}',
    'technicalcontact_email' => 'na@example.jp', 'enable.saml20-idp' => true, 'module.enable' => ['exampleauth' => true, 'core' => true, 'saml' => true],
    'logging.level' => SimpleSAML\\Logger::ERR, 'logging.handler' => 'errorlog', 'session.cookie.secure' => false,
    'store.type' => 'phpsession', 'session.phpsession.savepath' => '{folder}/sessions', 'metadata.sources' => [['type' => 'flatfile']],
];
"""

SOURCES = """\
<?php
$config = ['one' => ['exampleauth:StaticSource', 'uid' => ['AOBA/d000'], 'name' => ['山本 d000'], 'locale' => ['ja'], 'company' => ['AOBA'],
    'company_name' => ['あおばストア'], 'stores' => ['S1'], 'store_names' => ['渋谷駅前店'], 'roles' => ['staff'], 'functions' => ['points.view']]];
"""

HOSTED = """\
<?php
$metadata['__DYNAMIC:1__'] = ['host' => '__DEFAULT__', 'privatekey' => 'idp.key', 'certificate' => 'idp.crt', 'auth' => 'one',
    'signature.algorithm' => 'http://www.w3.org/2001/04/xmldsig-more#rsa-sha256', 'saml20.sign.response' => true, 'saml20.sign.assertion' => true,
    'NameIDFormat' => 'urn:oasis:names:tc:SAML:2.0:nameid-format:transient'];
"""

REMOTE = """\
<?php
$metadata['https://sp.example.jp/metadata'] = ['AssertionConsumerService' => 'https://sp.example.jp/acs'];
"""


class SimpleSaml(Server):
    """SimpleSAMLphp as an identity provider: one person, already known, and one service provider."""

    def __init__(self) -> None:
        super().__init__("sekisho-peer-", bye="/bye.html")
        self.folder.chmod(0o755)

    def start(self) -> None:
        """Write its configuration and start it."""
        keys = pair("peer", "rsa3072")
        php = next(Path("/usr/lib/apache2/modules").glob("libphp*.so")).stem.removeprefix("libphp")
        texts = {
            "idp.key": keys.private_pem.decode(), "idp.crt": keys.pem.decode(), "pages/bye.html": "bye\n", "authsources.php": SOURCES,
            "config.php": CONFIG, "metadata/saml20-idp-hosted.php": HOSTED, "metadata/saml20-sp-remote.php": REMOTE,
            "httpd.conf": HTTPD,
        }  # fmt: skip
        values = {
            "folder": self.folder, "origin": self.origin, "port": self.port, "salt": secrets.token_hex(16), "modules": apache.MODULES,
            "password": secrets.token_hex(16), "www": WWW, "php": php,
            "children": f"User {apache.CHILDREN}\nGroup {apache.CHILDREN}" if os.geteuid() == 0 else "",
        }  # fmt: skip
        (self.folder / "sessions").mkdir()
        for name, text in texts.items():
            ready = re.sub(r"\{([a-z]+)\}", lambda found: str(values[found[1]]), text)
            (self.folder / name).parent.mkdir(exist_ok=True)
            (self.folder / name).write_text(ready, encoding="utf-8")
        if os.geteuid() == 0:
            for made in (self.folder, *self.folder.rglob("*")):
                shutil.chown(made, apache.CHILDREN)
        httpd = apache.program()
        assert httpd is not None
        self.run([httpd, "-f", str(self.folder / "httpd.conf"), "-DFOREGROUND"], TMPDIR=str(self.folder))
        self.ready()

    @property
    def pid(self) -> int:
        """Of its first process."""
        assert self._process is not None
        return self._process.pid


class Visitor:
    """A browser with a login at the peer."""

    def __init__(self, peer: SimpleSaml) -> None:
        self._connection = http.client.HTTPConnection("localhost", peer.port, timeout=30)
        self._cookies: dict[str, str] = {}

    def answer(self) -> None:
        """An AuthnRequest by Redirect, and the Response that comes; the first time with the way over its login."""
        path = f"/simplesaml/saml2/idp/SSOService.php?{drive.authn_request('https://sp.example.jp/metadata')}"
        for _ in range(4):
            cookies = "; ".join(f"{name}={value}" for name, value in self._cookies.items())
            self._connection.request("GET", path, headers={"Cookie": cookies})
            page = self._connection.getresponse()
            body = page.read()
            for line in page.headers.get_all("Set-Cookie", ()):
                name, _, value = line.partition(";")[0].partition("=")
                self._cookies[name] = value
            if found := re.search(rb'name="SAMLResponse" value="([^"]+)"', body):
                if base64.b64decode(html.unescape(found[1].decode())).count(b"<ds:SignatureValue>") != 2:
                    raise RuntimeError("the peer did not sign both")
                return
            if page.status not in {302, 303}:
                break
            path = page.headers["Location"]
        raise RuntimeError(f"the peer gave no answer: {page.status} {body[:500]!r}")


def cpu_s(*roots: int | None) -> float:
    """CPU seconds of the trees of these processes."""
    return sum(machine.cpu_s(root) for root in roots if root)


def measure(act: Callable[[], None], number: int, *roots: int | None) -> float:
    """CPU µs of one, in the trees of these processes."""
    began = cpu_s(*roots)
    for _ in range(number):
        act()
    return (cpu_s(*roots) - began) / number * 1e6


def why_not() -> str | None:
    """The reason why there is no peer here, or None."""
    if not WWW.exists() or apache.program() is None or not list(Path("/usr/lib/apache2/modules").glob("libphp*.so")):
        return "needs Debian's simplesamlphp and libapache2-mod-php"
    return None


def beside(place: Installation, web: int, *, rounds: int, number: int) -> list[tuple[str, str, str]]:
    """Both in turns; for each of our answers what it is, what was measured, and its budget. web: the pid of our server."""
    database = place.database_pid()
    actor = drive.Actor(place.plan, place.plan["actors"][0])
    actor.login()
    measured = []
    with SimpleSaml() as peer:
        peer.start()
        visitor = Visitor(peer)
        for _ in range(20):
            for act in MUST:
                getattr(actor, act)()
            visitor.answer()
        for _ in range(rounds):
            theirs = measure(visitor.answer, number, peer.pid)
            measured.append((theirs, {act: measure(getattr(actor, act), number, web, database) for act in MUST}))
    rows = []
    for act, must in MUST.items():
        ratio = statistics.median(ours[act] / theirs for theirs, ours in measured)
        ours_us = statistics.median(ours[act] for _, ours in measured)
        theirs_us = statistics.median(theirs for theirs, _ in measured)
        value = f"{ratio:.2f} ({ours_us:,.0f} of {theirs_us:,.0f} µs)"
        rows.append((TITLES[act], value, f"≤ {must:.2f}{'' if ratio <= must else ' **misses**'}"))
    return rows


def main() -> None:
    """Read the options, measure in turns, print."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.peer", description=__doc__)
    parser.add_argument("--engine", choices=["sqlite", "postgresql"], default="sqlite")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--number", type=int, default=100)
    options = parser.parse_args()
    if missing := why_not():
        parser.error(missing)
    machine.pin(0)
    place = Installation(options.engine, destinations=1, victims=1, crowd=1, drivers=1)
    try:
        web = place.serve(gunicorn=None)
        for title, value, budget in beside(place, web.pid, rounds=options.rounds, number=options.number):
            sys.stdout.write(f"{title}: {value}; must {budget}\n")
    finally:
        place.close()


if __name__ == "__main__":
    main()
