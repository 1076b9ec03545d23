// Supabase's client, unmodified: changes of collections, broadcasts and presence.
//
// The collection `orders` has title:text, n:int and open:bool. A device needs no key.

import assert from 'node:assert/strict'
import { createClient } from '@supabase/supabase-js'
import ws from 'ws'
import { Box, soon } from './wait.mjs'

const { MOBO_URL: url, MOBO_KEY: key } = process.env
const headers = { 'content-type': 'application/json', ...(key.startsWith('mobo_') ? { apikey: key } : {}) }

async function call(method, path, body) {
  const answer = await fetch(url + path, { method, headers, body: body && JSON.stringify(body) })
  assert.ok(answer.ok, `${method} ${path}: ${answer.status} ${await answer.text()}`)
}

function client() {
  return createClient(url, key, { realtime: { transport: ws }, auth: { persistSession: false, autoRefreshToken: false } })
}

function joined(channel) {
  return soon(
    'SUBSCRIBED',
    new Promise((resolve, reject) =>
      channel.subscribe((status, error) => {
        if (status === 'SUBSCRIBED') resolve()
        else if (status !== 'CLOSED') reject(new Error(`${status}: ${error?.message}`))
      }),
    ),
  )
}

async function changes() {
  const all = new Box()
  const few = new Box()
  const channel = client()
    .channel('changes')
    .on('postgres_changes', { event: '*', schema: 'public', table: 'orders' }, (change) => all.put(change))
    .on('postgres_changes', { event: 'UPDATE', schema: 'public', table: 'orders', filter: 'open=eq.true,n=gt.1' }, (change) => few.put(change))
  await joined(channel)
  await call('POST', '/rest/v1/orders', { id: 'js-1', title: 'one', n: 1, open: true })
  await call('PATCH', '/rest/v1/orders?id=eq.js-1', { n: 2 })
  await call('PATCH', '/rest/v1/orders?id=eq.js-1', { open: false })
  await call('DELETE', '/rest/v1/orders?id=eq.js-1')
  const seen = []
  for (let count = 0; count < 4; count += 1) {
    const { eventType, schema, table, old, new: now, commit_timestamp } = await all.take('a change')
    assert.equal(`${schema}.${table}`, 'public.orders')
    assert.ok(Date.parse(commit_timestamp) > 0)
    seen.push([eventType, old.n, now.n, now.open])
  }
  assert.deepEqual(seen, [
    ['INSERT', undefined, 1, true],
    ['UPDATE', 1, 2, true],
    ['UPDATE', 2, 2, false],
    ['DELETE', 2, undefined, undefined],
  ])
  const only = await few.take('a change that fits')
  assert.deepEqual([only.eventType, only.new.n, few.size], ['UPDATE', 2, 0])
  assert.equal(await channel.unsubscribe(), 'ok')
}

async function broadcasts() {
  const heard = new Box()
  const own = new Box()
  const listener = client().channel('room').on('broadcast', { event: 'shout' }, (message) => heard.put(message.payload))
  const speaker = client()
    .channel('room', { config: { broadcast: { self: true, ack: true } } })
    .on('broadcast', { event: 'shout' }, (message) => own.put(message.payload))
  await Promise.all([joined(listener), joined(speaker)])
  assert.equal(await speaker.send({ type: 'broadcast', event: 'shout', payload: { text: 'hello' } }), 'ok')
  assert.deepEqual(await heard.take('a broadcast'), { text: 'hello' })
  assert.deepEqual(await own.take('its own broadcast'), { text: 'hello' })
  const bytes = new Uint8Array([1, 2, 3]).buffer
  assert.equal(await speaker.send({ type: 'broadcast', event: 'shout', payload: bytes }), 'ok')
  assert.deepEqual([...new Uint8Array(await heard.take('bytes'))], [1, 2, 3])
}

async function presence() {
  const states = new Box()
  const here = client().channel('hall', { config: { presence: { key: 'ann' } } })
  here.on('presence', { event: 'sync' }, () => states.put(Object.keys(here.presenceState()).sort()))
  await joined(here)
  assert.equal(await here.track({ mood: 'fine' }), 'ok')
  const there = client().channel('hall', { config: { presence: { key: 'bob' } } })
  there.on('presence', { event: 'sync' }, () => {})
  await joined(there)
  assert.equal(await there.track({ mood: 'busy' }), 'ok')
  const until = async (want) => {
    for (;;) {
      const state = await states.take(`presence of ${want}`)
      if (state.join() === want) return
    }
  }
  await until('ann,bob')
  assert.equal(here.presenceState().bob[0].mood, 'busy')
  await there.untrack()
  await until('ann')
}

async function refusals() {
  const refused = client().channel('nothing').on('postgres_changes', { event: '*', schema: 'public', table: 'nothing' }, () => {})
  await assert.rejects(joined(refused), /there is no collection/)
}

for (const part of [changes, broadcasts, presence, refusals]) {
  await part()
  console.log(`${part.name}: fine`)
}
process.exit(0)
