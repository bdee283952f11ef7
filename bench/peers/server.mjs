// A chess clock as one would write it with socket.io: the clock of a room is a JSON text in Redis. PORT, REDIS_URL, PAD.
import { createServer } from 'node:http'
import { createAdapter } from '@socket.io/redis-adapter'
import { createClient } from 'redis'
import { Server } from 'socket.io'

const redis = await createClient({ url: process.env.REDIS_URL }).connect()
const [pub, sub] = await Promise.all([redis.duplicate().connect(), redis.duplicate().connect()])
const http = createServer((_, answer) => answer.end('ok'))
const io = new Server(http, { adapter: createAdapter(pub, sub), transports: ['websocket'] })
const pad = 'x'.repeat(Number(process.env.PAD))
const fresh = JSON.stringify({ version: 1, turn: 0, left_ms: [86400000, 86400000], at_ms: 0, pad })

io.on('connection', async socket => {
  const room = socket.handshake.query.room
  socket.on('switch', async place => {
    const clock = JSON.parse(await redis.get(room) ?? fresh), now = Date.now()
    if (place !== clock.turn) return socket.emit('refused', clock)
    clock.left_ms[place] -= clock.at_ms ? now - clock.at_ms : 0
    Object.assign(clock, { version: clock.version + 1, turn: 1 - place, at_ms: now })
    await redis.set(room, JSON.stringify(clock))
    io.to(room).emit('moved', clock)
  })
  await socket.join(room)
  socket.emit('state', JSON.parse(await redis.get(room) ?? fresh))
})
http.listen(Number(process.env.PORT), '127.0.0.1', 4096)
process.on('SIGTERM', () => process.exit())
