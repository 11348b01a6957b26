// Looking at dead letters. By POST where a look marks them and was agreed to, which the audit log then shows.
import { ask, post } from "../ask.js";

export const lookers = (agreed) => (path, params) => (agreed ? post(path, params) : ask(`${path}?${new URLSearchParams(Object.entries(params).map(([name, value]) => [name, String(value)]))}`));
