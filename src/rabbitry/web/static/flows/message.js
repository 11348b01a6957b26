// The type of a stage's messages: JSON Schema in the AsyncAPI document that the app's workers announce.
import { ask } from "../ask.js";
import { shown, shownJson } from "../format.js";
import { Component, html } from "../html.js";

const SCHEMAS = "#/components/schemas/";

// Adds to `found`, name → schema, the schemas that a part of a document refers to, and those to which these refer.
function addUsed(part, schemas, found) {
  if (part === null || typeof part !== "object") return;
  for (const [key, value] of Object.entries(part)) {
    if (key !== "$ref" || typeof value !== "string" || !value.startsWith(SCHEMAS)) {
      addUsed(value, schemas, found);
      continue;
    }
    const name = value.slice(SCHEMAS.length);
    if (found.has(name) || !Object.hasOwn(schemas, name)) continue;
    found.set(name, schemas[name]);
    addUsed(schemas[name], schemas, found);
  }
}

// What the stage of a queue takes: {media, schemas: name → schema, the message's own first}. Null if the document lacks it.
function taken({ operations, components: { messages, schemas = {} } }, queue) {
  const operation = Object.entries(operations).find(([, one]) => one.action === "receive" && one["x-rabbitry-queue"] === queue);
  if (!operation) return null;
  const { contentType: media, payload } = messages[operation[0]] ?? {};
  const found = new Map();
  if (payload !== undefined) {
    found.set("", payload);
    addUsed(payload, schemas, found);
  }
  return { media: media ?? "application/json", schemas: found };
}

// Props: stage, as the topic has it.
export class Message extends Component {
  state = { isAsked: false, found: null, error: null };

  toggle = async ({ currentTarget }) => {
    if (!currentTarget.open) return;
    const { app, queue } = this.props.stage;
    try {
      this.setState({ isAsked: true, found: taken(await ask(`asyncapi?${new URLSearchParams({ app })}`), queue), error: null });
    } catch (error) {
      this.setState({ error: error.message });
    }
  };

  render(_, { isAsked, found, error }) {
    return html`<details class="message" onToggle=${this.toggle}><summary>Message</summary>
      ${error && html`<p class="failed" role="alert">${shown(error)}</p>`}
      ${isAsked && !error && !found && html`<p>The app of the worker that started last does not have this stage.</p>`}
      ${found && html`<p><bdi>${shown(found.media)}</bdi>${found.schemas.size === 0 && ", of any content"}</p>`}
      ${found && [...found.schemas].map(([name, schema]) => html`${name && html`<h4><bdi>${shown(name)}</bdi></h4>`}
        <pre class="raw" tabindex="0" role="region" aria-label=${name ? `Schema ${shown(name)}` : "Schema"}>${shownJson(JSON.stringify(schema, null, 2))}</pre>`)}
    </details>`;
  }
}

// The link to the whole document of an app. Props: app.
export function Document({ app }) {
  return html`<p class="way"><a href=${`api/asyncapi?${new URLSearchParams({ app })}`} download=${`${app}.asyncapi.json`}>AsyncAPI document<span class="unseen"> of ${shown(app)}</span></a></p>`;
}
