"""Debian's Apache with `mod_auth_mellon`: two service providers in one server, a location each."""

from __future__ import annotations

from tests.interop.apache import Httpd, page
from tests.interop.apache import why_not as apache_is_missing
from tests.interop.saml.documented import fitted
from tests.interop.saml.places import Place, write_keys

CONFIG = "/etc/apache2/conf-available/members.conf"
PAGE = page({"preferred_username": "REMOTE_USER", "name": "NAME", "stores": "STORES", "functions": "FUNCTIONS"})


def why_not() -> str | None:
    """The reason to skip, or None."""
    return apache_is_missing("auth_mellon", "libapache2-mod-auth-mellon")


class Mellon(Httpd):
    """One server with `mellon` and `mellon-sealed`."""

    def __init__(self, _issuer: str) -> None:
        super().__init__()
        self.places = [self._place("mellon", sealed=False), self._place("mellon-sealed", sealed=True)]

    def _place(self, slug: str, *, sealed: bool) -> Place:
        here = f"{self.origin}/{slug}"
        return Place(
            slug, self.origin, page=f"{here}/", logout=f"{here}/mellon/logout?ReturnTo={self.bye}", bye=self.bye,
            metadata_url=f"{here}/mellon/metadata", denied=f"{here}/adjust/", soap=True, sealed=sealed,
        )  # fmt: skip

    def start(self, metadata: bytes) -> None:
        """As the page says, once for each location."""
        write_keys(self.folder)
        (self.folder / "sekisho.xml").write_bytes(metadata)
        texts = [
            fitted(CONFIG, {
                "https://app.example.jp": self.origin, "/etc/saml": str(self.folder), "/members": f"/{place.slug}",
                "MellonVariable members": f"MellonVariable {place.slug}",
            })
            for place in self.places
        ]  # fmt: skip
        pages = {f"{place.slug}/{name}index.shtml": PAGE for place in self.places for name in ("", "adjust/")}
        self.launch(["auth_mellon"], "\n".join(texts), pages)
