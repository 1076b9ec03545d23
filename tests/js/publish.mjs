// Committed changes of a hub, published to another server of Pusher's protocol: heard there by Pusher's own client.
//
// `MOBO_URL` writes, with `MOBO_KEY`; `MOBO_SERVER` has the app `1`, with the key `app-key` and the secret `app-secret`.

import assert from 'node:assert/strict'
import { createRequire } from 'node:module'
import { Box } from './wait.mjs'

const require = createRequire(import.meta.url)
const Client = require('pusher-js')
const Server = require('pusher')

const { hostname: host, port } = new URL(process.env.MOBO_SERVER)
const app = { appId: '1', key: 'app-key', secret: 'app-secret' }
const server = new Server({ ...app, host, port, useTLS: false })
const authorize = ({ socketId, channelName }, answer) => answer(null, server.authorizeChannel(socketId, channelName))
const options = { cluster: '', wsHost: host, wsPort: Number(port), forceTLS: false, enabledTransports: ['ws'], disableStats: true }
const client = new Client(app.key, { ...options, channelAuthorization: { customHandler: authorize } })

const channel = client.subscribe('private-orders')
const heard = new Box()
channel.bind('pusher:subscription_succeeded', () => heard.put(['subscribed']))
channel.bind('pusher:subscription_error', (error) => heard.put([JSON.stringify(error)]))
for (const name of ['insert', 'update', 'delete']) channel.bind(name, (data) => heard.put([name, data]))
assert.deepEqual(await heard.take('the subscription'), ['subscribed'])

const headers = { apikey: process.env.MOBO_KEY, 'content-type': 'application/json' }
async function write(method, path, body) {
  const answer = await fetch(`${process.env.MOBO_URL}/rest/v1/${path}`, { method, headers, body: body && JSON.stringify(body) })
  assert.ok(answer.ok, `${method} ${path}: ${answer.status} ${await answer.text()}`)
}
await write('POST', 'orders', { id: 'a', title: 'Pump', n: 1 })
await write('PATCH', 'orders?id=eq.a', { n: 2 })
await write('POST', 'secrets', { id: 's', title: 'not for others' })
await write('DELETE', 'orders?id=eq.a')

const [insert, update, gone] = [await heard.take('the insert'), await heard.take('the update'), await heard.take('the delete')]
assert.deepEqual([insert[0], insert[1].id, insert[1].record.title, insert[1].record.n, insert[1].old_record], ['insert', 'a', 'Pump', 1, null])
assert.deepEqual([update[0], update[1].collection, update[1].record.n], ['update', 'orders', 2])
assert.deepEqual([gone[0], gone[1].record, gone[1].old_record.n], ['delete', null, 2])
const numbers = [insert, update, gone].map(([, data]) => Number(data.position.split('-')[1]))
assert.ok(numbers[0] < numbers[1] && numbers[1] < numbers[2], `in order: ${numbers}`)
client.disconnect()
console.log('changes: fine')
process.exit(0)
