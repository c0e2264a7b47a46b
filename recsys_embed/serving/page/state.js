// What the page shows, as the address has it: #likes=50,181&why=50. So a view can be linked, and Back works.

const EMPTY = { user: "", likes: [], dislikes: [], where: "", per_group: "", diversity: "", k: "", seen: "", similar: "", why: "" };

function plain(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text; // a stray % that somebody typed
  }
}

/** Read a state from an address's hash; what it does not name is empty. */
export function read(hash) {
  const state = structuredClone(EMPTY);
  for (const part of hash.slice(1).split("&")) {
    const [name, value = ""] = part.split(/=(.*)/s);
    if (Array.isArray(state[name])) state[name] = [...new Set(value.split(",").filter(Boolean).map(plain))];
    else if (Object.hasOwn(EMPTY, name)) state[name] = plain(value);
  }
  return state;
}

/** Write a state as a hash. Ids may hold any character: each is encoded by itself. */
export function written(state) {
  const parts = Object.entries(state).map(([name, value]) => [name, [value].flat().map(encodeURIComponent).join(",")]);
  return `#${parts.filter(([, value]) => value).map(([name, value]) => `${name}=${value}`).join("&")}`;
}

export let state = read(location.hash);
export const refreshed = () => (state = read(location.hash));

/** The address of this state with something changed: a link's href. */
export const address = (change) => written({ ...state, ...change });

/** Go to this state with something changed. quietly: Back does not stop here. */
export function go(change, quietly = false) {
  const to = address(change);
  if (quietly) history.replaceState(null, "", to);
  else history.pushState(null, "", to);
  dispatchEvent(new Event("hashchange"));
}

/** Whom the list is for, as the service is asked. */
export const whom = () => ({ user: state.user || undefined, likes: state.likes, dislikes: state.dislikes });
export const picked = () => state.likes.length + state.dislikes.length;
export const nobody = () => !state.user && !picked();
export const kindOf = (id) => (state.likes.includes(id) ? "likes" : state.dislikes.includes(id) ? "dislikes" : null);

/** Like or dislike an item; once more takes it back. */
export function pick(id, kind) {
  const change = { likes: state.likes.filter((i) => i !== id), dislikes: state.dislikes.filter((i) => i !== id) };
  if (kind && kindOf(id) !== kind) change[kind] = [...change[kind], id];
  go(change);
}
