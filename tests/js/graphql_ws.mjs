// An unmodified graphql-ws asks and listens over one connection.
import assert from "node:assert/strict";
import { createClient } from "graphql-ws";
import WebSocket from "ws";
import { Box, soon } from "./wait.mjs";

const { MOBO_URL, MOBO_KEY, MOBO_OTHER_KEY, MOBO_REFUSED } = process.env;
const url = `${MOBO_URL.replace("http", "ws")}/graphql/v1`;
let checks = 0;

function is(found, wanted, about) {
  assert.deepEqual(found, wanted, about);
  checks += 1;
}

/** A client, and how the other side closes its connections; it closes them itself as soon as nothing is asked. */
function connect(apikey, more = {}) {
  const closed = new Box();
  const connectionParams = apikey && { apikey };
  const client = createClient({ url, webSocketImpl: WebSocket, connectionParams, retryAttempts: 0, on: { closed: (event) => event.code !== 1000 && closed.put(event) }, ...more });
  return { client, closed };
}

/** Asks once; gives the data. */
function ask(client, query, variables) {
  return soon(query, new Promise((resolve, reject) => {
    let answer;
    client.subscribe({ query, variables }, { next: (next) => (answer = next), error: reject, complete: () => resolve(answer) });
  }));
}

/** Listens: what comes goes into a box, and the end, too. */
function listen(client, query, variables) {
  const heard = new Box();
  const stop = client.subscribe({ query, variables }, {
    next: (next) => heard.put(next),
    error: (error) => heard.put({ error }),
    complete: () => heard.put({ complete: true }),
  });
  return { heard, stop };
}

if (MOBO_REFUSED) {
  // Where there is no GraphQL, nobody is let to think that there is.
  const { client } = connect(MOBO_KEY);
  const { heard } = listen(client, "{ apiVersion }");
  const { error } = await heard.take("a refusal");
  is(typeof error, "object", "no connection");
  const refused = await new Promise((resolve, reject) => {
    const socket = new WebSocket(url, "graphql-transport-ws");
    socket.on("error", () => {});
    socket.on("open", () => reject(new Error("it opened")));
    socket.on("unexpected-response", (_, response) => {
      let text = "";
      response.on("data", (part) => (text += part));
      response.on("end", () => resolve({ status: response.statusCode, code: JSON.parse(text).code }));
    });
  });
  is(refused, { status: 400, code: "PGRST127" }, "by name");
  console.log(`${checks} checks held`);
  process.exit(0);
}

const { client } = connect(MOBO_KEY);
is((await ask(client, "{ apiVersion }")).errors, undefined, "a query");

// Whoever has the answer to what was asked after it began to listen misses nothing.
const changes = `subscription Changes($filter: TodosFilter, $after: String) {
  todosChanges(filter: $filter, after: $after) { type position record { id rank } oldRecord { id } }
}`;
const few = listen(client, changes, { filter: { rank: { lt: 10 } } });
const all = listen(client, changes, {});
await ask(client, "{ apiVersion }");
const insert = `mutation Add($rows: [TodosInsertInput!]!) { insertIntoTodosCollection(objects: $rows) { affectedCount } }`;
const rows = Array.from({ length: 20 }, (_, n) => ({ id: `r${String(n).padStart(2, "0")}`, rank: n }));
// From elsewhere.
const elsewhere = await fetch(`${MOBO_URL}/graphql/v1`, {
  method: "POST",
  headers: { apikey: MOBO_KEY, "content-type": "application/json" },
  body: JSON.stringify({ query: insert, variables: { rows: rows.slice(0, 10) } }),
});
is((await elsewhere.json()).errors, undefined, "rows by POST");
is((await ask(client, insert, { rows: rows.slice(10) })).data.insertIntoTodosCollection.affectedCount, 10, "rows by the socket");
const heard = [];
for (let n = 0; n < 20; n += 1) {
  const { data } = await all.heard.take(`change ${n}`);
  heard.push(data.todosChanges);
}
is(heard.map((change) => `${change.type} ${change.record.id}`), rows.map((row) => `INSERT ${row.id}`), "all of them, in order, once");
for (let n = 0; n < 10; n += 1) is((await few.heard.take(`a few ${n}`)).data.todosChanges.record.rank, String(n), "those of the filter");

// Who stops hears no more, and the others go on; who comes back with its place hears what it has missed.
all.stop();
is(await all.heard.take("the end"), { complete: true }, "stopped");
await ask(client, `mutation { deleteFromTodosCollection(filter: { id: { eq: "r05" } }) { affectedCount } }`);
is((await few.heard.take("a deletion")).data.todosChanges.oldRecord.id, "r05", "a deletion with the row as it was");
is([all.heard.size, few.heard.size], [0, 0], "nothing more");
const again = listen(client, changes, { after: heard[14].position });
const missed = [];
for (let n = 0; n < 6; n += 1) missed.push((await again.heard.take(`missed ${n}`)).data.todosChanges);
is(missed.map((change) => (change.record ?? change.oldRecord).id), ["r15", "r16", "r17", "r18", "r19", "r05"], "what was missed");

// What is wrong with an operation ends the operation only.
const wrong = listen(client, "subscription { nothing }");
is(Array.isArray((await wrong.heard.take("an error")).error), true, "errors of GraphQL");
const expired = listen(client, changes, { after: "1-1" });
is((await expired.heard.take("a resync")).error[0].extensions.code, "MB410", "a place that is not in the log");
const deep = Array.from({ length: 300 }, (_, n) => `a${n}: apiVersion`).join(" ");
is(Array.isArray((await listen(client, `{ ${deep} b: todosCollection { totalCount } ${deep.replaceAll("a", "c").replaceAll("cpiVersion", "apiVersion")} }`).heard.take("a bound")).error), true, "too much at once");
is((await ask(client, "{ apiVersion }")).errors, undefined, "and the connection goes on");

// Nobody listens without a key, with a bad one, or to what is closed to him.
for (const [name, key] of [["none", undefined], ["a bad one", "mobo_sec_nonsense"]]) {
  const stranger = connect(key);
  listen(stranger.client, changes);
  is((await stranger.closed.take(name)).code, 4403, name);
}
const anon = connect(MOBO_OTHER_KEY);
is(Array.isArray((await listen(anon.client, changes, {}).heard.take("closed")).error), true, "a closed collection is in nobody's schema");
is((await ask(anon.client, "{ apiVersion }")).errors, undefined, "who he is, is known");

// A key that is revoked ends the connection: the test does it when it finds this row.
const lost = connect(MOBO_OTHER_KEY);
await ask(lost.client, "{ apiVersion }");
const standing = listen(lost.client, "subscription { notesChanges { type } }");
await ask(client, insert, { rows: [{ id: "revoke" }] });
const revoked = Date.now();
is((await lost.closed.take("the end of a key")).code, 4403, "closed");
is(Date.now() - revoked < 30_000, true, "soon");
standing.stop();

console.log(`${checks} checks held`);
process.exit(0);
