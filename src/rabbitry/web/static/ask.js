// Asking the server. What goes wrong is an Error with a text for people, and the status of the answer where there was one.

export async function ask(path, options = {}) {
  let response;
  try {
    response = await fetch(`api/${path}`, { ...options, signal: AbortSignal.timeout(30_000) });
  } catch {
    throw new Error("the server does not answer");
  }
  let data;
  try {
    data = await response.json();
  } catch {
    data = null;
  }
  if (!response.ok) throw Object.assign(new Error(data?.error ?? `the server answered ${response.status}`), { status: response.status });
  return data;
}

// The query of a list's filter; what is empty is left out.
export const query = (filter) => new URLSearchParams(Object.entries(filter).filter(([, value]) => value)).toString();
