// Pusher's client and server packages, unmodified: public, private and presence channels, events of clients, and resuming.
//
// The node has the app `1`, with the key `app-key` and the secret `app-secret`.

import assert from 'node:assert/strict'
import { createRequire } from 'node:module'
import ws from 'ws'
import { Box } from './wait.mjs'

const require = createRequire(import.meta.url)
const Client = require('pusher-js')
const Server = require('pusher')

const { hostname: host, port } = new URL(process.env.MOBO_URL)
const app = { appId: '1', key: 'app-key', secret: 'app-secret' }
const server = new Server({ ...app, host, port, useTLS: false })

function client(user) {
  const authorize = ({ socketId, channelName }, answer) => {
    const presence = channelName.startsWith('presence-') ? { user_id: user, user_info: { name: user } } : undefined
    answer(null, server.authorizeChannel(socketId, channelName, presence))
  }
  const channelAuthorization = { customHandler: authorize }
  const options = { cluster: '', wsHost: host, wsPort: Number(port), forceTLS: false, enabledTransports: ['ws'], disableStats: true }
  return new Client(app.key, { ...options, channelAuthorization })
}

async function subscribed(connection, name) {
  const channel = connection.subscribe(name)
  const done = new Box()
  channel.bind('pusher:subscription_succeeded', (data) => done.put(data))
  channel.bind('pusher:subscription_error', (error) => done.put(new Error(JSON.stringify(error))))
  const answer = await done.take(`the subscription of ${name}`)
  if (answer instanceof Error) throw answer
  return channel
}

function events(channel, name) {
  const box = new Box()
  channel.bind(name, (data, metadata) => box.put([data, metadata?.user_id]))
  return box
}

async function servers() {
  const ann = client('ann')
  const [news, secret] = [await subscribed(ann, 'news'), await subscribed(ann, 'private-ann')]
  const [headlines, letters] = [events(news, 'headline'), events(secret, 'letter')]
  await server.trigger('news', 'headline', { text: 'it works' })
  await server.triggerBatch([{ channel: 'private-ann', name: 'letter', data: 'dear ann' }])
  assert.deepEqual(await headlines.take('a headline'), [{ text: 'it works' }, undefined])
  assert.deepEqual(await letters.take('a letter'), ['dear ann', undefined])
  await server.trigger('news', 'headline', 'not for ann', { socket_id: ann.connection.socket_id })
  await server.trigger('news', 'headline', 'for all')
  assert.deepEqual(await headlines.take('another headline'), ['for all', undefined])
  const list = await (await server.get({ path: '/channels', params: { filter_by_prefix: 'priv' } })).json()
  assert.deepEqual(list, { channels: { 'private-ann': {} } })
  const forged = new Server({ ...app, secret: 'another', host, port, useTLS: false })
  await assert.rejects(forged.trigger('news', 'headline', 'forged'), (error) => error.status === 401)
  ann.disconnect()
}

async function clients() {
  const [ann, bob] = [client('ann'), client('bob')]
  const hall = await subscribed(ann, 'presence-hall')
  const [added, removed] = [events(hall, 'pusher:member_added'), events(hall, 'pusher:member_removed')]
  const seen = await subscribed(bob, 'presence-hall')
  assert.deepEqual([seen.members.count, seen.members.me.id, seen.members.get('ann').info.name], [2, 'bob', 'ann'])
  assert.equal((await added.take('bob comes'))[0].id, 'bob')
  const heard = events(hall, 'client-wave')
  assert.ok(seen.trigger('client-wave', { hands: 2 }))
  assert.deepEqual(await heard.take('a wave'), [{ hands: 2 }, 'bob'])
  const users = await (await server.get({ path: '/channels/presence-hall/users' })).json()
  assert.deepEqual(users, { users: [{ id: 'ann' }, { id: 'bob' }] })
  bob.disconnect()
  assert.equal((await removed.take('bob goes'))[0].id, 'bob')
  ann.disconnect()

  const eve = client('eve')
  eve.config.channelAuthorizer = (_, answer) => answer(null, { auth: 'app-key:00' })
  await assert.rejects(subscribed(eve, 'private-ann'), /401/)
  eve.disconnect()
}

// The extension, by its frames.
async function resuming() {
  const open = async () => {
    const socket = new ws(`ws://${host}:${port}/app/${app.key}?protocol=7&client=js&version=8.6.0`)
    const frames = new Box()
    socket.on('message', (text) => frames.put(JSON.parse(text)))
    assert.equal((await frames.take('the greeting')).event, 'pusher:connection_established')
    socket.send(JSON.stringify({ event: 'pusher:subscribe', data: { channel: 'log', mobo: { resume: true } } }))
    const { event, data } = await frames.take('the subscription')
    assert.equal(event, 'pusher_internal:subscription_succeeded')
    return { socket, frames, at: JSON.parse(data) }
  }
  const first = await open()
  await server.trigger('log', 'line', 'one')
  const { stream_id, serial, data } = await first.frames.take('a line')
  assert.deepEqual([stream_id, serial, data], [first.at.stream_id, first.at.serial + 1, 'one'])
  first.socket.terminate()
  await server.trigger('log', 'line', 'two')
  await server.trigger('log', 'line', 'three')
  const second = await open()
  second.socket.send(JSON.stringify({ event: 'mobo:resume', data: { channel: 'log', stream_id, serial } }))
  assert.deepEqual([(await second.frames.take('two')).data, (await second.frames.take('three')).data], ['two', 'three'])
  assert.equal((await second.frames.take('the end of it')).event, 'mobo:resume_success')
  second.socket.send(JSON.stringify({ event: 'mobo:resume', data: { channel: 'log', stream_id: 'abc', serial } }))
  const failed = await second.frames.take('a refusal')
  assert.deepEqual([failed.event, JSON.parse(failed.data)], ['mobo:resume_failed', { code: 'position_expired' }])
  second.socket.terminate()
}

for (const part of [servers, clients, resuming]) {
  await part()
  console.log(`${part.name}: fine`)
}
process.exit(0)
