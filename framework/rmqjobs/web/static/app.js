// Keeps a page live: when the journal has news, the page is fetched anew and what changed is morphed in. Without this script every
// page still works, and shows what was so when it was loaded.

const QUIET = 1000 // milliseconds between two refreshes

let pending = false
let last = 0

function mayRefresh() {
  const busy = document.querySelector("dialog[open], main :focus:is(input, textarea, select), main :hover:is(button, summary)")
  return !document.hidden && !busy && String(getSelection()) === "" && document.body.dataset.live !== "off"
}

function refresh() {
  pending = false
  if (!mayRefresh()) return later()
  last = Date.now()
  document.body.dispatchEvent(new CustomEvent("live"))
}

function later() {
  if (pending) return
  pending = true
  setTimeout(refresh, Math.max(QUIET - (Date.now() - last), 50))
}

function state(text, tone) {
  const light = document.getElementById("live")
  light.textContent = text
  light.dataset.tone = tone
}

function listen() {
  const events = new EventSource("/api/events")
  events.addEventListener("records", later)
  events.addEventListener("missed", later)
  events.onopen = () => state("live", "good")
  events.onerror = () => state("connecting", "warn")
}

// -- theme: set before the first paint by the server's attribute, kept in a cookie

document.getElementById("theme").addEventListener("click", () => {
  const root = document.documentElement
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches
  root.dataset.theme = dark ? "light" : "dark"
  document.cookie = `rmqjobs_theme=${root.dataset.theme}; path=/; max-age=31536000; samesite=strict`
})

document.getElementById("live").addEventListener("click", () => {
  const off = document.body.dataset.live !== "off"
  document.body.dataset.live = off ? "off" : "on"
  state(off ? "paused" : "live", off ? "warn" : "good")
  if (!off) later()
})

// -- keyboard

const GO = { o: "/", f: "/failures", j: "/jobs", q: "/queues", s: "/schedules", w: "/workers", a: "/activity", h: "/health" }
let going = false

function typing(target) {
  return target.matches("input, textarea, select, [contenteditable]")
}

addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || typing(event.target)) return
  if (going && GO[event.key]) location.assign(GO[event.key])
  going = event.key === "g"
  if (event.key === "/") {
    event.preventDefault()
    document.getElementById("search").focus()
  } else if (event.key === "?") document.getElementById("keys").showModal()
  else if (event.key === "j" || event.key === "k") move(event.key === "j" ? 1 : -1)
})

function move(step) {
  const rows = [...document.querySelectorAll("main tbody a[data-row]")]
  const at = rows.indexOf(document.activeElement)
  rows.at(Math.min(Math.max(at + step, 0), rows.length - 1))?.focus()
}

// -- a form that asks before it acts, and copying

document.addEventListener("submit", (event) => {
  const question = event.target.dataset.ask
  if (question && !confirm(question)) event.preventDefault()
})

document.addEventListener("click", (event) => {
  const copied = event.target.closest("[data-copy]")
  if (copied) navigator.clipboard?.writeText(copied.dataset.copy)
})

listen()
