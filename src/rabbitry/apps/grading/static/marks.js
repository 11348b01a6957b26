// The marks of several demonstrators who did not see each other's.
import { html } from "../../static/html.js";
import { mark } from "./api.js";
import { placeOf, plain, visible } from "./text.js";

// The comments on lines of a History, with their authors.
export const commentsOf = (history) => history.flatMap(({ role, who, comments, marks }) => [
  ...comments.map((one) => ({ ...one, role, who })),
  ...(marks ?? []).flatMap((given) => given.comments.map((one) => ({ ...one, role, who: given.who }))),
]);

// A column for each person: the mark, the points by each criterion, and the feedback; below it the comments on lines if
// they are shown nowhere else. Props: of (marks), comments (whether to show them).
export function Marks({ of, comments }) {
  if (!of?.length) return null;
  const names = [...new Set(of.flatMap(({ criteria }) => criteria.map(({ name }) => name)))];
  const points = (given, name) => {
    const found = given.criteria.find((one) => one.name === name);
    return found ? mark(found.points, found.of) : "–";
  };
  return html`<div class="scroll"><table class="rows marks">
    <thead><tr><th scope="col">Marked by</th>${of.map(({ who }) => html`<th scope="col">${visible(who)}</th>`)}</tr></thead>
    <tbody>
      <tr><th scope="row">Mark</th>${of.map((given) => html`<td data-label=${plain(given.who)}><b>${mark(given.mark, given.out_of)}</b></td>`)}</tr>
      ${names.map((name) => html`<tr><th scope="row">${visible(name)}</th>${of.map((given) => html`<td data-label=${plain(given.who)}>${points(given, name)}</td>`)}</tr>`)}
      ${of.some(({ feedback }) => feedback !== null) && html`<tr><th scope="row">Feedback</th>
        ${of.map((given) => html`<td data-label=${plain(given.who)}><pre class="feedback">${visible(given.feedback)}</pre></td>`)}</tr>`}
      ${comments && of.some((given) => given.comments.length > 0) && html`<tr><th scope="row">Comments</th>
        ${of.map((given) => html`<td data-label=${plain(given.who)}>${given.comments.map((one) =>
          html`<p class="said">${visible(placeOf(one))}: ${visible(one.text)}</p>`)}</td>`)}</tr>`}
    </tbody>
  </table></div>`;
}
