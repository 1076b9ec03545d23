// The accounts part of an unmodified @supabase/supabase-js: an administrator makes users; they sign in, stay signed in, change, and sign out.
import assert from "node:assert/strict";
import { createClient } from "@supabase/supabase-js";

const { MOBO_URL, MOBO_KEY, MOBO_ADMIN_KEY } = process.env;
// Realtime needs a WebSocket, which older versions of node do not bring; nothing here connects.
class NoSocket {}
const options = { auth: { persistSession: false, autoRefreshToken: false }, realtime: { transport: NoSocket } };
const app = () => createClient(MOBO_URL, MOBO_KEY, options);
const admin = createClient(MOBO_URL, MOBO_ADMIN_KEY, options).auth.admin;
const password = "correct horse battery";
let checks = 0;

function is(found, wanted, about) {
  assert.deepEqual(found, wanted, about);
  checks += 1;
}

async function good(query, about) {
  const { data, error } = await query;
  assert.equal(error, null, `${about}: ${JSON.stringify(error)} ${error?.message}`);
  checks += 1;
  return data;
}

async function refusal(query, code, about) {
  const { error } = await query;
  is(error?.code, code, `${about}: ${JSON.stringify(error)} ${error?.message}`);
}

// An administrator makes users; nobody else does.
const { user: ann } = await good(admin.createUser({ email: "ann@example.com", password, user_metadata: { name: "Ann" }, app_metadata: { site: "north" } }), "createUser");
is([ann.email, ann.role, ann.user_metadata.name, ann.app_metadata.site], ["ann@example.com", "authenticated", "Ann", "north"], "the user");
await refusal(admin.createUser({ email: "ann@example.com", password }), "email_exists", "the same address again");
await refusal(admin.createUser({ email: "bob@example.com", password: "short" }), "weak_password", "a short password");
await refusal(app().auth.signUp({ email: "eve@example.com", password }), "signup_disabled", "signUp");
await refusal(app().auth.admin.listUsers(), "not_admin", "listUsers with the app's key");
is((await good(admin.listUsers(), "listUsers")).users.map((user) => user.email), ["ann@example.com"], "all users");
is((await good(admin.getUserById(ann.id), "getUserById")).user.id, ann.id, "one user");

// Signing in.
const client = app();
await refusal(client.auth.signInWithPassword({ email: "ann@example.com", password: "wrong horse" }), "invalid_credentials", "a wrong password");
await refusal(client.auth.signInWithPassword({ email: "nobody@example.com", password }), "invalid_credentials", "nobody");
const { session } = await good(client.auth.signInWithPassword({ email: "ann@example.com", password }), "signInWithPassword");
is([session.token_type, session.user.id], ["bearer", ann.id], "the session");
is((await good(client.auth.getUser(), "getUser")).user.email, "ann@example.com", "the signed-in user");
const { claims } = await good(client.auth.getClaims(), "getClaims, by the JWKS");
is([claims.sub, claims.role, claims.session_id.length], [ann.id, "authenticated", 36], "the claims");

// What a policy opens to users is open to this one, and to nobody without a session.
await good(client.from("todos").insert({ id: "a", title: "mine", owner: ann.id }), "insert as a user");
is((await good(client.from("todos").select("id,title"), "select as a user")).map((row) => row.title), ["mine"], "the rows of a user");
await refusal(client.from("todos").insert({ id: "b", owner: "somebody" }), "42501", "a row for somebody else");
await refusal(app().from("todos").select(), "42501", "select without a user");

// Changing oneself: what decides rights stays.
const { user: changed } = await good(client.auth.updateUser({ data: { name: "Ann B." } }), "updateUser");
is([changed.user_metadata.name, changed.app_metadata.site], ["Ann B.", "north"], "the changed user");
await refusal(client.auth.updateUser({ email: "boss@example.com" }), "email_address_not_authorized", "another address");
await good(client.auth.updateUser({ password: "another horse battery" }), "another password");
await refusal(app().auth.signInWithPassword({ email: "ann@example.com", password }), "invalid_credentials", "the old password");

// Staying signed in.
const { session: next } = await good(client.auth.refreshSession(), "refreshSession");
assert.notEqual(next.refresh_token, session.refresh_token);
const first = { access_token: expired(session.access_token), refresh_token: session.refresh_token };
const { session: same } = await good(app().auth.setSession(first), "a refresh token whose answer was lost");
is(same.refresh_token, next.refresh_token, "the same answer again");
is((await good(client.auth.getUser(), "getUser after the refresh")).user.id, ann.id, "still the same user");
await good(client.auth.refreshSession(), "refreshSession, with what it gave");
await refusal(app().auth.setSession(first), "refresh_token_already_used", "a refresh token twice");
await refusal(client.auth.refreshSession(), "refresh_token_not_found", "the whole sign-in has ended");

// An administrator changes, shuts out and removes.
const again = app();
await good(again.auth.signInWithPassword({ email: "ann@example.com", password: "another horse battery" }), "signing in again");
await good(admin.updateUserById(ann.id, { ban_duration: "24h" }), "a ban");
is((await again.auth.getUser()).error?.status, 401, "a token of a banned user");
await refusal(app().auth.signInWithPassword({ email: "ann@example.com", password: "another horse battery" }), "user_banned", "a banned user");
await good(admin.updateUserById(ann.id, { ban_duration: "none" }), "the end of the ban");
const { properties } = await good(admin.generateLink({ type: "recovery", email: "ann@example.com" }), "generateLink");
const { session: recovered } = await good(again.auth.verifyOtp({ type: "recovery", token_hash: properties.hashed_token }), "verifyOtp");
is(recovered.user.id, ann.id, "whoever has the link");
await refusal(app().auth.verifyOtp({ type: "recovery", token_hash: properties.hashed_token }), "otp_expired", "a link works once");

// Signing out.
await good(again.auth.signOut({ scope: "global" }).then(({ error }) => ({ data: true, error })), "signOut");
is((await app().auth.getUser(recovered.access_token)).error?.status, 401, "a token after the sign-out");
await good(admin.deleteUser(ann.id), "deleteUser");
await refusal(admin.getUserById(ann.id), "user_not_found", "who is gone");
await refusal(app().auth.signInWithOtp({ email: "ann@example.com" }), "not_supported", "what is not here");

// The library asks for another token when the time of one is over: the time is in the token, which it reads without its signature.
function expired(token) {
  const [head, body, signature] = token.split(".");
  const claims = { ...JSON.parse(Buffer.from(body, "base64url")), exp: 1 };
  return [head, Buffer.from(JSON.stringify(claims)).toString("base64url"), signature].join(".");
}

console.log(`${checks} checks held`);
