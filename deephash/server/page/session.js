// The token: taken from the address once, kept for this tab, sent with each call.
import { byId } from "./elements.js";

const KEY = "deephash-token";
let token = null;
let asking = null;

/** Takes the token out of the address bar, where `deephash serve` puts it, and opens a session for event streams. */
export async function openSession() {
  const given = new URLSearchParams(location.hash.slice(1)).get("token");
  if (given) {
    keep(given);
    history.replaceState(history.state, "", location.pathname + location.search);
  } else {
    try {
      token = sessionStorage.getItem(KEY);
    } catch {
      token = null; // storage may be forbidden
    }
  }
  if (token) await startCookie();
}

export const hasToken = () => token !== null;

export const authorization = () => (token === null ? {} : { Authorization: `Bearer ${token}` });

/** Asks the person for the token; false where they would not say. One dialog, however many calls were refused. */
export function askForToken(reason) {
  asking ??= ask(reason).finally(() => {
    asking = null;
  });
  return asking;
}

async function ask(reason) {
  const dialog = byId("token-dialog");
  const field = byId("token");
  byId("token-reason").textContent = reason;
  byId("token-cancel").onclick = () => dialog.close("");
  field.value = "";
  dialog.returnValue = "";
  dialog.showModal();
  const given = await new Promise((resolve) => {
    dialog.querySelector("form").onsubmit = () => resolve(field.value.trim());
    dialog.onclose = () => resolve("");
  });
  if (given === "") return false;
  keep(given);
  await startCookie();
  return true;
}

function keep(given) {
  token = given;
  try {
    sessionStorage.setItem(KEY, given);
  } catch {
    // Kept until the page is closed.
  }
}

async function startCookie() {
  try {
    await fetch("v1/session", { method: "POST", headers: authorization() });
  } catch {
    // The next call says that the server does not answer.
  }
}
