// What every page shares. Each part binds to a data attribute, and each page works without this file.
//
// data-live      an HTML fragment polled and merged in place (macro `live`; contract in its comment)
// data-copy      copies the text of [data-copy-value] in the same [data-copy-root]
// data-dialog    a link that opens <dialog id=…> instead of its href; data-part first fills the dialog from that URL
// data-filter    an <input> that filters the [data-find] items of the element it names; data-kana does so by kana row
// data-busy      the word a submit button shows after the first press; a second press is ignored
// data-reveal    shows or hides the password in the named field

const root = document.documentElement;
root.dataset.js = "";

// The one policy the content security policy names (WB-02). Only fragment() calls it, only with our own pages' HTML,
// whose values the templates have escaped.
const policy = window.trustedTypes?.createPolicy("sekisho", { createHTML: (html) => html }) ?? { createHTML: (html) => html };

function fragment(html) {
  const template = document.createElement("template");
  template.innerHTML = policy.createHTML(html);
  return template.content;
}

const on = (type, selector, act) =>
  document.addEventListener(type, (event) => {
    const hit = event.target instanceof Element && event.target.closest(selector);
    if (hit) act(event, hit);
  });

// --- Announcements: one polite region, at most every 5 s, always the newest text ---

const region = document.querySelector("[data-announcer]");
let spokenAt = -Infinity;
let pending = null;
let spoken = "";

function announce(text) {
  if (!region || !text || (text === spoken && pending === null)) return;
  const waiting = pending !== null;
  pending = text;
  if (waiting) return;
  setTimeout(() => {
    if (pending !== spoken) region.textContent = spoken = pending;
    pending = null;
    spokenAt = performance.now();
  }, Math.max(0, spokenAt + 5000 - performance.now()));
}

// --- Live fragments ---

// What the person changed since the page came stays: an opened <details>, what is typed into a field.
const personal = (node, name) => name === "open" || (name === "data-lost" && node.dataset.live !== undefined);
const alike = (a, b) =>
  a.nodeName === b.nodeName && (a.id ?? "") === (b.id ?? "") && a.dataset?.line === b.dataset?.line && a.dataset?.row === b.dataset?.row;

function merge(node, next) {
  if (node.nodeType !== Node.ELEMENT_NODE) {
    if (node.nodeValue !== next.nodeValue) node.nodeValue = next.nodeValue;
    return;
  }
  for (const { name } of [...node.attributes]) if (!next.hasAttribute(name) && !personal(node, name)) node.removeAttribute(name);
  for (const { name, value } of next.attributes) if (!personal(node, name) && node.getAttribute(name) !== value) node.setAttribute(name, value);
  const before = [...node.childNodes];
  const after = [...next.childNodes];
  after.forEach((child, i) => {
    const old = before[i];
    if (!old) node.append(child);
    else if (alike(old, child)) merge(old, child);
    else old.replaceWith(child);
  });
  before.slice(after.length).forEach((child) => child.remove());
}

async function fetchPart(address, signal) {
  const url = new URL(address, location.href);
  if (url.origin !== location.origin) throw new TypeError("a part comes from our own origin");
  return fetch(url, { headers: { Accept: "text/html" }, redirect: "manual", cache: "no-store", signal });
}

function live(box) {
  const every = Number(box.dataset.every) || 1000;
  const began = performance.now();
  let failures = 0;
  let timer;
  let busy = false;

  const gap = () => {
    const age = performance.now() - began;
    if (failures > 2) return 15000;
    if (box.dataset.steady !== undefined || age < 10000) return every;
    return Math.max(every, age < 120000 ? 3000 : 15000);
  };
  const plan = () => {
    clearTimeout(timer);
    if (box.isConnected && box.dataset.done !== "true") timer = setTimeout(poll, gap());
  };

  async function poll() {
    if (document.hidden || busy) return plan();
    busy = true;
    try {
      const answer = await fetchPart(box.dataset.live, AbortSignal.timeout(10000));
      // Signed out meanwhile: the page itself says so, better than a fragment of the sign-in page would.
      if (answer.type === "opaqueredirect" || answer.status === 401) return location.reload();
      if ([403, 404, 410].includes(answer.status)) box.dataset.done = "true";
      if (!answer.ok && answer.status !== 304) throw new Error(`status ${answer.status}`);
      if (answer.status === 200) {
        const next = fragment(await answer.text()).firstElementChild;
        if (!next || next.id !== box.id) throw new Error("not the fragment of this box");
        merge(box, next);
        announce(box.dataset.say);
      }
      failures = 0;
      delete box.dataset.lost;
    } catch {
      failures += 1;
      if (failures > 2 || box.dataset.done === "true") {
        if (box.dataset.lost === undefined) announce(box.querySelector(".live-lost")?.textContent.trim());
        box.dataset.lost = "";
      }
    } finally {
      busy = false;
    }
    plan();
  }

  document.addEventListener("visibilitychange", () => {
    if (!document.hidden && box.isConnected && box.dataset.done !== "true") poll();
  });
  plan();
}
document.querySelectorAll("[data-live]").forEach(live);

// A word of a button that changes for a while. Nodes are kept, not text: it may hold <ruby>.
const usual = new WeakMap();
const say = (word, text) => {
  if (!usual.has(word)) usual.set(word, [...word.childNodes]);
  word.textContent = text;
};
const sayUsual = (word) => {
  if (usual.has(word)) word.replaceChildren(...usual.get(word));
};

// --- Copy ---

on("click", "[data-copy]", async (_, button) => {
  const source = button.closest("[data-copy-root]")?.querySelector("[data-copy-value]");
  const word = button.querySelector("[data-word]");
  if (!source || !word) return;
  try {
    await navigator.clipboard.writeText(source.textContent);
  } catch {
    getSelection().selectAllChildren(source); // no permission: selected, so that Ctrl+C does it
    return;
  }
  say(word, button.dataset.copied);
  announce(button.dataset.copied);
  setTimeout(sayUsual, 2000, word);
});

// --- Dialogs ---

on("click", "[data-dialog]", async (event, opener) => {
  const box = document.getElementById(opener.dataset.dialog);
  if (!box?.showModal || event.ctrlKey || event.metaKey || event.shiftKey || event.button) return;
  event.preventDefault();
  if (opener.dataset.part) {
    try {
      const answer = await fetchPart(opener.dataset.part, AbortSignal.timeout(5000));
      if (answer.status !== 200) throw new Error(`status ${answer.status}`);
      box.querySelector("[data-dialog-body]").replaceChildren(fragment(await answer.text()));
    } catch {
      location.assign(opener.href);
      return;
    }
  }
  box.showModal();
});
on("click", "[data-close]", (event, button) => {
  event.preventDefault();
  button.closest("dialog")?.close();
});
on("click", "dialog", (event, box) => {
  if (event.target === box) box.close(); // the backdrop
});
on("click", "[data-print]", () => print());

// --- Filter by text and by kana row ---

// Full and half width, capitals, hiragana and katakana are one.
const plain = (text) =>
  text.normalize("NFKC").toLowerCase().replace(/[ァ-ヶ]/g, (c) => String.fromCharCode(c.charCodeAt(0) - 96)).replace(/\s+/g, "");
const KANA = { あ: "ぁ-おゔ", か: "か-ご", さ: "さ-ぞ", た: "た-ど", な: "な-の", は: "は-ぽ", ま: "ま-も", や: "ゃ-よ", ら: "ら-ろ", わ: "ゎ-ん" };
const inRow = (text, row) => (KANA[row] ? new RegExp(`^[${KANA[row]}]`).test(text) : !/^[ぁ-んゔ]/.test(text));

function filter(id) {
  const list = document.getElementById(id);
  if (!list) return;
  const words = plain(document.querySelector(`[data-filter="${CSS.escape(id)}"]`)?.value ?? "");
  const row = list.dataset.kanaRow ?? "";
  let shown = 0;
  for (const item of list.querySelectorAll("[data-find]")) {
    const hit = plain(item.dataset.find).includes(words) && (!row || inRow(plain(item.dataset.kana ?? item.dataset.find), row));
    item.hidden = !hit;
    shown += hit ? 1 : 0;
  }
  const none = document.querySelector(`[data-filter-none="${CSS.escape(id)}"]`);
  if (none) none.hidden = shown > 0;
  const count = document.querySelector(`[data-filter-count="${CSS.escape(id)}"]`);
  if (count) count.textContent = count.dataset.count = String(shown);
}
on("input", "[data-filter]", (_, input) => filter(input.dataset.filter));
on("keydown", "[data-filter]", (event, input) => {
  if (event.key !== "Enter" || event.isComposing || !input.value) return;
  const first = document.querySelector(`#${CSS.escape(input.dataset.filter)} [data-find]:not([hidden])`);
  const target = first?.matches("a,button") ? first : first?.querySelector("a[href],button");
  if (target) {
    event.preventDefault();
    target.click();
  }
});
on("click", "[data-kana-for]", (event, link) => {
  const list = document.getElementById(link.dataset.kanaFor);
  if (!list || event.ctrlKey || event.metaKey) return;
  event.preventDefault();
  list.dataset.kanaRow = link.dataset.row;
  for (const other of link.parentElement.children) other.removeAttribute("aria-current");
  link.setAttribute("aria-current", "true");
  filter(list.id);
});

// --- One press only ---

// The button stays enabled: a disabled one would not send its name, and loses the focus.
const unlock = (form) => {
  delete form.dataset.sent;
  for (const button of document.querySelectorAll("button[aria-disabled=true]")) {
    if (button.form !== form) continue;
    sayUsual(button.querySelector("[data-word]"));
    button.removeAttribute("aria-disabled");
  }
};
document.addEventListener("submit", (event) => {
  const form = event.target;
  if (event.defaultPrevented || form.getAttribute("method")?.toLowerCase() !== "post") return;
  if (form.dataset.sent !== undefined) return event.preventDefault();
  form.dataset.sent = "";
  const button = event.submitter ?? form.querySelector("[data-busy]");
  const word = button?.querySelector("[data-word]");
  if (word && button.dataset.busy) {
    say(word, button.dataset.busy);
    button.setAttribute("aria-disabled", "true");
    announce(button.dataset.busy);
  }
  // A download or a lost line leaves the page as it is; then a person must be able to press again.
  setTimeout(unlock, 30000, form);
});
addEventListener("pageshow", () => document.querySelectorAll("form[data-sent]").forEach(unlock));

// --- Small things ---

on("click", "[data-reveal]", (_, button) => {
  const input = document.getElementById(button.dataset.reveal);
  if (!input) return;
  const show = input.type === "password";
  input.type = show ? "text" : "password";
  button.setAttribute("aria-pressed", String(show));
  const word = button.querySelector("[data-word]");
  if (show) say(word, button.dataset.hide);
  else sayUsual(word);
});

document.addEventListener("keydown", (event) => {
  if (event.key !== "/" || event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
  if (event.target instanceof Element && event.target.closest("input,textarea,select,[contenteditable],dialog[open]")) return;
  const search = document.querySelector("input[type=search]");
  if (search) {
    event.preventDefault();
    search.focus();
    search.select();
  }
});

on("click", "*", (event) => {
  for (const menu of document.querySelectorAll(".tile-menu[open]")) if (!menu.contains(event.target)) menu.open = false;
});

document.querySelector("[data-focus]")?.focus();
