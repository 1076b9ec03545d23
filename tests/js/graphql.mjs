// The reference implementation of GraphQL reads the schema as every client does, and an unmodified graphql-sse asks and listens.
import assert from "node:assert/strict";
import { buildClientSchema, getIntrospectionQuery, parse, validate, validateSchema } from "graphql";
import { createClient } from "graphql-sse";
import { Box, soon } from "./wait.mjs";

const { MOBO_URL, MOBO_KEY } = process.env;
const url = `${MOBO_URL}/graphql/v1`;
let checks = 0;

function is(found, wanted, about) {
  assert.deepEqual(found, wanted, about);
  checks += 1;
}

async function post(body, headers = {}) {
  const answer = await fetch(url, {
    method: "POST",
    headers: { apikey: MOBO_KEY, "content-type": "application/json", ...headers },
    body: JSON.stringify(body),
  });
  assert.equal(answer.status, 200);
  return { ...(await answer.json()), headers: answer.headers };
}

// The schema, as tools and editors take it.
const told = await post({ query: getIntrospectionQuery({ specifiedByUrl: true, inputValueDeprecation: true }) });
is(told.errors, undefined, "introspection");
const schema = buildClientSchema(told.data);
is(validateSchema(schema), [], "a schema of the specification");

/** Asks for what the schema has; gives the data. */
async function ask(query, variables, headers) {
  is(validate(schema, parse(query)), [], query);
  const { data, errors } = await post({ query, variables }, headers);
  is(errors, undefined, query);
  return data;
}

async function refusal(query, code) {
  const { data, errors } = await post({ query });
  is([errors?.[0]?.extensions?.code, Object.values(data ?? {}).every((value) => value === null)], [code, true], JSON.stringify(errors));
}

// Whoever listens hears of everything from then on.
const changes = new Box();
let stands;
const standing = new Promise((resolve) => (stands = resolve));
const client = createClient({ url, headers: { apikey: MOBO_KEY }, retryAttempts: 0, on: { connected: () => stands() } });
const listening = `subscription Changes($filter: TodosFilter) {
  todosChanges(filter: $filter) { type position record { id title rank } oldRecord { id rank } }
}`;
is(validate(schema, parse(listening)), [], listening);
const stop = client.subscribe(
  { query: listening, variables: { filter: { rank: { lt: 3 } } } },
  { next: (change) => changes.put(change), error: (error) => changes.put({ error }), complete: () => {} },
);
await soon("the subscription", standing);

// Rows in, with variables, once however often they are sent.
const insert = `mutation Add($rows: [TodosInsertInput!]!) { insertIntoTodosCollection(objects: $rows) { affectedCount records { id nodeId hours meta } } }`;
const rows = [
  { id: "a", title: "Check pump 7", done: false, rank: 1, score: 0.5, due: "2026-03-01T08:00:00Z", meta: JSON.stringify({ site: "north" }) },
  { id: "b", title: "Paint the gate", done: true, rank: "2", hours: 4 },
  { id: "c", title: "Order seals", rank: 3 },
];
const key = { "idempotency-key": "\"first\"" };
const made = await ask(insert, { rows }, key);
is(made.insertIntoTodosCollection.affectedCount, 3, "rows are made");
is(made.insertIntoTodosCollection.records.map((row) => [row.id, row.hours]), [["a", "0"], ["b", "4"], ["c", "0"]], "64 bits are text");
is(JSON.parse(made.insertIntoTodosCollection.records[0].meta), { site: "north" }, "JSON is text");
const again = await post({ query: insert, variables: { rows } }, key);
is([again.data, again.headers.get("idempotent-replayed")], [made, "true"], "the same request is answered again");
await refusal(`mutation { insertIntoTodosCollection(objects: [{ id: "a" }]) { affectedCount } }`, "23505");

// Pages, all the way.
const page = `query Page($after: String) {
  todosCollection(first: 2, after: $after, orderBy: [{ rank: DescNullsLast }]) {
    totalCount pageInfo { hasNextPage hasPreviousPage endCursor } edges { cursor node { id } }
  }
}`;
const ids = [];
for (let after = null, more = true; more; ) {
  const { todosCollection: found } = await ask(page, { after });
  is(found.totalCount, 3, "all of them");
  ids.push(...found.edges.map((edge) => edge.node.id));
  after = found.pageInfo.endCursor;
  more = found.pageInfo.hasNextPage;
}
is(ids, ["c", "b", "a"], "every row once, in its order");

// What it changes is bounded.
await refusal(`mutation { updateTodosCollection(set: { done: true }, filter: { rank: { gte: 1 } }) { affectedCount } }`, "PGRST124");
const update = `mutation { updateTodosCollection(set: { rank: 2, hours: { inc: 3 } }, filter: { id: { eq: "a" } }) { affectedCount records { rank hours } } }`;
is(await ask(update), { updateTodosCollection: { affectedCount: 1, records: [{ rank: "2", hours: "3" }] } }, "an update");
const remove = `mutation { deleteFromTodosCollection(filter: { rank: { lte: 3 } }, atMost: 3) { affectedCount records { id } } }`;
const gone = (await ask(remove)).deleteFromTodosCollection;
is([gone.affectedCount, gone.records.map((row) => row.id).sort()], [3, ["a", "b", "c"]], "a deletion");

// Documents, too.
const note = `mutation { insertIntoNotesCollection(objects: [{ id: "m", title: "Hello", tags: "[\\"x\\"]" }]) { records { title tags likes } } }`;
is(await ask(note), { insertIntoNotesCollection: { records: [{ title: "Hello", tags: '["x"]', likes: "0" }] } }, "a document");
is(await ask(`{ notesCollection(filter: { tags: { contains: "[\\"x\\"]" } }) { edges { node { id } } } }`),
  { notesCollection: { edges: [{ node: { id: "m" } }] } }, "inside of a list");

// What the subscription has told meanwhile: rows of its filter, in order; a deletion with the row as it was.
const heard = [];
for (let n = 0; n < 5; n += 1) {
  const { data, errors } = await changes.take(`change ${n}`);
  is(errors, undefined, "a change");
  const { type, record, oldRecord } = data.todosChanges;
  heard.push([type, record?.id ?? oldRecord.id, record?.rank ?? oldRecord.rank].join(" "));
}
is(heard.slice(0, 3), ["INSERT a 1", "INSERT b 2", "UPDATE a 2"], "what was told");
is(heard.slice(3).sort(), ["DELETE a 2", "DELETE b 2"], "what has gone");
stop();

console.log(`${checks} checks held`);
