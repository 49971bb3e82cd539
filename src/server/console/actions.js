// What operators do, and the question before it is done.

import { post, remove } from "./api.js";
import { byId, el, say } from "./dom.js";

const dialog = byId("question");

/**
 * Asks before something is done. `choices` are the ways to do it, each with `label`, `hint`, the word of
 * the button, and `act`, which is given the value of its field if it has one.
 */
function question(title, facts, choices) {
  const error = el("p", { class: "wrong", role: "alert", hidden: true });
  const go = el("button", { type: "submit", class: "go" });
  const radios = choices.map((choice, at) => {
    const radio = el("input", { type: "radio", name: "choice", value: at, checked: at === 0 });
    const field = choice.field ? el("input", { type: "text", size: 8, autocomplete: "off", ...choice.field }) : null;
    if (field) {
      field.value = choice.field.value ?? "";
      field.addEventListener("focus", () => {
        radio.checked = true;
        settle();
      });
    }
    const label = el(
      "label",
      {},
      radio,
      el("span", {}, el("b", {}, choice.label), el("span", { class: "muted" }, ` ${choice.hint}`)),
    );
    const root = el("div", { class: "choice" }, choices.length > 1 ? label : el("p", {}, choice.hint), field);
    return { root, radio, field };
  });
  const chosen = () => Math.max(0, radios.findIndex(({ radio }) => radio.checked));
  const settle = () => {
    const choice = choices[chosen()];
    say(go, choice.button);
    go.classList.toggle("hard", Boolean(choice.isHard));
  };
  const form = el(
    "form",
    { method: "dialog" },
    el("h2", { id: "question-title" }, title),
    facts ? el("p", { class: "muted" }, facts) : null,
    el("div", { role: choices.length > 1 ? "radiogroup" : null, "aria-labelledby": "question-title" }, ...radios.map(({ root }) => root)),
    error,
    el("div", { class: "buttons" }, el("button", { type: "button", onclick: () => dialog.close() }, "Cancel"), go),
  );
  form.addEventListener("change", settle);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const at = chosen();
    go.disabled = true;
    try {
      const answer = await choices[at].act(radios[at].field?.value.trim());
      say(byId("said"), answer?.warning ?? `${choices[at].button}: done`);
      if (!answer?.warning) return dialog.close();
      error.hidden = false;
      say(error, `Done, but ${answer.warning}.`);
    } catch (failure) {
      error.hidden = false;
      say(error, `Not done: ${failure.message}.`);
    } finally {
      go.disabled = false;
    }
  });
  dialog.replaceChildren(form);
  settle();
  dialog.showModal();
}

/** Asks what is to become of an endpoint. */
export function manage(pool, endpoint) {
  const { name, admin } = endpoint;
  const path = `pools/${encodeURIComponent(pool)}/endpoints/${encodeURIComponent(name)}`;
  const ready = {
    label: "Ready",
    hint: "takes what comes, from a tenth of its weight on",
    button: `Make ${name} ready`,
    act: () => post(`${path}/ready`),
  };
  const drain = {
    label: "Drain",
    hint: "no new sessions; out when all it has is over, or after this time (30s, 5m; empty: as long as it takes)",
    button: `Drain ${name}`,
    field: { "aria-label": "Out after", placeholder: "no limit", value: "5m" },
    act: (timeout) => post(`${path}/drain`, timeout ? { timeout } : undefined),
  };
  const maint = {
    label: "Maintenance",
    hint: "gets nothing, and what is open on it ends now",
    button: `Put ${name} to maintenance`,
    isHard: true,
    act: () => post(`${path}/maint`),
  };
  const weight = {
    label: "Weight",
    hint: "its share, 0 to 256; empty: as configured",
    button: `Weigh ${name}`,
    field: { "aria-label": "Weight", inputmode: "numeric", value: String(endpoint.weight) },
    act: (text) => {
      const value = text === "" ? null : Number(text);
      if (value !== null && !Number.isInteger(value)) throw new Error(`${text} is no whole number`);
      return post(`${path}/weight`, { weight: value });
    },
  };
  const choices = admin.state === "up" ? [drain, maint, weight, ready] : [ready, drain, maint, weight];
  const facts = `It is ${endpoint.state}, with ${endpoint.sessions} sessions and ${endpoint.in_flight} calls and streams in flight.`;
  question(`What is to become of ${pool}/${name}?`, facts, choices);
}

/** Asks whether a session is to end; `after` is called when it has. */
export function endSession(session, after) {
  const whose = session.client?.name ? ` of ${session.client.name}` : "";
  const end = async () => {
    const answer = await remove(`sessions/${encodeURIComponent(session.id)}`);
    after();
    return answer;
  };
  question(`End session ${session.id}${whose}?`, `It is at ${session.pool}/${session.endpoint}.`, [
    {
      label: "End",
      hint: "It is deleted on its server, and its client is told that there is no such session.",
      button: "End the session",
      isHard: true,
      act: end,
    },
  ]);
}
