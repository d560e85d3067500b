// /e#CODE, from the letter's QR code: type the code into its field, then take it out of the address and the history.

const code = location.hash.slice(1);
const field = document.getElementById("code");

if (field && /^[0-9A-Za-z-]{1,100}$/.test(code)) {
  field.value = code.replaceAll("-", "").replace(/.{5}(?=.)/g, "$&-");
  // Another language is another page: the code goes with it, again in the fragment only.
  for (const link of document.querySelectorAll("a[hreflang]")) link.hash = code;
}
if (location.hash) history.replaceState(null, "", location.pathname + location.search);
