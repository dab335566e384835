// Elements of the page: found, made and filled. All text goes in as text, never as markup.

export const byId = (id) => document.getElementById(id);

export const count = (number, one, several = `${one}s`) => `${number} ${number === 1 ? one : several}`;

export function element(name, content = "", classes = "") {
  const made = document.createElement(name);
  if (content) made.textContent = content;
  if (classes) made.className = classes;
  return made;
}

export function svg(name, attributes) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

export function button(name, classes, title, run) {
  const made = element("button", name, `small ${classes}`);
  Object.assign(made, { type: "button", title, onclick: run });
  made.setAttribute("aria-label", name === "×" ? title : name);
  return made;
}

export function text(id, content) {
  if (byId(id).textContent !== content) byId(id).textContent = content;
}
