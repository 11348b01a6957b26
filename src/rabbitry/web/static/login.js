// Signs in: sends name and password to the server, which answers with a cookie, and opens the page that was requested.
// The link of an invitation brings its token in the fragment, which browsers do not send; then a new password is set. So
// it is with a first password, which stands for such a link.
const form = document.getElementById("sign-in");
const failed = document.getElementById("failed");
const button = form.querySelector("button");
const root = new URL("../", location.href);
const link = new URLSearchParams(location.hash.slice(1));
let token = null;
const { name, password, again } = form.elements;

function choosePassword(invitation, invited) {
  token = invitation;
  document.title = document.title.replace("Sign in", "Choose a password");
  name.value = invited;
  name.readOnly = true;
  password.value = "";
  password.autocomplete = "new-password";
  again.closest("label").hidden = false;
  button.textContent = "Set the password";
  if (other) other.hidden = true;
  password.focus();
}
// The provider's link leads to the page that was requested, too.
const other = document.querySelector("#other a");
const to = new URLSearchParams(location.search).get("to");
if (other && to) other.search = new URLSearchParams({ to });
if (link.has("invitation")) choosePassword(link.get("invitation"), link.get("name") ?? "");
// Another link opened in this tab changes only the fragment.
addEventListener("hashchange", () => location.reload());

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  if (token !== null && password.value !== again.value) return fail("The passwords differ.");
  button.disabled = true;
  failed.textContent = "";
  const failure = token === null ? await send("session", { name: name.value.trim(), password: password.value })
    : await send("invitation", { token, password: password.value });
  if (!failure) return location.replace(wanted());
  button.disabled = false;
  if (!failure.is_first) return fail(failure.error);
  choosePassword(password.value, name.value.trim());
  failed.textContent = failure.error;
});

function fail(error) {
  failed.textContent = error;
  password.select();
  password.focus();
}

// Returns the answer with the error; null if there is none.
async function send(place, body) {
  const headers = { "Content-Type": "application/json", "X-Rabbitry-Token": document.querySelector("meta[name=rabbitry-token]").content };
  try {
    const signal = AbortSignal.timeout(30_000);
    const answer = await fetch(new URL(place, root), { method: "POST", headers, signal, body: JSON.stringify(body) });
    if (answer.ok) return null;
    const failure = await answer.json();
    const { error } = failure;
    return { ...failure, error: `${error[0].toUpperCase()}${error.slice(1)}.` };
  } catch {
    return { error: "The server does not answer." };
  }
}

// Returns the page that was requested, if it is one of this dashboard; otherwise the first page.
function wanted() {
  try {
    const url = new URL(new URLSearchParams(location.search).get("to") ?? "", root);
    return url.href.startsWith(root.href) ? url.href : root.href;
  } catch {
    return root.href;
  }
}
