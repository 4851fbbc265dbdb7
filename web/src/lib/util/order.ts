/** What a person did last holds, in whatever order the network brings the answers. */

const last = new Map<string, Promise<unknown>>();

/** Has `act` begin when all that was to be done to `what` before is over, well or not. */
export function inTurn<T>(what: string, act: () => Promise<T>): Promise<T> {
  const done = whenDone(what).then(act);
  const over = done.then(ignore, ignore).then(() => {
    if (last.get(what) === over) last.delete(what);
  });
  last.set(what, over);
  return done;
}

/** When all that is to be done to `what` by now is over. */
export const whenDone = (what: string): Promise<unknown> => last.get(what) ?? Promise.resolve();

const ignore = (): void => {};

/** Reads that something may change under way: what was read before is of before then, and is read again. */
export class Reads {
  #changes = 0;

  changed(): void {
    this.#changes++;
  }

  async read<T>(ask: () => Promise<T>): Promise<T> {
    for (;;) {
      const before = this.#changes;
      const answer = await ask();
      if (before === this.#changes) return answer;
    }
  }
}
