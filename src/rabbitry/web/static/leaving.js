// A page that its user leaves by signing out asks the server no more, since each answer would be a refusal.

const controller = new AbortController();

// Ends all requests that are under way, and lets no other begin.
export const leave = () => controller.abort();

export const isLeft = () => controller.signal.aborted;

// Returns the signal of a request that ends after some milliseconds, or when the page is left.
export const within = (milliseconds) => AbortSignal.any([AbortSignal.timeout(milliseconds), controller.signal]);
