"""AU-02: the tree and the notes against published vectors, and every proof of every small tree against both implementations."""

from __future__ import annotations

import hashlib
import random

import pytest

from idp.ledgers.audit import merkle, note, verify

#: leaf inputs and roots of the RFC 6962 reference implementation (certificate-transparency), which RFC 9162 keeps
INPUTS = [bytes.fromhex(h) for h in (
    "", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f",
)]  # fmt: skip
ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
INCLUSION = {
    (0, 8): ["96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
             "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
             "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4"],
    (5, 8): ["bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
             "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
             "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7"],
    (2, 3): ["fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"],
}  # fmt: skip
CONSISTENCY = {
    (1, 1): [],
    (1, 8): ["96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
             "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
             "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4"],
    (6, 8): ["0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
             "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
             "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7"],
    (2, 5): ["5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
             "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b"],
}  # fmt: skip
#: golang.org/x/mod/sumdb/note and c2sp.org/signed-note
PETER = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
NOTE = (
    "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n\n"
    "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
)


class Tree:
    """Tiles in memory, filled in batches of any size."""

    def __init__(self) -> None:
        self.tiles: dict[tuple[int, int], bytes] = {}
        self.size = 0

    def read(self, level: int, position: int) -> bytes:
        return self.tiles[level, position]

    def add(self, hashes: list[bytes]) -> None:
        self.tiles |= merkle.append(self.read, self.size, hashes)
        self.size += len(hashes)


def slow_root(leaves: list[bytes]) -> bytes:
    """RFC 9162 2.1.1, word for word."""
    if len(leaves) <= 1:
        return leaves[0] if leaves else hashlib.sha256(b"").digest()
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    return hashlib.sha256(b"\x01" + slow_root(leaves[:k]) + slow_root(leaves[k:])).digest()


def test_AU02_published_vectors_of_the_tree() -> None:
    """Roots, inclusion and consistency of RFC 6962's reference."""
    tree = Tree()
    for count, data in enumerate(INPUTS, 1):
        tree.add([merkle.leaf_hash(data)])
        assert merkle.root(tree.read, count).hex() == ROOTS[count - 1]
    assert merkle.root(tree.read, 0).hex() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    for (index, size), path in INCLUSION.items():
        assert [h.hex() for h in merkle.inclusion(tree.read, index, size)] == path
    for (first, second), path in CONSISTENCY.items():
        assert [h.hex() for h in merkle.consistency(tree.read, first, second)] == path


def test_AU02_published_vectors_of_notes_and_ed25519() -> None:
    """A note that another implementation signed; RFC 8032 7.1 test 3; what must be refused."""
    assert verify.open_note(NOTE, PETER).startswith("If you think")
    for wrong in (
        NOTE.replace("answer", "question"),
        NOTE.replace("ZJku", "ZJkv"),
        NOTE[:-1],
        NOTE.replace("\n\n", "\n"),
    ):
        with pytest.raises(verify.Wrong):
            verify.open_note(wrong, PETER)
    public = bytes.fromhex("fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025")
    good = bytes.fromhex(
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a"
    )
    assert verify.ed25519_ok(public, good, bytes.fromhex("af82"))
    assert not verify.ed25519_ok(public, good, bytes.fromhex("af83"))
    s = int.from_bytes(good[32:], "little") + verify.L  # the same signature, malleated
    assert not verify.ed25519_ok(public, good[:32] + s.to_bytes(32, "little"), bytes.fromhex("af82"))
    assert note.vkey("PeterNeumann", verify.read_key(PETER)[1]) == PETER


def test_AU02_every_proof_of_small_trees_and_of_tiled_ones() -> None:
    """All (index, size) and (first, second) up to 40, then around the edges of tiles: 256, 65,536. Wrong ones are refused."""
    leaves = [hashlib.sha256(str(n).encode()).digest() for n in range(66_000)]
    tree, dice = Tree(), random.Random(20)
    while tree.size < len(leaves):
        tree.add(leaves[tree.size : tree.size + dice.choice([1, 7, 255, 256, 257, 4000])])
    assert {level for level, _ in tree.tiles} == {0, 1, 2}
    sizes = [*range(1, 41), 255, 256, 257, 511, 513, 65_535, 65_536, 65_537, 66_000]
    roots = {size: merkle.root(tree.read, size) for size in sizes}
    frontier = verify.Frontier()
    for size, leaf in enumerate(leaves, 1):
        frontier.append(leaf)
        if size in roots:
            assert frontier.root() == roots[size]
    for size in sizes[:45]:
        assert roots[size] == slow_root(leaves[:size])
    for size in sizes:
        indexes = range(size) if size <= 40 else [0, 1, 254, *dice.sample(range(size), 5), size - 1]
        for index in indexes:
            path = merkle.inclusion(tree.read, index, size)
            assert verify.inclusion_ok(leaves[index], index, size, path, roots[size])
            assert not verify.inclusion_ok(leaves[index], (index + 1) % size, size, path, roots[size]) or size == 1
            assert not verify.inclusion_ok(leaves[index - 1], index, size, path, roots[size])
            assert not verify.inclusion_ok(
                leaves[index], index, size, [*path, path[0] if path else b"x" * 32], roots[size]
            )
            assert not path or not verify.inclusion_ok(leaves[index], index, size, path[:-1], roots[size])
        for first in [0, *(f for f in sizes if f <= size)]:
            path = merkle.consistency(tree.read, first, size)
            before = roots[first] if first else merkle.EMPTY_ROOT
            assert verify.consistency_ok(first, before, size, roots[size], path)
            assert not verify.consistency_ok(first, leaves[0] if first != 1 else leaves[1], size, roots[size], path)
            assert not verify.consistency_ok(first, before, size, leaves[-1], path) or first == 0 < size
    with pytest.raises(ValueError, match="not in a tree"):
        merkle.inclusion(tree.read, 5, 5)
