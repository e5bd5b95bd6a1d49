/** NumPy's default random numbers (PCG64 seeded by SeedSequence), so that one seed gives one text in every language. */

const MASK = (1n << 128n) - 1n;
const WORD = (1n << 64n) - 1n;
const MULTIPLIER = 0x2360ed051fc65da44385df649fccf645n;

export class Pcg64 {
  constructor(seed) {
    const words = seedWords(BigInt(seed));
    this.increment = (((words[2] << 64n) | words[3]) * 2n + 1n) & MASK;
    this.state = 0n;
    this.#step();
    this.state = (this.state + ((words[0] << 64n) | words[1])) & MASK;
    this.#step();
  }

  #step() {
    this.state = (this.state * MULTIPLIER + this.increment) & MASK;
  }

  /** 64 random bits. */
  word() {
    this.#step();
    const value = (this.state >> 64n) ^ (this.state & WORD);
    const turn = this.state >> 122n;
    return ((value >> turn) | (value << (64n - turn))) & WORD;
  }

  /** A number in [0, 1). */
  random() {
    return Number(this.word() >> 11n) / 2 ** 53;
  }
}

/** Four 64-bit words of numpy.random.SeedSequence(seed). */
function seedWords(seed) {
  const entropy = [];
  for (let rest = seed; rest > 0n || !entropy.length; rest >>= 32n) entropy.push(Number(rest & 0xffffffffn));
  let constant = 0x43b0d7e5;
  const hash = (value) => {
    value = (value ^ constant) >>> 0;
    constant = Math.imul(constant, 0x931e8875) >>> 0;
    value = Math.imul(value, constant) >>> 0;
    return (value ^ (value >>> 16)) >>> 0;
  };
  const mix = (x, y) => {
    const value = (Math.imul(0xca01f9dd, x) - Math.imul(0x4973f715, y)) >>> 0;
    return (value ^ (value >>> 16)) >>> 0;
  };
  const pool = [0, 1, 2, 3].map((i) => hash(entropy[i] ?? 0));
  for (let i = 0; i < 4; i++) for (let k = 0; k < 4; k++) if (i !== k) pool[k] = mix(pool[k], hash(pool[i]));
  for (const extra of entropy.slice(4)) for (let k = 0; k < 4; k++) pool[k] = mix(pool[k], hash(extra));
  let own = 0x8b51f9dd;
  const halves = [...Array(8).keys()].map((i) => {
    let value = (pool[i % 4] ^ own) >>> 0;
    own = Math.imul(own, 0x58f38ded) >>> 0;
    value = Math.imul(value, own) >>> 0;
    return BigInt((value ^ (value >>> 16)) >>> 0);
  });
  return [0, 1, 2, 3].map((i) => (halves[2 * i + 1] << 32n) | halves[2 * i]);
}
