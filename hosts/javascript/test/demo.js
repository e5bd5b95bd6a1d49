/** The page of demo/ in a frame: what it shows for a text, after a change in the middle, and while it writes. */

const WAIT_MS = 60_000;

export async function checkDemo(ort, rnncore, read) {
  const name = "the demo shows Python's surprise, follows a change, and writes";
  try {
    const note = await problem(ort, rnncore, read);
    return { name, passed: !note, note };
  } catch (error) {
    return { name, passed: false, note: `${error.name}: ${error.message}` };
  }
}

async function problem(ort, rnncore, read) {
  const { text, log_probs } = JSON.parse(new TextDecoder().decode(await read("expected.json"))).language_model;
  const model = await rnncore.LanguageModel.load(ort, await read("language_model.onnx"));
  const frame = document.getElementById("demo");
  frame.src = `/javascript/demo/index.html?model=/files/language_model.onnx&text=${encodeURIComponent(text)}`;
  const inside = () => frame.contentDocument;
  await until("the page is ready", () => inside()?.title.endsWith("ready"));
  const [field, letters, write] = ["text", "letters", "write"].map((id) => inside().getElementById(id));
  const shown = () => [...letters.querySelectorAll("span")].map((span) => Number(span.dataset.bits));
  const differs = (bits, scores) => bits.length !== scores.length || bits.some((x, i) => !(Math.abs(x + scores[i] / Math.LN2) <= 1e-4));
  if (differs(shown(), log_probs)) return `shows ${shown().slice(0, 5)} …, Python says ${log_probs.slice(0, 5)} …`;

  field.value = text.slice(0, 7) + text.slice(9);
  field.dispatchEvent(new Event("input"));
  await until("the change is read", () => shown().length === text.length - 2);
  const changed = (await model.tokenScores(field.value)).map((one) => one.logProb);
  if (differs(shown(), changed)) return "a change in the middle is read otherwise than the whole";

  inside().getElementById("length").value = 20;
  write.click();
  await until("it has written", () => write.textContent !== "Stop");
  const written = letters.querySelectorAll("span.written").length;
  if (field.value.length !== text.length - 2 + written || written > 20) return `it wrote ${written} letters into ${field.value}`;
  const all = (await model.tokenScores(field.value)).map((one) => one.logProb);
  if (differs(shown(), all)) return "what it writes has another surprise than what it reads";

  for (const [value, read] of [[text.repeat(1500), 200], ["", 0], ["Ω🙂 the", 0], [text.slice(0, 5), 5]]) { // 100 kB, then another text at once
    field.value = value;
    field.dispatchEvent(new Event("input"));
    await until(`the page answers to ${value.length} letters`, () => shown().length >= read && letters.textContent.startsWith(value.slice(0, 5)));
  }
  await until("the last text is there alone", () => letters.textContent === `${text.slice(0, 5)}\u200b`);
  if (differs(shown(), log_probs.slice(0, 5))) return "after 100 kB a short text is read otherwise";
  return "";
}

async function until(what, met) {
  const end = performance.now() + WAIT_MS;
  while (!met()) {
    if (performance.now() > end) throw new Error(`waited too long until ${what}`);
    await new Promise((done) => setTimeout(done, 20));
  }
}
