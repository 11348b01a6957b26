// Requests dead letters: by POST if a look marks them and the user agreed, which is in the audit log.
import { ask, post } from "../ask.js";

export const lookers = (agreed) => (path, params) => (agreed ? post(path, params) : ask(`${path}?${new URLSearchParams(Object.entries(params).map(([name, value]) => [name, String(value)]))}`));
