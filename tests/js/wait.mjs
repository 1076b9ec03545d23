// Waiting for events, with an end.

const SOON_MS = 60_000

/** A promise that fails when it takes too long. */
export function soon(what, promise) {
  let timer
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what} has not come`)), SOON_MS)
  })
  return Promise.race([promise, late]).finally(() => clearTimeout(timer))
}

/** What is put in, taken out one by one in its order. */
export class Box {
  #items = []
  #waiting = []

  put(item) {
    const waiting = this.#waiting.shift()
    if (waiting) waiting(item)
    else this.#items.push(item)
  }

  take(what) {
    if (this.#items.length > 0) return Promise.resolve(this.#items.shift())
    return soon(what, new Promise((resolve) => this.#waiting.push(resolve)))
  }

  get size() {
    return this.#items.length
  }
}
