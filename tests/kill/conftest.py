"""One installation per engine for the kills, the same one that the races use."""

from tests.race.conftest import arena

__all__ = ["arena"]
