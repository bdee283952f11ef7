// The token of the page: from a link's fragment, kept for this tab only. Servers check tokens; this only reads one.

const KEY = "syncapp.token";

/** Takes the token of a link out of the address bar, where it could be seen or copied. */
function keepTokenOfLink() {
  const token = new URLSearchParams(location.hash.slice(1)).get("token");
  if (!token) return;
  sessionStorage.setItem(KEY, token);
  history.replaceState(null, "", location.pathname + location.search);
}

function claimsOf(token) {
  try {
    const base64 = token.split(".")[1].replace(/-/g, "+").replace(/_/g, "/");
    const claims = JSON.parse(new TextDecoder().decode(Uint8Array.from(atob(base64), (char) => char.charCodeAt(0))));
    // Nobody has verified them: whoever made the link can have written anything.
    const texts = ["session_id", "participant_id", "scope"].filter((name) => typeof claims?.[name] === "string");
    return {exp: claims?.exp, ...Object.fromEntries(texts.map((name) => [name, claims[name]]))};
  } catch {
    return {};
  }
}

/** Returns what the page's token says; `token` is null if there is none. Without one, only AUTH=off allows anything. */
export function access() {
  keepTokenOfLink();
  const asked = new URLSearchParams(location.search).get("session");
  const token = sessionStorage.getItem(KEY);
  const claims = token ? claimsOf(token) : {};
  if (!token || (asked && claims.session_id && claims.session_id !== asked)) {
    return {token: null, sessionId: asked, participant: null, until: null, mayAct: true, mayControl: true};
  }
  const scopes = String(claims.scope ?? "").split(" ");
  const mayControl = scopes.includes("session:control") || scopes.includes("admin");
  return {
    token,
    sessionId: claims.session_id ?? asked,
    participant: claims.participant_id ?? null,
    until: typeof claims.exp === "number" ? claims.exp * 1000 : null,
    mayAct: mayControl || scopes.includes("session:act"),
    mayControl,
  };
}

// Another link that is opened in the same tab changes only the fragment.
addEventListener("hashchange", () => {
  keepTokenOfLink();
  location.reload();
});
