// The data part of an unmodified @supabase/supabase-js: 15 kinds of filter, and every way to write.
import assert from "node:assert/strict";
import { createClient } from "@supabase/supabase-js";

const { MOBO_URL, MOBO_KEY } = process.env;
// Realtime needs a WebSocket, which older versions of node do not bring; nothing here connects.
class NoSocket {}
const db = createClient(MOBO_URL, MOBO_KEY, { auth: { persistSession: false }, realtime: { transport: NoSocket } });
let checks = 0;

function is(found, wanted, about) {
  assert.deepEqual(found, wanted, about);
  checks += 1;
}

async function rows(query, about) {
  const { data, error } = await query;
  assert.equal(error, null, `${about}: ${JSON.stringify(error)}`);
  return data;
}

async function refusal(query, code, about) {
  const { error } = await query;
  is(error?.code, code, `${about}: ${JSON.stringify(error)}`);
}

const todos = () => db.from("todos");
const ids = async (query, wanted, about) => is((await rows(query.order("id"), about)).map((row) => row.id).join(" "), wanted, about);

// Insert: one, and several at once.
const first = { id: "a", title: "Check pump 7", done: false, rank: 1, score: 0.5, due: "2026-03-01T08:00:00Z", meta: { site: "north", parts: ["seal", 2] }, owner: "ada" };
is(await rows(todos().insert(first), "insert"), null, "insert gives nothing back");
const many = [
  { id: "b", title: "Paint the gate", done: true, rank: 2, score: 1.5, meta: { site: "south", n: 10 }, owner: "bob" },
  { id: "c", title: "check valve, old", rank: 3, due: "2026-04-01T08:00:00Z", meta: { site: "north" }, hours: 4 },
  { id: "d", title: "Order seals", done: false, rank: 4, score: -2, owner: "ada", hours: 1 },
];
const made = await rows(todos().insert(many).select("id,hours"), "insert and select");
is(made, [{ id: "b", hours: 0 }, { id: "c", hours: 4 }, { id: "d", hours: 1 }], "what was inserted");
await refusal(todos().insert({ id: "a" }), "23505", "a key that is there");
await refusal(todos().insert({ id: "x", titel: "?" }), "PGRST204", "a field that is not there");

// 15 kinds of filter, and more.
const all = () => todos().select("id");
await ids(all().eq("rank", 2), "b", "eq");
await ids(all().neq("rank", 2), "a c d", "neq");
await ids(all().gt("score", 0.5), "b", "gt");
await ids(all().gte("score", 0.5), "a b", "gte");
await ids(all().lt("rank", 2), "a", "lt");
await ids(all().lte("due", "2026-03-01T08:00:00Z"), "a", "lte");
await ids(all().like("title", "%check%"), "c", "like");
await ids(all().ilike("title", "check%"), "a c", "ilike");
await ids(all().filter("title", "match", "^(Check|Paint) "), "a b", "match");
await ids(all().filter("title", "imatch", "^check .*[7d]$"), "a c", "imatch");
await ids(all().likeAnyOf("title", ["Check%", "Paint%"]), "a b", "like(any)");
await ids(all().ilikeAllOf("title", ["%seal%", "%order%"]), "d", "ilike(all)");
await ids(all().is("done", null), "c", "is null");
await ids(all().is("done", true), "b", "is true");
await ids(all().in("title", ["Order seals", "check valve, old"]), "c d", "in");
await ids(all().not("owner", "is", null), "a b d", "not is null");
await ids(all().or("rank.eq.1,and(rank.gt.2,done.is.false)"), "a d", "or and and");
await ids(all().contains("meta", { site: "north" }), "a c", "contains");
await ids(all().containedBy("meta", { site: "south", n: 10, more: true }), "b", "contained by");
await ids(all().match({ owner: "ada", done: false }), "a d", "match");
await ids(all().filter("rank", "in", "(1,4)"), "a d", "filter");
await ids(all().eq("meta->>site", "south"), "b", "a path as text");
await ids(all().gt("meta->n", 9), "b", "a path as JSON");
await ids(all().not("rank", "in", "(1,2)"), "c d", "not in");
await refusal(all().eq("colour", "red"), "42703", "a column that is not there");
await refusal(all().textSearch("title", "pump"), "PGRST127", "text search is refused by name");

// Select: aliases, casts, paths, order, ranges.
is(
  await rows(todos().select("key:id,rank::text,site:meta->>site,part:meta->parts->0").eq("id", "a"), "select"),
  [{ key: "a", rank: "1", site: "north", part: "seal" }],
  "aliases, casts and paths",
);
const page = await todos().select("id", { count: "exact" }).order("rank", { ascending: false }).range(1, 2);
is([page.data, page.count, page.status], [[{ id: "c" }, { id: "b" }], 4, 206], "a range with its count");
const count = await todos().select("*", { count: "exact", head: true }).eq("owner", "ada");
is([count.data, count.count], [null, 2], "a count alone");
is((await rows(all().order("score", { nullsFirst: true }).limit(2), "order")).map((row) => row.id), ["c", "d"], "nulls first");

// One row, perhaps one row, CSV.
is((await rows(todos().select("id,title").eq("id", "b").single(), "single")).title, "Paint the gate", "single");
await refusal(todos().select().eq("owner", "ada").single(), "PGRST116", "single of two");
await refusal(todos().select().eq("owner", "nobody").single(), "PGRST116", "single of none");
is(await rows(todos().select().eq("id", "nobody").maybeSingle(), "maybeSingle"), null, "maybeSingle of none");
is((await rows(todos().select("id").eq("id", "a").maybeSingle(), "maybeSingle")).id, "a", "maybeSingle of one");
const csv = await rows(todos().select("id,title,rank,owner").gte("rank", 3).order("id").csv(), "csv");
is(csv.trim().split(/\r?\n/), ["id,title,rank,owner", 'c,"check valve, old",3,', "d,Order seals,4,ada"], "csv");

// Update, upsert, delete.
is(await rows(todos().update({ done: true, hours: { $inc: 2 } }).eq("id", "a").select("done,hours").single(), "update"), { done: true, hours: 2 }, "update");
const upserted = await rows(todos().upsert([{ id: "d", rank: 40 }, { id: "e", title: "new" }]).select("id,title,rank"), "upsert");
is(upserted, [{ id: "d", title: "Order seals", rank: 40 }, { id: "e", title: "new", rank: null }], "upsert merges");
await rows(todos().upsert({ id: "e", title: "other" }, { onConflict: "id", ignoreDuplicates: true }), "upsert, ignoring");
is((await rows(todos().select("title").eq("id", "e").single(), "e")).title, "new", "a duplicate is ignored");
await refusal(todos().update({ done: true }), "21000", "an update without a filter");
await refusal(todos().delete(), "21000", "a delete without a filter");
const gone = await todos().delete({ count: "exact" }).in("id", ["b", "e"]).select("id");
is([gone.data.map((row) => row.id).sort(), gone.count], [["b", "e"], 2], "delete");
await ids(all(), "a c d", "what is left");

// Documents: lists, and counters.
const notes = () => db.from("notes");
await rows(notes().insert({ id: "n", title: "Pump 7", tags: ["pump", "loud"], likes: 1 }), "a document");
await rows(notes().update({ likes: { $inc: 10 } }).eq("id", "n"), "a counter");
is((await rows(notes().select().contains("tags", ["loud"]).single(), "contains in a list")).likes, 11, "a counter adds");
is((await rows(notes().select("id").overlaps("tags", ["quiet", "pump"]), "overlaps")).length, 1, "overlaps");

// Related records: along a reference, and back.
const steps = () => db.from("steps");
const made2 = [{ id: "1", todo: "a", text: "open" }, { id: "2", todo: "a", text: "close" }, { id: "3", todo: "c", text: "look" }, { id: "4", todo: "b", text: "lost" }];
await rows(steps().insert(made2), "steps");
is(await rows(steps().select("id, todo(title)").in("id", ["1", "4"]).order("id"), "to one"), [{ id: "1", todo: { title: "Check pump 7" } }, { id: "4", todo: null }], "to one");
is(
  await rows(todos().select("id, list:steps(text)").order("id").order("text", { referencedTable: "list" }).limit(1, { referencedTable: "list" }), "to many"),
  [{ id: "a", list: [{ text: "close" }] }, { id: "c", list: [{ text: "look" }] }, { id: "d", list: [] }],
  "to many",
);
is((await rows(steps().select("id, todo!inner(owner)").eq("todo.owner", "ada").order("id"), "inner")).map((row) => row.id), ["1", "2"], "inner");
is((await rows(steps().select("id, ...todo(what:title)").order("todo(title)").eq("id", "3"), "spread")), [{ id: "3", what: "check valve, old" }], "spread");
await refusal(todos().select("id, notes(title)"), "PGRST200", "a collection that is not related");

console.log(`${checks} checks held`);
