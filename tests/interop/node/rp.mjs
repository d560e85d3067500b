// Relying parties built with npm's openid-client, as its documentation shows it. Reads one JSON object per line from
// standard input, each a step of one of them, and writes one per line: what the library returned, or the error it raised.
import { webcrypto } from "node:crypto";
import { createInterface } from "node:readline";

globalThis.crypto ??= webcrypto; // Node 18, which Debian 12 has, keeps them in a module
globalThis.CryptoKey ??= webcrypto.CryptoKey;
const client = await import("openid-client");

const AUTH = {
  client_secret_basic: client.ClientSecretBasic,
  client_secret_post: client.ClientSecretPost,
  none: client.None,
};

const STEPS = {
  metadata: (config) => config.serverMetadata(),

  async begin(config, { parameters }) {
    const verifier = client.randomPKCECodeVerifier();
    const state = client.randomState();
    const nonce = client.randomNonce();
    const url = client.buildAuthorizationUrl(config, {
      scope: "openid profile",
      code_challenge: await client.calculatePKCECodeChallenge(verifier),
      code_challenge_method: "S256",
      state,
      nonce,
      ...parameters,
    });
    return { url: url.href, verifier, state, nonce };
  },

  // callback: the address that the browser was sent to; form: what it posted there, with response_mode=form_post
  async finish(config, { callback, form, checks }) {
    const here = form
      ? new Request(callback, { method: "POST", body: new URLSearchParams(form) })
      : new URL(callback);
    const { verifier, state, nonce, maxAge } = checks;
    const tokens = await client.authorizationCodeGrant(config, here, {
      pkceCodeVerifier: verifier,
      expectedState: state,
      expectedNonce: nonce,
      idTokenExpected: true,
      ...(maxAge === undefined ? {} : { maxAge }),
    });
    return withClaims(tokens);
  },

  refresh: async (config, { refresh_token }) => withClaims(await client.refreshTokenGrant(config, refresh_token)),

  userinfo: (config, { access_token, subject }) => client.fetchUserInfo(config, access_token, subject),

  endSession: (config, { parameters }) => ({ url: client.buildEndSessionUrl(config, parameters).href }),
};

function withClaims(tokens) {
  return { ...tokens, claims: tokens.claims(), expires: tokens.expiresIn() };
}

function named(error) {
  const challenge = Array.isArray(error.cause) ? error.cause[0] : undefined;
  return {
    name: error.name,
    message: error.message,
    code: error.code,
    error: error.error ?? challenge?.parameters?.error,
    status: error.status ?? error.response?.status,
    cause: error.cause instanceof Error ? named(error.cause) : undefined,
  };
}

const known = new Map();

async function discover(issuer, { client_id, client_secret, auth_method, ...metadata }) {
  if (!known.has(client_id)) {
    const config = await client.discovery(new URL(issuer), client_id, metadata, AUTH[auth_method](client_secret), {
      // plain http on loopback; and check the signature of ID tokens although they come over the back channel
      execute: [client.allowInsecureRequests, client.enableNonRepudiationChecks],
      timeout: 10,
    });
    known.set(client_id, config);
  }
  return known.get(client_id);
}

for await (const line of createInterface({ input: process.stdin })) {
  const { step, issuer, registration, ...given } = JSON.parse(line);
  try {
    const config = await discover(issuer, registration);
    console.log(JSON.stringify({ ok: await STEPS[step](config, given) }));
  } catch (error) {
    console.log(JSON.stringify({ failed: named(error) }));
  }
}
