// The state of the page, kept in the address: #likes=50,181&why=50. So a view can be linked to, and Back works.

const EMPTY = { user: "", likes: [], dislikes: [], where: "", per_group: "", diversity: "", k: "", seen: "", similar: "", why: "" };

function decode(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text; // a stray % that was typed by hand
  }
}

/** Read a state from an address's hash; what it does not name is empty. */
export function fromHash(hash) {
  const state = structuredClone(EMPTY);
  for (const field of hash.slice(1).split("&")) {
    const [name, value = ""] = field.split(/=(.*)/s);
    if (Array.isArray(state[name])) state[name] = [...new Set(value.split(",").filter(Boolean).map(decode))];
    else if (Object.hasOwn(EMPTY, name)) state[name] = decode(value);
  }
  return state;
}

/** Write a state as a hash. Ids may hold any character, so each is encoded by itself. */
export function toHash(state) {
  const fields = Object.entries(state).map(([name, value]) => [name, [value].flat().map(encodeURIComponent).join(",")]);
  return `#${fields.filter(([, value]) => value).map(([name, value]) => `${name}=${value}`).join("&")}`;
}

export let state = fromHash(location.hash);
export const refreshState = () => (state = fromHash(location.hash));

/** The href of a link that changes this state. */
export const hrefFor = (change) => toHash({ ...state, ...change });

/** Change the state. replace: without a new entry in the browser's history. */
export function navigate(change, replace = false) {
  const href = hrefFor(change);
  if (replace) history.replaceState(null, "", href);
  else history.pushState(null, "", href);
  dispatchEvent(new Event("hashchange"));
}

/** The fields of a request that say whom it is for. */
export const userFields = () => ({ user: state.user || undefined, likes: state.likes, dislikes: state.dislikes });
export const countPicks = () => state.likes.length + state.dislikes.length;
export const isAnonymous = () => !state.user && !countPicks();
export const pickOf = (id) => (state.likes.includes(id) ? "likes" : state.dislikes.includes(id) ? "dislikes" : null);

/** Like or dislike an item; a second time takes it back. */
export function pick(id, kind) {
  const change = { likes: state.likes.filter((i) => i !== id), dislikes: state.dislikes.filter((i) => i !== id) };
  if (kind && pickOf(id) !== kind) change[kind] = [...change[kind], id];
  navigate(change);
}
