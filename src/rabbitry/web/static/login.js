// Signs in: sends name and password to the server, which answers with a cookie, and opens the page that was requested.
const form = document.getElementById("sign-in");
const failed = document.getElementById("failed");
const button = form.querySelector("button");
const root = new URL("../", location.href);

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  button.disabled = true;
  failed.textContent = "";
  const error = await signIn(form.elements.name.value.trim(), form.elements.password.value);
  if (!error) return location.replace(wanted());
  button.disabled = false;
  failed.textContent = error;
  form.elements.password.select();
  form.elements.password.focus();
});

// Returns the error; an empty text if there is none.
async function signIn(name, password) {
  const headers = { "Content-Type": "application/json", "X-Rabbitry-Token": document.querySelector("meta[name=rabbitry-token]").content };
  try {
    const signal = AbortSignal.timeout(30_000);
    const answer = await fetch(new URL("session", root), { method: "POST", headers, signal, body: JSON.stringify({ name, password }) });
    if (answer.ok) return "";
    const { error } = await answer.json();
    return `${error[0].toUpperCase()}${error.slice(1)}.`;
  } catch {
    return "The server does not answer.";
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
