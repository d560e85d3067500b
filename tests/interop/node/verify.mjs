// A second verifier of exports, written from docs/protocols/evidence.md alone; shares nothing with verify.py.
// node verify.mjs FOLDER KEY [ANCHOR-FILE]…   exit status: 0 verified, 1 wrong
import { createHash, createPublicKey, verify } from "node:crypto";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";

const [folder, key, ...anchors] = process.argv.slice(2);
const sha = (...parts) => parts.reduce((h, p) => h.update(p), createHash("sha256")).digest();
const hex = (text) => Buffer.from(text, "hex");
const bytes = (name) => readFileSync(join(folder, name));
const must = (good, what) => { if (!good) { console.error(`WRONG ${what}`); process.exit(1); } };

// canonical JSON (RFC 8785)
const canonical = (v) => Array.isArray(v) ? `[${v.map(canonical).join(",")}]`
  : v && typeof v === "object" ? `{${Object.keys(v).sort().map((k) => `${JSON.stringify(k)}:${canonical(v[k])}`).join(",")}}`
  : JSON.stringify(v);

// signed notes
function keyOf(vkey) {
  const [, name, hash, body] = /^(.+?)\+([0-9a-f]{8})\+(.+)$/.exec(vkey.trim());
  const raw = Buffer.from(body, "base64");
  must(raw.length === 33 && raw[0] === 1 && sha(name + "\n", raw).subarray(0, 4).toString("hex") === hash, "key");
  return { name, hash, key: createPublicKey({ key: { kty: "OKP", crv: "Ed25519", x: raw.subarray(1).toString("base64url") }, format: "jwk" }) };
}
function textOf(note, vkey) {
  const { name, hash, key: k } = keyOf(vkey);
  const at = note.lastIndexOf("\n\n");
  const text = note.slice(0, at + 1);
  const good = at > 0 && note.slice(at + 2).split("\n").some((line) => {
    const [dash, who, sig] = line.split(" ");
    if (dash !== "—" || who !== name) return false;
    const raw = Buffer.from(sig, "base64");
    return raw.length === 68 && raw.subarray(0, 4).toString("hex") === hash && verify(null, Buffer.from(text), k, raw.subarray(4));
  });
  must(good, "signature");
  return text;
}
function checkpoint(note, vkey) {
  const [origin, size, root] = textOf(note, vkey).split("\n");
  must(origin === keyOf(vkey).name && /^(0|[1-9]\d*)$/.test(size), "checkpoint");
  return { size: Number(size), root: Buffer.from(root, "base64").toString("hex") };
}

// the tree, by recursion instead of bit tricks
const leafHash = (text) => sha(Buffer.of(0), text);
const node = (l, r) => sha(Buffer.of(1), l, r);
const split = (n) => { let k = 1; while (k * 2 < n) k *= 2; return k; };
function climb(leaf, index, size, path) {             // the root that an inclusion path gives
  if (size === 1) { must(path.length === 0, "path"); return leaf; }
  must(path.length > 0, "path");
  const k = split(size), last = path[path.length - 1], rest = path.slice(0, -1);
  return index < k ? node(climb(leaf, index, k, rest), last) : node(last, climb(leaf, index - k, size - k, rest));
}
function joined(first, second, path, oldRoot) {       // [root of first, root of second] that a consistency proof gives
  const walk = (m, n, proof, whole) => {
    if (m === n) {
      if (whole) { must(proof.length === 0, "consistency"); return [oldRoot, oldRoot]; }
      must(proof.length === 1, "consistency"); return [proof[0], proof[0]];
    }
    must(proof.length > 0, "consistency");
    const k = split(n), last = proof[proof.length - 1], rest = proof.slice(0, -1);
    if (m <= k) { const [a, b] = walk(m, k, rest, whole); return [a, node(b, last)]; }
    const [a, b] = walk(m - k, n - k, rest, false); return [node(last, a), node(last, b)];
  };
  return walk(first, second, path, true);
}
function consistent(from, to, proofs) {
  if (from.size === to.size) return from.root === to.root;
  const proof = proofs.find((p) => p.from === from.size && p.to === to.size);
  must(proof, `no proof from ${from.size} to ${to.size}`);
  const [a, b] = joined(from.size, to.size, proof.hashes.map(hex), hex(from.root));
  return a.toString("hex") === from.root && b.toString("hex") === to.root;
}
const rootOf = (tree) => tree.length ? tree.map((t) => t.hash).reduceRight((right, left) => node(left, right)) : sha("");

// rows
function row(entry) {
  const leaf = JSON.parse(entry.leaf);
  must(canonical(leaf) === entry.leaf, "canonical leaf");
  if (leaf.v === 1) {
    must(Object.keys(leaf).sort().join() === "at,body,company,id,personal,tag,v", "members");
    must(entry.body === null || sha(entry.body).toString("hex") === leaf.body, "body");
  }
  return { leaf, hash: leafHash(entry.leaf), body: leaf.v === 1 && entry.body !== null ? JSON.parse(entry.body) : null };
}
const lines = (name) => bytes(name).toString().split("\n").filter(Boolean).map((line) => JSON.parse(line));
function included(entry, to) {
  must(Number.isInteger(entry.index) && entry.index >= 0 && entry.index < to.size, "index");
  const found = row(entry);
  must(climb(found.hash, entry.index, to.size, entry.proof.map(hex)).toString("hex") === to.root, `row ${entry.index}`);
  return found;
}

// the export
const raw = bytes("manifest.json"), manifest = JSON.parse(raw);
must(manifest.format === "sekisho-evidence-1" && manifest.vkey === key, "format or key");
must(textOf(bytes("manifest.note").toString(), key) === `sekisho-export\n${sha(raw).toString("hex")}\n`, "manifest");
const here = readdirSync(folder).filter((n) => !n.startsWith("manifest.")).sort();
must(here.join() === Object.keys(manifest.files).sort().join(), "files");
for (const [name, digest] of Object.entries(manifest.files)) must(sha(bytes(name)).toString("hex") === digest, name);
const head = checkpoint(bytes("checkpoint.txt").toString(), key);
if (manifest.kind === "receipt") {
  const rows = lines("leaves.jsonl").map((e) => included(e, head)).filter((r) => r.body?.detail.facts);
  const newest = rows.reduce((a, b) => (a.body.detail.facts_no >= b.body.detail.facts_no ? a : b));
  const { facts } = JSON.parse(bytes("pack.json"));
  must(sha(canonical(facts)).toString("hex") === newest.body.detail.facts && newest.body.detail.revocation_id === facts.id, "facts");
} else {
  const first = checkpoint(bytes("first-checkpoint.txt").toString(), key), second = checkpoint(bytes("second-checkpoint.txt").toString(), key);
  const covers = lines("covers.jsonl").map((e) => included(e, head)).map((r) => [r.leaf.tag, r.body.detail]);
  const tree = [];
  let left = first.size, at = first.size, count = 0;
  for (const h of manifest.frontier) { const size = 2 ** Math.floor(Math.log2(left)); tree.push({ size, hash: hex(h) }); left -= size; }
  must(left === 0 && rootOf(tree).toString("hex") === first.root, "first checkpoint");
  for (const entry of lines("leaves.jsonl")) {
    const { leaf, hash, body } = row(entry);
    must(entry.index === at++, "gap");
    const shown = manifest.company_id === null || leaf.company === manifest.company_id;
    if (leaf.v === 1 && shown && !body)
      must(covers.some(([tag, d]) => tag === "audit:retention:ended" && d.part === "body" && d.tag === leaf.tag && leaf.at < d.before), "emptied");
    tree.push({ size: 1, hash }); count++;
    while (tree.length > 1 && tree.at(-1).size === tree.at(-2).size) { const r = tree.pop(), l = tree.pop(); tree.push({ size: l.size * 2, hash: node(l.hash, r.hash) }); }
  }
  must(count === manifest.rows && at === second.size && rootOf(tree).toString("hex") === second.root, "second checkpoint");
  must(consistent(second, head, manifest.consistency), "second checkpoint in the newest");
}
for (const file of anchors) must(consistent(checkpoint(readFileSync(file, "utf8"), key), head, manifest.consistency), `anchor ${file}`);
console.log("VERIFIED");
