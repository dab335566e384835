// The page of groma live. All text from outside goes in as text, never as markup.
import { button, byId, count, element, svg, text } from "./elements.js";
import { drawSpace, readSpace } from "./space.js";

export const COLOURS = ["#4285f4", "#db4437", "#d68200", "#0f9d58", "#ab47bc", "#0091aa", "#e65129", "#5c6bc0"];
const DRAG = 6; // pixels on the screen from which a click is a drag
const colour = (goal) => COLOURS[goal % COLOURS.length];

let socket = null;
let state = null; // the newest state, always that of the picture that is drawn
let sentGoals = null; // {goals, states}: goals that were sent, until a state holds them
let sending = Promise.resolve();
let calls = new Map();
let lastCall = 0;
let draft = null; // {goal, boxes} while a label is corrected
let chosen = -1; // index of the region that the keyboard or the pointer is on
let drag = null; // {x, y, box} while a box is drawn
let linked = []; // boxes of the phrase that is pointed at
let space = null;
let spaceIsOld = false;
let dialogue = 1;

// Talking to the server

function connect() {
  socket = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/live`);
  socket.binaryType = "arraybuffer";
  socket.onopen = () => next(true);
  socket.onmessage = (event) => take(event.data);
  socket.onclose = () => {
    for (const { fail } of calls.values()) fail(new Error("The connection was lost."));
    calls.clear();
    problem("The connection to groma live is lost; trying again. Was it ended?");
    setTimeout(connect, 1000);
  };
}

function next(anew = false) {
  if (socket.readyState === WebSocket.OPEN)
    socket.send(JSON.stringify({ do: "next", anew, space: !byId("cloud").hidden }));
}

function call(action) {
  return new Promise((done, fail) => {
    if (socket.readyState !== WebSocket.OPEN) return fail(new Error("The connection is lost."));
    calls.set(++lastCall, { done, fail });
    socket.send(JSON.stringify({ ...action, id: lastCall }));
  });
}

async function act(action, said = "") {
  try {
    const answer = await call(action);
    notice(said);
    return answer;
  } catch (error) {
    notice(error.message);
    return null;
  }
}

async function take(data) {
  const size = new DataView(data).getUint32(0);
  const document_ = JSON.parse(new TextDecoder().decode(new Uint8Array(data, 4, size)));
  const parts = [];
  let place = 4 + size;
  for (const length of document_.parts) {
    parts.push(new Uint8Array(data, place, length));
    place += length;
  }
  if ("answer" in document_) {
    const waiting = calls.get(document_.to);
    calls.delete(document_.to);
    if (!waiting) return;
    if (document_.answer.error) waiting.fail(new Error(document_.answer.error));
    else waiting.done(document_.answer);
    return;
  }
  try {
    if (parts.length) {
      const bitmap = await createImageBitmap(new Blob([parts[0]], { type: "image/jpeg" }));
      const canvas = byId("picture");
      if (canvas.width !== bitmap.width || canvas.height !== bitmap.height) {
        canvas.width = bitmap.width;
        canvas.height = bitmap.height;
        byId("overlay").setAttribute("viewBox", `0 0 ${bitmap.width} ${bitmap.height}`);
      }
      canvas.getContext("2d").drawImage(bitmap, 0, 0);
      bitmap.close();
      // A frame without depth leaves the view of the one before: depth often comes at a lower rate.
      spaceIsOld = !document_.space;
      if (document_.space) space = readSpace(document_.space, parts[1]);
    }
    state = document_.state;
    // The first state after the answer may have been on its way before it.
    if (sentGoals?.states >= 0 && ++sentGoals.states > 1) sentGoals = null;
    draw();
  } finally {
    next();
  }
}

// Drawing

function draw() {
  const { source, counts, labels } = state;
  text("source", source.name);
  text("model", source.model);
  problem(source.problem || (source.ended ? "The source has ended." : ""));
  byId("pause").textContent = source.paused ? "Go on" : "Hold";
  byId("pause").disabled = source.ended;
  byId("step").disabled = source.ended;
  byId("restart").hidden = byId("speed").parentElement.hidden = !source.recorded;
  if (document.activeElement !== byId("speed")) byId("speed").value = String(source.speed);
  byId("record").setAttribute("aria-pressed", String(Boolean(state.recording.path)));
  byId("record").textContent = state.recording.path ? `Stop (${state.recording.frames} frames)` : "Record bag";
  if (state.frame?.depth) byId("space").hidden = false;
  byId("talk").hidden = !state.can.chat;
  const facts = { "frames a second": state.rate.toFixed(1), dropped: counts.dropped, refused: counts.refused };
  for (const [stage, ms] of Object.entries(state.frame?.milliseconds ?? {})) facts[stage] = `${ms.toFixed(0)} ms`;
  if (state.frame?.age) facts["answer from"] = `${state.frame.age.toFixed(1)} s ago`;
  byId("facts").replaceChildren(...Object.entries(facts).map(([name, value]) => {
    const pair = element("div");
    pair.append(element("dt", name), element("dd", String(value)));
    return pair;
  }));
  text("labels", labels.frames
    ? `Labels: ${count(labels.goals, "goal")} (${labels.absent} not there) on ${count(labels.frames, "frame")}` : "");
  drawGoals();
  drawBoxes();
  const cloud = byId("cloud");
  text("cloud-note", cloud.hidden || !spaceIsOld ? ""
    : space ? "Seen with an earlier frame: this one has no depth." : "This frame has no depth.");
  if (!cloud.hidden) drawSpace(cloud, space, colour);
}

function drawGoals() {
  const list = byId("goals");
  while (list.children.length > state.goals.length) list.lastChild.remove();
  while (list.children.length < state.goals.length) list.append(goalRow(list.children.length));
  state.goals.forEach((goal, index) => {
    const row = list.children[index];
    const [input, kind] = [row.querySelector("input"), row.querySelector("select")];
    if (document.activeElement !== input) {
      input.value = goal.text;
      input.dataset.was = goal.text;
    }
    if (document.activeElement !== kind) kind.value = goal.kind;
    row.dataset.goal = goal.text;
    const found = goal.detections.length;
    const status = row.querySelector(".status");
    status.textContent = goal.status === "present" && found > 1 ? `${found} present` : goal.status;
    status.className = `status ${goal.status}`;
    const others = goal.alternatives.length;
    row.querySelector(".figures").textContent = goal.status === "pending" ? ""
      : `presence ${goal.present.toFixed(2)}, margin ${goal.margin.toFixed(2)}`
        + (others ? `, ${count(others, "alternative")}` : "");
    const labelled = goal.label !== null;
    row.querySelector(".labelled").textContent = !labelled ? ""
      : goal.label.length ? `labelled: ${count(goal.label.length, "box", "boxes")}`
        : "labelled: not there";
    row.querySelector(".undo").hidden = !labelled;
    row.querySelector(".right").disabled = goal.status === "pending" || goal.status === "stale";
  });
}

function goalRow(index) {
  const row = element("li");
  const swatch = element("span", "", "swatch");
  swatch.style.background = colour(index);
  const input = element("input");
  Object.assign(input, { type: "text", maxLength: 1000, dir: "auto", autocomplete: "off" });
  input.setAttribute("aria-label", `Goal ${index + 1}`);
  input.onfocus = () => { input.dataset.was = input.value; };
  input.onchange = () => changeGoal(input.dataset.was, { text: input.value }, input);
  input.onkeydown = (event) => {
    if (event.key === "Escape") input.value = input.dataset.was;
    if (event.key === "Enter" || event.key === "Escape") input.blur();
  };
  const kind = element("select");
  kind.setAttribute("aria-label", `How many goal ${index + 1} means`);
  for (const [value, name] of [["auto", "auto"], ["one", "one"], ["all", "all"]]) {
    const option = element("option", name);
    option.value = value;
    kind.append(option);
  }
  kind.onchange = () => changeGoal(row.dataset.goal, { kind: kind.value });
  const head = element("div", "", "row");
  head.append(swatch, input, kind, button("×", "", "Remove this goal", () => changeGoal(row.dataset.goal, null)));
  const answer = element("div", "", "row");
  answer.append(element("span", "", "status"), element("span", "", "figures dim"));
  const label = element("div", "", "row");
  label.append(
    button("Right", "right", "The boxes are right, or there is nothing: store as label", () => confirm(row.dataset.goal)),
    button("Correct", "correct", "Mark the right boxes and store them as label", () => startCorrecting(row.dataset.goal)),
    button("Not there", "none", "Nothing in the picture fits: store as label", () => store(row.dataset.goal, [])),
    element("span", "", "labelled dim"),
    button("Undo", "undo", "Take the label back", () => act({ do: "unlabel", goal: row.dataset.goal, frame: state.frame.number })),
  );
  row.append(head, answer, label);
  return row;
}

function drawBoxes() {
  const [shapes, names] = [[], []];
  const scale = state.frame ? Math.max(10, state.frame.width / 45) : 14;
  if (draft) for (const box of state.regions) shapes.push(rectangle(box, "region"));
  state.goals.forEach((goal, index) => {
    if (draft && draft.goal !== goal.text) return;
    for (const { box } of goal.alternatives) shapes.push(rectangle(box, "alternative", index));
    if (!draft) for (const item of goal.detections) {
      shapes.push(rectangle(item.box, "under"), rectangle(item.box, "answer", index, goal.text));
      const short = goal.text.length > 28 ? `${goal.text.slice(0, 14)}…${goal.text.slice(-12)}` : goal.text;
      names.push({ box: item.box, content: `${short} ${item.score.toFixed(2)}${item.id ? ` #${item.id}` : ""}` });
    }
    for (const box of (!draft && goal.label) || []) shapes.push(rectangle(box, "label", null, goal.text));
  });
  for (const box of draft?.boxes ?? []) shapes.push(rectangle(box, "draft"));
  if (chosen >= 0 && state.regions[chosen]) shapes.push(rectangle(state.regions[chosen], "chosen"));
  for (const box of linked) shapes.push(rectangle(box, "linked"));
  if (drag?.box) shapes.push(rectangle(drag.box, "dragged"));
  byId("overlay").replaceChildren(...shapes);
  drawNames(names, scale);
}

// Above the boxes, inside the picture and not on top of each other.
function drawNames(names, size) {
  const taken = [];
  for (const { box, content } of names) {
    const name = svg("text", { "font-size": size, "stroke-width": size / 6 });
    name.textContent = content;
    byId("overlay").append(name);
    const width = name.getComputedTextLength();
    const x = Math.max(Math.min(box[0] + 3, state.frame.width - width - 3), 3);
    const top = Math.max(box[1] - 4, size);
    const free = (y) => taken.every((other) =>
      x + width < other.x || x > other.x + other.width || Math.abs(y - other.y) >= 1.2 * size);
    const y = [0, -1, -2, 1, 2].map((line) => top + 1.25 * size * line).find((line) => line >= size && free(line)) ?? top;
    name.setAttribute("x", x);
    name.setAttribute("y", y);
    taken.push({ x, y, width });
  }
}

function rectangle([x1, y1, x2, y2], kind, goal = null, name = null) {
  const shape = svg("rect", { class: kind, x: x1, y: y1, width: x2 - x1, height: y2 - y1 });
  if (goal !== null) shape.setAttribute("stroke", colour(goal));
  if (name !== null) shape.dataset.goal = name;
  return shape;
}

// Goals and labels

// The goals that stand, with changes that are under way.
const goalsNow = () => sentGoals?.goals ?? state.goals.map(({ text, kind }) => ({ text, kind }));

async function sendGoals(goals) {
  const sent = (sentGoals = { goals, states: -1 });
  sending = sending.then(() => act({ do: "goals", goals })); // one after the other, so that the last stands
  const answer = await sending;
  if (answer === null && sentGoals === sent) sentGoals = null;
  sent.states = 0;
  return answer;
}

function changeGoal(was, change, input = null) {
  let goals = goalsNow();
  if (change === null || change.text?.trim() === "") goals = goals.filter((goal) => goal.text !== was);
  else goals = goals.map((goal) => (goal.text === was ? { ...goal, ...change } : goal));
  return sendGoals(goals).then((answer) => {
    if (answer === null && input) input.value = was;
  });
}

function confirm(goal) {
  const item = state.goals.find(({ text }) => text === goal);
  if (item) store(goal, item.detections.map(({ box }) => box));
}

function store(goal, boxes) {
  return act({ do: "label", goal, boxes, frame: state.frame.number },
    boxes.length ? `Stored ${count(boxes.length, "box", "boxes")} for “${goal}”.` : `Stored that “${goal}” is not there.`);
}

async function startCorrecting(goal) {
  if (!state.source.paused && !state.source.ended) await act({ do: "pause" });
  const item = state.goals.find(({ text }) => text === goal);
  if (!item) return;
  draft = { goal, boxes: (item.label ?? item.detections.map(({ box }) => box)).map((box) => [...box]) };
  text("correcting-text", `Mark what “${goal}” means: click a region to add or remove it, drag a box for what has none.`);
  byId("correcting").hidden = false;
  byId("overlay").focus();
  drawBoxes();
}

function stopCorrecting() {
  draft = null;
  chosen = -1;
  byId("correcting").hidden = true;
  drawBoxes();
}

async function finishCorrecting(boxes) {
  if (await store(draft.goal, boxes) !== null) stopCorrecting();
}

// Pointing

function place(event) {
  const overlay = byId("overlay");
  const point = new DOMPoint(event.clientX, event.clientY).matrixTransform(overlay.getScreenCTM().inverse());
  return [Math.min(Math.max(point.x, 0), state.frame.width), Math.min(Math.max(point.y, 0), state.frame.height)];
}

const holds = ([x1, y1, x2, y2], x, y) => x >= x1 && x < x2 && y >= y1 && y < y2;
const area = ([x1, y1, x2, y2]) => (x2 - x1) * (y2 - y1);
const same = (a, b) => a.every((value, i) => Math.abs(value - b[i]) < 1);

function regionAt(x, y) {
  let best = -1;
  state.regions.forEach((box, index) => {
    if (holds(box, x, y) && (best < 0 || area(box) < area(state.regions[best]))) best = index;
  });
  return best;
}

function pick(box) {
  if (!draft) return ask("", [box]);
  const at = draft.boxes.findIndex((other) => same(other, box));
  if (at >= 0) draft.boxes.splice(at, 1);
  else draft.boxes.push([...box]);
  drawBoxes();
}

function pointed(x, y) {
  const marked = draft ? draft.boxes.filter((box) => holds(box, x, y)).sort((a, b) => area(a) - area(b))[0] : null;
  if (marked) return pick(marked);
  const region = regionAt(x, y);
  if (region < 0) return notice("The model sees no region there; drag a box around what you mean.");
  pick(state.regions[region]);
}

function listenToPicture() {
  const overlay = byId("overlay");
  overlay.onpointerdown = (event) => {
    if (!state?.frame || event.button) return;
    overlay.setPointerCapture(event.pointerId);
    const [x, y] = place(event);
    drag = { x, y, from: [event.clientX, event.clientY], box: null };
  };
  overlay.onpointermove = (event) => {
    if (!state?.frame) return;
    const [x, y] = place(event);
    if (!drag) {
      const before = chosen;
      chosen = regionAt(x, y);
      if (before !== chosen) drawBoxes();
      return;
    }
    if (drag.box || Math.hypot(event.clientX - drag.from[0], event.clientY - drag.from[1]) >= DRAG) {
      drag.box = [Math.min(x, drag.x), Math.min(y, drag.y), Math.max(x, drag.x), Math.max(y, drag.y)];
      drawBoxes();
    }
  };
  overlay.onpointerup = () => {
    const { x, y, box } = drag ?? {};
    if (drag === null) return;
    drag = null;
    if (!box) pointed(x, y);
    else if (area(box) >= 4 && box[2] > box[0] && box[3] > box[1]) pick(box);
    drawBoxes();
  };
  overlay.onpointercancel = () => { drag = null; drawBoxes(); };
  overlay.onpointerleave = () => { chosen = -1; if (state) drawBoxes(); };
  overlay.onkeydown = (event) => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (step && state?.regions.length) {
      chosen = chosen < 0 && step < 0 ? state.regions.length - 1 : (chosen + step + state.regions.length) % state.regions.length;
      drawBoxes();
    } else if (event.key === "Enter" && state?.regions[chosen]) {
      pick(state.regions[chosen]);
    } else if (event.key === "Escape") {
      stopCorrecting();
    } else return;
    event.preventDefault();
  };
}

// Answers in words

async function ask(question, regions, talk = "") {
  if (!state?.frame) return notice("No picture has come yet.");
  notice("Asking …");
  const answer = await act({ do: "ask", question, regions, dialogue: talk, frame: state.frame.number });
  if (answer === null) return;
  const shown = element("p");
  if (question) shown.append(element("span", `${question}\n`, "question"));
  let at = 0;
  for (const { start, end, boxes } of answer.spans) {
    shown.append(answer.text.slice(at, start));
    const phrase = element("button", answer.text.slice(start, end), "phrase");
    phrase.type = "button";
    phrase.dataset.boxes = JSON.stringify(boxes);
    const link = () => { linked = boxes; drawBoxes(); };
    const unlink = () => { linked = []; drawBoxes(); };
    Object.assign(phrase, { onmouseenter: link, onfocus: link, onclick: link, onmouseleave: unlink, onblur: unlink });
    shown.append(phrase);
    at = end;
  }
  shown.append(answer.text.slice(at) || (answer.text ? "" : "(no words)"));
  if (!answer.same_frame) shown.append(element("span", " (about another frame than the one shown)", "dim"));
  byId("asked").append(shown);
  byId("asked").scrollTop = byId("asked").scrollHeight;
}

// Notices

const notice = (content) => text("notice", content);

function problem(content) {
  text("problem", content);
  byId("problem").hidden = !content;
}

function listen() {
  const hold = () => act({ do: state?.source.paused ? "resume" : "pause" });
  byId("pause").onclick = hold;
  byId("step").onclick = () => act({ do: "step" });
  byId("restart").onclick = () => act({ do: "restart" });
  byId("speed").onchange = (event) => act({ do: "speed", speed: Number(event.target.value) });
  byId("save").onclick = async () => {
    const answer = state?.frame && (await act({ do: "save", frame: state.frame.number }));
    if (answer) notice(`Saved ${answer.files[0]} and two more files beside it.`);
  };
  byId("record").onclick = async () => {
    const on = !state?.recording.path;
    const answer = await act({ do: "record", on });
    if (answer) notice(on ? `Recording ${answer.file}.` : `Recorded ${answer.frames} frames in ${answer.file}.`);
  };
  byId("space").onclick = () => {
    const cloud = byId("cloud");
    cloud.hidden = !cloud.hidden;
    byId("space").setAttribute("aria-pressed", String(!cloud.hidden));
    next(true);
  };
  byId("correct-done").onclick = () => finishCorrecting(draft.boxes);
  byId("correct-none").onclick = () => finishCorrecting([]);
  byId("correct-cancel").onclick = stopCorrecting;
  byId("add").onsubmit = (event) => {
    event.preventDefault();
    const input = byId("new-goal");
    const goal = input.value.trim();
    if (!goal || !state) return;
    input.value = "";
    sendGoals([...goalsNow(), { text: goal, kind: "auto" }]).then((answer) => {
      if (answer === null && !input.value) input.value = goal;
    });
  };
  byId("talk").onsubmit = (event) => {
    event.preventDefault();
    const question = byId("question").value.trim();
    if (!question) return;
    byId("question").value = "";
    ask(question, [], `talk ${dialogue}`);
  };
  byId("new-talk").onclick = () => {
    dialogue += 1;
    byId("asked").replaceChildren();
  };
  document.onkeydown = (event) => {
    const typing = event.target.matches?.("input, select, button, summary");
    if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
    const run = { " ": hold, ".": () => act({ do: "step" }), n: () => byId("new-goal").focus(), p: () => byId("overlay").focus(), q: () => byId("question").focus() }[event.key];
    if (!run) return;
    event.preventDefault();
    run();
  };
  listenToPicture();
}

listen();
connect();
