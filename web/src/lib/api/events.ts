/** Server-sent events, read with fetch: a stream can be taken up again after the last event that was seen. */

import { ApiError, send, withQuery } from './http';

export interface ServerEvent {
  id: string | null;
  data: string;
}

/** Takes text in pieces of any size and gives the events that are complete. https://html.spec.whatwg.org/#parsing-an-event-stream */
export class EventParser {
  #rest = '';

  push(chunk: string): ServerEvent[] {
    const lines = (this.#rest + chunk).split('\n\n');
    this.#rest = lines.pop() ?? '';
    return lines.map(parse).filter((event) => event !== null);
  }
}

function parse(block: string): ServerEvent | null {
  let id: string | null = null;
  const data: string[] = [];
  for (const line of block.split('\n')) {
    const [, field, value] = /^([^:]*):? ?(.*)$/s.exec(line) ?? [];
    if (field === 'id') id = value ?? '';
    else if (field === 'data') data.push(value ?? '');
  }
  return data.length ? { id, data: data.join('\n') } : null;
}

const PAUSES = [250, 500, 1000, 2000, 4000]; // milliseconds before the next try
const LATER = [408, 429]; // statuses that mean: not now

/**
 * Reads `path` until `onEvent` says that it was the last one, through lost connections and restarted servers.
 * Raises ApiError where the server refuses for good, and AbortError when `signal` fires.
 */
export async function follow(path: string, onEvent: (event: ServerEvent) => boolean, signal: AbortSignal): Promise<void> {
  let after: string | null = null;
  let failures = 0;
  for (;;) {
    let wait = 0;
    try {
      const response = await send('GET', withQuery(path, { after }), undefined, signal);
      const parser = new EventParser();
      const reader = response.body!.pipeThrough(new TextDecoderStream()).getReader();
      for (;;) {
        const { done, value } = await reader.read();
        if (done) break;
        for (const event of parser.push(value.replaceAll('\r\n', '\n'))) {
          failures = 0;
          after = event.id ?? after;
          if (onEvent(event)) return void reader.cancel();
        }
      }
    } catch (error) {
      const refusal = error instanceof ApiError && !error.isOffline && error.status < 500 ? error : null;
      if (signal.aborted || (refusal && !LATER.includes(refusal.status))) throw error;
      wait = 1000 * (refusal?.retryAfter ?? 0);
    }
    await pause(Math.max(wait, PAUSES[Math.min(failures++, PAUSES.length - 1)]!), signal);
  }
}

function pause(milliseconds: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const abort = () => {
      clearTimeout(timer);
      reject(signal.reason);
    };
    const timer = setTimeout(() => {
      signal.removeEventListener('abort', abort);
      resolve();
    }, milliseconds);
    signal.addEventListener('abort', abort, { once: true });
  });
}
