// What an app's own server is told, checked by Pusher's server package, unmodified; and how many are in a channel, as Pusher's client tells.
//
// The node has the app `1`, with the key `app-key` and the secret `app-secret`, and sends webhooks to MOBO_HOOKS.

import assert from 'node:assert/strict'
import { createServer } from 'node:http'
import { createRequire } from 'node:module'
import { Box } from './wait.mjs'

const require = createRequire(import.meta.url)
const Client = require('pusher-js')
const Server = require('pusher')

const { hostname: host, port } = new URL(process.env.MOBO_URL)
const app = { appId: '1', key: 'app-key', secret: 'app-secret' }
const server = new Server({ ...app, host, port, useTLS: false })
const forged = new Server({ ...app, secret: 'another', host, port, useTLS: false })

const told = new Box()
const refusals = new Box()
let isAway = false

function hear(request, answer) {
  const parts = []
  request.on('data', (part) => parts.push(part))
  request.on('end', () => {
    const rawBody = Buffer.concat(parts).toString('utf8')
    const webhook = server.webhook({ headers: request.headers, rawBody })
    assert.ok(webhook.isValid(), rawBody)
    assert.ok(!forged.webhook({ headers: request.headers, rawBody }).isValid())
    assert.deepEqual([request.method, request.url], ['POST', '/hooks?from=mobo'])
    assert.ok(Math.abs(webhook.getTime().getTime() - Date.now()) < 600_000)
    if (isAway) refusals.put(rawBody)
    else webhook.getEvents().forEach((event) => told.put(event))
    answer.writeHead(isAway ? 503 : 200).end()
  })
}

function client(user) {
  const authorize = ({ socketId, channelName }, answer) => {
    const presence = channelName.startsWith('presence-') ? { user_id: user } : undefined
    answer(null, server.authorizeChannel(socketId, channelName, presence))
  }
  const options = { cluster: '', wsHost: host, wsPort: Number(port), forceTLS: false, enabledTransports: ['ws'], disableStats: true }
  return new Client(app.key, { ...options, channelAuthorization: { customHandler: authorize } })
}

async function subscribed(connection, name) {
  const channel = connection.subscribe(name)
  const done = new Box()
  channel.bind('pusher:subscription_succeeded', () => done.put(channel))
  return done.take(`the subscription of ${name}`)
}

async function next(...events) {
  for (const event of events) assert.deepEqual(await told.take(event.name), event)
}

async function presence() {
  const [ann, bob, again] = [client('ann'), client('bob'), client('bob')]
  const channel = 'presence-hall'
  await subscribed(ann, channel)
  await next({ name: 'channel_occupied', channel }, { name: 'member_added', channel, user_id: 'ann' })
  const hall = await subscribed(bob, channel)
  await next({ name: 'member_added', channel, user_id: 'bob' })
  await subscribed(again, channel)
  again.disconnect()
  hall.trigger('client-wave', { hands: 2 })
  const socket_id = bob.connection.socket_id
  await next({ name: 'client_event', channel, event: 'client-wave', data: '{"hands":2}', socket_id, user_id: 'bob' })
  bob.disconnect()
  await next({ name: 'member_removed', channel, user_id: 'bob' })
  ann.disconnect()
  await next({ name: 'member_removed', channel, user_id: 'ann' }, { name: 'channel_vacated', channel })
}

async function caches() {
  const ann = client('ann')
  const channel = 'cache-news'
  await subscribed(ann, channel)
  await next({ name: 'channel_occupied', channel }, { name: 'cache_miss', channel })
  await server.trigger(channel, 'headline', 'it works')
  const bob = client('bob')
  await subscribed(bob, channel)
  ann.disconnect()
  bob.disconnect()
  // Nothing was missed by bob.
  await next({ name: 'channel_vacated', channel })
}

async function outages() {
  isAway = true
  const ann = client('ann')
  await subscribed(ann, 'private-ann')
  const first = await refusals.take('a webhook that is refused')
  assert.equal(await refusals.take('the same again'), first)
  isAway = false
  await next({ name: 'channel_occupied', channel: 'private-ann' })
  ann.disconnect()
  await next({ name: 'channel_vacated', channel: 'private-ann' })
}

async function counts() {
  const [ann, bob] = [client('ann'), client('bob')]
  const news = await subscribed(ann, 'news')
  const heard = new Box()
  news.bind('pusher:subscription_count', ({ subscription_count }) => heard.put(subscription_count))
  await subscribed(bob, 'news')
  while ((await heard.take('two')) !== 2);
  assert.equal(news.subscriptionCount, 2)
  bob.disconnect()
  assert.equal(await heard.take('one'), 1)
  ann.disconnect()
  await next({ name: 'channel_occupied', channel: 'news' }, { name: 'channel_vacated', channel: 'news' })
}

const hooks = new URL(process.env.MOBO_HOOKS)
await new Promise((ready) => createServer(hear).listen(Number(hooks.port), hooks.hostname, ready))
for (const part of [presence, caches, outages, counts]) {
  await part()
  console.log(`${part.name}: fine`)
}
process.exit(0)
