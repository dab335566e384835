// The 3D view: points and boxes of one frame, seen from a place that a person turns.

const EDGES = [0, 1, 2].flatMap((axis) =>
  [...Array(8).keys()].filter((corner) => !((corner >> axis) & 1)).map((corner) => [corner, corner | (1 << axis)]));
const view = { turn: 0.35, tilt: 0.35, zoom: 1, listening: false };
let last = [];

// The frame's points from the bytes that the server sent: N float32 triples, N uint8 triples.
export function readSpace(head, bytes) {
  const count = head.points;
  const own = bytes.slice(); // aligned for float32
  return {
    boxes: head.boxes,
    points: new Float32Array(own.buffer, 0, 3 * count),
    colours: new Uint8Array(own.buffer, 12 * count, 3 * count),
  };
}

export function drawSpace(canvas, space, colour) {
  last = [canvas, space, colour];
  listen(canvas);
  const context = canvas.getContext("2d");
  context.fillStyle = "#101418";
  context.fillRect(0, 0, canvas.width, canvas.height);
  if (!space) return;
  const centre = middle(space);
  const [ct, st, cl, sl] = [Math.cos(view.turn), Math.sin(view.turn), Math.cos(view.tilt), Math.sin(view.tilt)];
  const size = canvas.height * 0.9 * view.zoom;
  // Around the middle of the scene, seen from as far as the camera is.
  const project = (x, y, z) => {
    const [dx, dy, dz] = [x - centre[0], y - centre[1], z - centre[2]];
    const across = ct * dx + st * dz;
    const deep = -st * dx + ct * dz;
    const down = cl * dy - sl * deep;
    const far = sl * dy + cl * deep + centre[2];
    return far > 0.05 ? [canvas.width / 2 + (size * across) / far, canvas.height / 2 + (size * down) / far, far] : null;
  };
  const { points, colours } = space;
  const dots = [];
  for (let i = 0; i < points.length; i += 3) {
    const at = project(points[i], points[i + 1], points[i + 2]);
    if (at) dots.push([at[2], at[0], at[1], i]);
  }
  dots.sort((a, b) => b[0] - a[0]);
  for (const [, x, y, i] of dots) {
    context.fillStyle = `rgb(${colours[i]} ${colours[i + 1]} ${colours[i + 2]})`;
    context.fillRect(x - 2, y - 2, 4, 4);
  }
  context.lineWidth = 2.5;
  for (const { goal, corners } of space.boxes) {
    context.strokeStyle = colour(goal);
    context.beginPath();
    for (const [a, b] of EDGES) {
      const [from, to] = [project(...corners[a]), project(...corners[b])];
      if (!from || !to) continue;
      context.moveTo(from[0], from[1]);
      context.lineTo(to[0], to[1]);
    }
    context.stroke();
  }
}

function middle({ points, boxes }) {
  const triples = points.length ? points : boxes.flatMap(({ corners }) => corners.flat());
  const axis = (k) => {
    const values = [];
    for (let i = k; i < triples.length; i += 3) values.push(triples[i]);
    return values.sort((a, b) => a - b)[values.length >> 1] ?? 0;
  };
  return [axis(0), axis(1), Math.max(axis(2), 0.1)];
}

function listen(canvas) {
  if (view.listening) return;
  view.listening = true;
  let from = null;
  const turn = (dx, dy) => {
    view.turn += dx;
    view.tilt = Math.min(Math.max(view.tilt + dy, -1.5), 1.5);
    drawSpace(...last);
  };
  const zoom = (factor) => {
    view.zoom = Math.min(Math.max(view.zoom * factor, 0.2), 10);
    drawSpace(...last);
  };
  canvas.onpointerdown = (event) => {
    canvas.setPointerCapture(event.pointerId);
    from = [event.clientX, event.clientY];
  };
  canvas.onpointermove = (event) => {
    if (!from) return;
    turn((event.clientX - from[0]) / 150, (event.clientY - from[1]) / 150);
    from = [event.clientX, event.clientY];
  };
  canvas.onpointerup = canvas.onpointercancel = () => { from = null; };
  canvas.onwheel = (event) => { event.preventDefault(); zoom(event.deltaY < 0 ? 1.1 : 1 / 1.1); };
  canvas.onkeydown = (event) => {
    const keys = { ArrowLeft: () => turn(-0.1, 0), ArrowRight: () => turn(0.1, 0), ArrowUp: () => turn(0, -0.1), ArrowDown: () => turn(0, 0.1), "+": () => zoom(1.1), "-": () => zoom(1 / 1.1) };
    if (!keys[event.key]) return;
    event.preventDefault();
    keys[event.key]();
  };
}
