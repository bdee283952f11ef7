// Shows one session live over a WebSocket, and lets people act whose token allows it. docs/protocol.md explains the messages.

import {clockText, rows} from "./clocks.js";
import {ServerClock} from "./server-clock.js";
import {access} from "./watch-token.js";

const {token, sessionId, participant, until, mayAct, mayControl} = access();
const SILENCE_MS = 40_000, STEADY_MS = 10_000;
const FOR_EVER = new Set([1000, 1002, 1003, 1007, 1009, 4401, 4403]);   // closes after which no new try would help
const STATUS = {
  pending: "Not started yet.", running: "Running.", paused: "Paused.",
  completed: "Completed.", expired: "Time is up.", cancelled: "Cancelled.",
};
const $ = (id) => document.getElementById(id);
const server = new ServerClock((t0) => send({type: "PING", t0}));
let socket, state, counting = [], ended = false, gone = false, attempts = 0, openedAt = 0, heardAt = 0, commands = 0;

// The connection.

function connect() {
  const url = new URL("/ws", location);
  url.protocol = url.protocol.replace("http", "ws");
  url.searchParams.set("sessionId", sessionId);
  if (state) {
    url.searchParams.set("epoch", state.epoch);
    url.searchParams.set("version", state.version);
  }
  say("Connecting …");
  const mine = socket = new WebSocket(url);
  heardAt = performance.now();
  mine.onopen = () => {
    openedAt = heardAt = performance.now();
    // Without a token, a server that needs one answers RECONNECT with an error at once.
    send(token ? {type: "AUTH", id: "auth", token} : {type: "RECONNECT"});
    server.restart();
  };
  mine.onmessage = ({data}) => mine === socket && !ended && handle(JSON.parse(data));
  mine.onclose = (event) => mine === socket && closed(event);
}

function send(message) {
  if (socket?.readyState === WebSocket.OPEN) socket.send(JSON.stringify(message));
}

function handle(message) {
  heardAt = performance.now();
  switch (message.type) {
    case "PONG": return server.pong(message);
    case "CONNECTED":
      if (message.sessionId === null) return;                   // the token comes first
      say("Connected.");
      if (message.version === null) {
        state = undefined;
        tell("There is no such session yet. It is shown as soon as it is created.");
      }
      break;
    case "STATE_SYNC": case "STATE_UPDATE":
      ({state} = message);
      gone = false;
      tell("");
      break;
    case "SESSION_DELETED": return end("This session was deleted.");
    case "ERROR": return failed(message);
  }
  show();
}

function failed({id, code, message, details}) {
  if (code === "UNAUTHORIZED") return end(refusal(message));
  if (id === "auth" && code === "FORBIDDEN") return end("Your link does not allow this session.");
  if (id === "auth") return;                                  // a server with AUTH=off takes no token
  if (code === "SESSION_NOT_FOUND") {
    state = undefined;
    gone = true;
    tell("This session is over, and the server no longer has it.");
  } else if (code === "STORE_UNAVAILABLE") {
    say("The server cannot read the session at the moment. The page goes on by itself.");
  } else if (code === "CONFLICT" || code === "NOT_ACTIVE_PARTICIPANT") {
    tell("Somebody else was faster. Look at the clocks, and try again if you still want to.");
  } else if (code === "FORBIDDEN") {
    tell("Your link does not allow this.");
  } else {
    const wait = details?.retry_after_s ? ` Try again in ${Math.ceil(details.retry_after_s)} s.` : "";
    tell(`The server refused this: ${message}.${wait}`);
  }
  show();
}

function refusal(reason) {
  if (!token) return "Watching this session needs a link. Ask whoever runs it for one.";
  if (until !== null && until <= (server.now() ?? Date.now())) return "Your link has expired. Ask for a new one.";
  if (reason.includes("revoked")) return "Your link was revoked. Ask for a new one.";
  if (reason.includes("earlier")) return "Your link is for an earlier session. Ask for a new one.";
  return "Your link is not valid. Open it again exactly as you got it, or ask for a new one.";
}

function closed({code, reason}) {
  if (ended) return;
  if (code === 4401) return end(refusal(reason));
  if (code === 4403) return end("Your link does not allow this session.");
  if (code === 1000) return end("This session was deleted.");
  if (FOR_EVER.has(code)) return end("This page and the server do not understand each other. Reload the page.");
  if (openedAt && performance.now() - openedAt > STEADY_MS) attempts = 0;
  openedAt = 0;
  const wait = code === 1008 ? 60_000 : Math.random() * Math.min(30_000, 500 * 2 ** attempts++);
  say("The connection is lost. Trying again …");
  show();
  setTimeout(connect, wait);
}

function end(sentence) {
  ended = true;
  socket?.close();
  say("Not connected.");
  tell(sentence);
  show();
}

function isOpen() {
  return !ended && socket?.readyState === WebSocket.OPEN;
}

// A sleeping computer keeps a dead connection, and its clock stops.
setInterval(() => {
  if (!isOpen() || performance.now() - heardAt < SILENCE_MS) return;
  const dead = socket;
  socket = null;                                              // its own close event no longer counts
  dead.close();
  closed({code: 1006});
}, 5_000);
addEventListener("pageshow", (event) => event.persisted && location.reload());
document.addEventListener("visibilitychange", () => {
  if (document.hidden || !isOpen()) return;
  server.restart();
  send({type: "RECONNECT", ...(state && {epoch: state.epoch, version: state.version})});
});

// What people see.

function say(sentence) { $("connection").textContent = sentence; }

function tell(sentence) { $("problem").textContent = sentence; }

function show() {
  const live = state && isOpen(), status = state?.status, mover = state?.active_participant_id;
  const whose = mover === participant ? "your" : `${mover}'s`;
  const turn = mover && status === "running" ? ` It ${ended ? "was" : "is"} ${whose} turn.` : "";
  const said = state ? (ended ? "Last known state: " : "") + (STATUS[status] ?? status) + turn : "";
  if ($("status").textContent !== said) $("status").textContent = said;
  $("controls").hidden = !(mayAct && state) || ended;
  $("control").hidden = !mayControl;
  $("switch").disabled = !live || status !== "running" || (participant !== null && mover !== participant);
  $("start").disabled = !live || status !== "pending";
  $("pause").disabled = !live || status !== "running";
  $("resume").disabled = !live || status !== "paused";
  $("until").textContent = until && !ended && !gone ? `This link is valid until ${dateText(until)}.` : "";
  counting = [];
  $("clocks").replaceChildren(...(state ? rows(state) : []).map(({name, ms, active, liveMs}) => {
    const item = document.createElement("li");
    const add = (kind, content) => {
      const part = item.appendChild(document.createElement("span"));
      [part.className, part.textContent] = [kind, content];
      return part;
    };
    add("name", name);
    if (active && mover && !ended) add("turn", mover === name ? "to move" : `${mover} to move`);
    const time = add("time", ms === null ? "" : clockText(ms));
    time.setAttribute("role", "timer");
    item.classList.toggle("active", active && status === "running" && !ended);
    if (liveMs) counting.push({time, liveMs});                // the other clocks keep their settled values
    return item;
  }));
  count();
}

function dateText(ms) {
  return new Date(ms).toLocaleString("en-GB", {dateStyle: "long", timeStyle: "long"});   // with the time zone
}

function count() {
  const now = server.now();
  for (const {time, liveMs} of counting) {
    const shown = clockText(liveMs(now), state.clock.direction === "up");
    if (time.textContent !== shown) time.textContent = shown;
  }
}

function frame() {
  if (ended) return;                                          // the clocks keep their last values
  count();
  requestAnimationFrame(frame);
}

// What people do.

function command(name) {
  const {epoch, version} = state;
  const args = name === "switch" && participant !== null ? {participant_id: participant} : {};
  // The expected version makes a second press harmless.
  send({type: "COMMAND", id: ++commands, command: name, args, expected_epoch: epoch, expected_version: version});
  tell("");
}

for (const name of ["switch", "start", "pause", "resume"]) $(name).addEventListener("click", () => command(name));
document.addEventListener("keydown", (event) => {
  if (event.code !== "Space" || event.repeat || event.target.closest("button, a, input")) return;
  event.preventDefault();                                     // no scrolling
  if (!$("controls").hidden && !$("switch").disabled) command("switch");
});

if (sessionId) {
  connect();
  frame();
} else {
  end("This page needs a link to a session. Ask whoever runs the session for one.");
}
