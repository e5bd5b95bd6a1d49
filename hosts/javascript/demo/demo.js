/**
 * The page: every letter has its own stream, forked from that of the letter before.  A change anywhere goes on from the last letter
 * that stayed, so that typing, deleting and pasting cost what was changed and nothing else.
 */
import * as ort from "onnxruntime-web";
import { InputError, LanguageModel, UnknownTokenError } from "rnncore";
import { bitsOf, colourOf, drawChart, SCALE, visible } from "./drawing.js";

ort.env.wasm.numThreads = 1;
const at = (id) => document.getElementById(id);
const [field, letters] = [at("text"), at("letters")];
document.documentElement.style.setProperty("--scale", SCALE.map(([r, g, b]) => `rgb(${r} ${g} ${b})`).join(", "));

let model;
let start; // the text's beginning
let read = []; // [{ letter, reader, bits, written }], one for each letter of the field
let turn = 0; // counts changes: whoever sees another number than its own gives up
let writing = false;
let spent = []; // milliseconds of the last reads
let drawn = []; // what of `read` the paper shows

const MOST = 20_000; // letters that are read: each keeps a state of some kilobytes
const PATIENCE_MS = 80; // of work without letting the page answer

const readerBefore = (index) => (index ? read[index - 1].reader : start);

/** Read what is in the field, from the first letter that is another than before; false if the field has changed meanwhile. */
async function follow() {
  const own = ++turn;
  const wanted = [...field.value.slice(0, 2 * MOST)].slice(0, MOST);
  let same = 0;
  while (same < read.length && same < wanted.length && read[same].letter === wanted[same]) same++;
  read = read.slice(0, same);
  show();
  let began = performance.now();
  for (let index = same; index < wanted.length; index++) {
    const one = await step(wanted[index], readerBefore(index));
    if (turn !== own) return false;
    read.push(one);
    const isLast = index + 1 === wanted.length;
    if (isLast || performance.now() - began > PATIENCE_MS) {
      show();
      await new Promise((done) => setTimeout(done)); // runs in WebAssembly never let the page answer by themselves
      if (turn !== own) return false;
      began = performance.now();
    }
  }
  return true;
}

/** Follow what somebody did; what goes wrong is said. */
const followed = () => follow().catch(tellError);

function tellError(error) {
  at("status").textContent = `${error.name}: ${error.message}`;
}

/** One letter more: its surprise, and a reader that has read it.  A letter that the model does not know is passed over. */
async function step(letter, before, written = false) {
  const reader = before.fork();
  try {
    const [id] = model.vocabulary.encode(letter);
    const began = performance.now();
    const logProb = await reader.push(id);
    spent = [...spent.slice(-49), performance.now() - began];
    return { letter, reader, bits: bitsOf(logProb), written };
  } catch (error) {
    if (!(error instanceof UnknownTokenError)) throw error;
    return { letter, reader, bits: null, written };
  }
}

/** Letters drawn one after the other, each shown as it comes. */
async function write() {
  if (writing) {
    writing = false;
    return;
  }
  writing = true;
  at("write").textContent = "Stop";
  try {
    if (await follow()) await goOn(turn);
  } finally {
    writing = false;
    at("write").textContent = "Go on from here";
  }
}

async function goOn(own) {
  const how = { temperature: Number(at("temperature").value), topP: Number(at("top").value) };
  for (let left = Number(at("length").value); left > 0 && writing && turn === own && read.length < MOST; left--) {
    const before = readerBefore(read.length);
    const id = before.draw(Math.random(), how);
    if (id === model.vocabulary.eosId) break;
    const one = await step(model.vocabulary.tokens[id], before, true);
    if (turn !== own) break;
    read.push(one);
    field.value += one.letter;
    show();
    await new Promise((done) => setTimeout(done, 12)); // slow enough to be read
  }
}

function drawLetters() {
  let same = 0;
  while (same < drawn.length && same < read.length && drawn[same] === read[same]) same++;
  while (letters.childNodes.length > same) letters.lastChild.remove();
  const added = read.slice(same).map(({ letter, bits, written }) => {
    const span = document.createElement("span");
    span.textContent = letter;
    if (bits === null) span.className = "unknown";
    else {
      span.dataset.bits = bits;
      span.style.background = colourOf(bits);
    }
    if (written) span.classList.add("written");
    return span;
  });
  const length = read.reduce((sum, { letter }) => sum + letter.length, 0);
  letters.append(...added, field.value.slice(length) + "\u200b");
  drawn = [...read];
}

function show() {
  drawLetters();
  field.parentElement.style.height = `${Math.max(letters.scrollHeight, 184)}px`;
  drawChart(at("chart"), read);
  const known = read.filter((one) => one.bits !== null);
  const mean = known.reduce((sum, one) => sum + one.bits, 0) / known.length;
  at("mean").textContent = known.length ? mean.toFixed(2) : "–";
  at("count").textContent = read.length < MOST ? read.length : `the first ${MOST.toLocaleString("en")}`;
  const times = [...spent].sort((a, b) => a - b);
  at("speed").textContent = times.length ? `${times[times.length >> 1].toFixed(1)} ms` : "–";
  const worst = known.reduce((most, one) => (one.bits > (most?.bits ?? 0) ? one : most), null);
  at("worst").replaceChildren();
  if (worst) {
    const place = read.indexOf(worst);
    const mark = document.createElement("b");
    mark.textContent = visible(worst.letter);
    const context = read.slice(Math.max(0, place - 12), place).map((one) => one.letter).join("");
    at("worst").append("Most surprised by ", mark, ` after “${context.trimStart()}”: 1 in ${Math.round(2 ** worst.bits).toLocaleString("en")}.`);
  }
  showNext();
}

function showNext() {
  const { next } = readerBefore(read.length);
  const order = [...next.keys()].sort((a, b) => next[b] - next[a]).slice(0, 7);
  const likeliest = Math.exp(next[order[0]]);
  at("next").replaceChildren(
    ...order.map((id) => {
      const probability = Math.exp(next[id]);
      const [item, button, bar, share] = ["li", "button", "i", "span"].map((tag) => document.createElement(tag));
      const isEnd = id === model.vocabulary.eosId;
      button.textContent = isEnd ? "end" : visible(model.vocabulary.tokens[id]);
      button.disabled = isEnd;
      button.title = "add it";
      button.onclick = () => {
        field.value += model.vocabulary.tokens[id];
        followed();
        field.focus();
      };
      bar.style.width = `${(100 * probability) / likeliest}%`;
      share.textContent = `${(100 * probability).toFixed(probability < 0.0995 ? 1 : 0)} %`;
      item.append(button, bar, share);
      return item;
    })
  );
}

for (const [id, shown] of [["temperature", (x) => x.toFixed(2)], ["top", (x) => `${Math.round(100 * x)} %`], ["length", String]]) {
  const tell = () => (at(`${id}-shown`).textContent = shown(Number(at(id).value)));
  at(id).addEventListener("input", tell);
  tell();
}
field.addEventListener("input", followed);
at("write").addEventListener("click", () => write().catch(tellError));
at("clear").addEventListener("click", () => {
  field.value = "";
  followed();
  field.focus();
});

try {
  const asked = new URLSearchParams(location.search);
  const began = performance.now();
  model = await LanguageModel.load(ort, asked.get("model") ?? "/models/model.onnx");
  if (!model.vocabulary.isCharacterLevel) throw new InputError("the page reads models of characters, this one has longer tokens");
  start = await model.stream();
  at("status").textContent = `ready in ${Math.round(performance.now() - began)} ms`;
  const { fingerprint, form, precision } = model.model.metadata;
  at("about").textContent =
    `${model.vocabulary.size} tokens, ${precision}, form ${form}, file ${fingerprint.slice(0, 12)}…, checked; ` +
    "runs in WebAssembly over onnxruntime-web. Blue underlines: written by the model.";
  for (const id of ["text", "write", "clear"]) at(id).disabled = false;
  field.value = asked.get("text") ?? "";
  await follow();
  if (asked.has("write")) await write();
  field.focus();
  document.title += " · ready";
} catch (error) {
  tellError(error);
}
