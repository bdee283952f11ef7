// Estimates the server's clock from PING and PONG, as docs/protocol.md explains.

const FIRST_PINGS = 5, KEPT = 8, JUMP_MS = 100;

export class ServerClock {
  #ping; #measured = []; #since = 0; #skew = Date.now() - performance.now();

  /** ping(t0): sends a PING, if there is a connection. */
  constructor(ping) {
    this.#ping = () => ping(performance.now());
    setInterval(this.#ping, 30_000);
    setInterval(() => this.#compare(), 1_000);
  }

  /** Measures anew: after a connect, or when this computer's clock may have stopped. */
  restart() {
    this.#measured = [];
    this.#since = performance.now();
    for (let i = 0; i < FIRST_PINGS; i++) setTimeout(this.#ping, i * 200);
  }

  pong({t0, timestamp}) {
    const t1 = performance.now();
    if (t0 < this.#since) return;                              // from before the restart
    this.#measured.push({rtt: t1 - t0, offset: timestamp - (t0 + t1) / 2});
    this.#measured = this.#measured.slice(-KEPT);
  }

  /** The server's time in ms; null until it is known. */
  now() {
    if (!this.#measured.length) return null;
    return performance.now() + this.#measured.reduce((a, b) => (b.rtt <= a.rtt ? b : a)).offset;
  }

  // The two clocks of a browser drift apart when the computer slept, or when its clock was set.
  #compare() {
    const skew = Date.now() - performance.now();
    if (Math.abs(skew - this.#skew) > JUMP_MS) this.restart();
    this.#skew = skew;
  }
}
