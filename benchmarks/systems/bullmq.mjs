// BullMQ on Redis: concurrency 100, Redis writing its log every second; so a crash may lose a second of jobs, unlike the others.
// Commands and environment are those of program.py; the ledger's layout is in ledger.py.
import { createRequire } from 'node:module'
import { openSync, writeSync, fstatSync } from 'node:fs'
import { resourceUsage, cpuUsage, argv, env, exit, hrtime } from 'node:process'

// From NODE_PATH, which `import` does not look at.
const { Queue, Worker } = createRequire(import.meta.url)('bullmq')
const redis = new URL(env.BENCH_REDIS)
const connection = { host: redis.hostname, port: Number(redis.port), maxRetriesPerRequest: null }
const NAME = `${env.BENCH_PREFIX}-bullmq`
const NOTE = 'n'.repeat(160)
const WINDOW = 500

const file = openSync(env.BENCH_LEDGER, 'r+')
const size = fstatSync(file).size / 17
const counts = new Uint8Array(size)
const count = Buffer.alloc(1)
const time = Buffer.alloc(8)
const now = () => (performance.timeOrigin + performance.now()) / 1000

function note (offset, n) {
  time.writeDoubleLE(now())
  writeSync(file, time, 0, 8, offset + 8 * n)
}

function started (n) {
  note(9 * size, n)
  count[0] = ++counts[n]
  writeSync(file, count, 0, 1, n)
}

async function publish (how, first, total, rate) {
  const queue = new Queue(NAME, { connection, defaultJobOptions: { removeOnComplete: true } })
  await queue.waitUntilReady()
  const job = n => ({ name: 'add', data: { x: n, y: 1, note: NOTE } })
  const began = hrtime.bigint()
  const cpu = cpuUsage()
  if (how === 'many') {
    for (let n = first; n < first + total; n += WINDOW) {
      const length = Math.min(WINDOW, first + total - n)
      await queue.addBulk(Array.from({ length }, (_, place) => job(n + place)))
    }
  } else {
    for (let n = first; n < first + total; n++) {
      if (how === 'paced') {
        const wait = (n - first) * 1000 / rate - Number(hrtime.bigint() - began) / 1e6
        if (wait > 0) await new Promise(resolve => setTimeout(resolve, wait))
        note(size, n)
      }
      await queue.add('add', job(n).data)
    }
  }
  const used = cpuUsage(cpu)
  console.log(JSON.stringify({
    seconds: Number(hrtime.bigint() - began) / 1e9,
    cpu_seconds: (used.user + used.system) / 1e6,
    peak_mb: resourceUsage().maxRSS / 1024
  }))
  exit(0)
}

const [command, how, first, total, rate] = argv.slice(2)
if (command === 'work') {
  const worker = new Worker(NAME, async job => started(job.data.x), { connection, concurrency: 100 })
  process.on('SIGTERM', async () => { await worker.close(); exit(0) })
} else if (command === 'publish') {
  await publish(how, Number(first), Number(total), Number(rate))
} else {
  exit(0)
}
